//! tcplife: one event for each connection that ends.

mod event;

use std::mem::offset_of;

use bpfasm::object::Object;
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, Reg, Size, bpf};

pub use self::event::{Event, Role};
use crate::emit;
use crate::endpoints::{self, event_endpoints};
use crate::filter::Filter;
use crate::layout::layout;
use crate::outcome;
use crate::owner::{self, Rank};
use crate::owner_hooks::{self, Fill};
use crate::sock::Sock;
use crate::stack_layout::{entry, event};
use crate::state_change::{NEWSTATE, OLDSTATE, begin};
use crate::state_tool::StateTool;
use crate::stats::{Count, count};
use crate::table::{self, IfFull};
use crate::tcp::State;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub filter: Filter,
    /// Also those that were open when tracing began.
    pub existing: bool,
    /// Also those that were never established.
    pub failed: bool,
    pub max_sockets: u32,
    pub ring_bytes: u32,
}

layout! {
    /// What the table has for a connection. Starts like [`owner::Owner`].
    pub struct Entry as "tcplife_entry" {
        pub pid: u32,
        pub rank: u32,
        pub comm: [u8; 16],
        pub birth: u64,
        pub established: u64,
        pub role: u8,
        pub existing: u8,
        /// Always 0.
        pub reserved: [u8; 6],
    }
}

owner::entry_starts_with_owner!();

pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    StateTool {
        name: "tcplife",
        entry: Entry::LAYOUT,
        max_sockets: options.max_sockets,
        ring_bytes: options.ring_bytes,
        state_change: state_change(options, target),
        destroyed: None,
        other_hooks: owner_hooks::improve(target)?,
        open_sockets: options.existing.then_some(snapshot_entry as Fill),
    }
    .object(target)
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
fn state_change(options: &Options, target: &Target) -> Fragment {
    let sock = Sock::new(target.access);
    bpf! {
        ..begin(sock, "out");
        w1 = *(u32 *)(r9 + {OLDSTATE});
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w2 == {State::SYN_SENT.0} goto connecting;
        if w1 == {State::LISTEN.0} goto from_listener;
        if w2 == {State::LISTEN.0} goto filtered;       // a listener is not a connection
        ..table::lookup();
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w2 == {State::CLOSE.0} goto closed;
        if r8 == 0 goto filtered;                       // older than the run, or the table was full
        if w2 == {State::ESTABLISHED.0} goto established;
        ..owner::into_entry(sock, Rank::Closed);
        goto aggregated;

    established:
        call bpf_ktime_get_ns;
        *(u64 *)(r8 + {offset_of!(Entry, established)}) = r0;
        goto aggregated;

    from_listener:
        if w2 != {State::SYN_RECV.0} goto filtered;     // the listener itself closes
        ..table::clear(Entry::LAYOUT);
        *(u8 *)(r10 + {entry!(role)}) = {Role::Passive as u8};
        goto store;
    connecting:
        ..table::clear(Entry::LAYOUT);
        *(u8 *)(r10 + {entry!(role)}) = {Role::Active as u8};
        ..owner::into_new_entry(sock, Rank::Used);
    store:
        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {entry!(birth)}) = r0;
        ..table::enter_built(IfFull::EventLost, "aggregated");
        goto out;

    closed:
        ..closed(options, target, sock);
        goto out;

    aggregated:
        ..count(Count::Aggregated);
        goto out;
    filtered:
        ..count(Count::Filtered);
    out:
        r0 = 0;
        exit;
    }
}

/// The change to CLOSE, with the entry in `r8` or 0: sends the event, or jumps to `filtered`.
fn closed(options: &Options, target: &Target, sock: Sock) -> Fragment {
    let from_entry = bpf! {
        r1 = *(u64 *)(r8 + {offset_of!(Entry, birth)});
        *(u64 *)(r10 + {event!(birth)}) = r1;
        r1 = *(u64 *)(r8 + {offset_of!(Entry, established)});
        *(u64 *)(r10 + {event!(established)}) = r1;
        w1 = *(u8 *)(r8 + {offset_of!(Entry, role)});
        *(u8 *)(r10 + {event!(role)}) = w1;
        w1 = *(u8 *)(r8 + {offset_of!(Entry, existing)});
        *(u8 *)(r10 + {event!(existing)}) = w1;
    };
    // Its beginning was not seen, but its last state shows that it was never established.
    let failed = (!options.failed).then(|| {
        bpf! {
            w1 = *(u32 *)(r9 + {OLDSTATE});
            if w1 == {State::SYN_SENT.0} goto filtered;
            if w1 == {State::SYN_RECV.0} goto filtered;
        }
    });
    let history = if options.existing {
        bpf! {
            if r8 == 0 goto no_entry;
            ..only_established(options);
            ..from_entry;
            goto done;
        no_entry:
            ..failed;
            *(u64 *)(r10 + {event!(birth)}) = 0;
            *(u64 *)(r10 + {event!(established)}) = 0;
            *(u8 *)(r10 + {event!(role)}) = {Role::Unknown as u8};
            *(u8 *)(r10 + {event!(existing)}) = 0;
        done:
        }
    } else {
        bpf! {
            if r8 == 0 goto filtered;
            ..only_established(options);
            ..from_entry;
        }
    };
    // Only needed for a connection that is older than the run: see Event::tx_bytes.
    let sent = if options.existing {
        bpf! {
            ..sock.load(Reg::R1, Size::B8, "tcp_sock.bytes_sent");
            *(u64 *)(r10 + {event!(bytes_sent)}) = r1;
            ..sock.load(Reg::R1, Size::B8, "tcp_sock.bytes_retrans");
            *(u64 *)(r10 + {event!(bytes_retrans)}) = r1;
        }
    } else {
        bpf! {
            *(u64 *)(r10 + {event!(bytes_sent)}) = 0;
            *(u64 *)(r10 + {event!(bytes_retrans)}) = 0;
        }
    };
    bpf! {
        ..history;
        ..options.filter.socket(sock, "filtered");
        ..owner::into_event(sock, event!(pid), event!(comm));
        ..options.filter.owner(event!(pid), "filtered");

        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {event!(ts)}) = r0;
        w1 = *(u32 *)(r9 + {OLDSTATE});
        *(u8 *)(r10 + {event!(oldstate)}) = w1;
        ..endpoints::into_event(sock, event_endpoints!());
        *(u8 *)(r10 + {event!(err_taken)}) = 0;
        ..outcome::into_event(sock, event!(err), event!(err_taken));
        ..sock.load(Reg::R1, Size::B8, "tcp_sock.bytes_acked");
        *(u64 *)(r10 + {event!(bytes_acked)}) = r1;
        ..sock.load(Reg::R1, Size::B8, "tcp_sock.bytes_received");
        *(u64 *)(r10 + {event!(bytes_received)}) = r1;
        ..sent;
        ..sock.load(Reg::R1, Size::B4, "tcp_sock.snd_una");
        *(u32 *)(r10 + {event!(snd_una)}) = w1;
        ..sock.load(Reg::R1, Size::B4, "tcp_sock.write_seq");
        *(u32 *)(r10 + {event!(write_seq)}) = w1;
        // Only tcp_fin() sets SOCK_DONE.
        ..sock.load(Reg::R1, Size::B8, "sock_common.skc_flags");
        r1 >>= enum(sock_flags.SOCK_DONE);
        w1 &= 1;
        *(u8 *)(r10 + {event!(fin_received)}) = w1;
        *(u8 *)(r10 + {event!(reserved)}) = 0;
        ..emit::emit(target, options.ring_bytes, Event::LAYOUT);
    }
}

/// Jumps to `filtered` if the connection of the entry at `r8` was never established, unless the
/// options include those.
fn only_established(options: &Options) -> Fragment {
    if options.failed {
        return Fragment::new();
    }
    bpf! {
        r1 = *(u64 *)(r8 + {offset_of!(Entry, established)});
        if r1 == 0 goto filtered;
    }
}

/// Completes the entry of a socket that was open at the start. Only connections are entered, and
/// their duration counts from now.
fn snapshot_entry(sock: Sock) -> Fragment {
    bpf! {
        ..sock.common(Reg::R6, Size::B1, "sock_common.skc_state");
        if w6 == {State::CLOSE.0} goto skip;
        if w6 == {State::LISTEN.0} goto skip;
        *(u8 *)(r10 + {entry!(existing)}) = 1;
        call bpf_ktime_get_ns;
        if w6 == {State::SYN_SENT.0} goto connecting;
        *(u64 *)(r10 + {entry!(established)}) = r0;
        goto complete;
    connecting:
        *(u64 *)(r10 + {entry!(birth)}) = r0;
        *(u8 *)(r10 + {entry!(role)}) = {Role::Active as u8};
    complete:
    }
}
