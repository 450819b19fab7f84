//! tcpconnlat: one event for each connect that is answered or fails.

mod event;

use std::mem::offset_of;

use bpfasm::object::Object;
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, bpf};

pub use self::event::Event;
use crate::emit;
use crate::endpoints::{self, event_endpoints};
use crate::filter::Filter;
use crate::layout::layout;
use crate::outcome;
use crate::owner::{self, Rank};
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
    /// Only connects that took at least this many nanoseconds.
    pub min_ns: u64,
    /// Also connects that failed.
    pub failed: bool,
    /// The size of the table, which has the connects that wait for their answer.
    pub max_sockets: u32,
    pub ring_bytes: u32,
}

layout! {
    /// What the table has for a connect that waits for its answer. Starts like [`owner::Owner`].
    pub struct Entry as "tcpconnlat_entry" {
        pub pid: u32,
        pub rank: u32,
        pub comm: [u8; 16],
        /// The change to SYN_SENT, `bpf_ktime_get_ns`.
        pub begin: u64,
    }
}

owner::entry_starts_with_owner!();

pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    StateTool {
        name: "tcpconnlat",
        entry: Entry::LAYOUT,
        max_sockets: options.max_sockets,
        ring_bytes: options.ring_bytes,
        state_change: state_change(options, target),
        // The owner is known at once, and a connect from before the run has no beginning to count
        // from.
        destroyed: None,
        other_hooks: Vec::new(),
        open_sockets: None,
    }
    .object(target)
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
fn state_change(options: &Options, target: &Target) -> Fragment {
    let sock = Sock::new(target.access);
    // The kernel chooses the local port after the change to SYN_SENT. All other filters apply
    // before, so that the connects that they exclude take no table entry.
    let (at_connect, at_answer) = options.filter.clone().split_local_ports();
    let entry = bpf! {
        ..owner::into_new_entry(sock, Rank::Used);
        ..at_connect.owner(entry!(pid), "filtered");
        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {entry!(begin)}) = r0;
    };
    bpf! {
        ..begin(sock, "out");
        w1 = *(u32 *)(r9 + {OLDSTATE});
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w2 == {State::SYN_SENT.0} goto connecting;
        if w1 == {State::SYN_SENT.0} goto answered;
        if w1 != {State::SYN_RECV.0} goto filtered;     // SYN_RECV: a simultaneous open, or no entry
    answered:
        ..table::lookup();
        if r8 == 0 goto filtered;                       // filtered, older than the run, or the table was full
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w2 == {State::SYN_RECV.0} goto aggregated;
        *(u32 *)(r10 + {event!(newstate)}) = w2;
        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {event!(ts)}) = r0;
        r1 = *(u64 *)(r8 + {offset_of!(Entry, begin)});
        r0 -= r1;
        *(u64 *)(r10 + {event!(latency)}) = r0;
        ..owner::entry_into_event(event!(pid), event!(comm));
        ..table::forget();                              // r8 is invalid from here on
        ..long_enough(options.min_ns);
        ..only_established(options.failed);
        ..at_answer.socket(sock, "filtered");
        ..endpoints::into_event(sock, event_endpoints!());
        *(u32 *)(r10 + {event!(err)}) = 0;
        *(u8 *)(r10 + {event!(err_taken)}) = 0;
        *(u8 *)(r10 + {event!(reserved)}) = 0;
        ..failure(options.failed, sock);
        ..emit::emit(target, options.ring_bytes, Event::LAYOUT);
        goto out;

    connecting:
        ..at_connect.socket(sock, "filtered");
        ..table::enter(Entry::LAYOUT, entry, IfFull::EventLost, "aggregated");
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

/// Jumps to `filtered` if the event's latency is less than `min_ns`.
fn long_enough(min_ns: u64) -> Fragment {
    if min_ns == 0 {
        return Fragment::new();
    }
    bpf! {
        r1 = *(u64 *)(r10 + {event!(latency)});
        r2 = {min_ns} ll;
        if r1 < r2 goto filtered;
    }
}

/// Writes why a connect failed, if the options include failed ones.
fn failure(failed: bool, sock: Sock) -> Fragment {
    if !failed {
        return Fragment::new();
    }
    bpf! {
        w1 = *(u32 *)(r10 + {event!(newstate)});
        if w1 == {State::ESTABLISHED.0} goto established;
        ..outcome::into_event(sock, event!(err), event!(err_taken));
    established:
    }
}

/// Jumps to `filtered` if the connect failed, unless the options include failed ones.
fn only_established(failed: bool) -> Fragment {
    if failed {
        return Fragment::new();
    }
    bpf! {
        w1 = *(u32 *)(r10 + {event!(newstate)});
        if w1 != {State::ESTABLISHED.0} goto filtered;
    }
}
