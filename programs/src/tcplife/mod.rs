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

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which connections.
    pub filter: Filter,
    /// Also those that were open when tracing began.
    pub existing: bool,
    /// Also those that were never established.
    pub failed: bool,
    /// Connections the table has room for.
    pub max_sockets: u32,
    /// Bytes of the ring.
    pub ring_bytes: u32,
}

layout! {
    /// What is kept of a connection while it lives; starts like [`owner::Owner`].
    pub struct Entry as "tcplife_entry" {
        /// See [`owner::Owner::pid`].
        pub pid: u32,
        /// See [`owner::Owner::rank`].
        pub rank: u32,
        /// See [`owner::Owner::comm`].
        pub comm: [u8; 16],
        /// See [`Event::birth`].
        pub birth: u64,
        /// See [`Event::established`].
        pub established: u64,
        /// See [`Event::role`].
        pub role: u8,
        /// See [`Event::existing`].
        pub existing: u8,
        /// Fills up to eight bytes.
        pub reserved: [u8; 6],
    }
}

owner::entry_starts_with_owner!();

/// Programs and maps for these options on this target.
pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    StateTool {
        name: "tcplife",
        entry: Entry::LAYOUT,
        max_sockets: options.max_sockets,
        ring_bytes: options.ring_bytes,
        state_change: state_change(options, target),
        destroyed: None,
        learn: owner_hooks::improve(target)?,
        snapshot: options.existing.then_some(snapshot_entry as Fill),
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
        if w2 == {State::LISTEN.0} goto filtered;       // a listener is no connection
        ..table::lookup();
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w2 == {State::CLOSE.0} goto closed;
        if r8 == 0 goto filtered;                       // it was there before, or the table was full
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
        goto born;
    connecting:
        ..table::clear(Entry::LAYOUT);
        *(u8 *)(r10 + {entry!(role)}) = {Role::Active as u8};
        ..owner::into_new_entry(sock, Rank::Used);
    born:
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
    // Nobody saw it begin, but it was still about to be established when it ended.
    let failed = (!options.failed).then(|| {
        bpf! {
            w1 = *(u32 *)(r9 + {OLDSTATE});
            if w1 == {State::SYN_SENT.0} goto filtered;
            if w1 == {State::SYN_RECV.0} goto filtered;
        }
    });
    let known = if options.existing {
        bpf! {
            if r8 == 0 goto unknown;
            ..only_established(options);
            ..from_entry;
            goto known;
        unknown:
            ..failed;
            *(u64 *)(r10 + {event!(birth)}) = 0;
            *(u64 *)(r10 + {event!(established)}) = 0;
            *(u8 *)(r10 + {event!(role)}) = {Role::Unknown as u8};
            *(u8 *)(r10 + {event!(existing)}) = 0;
        known:
        }
    } else {
        bpf! {
            if r8 == 0 goto filtered;
            ..only_established(options);
            ..from_entry;
        }
    };
    // What was sent is only needed to find out who opened a connection that was there before.
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
        ..known;
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
        // tcp_fin() sets SOCK_DONE, and nothing else does.
        ..sock.load(Reg::R1, Size::B8, "sock_common.skc_flags");
        r1 >>= enum(sock_flags.SOCK_DONE);
        w1 &= 1;
        *(u8 *)(r10 + {event!(fin_received)}) = w1;
        *(u8 *)(r10 + {event!(reserved)}) = 0;
        ..emit::emit(target, options.ring_bytes, Event::LAYOUT);
    }
}

/// Jumps to `filtered` when the entry at `r8` was never established, unless such are wanted.
fn only_established(options: &Options) -> Fragment {
    if options.failed {
        return Fragment::new();
    }
    bpf! {
        r1 = *(u64 *)(r8 + {offset_of!(Entry, established)});
        if r1 == 0 goto filtered;
    }
}

/// Completes the entry of a socket that was there before: only connections count, and their time counts from now.
fn snapshot_entry(sock: Sock) -> Fragment {
    bpf! {
        ..sock.common(Reg::R6, Size::B1, "sock_common.skc_state");
        if w6 == {State::CLOSE.0} goto skip;
        if w6 == {State::LISTEN.0} goto skip;
        *(u8 *)(r10 + {entry!(existing)}) = 1;
        call bpf_ktime_get_ns;
        if w6 == {State::SYN_SENT.0} goto connecting;
        *(u64 *)(r10 + {entry!(established)}) = r0;
        goto filled;
    connecting:
        *(u64 *)(r10 + {entry!(birth)}) = r0;
        *(u8 *)(r10 + {entry!(role)}) = {Role::Active as u8};
    filled:
    }
}
