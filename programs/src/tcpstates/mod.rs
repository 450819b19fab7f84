//! tcpstates: one event for each state change.

mod event;

use std::mem::offset_of;

use bpfasm::object::Object;
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, bpf};

pub use self::event::Event;
use crate::endpoints::{self, event_endpoints};
use crate::filter::Filter;
use crate::layout::layout;
use crate::owner::{self, Rank};
use crate::sock::Sock;
use crate::stack_layout::{entry, event};
use crate::state_change::{NEWSTATE, OLDSTATE, begin};
use crate::state_tool::StateTool;
use crate::stats::{Count, count, filtered};
use crate::table::{self, IfExists};
use crate::tcp::State;
use crate::{emit, owner_hooks, stack_layout};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub filter: Filter,
    pub max_sockets: u32,
    pub ring_bytes: u32,
}

layout! {
    /// What the table has for a socket. Starts like [`owner::Owner`].
    pub struct Entry as "tcpstates_entry" {
        pub pid: u32,
        pub rank: u32,
        pub comm: [u8; 16],
        /// When its state last changed; 0 if unknown.
        pub last: u64,
    }
}

owner::entry_starts_with_owner!();

pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    StateTool {
        name: "tcpstates",
        entry: Entry::LAYOUT,
        max_sockets: options.max_sockets,
        ring_bytes: options.ring_bytes,
        state_change: state_change(options, target),
        destroyed: None,
        other_hooks: owner_hooks::improve(target)?,
        // The time of the last change is unknown.
        open_sockets: Some(|_| Fragment::new()),
    }
    .object(target)
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
fn state_change(options: &Options, target: &Target) -> Fragment {
    let sock = Sock::new(target.access);
    bpf! {
        ..begin(sock, "out");
        w1 = *(u32 *)(r9 + {OLDSTATE});
        *(u8 *)(r10 + {event!(oldstate)}) = w1;
        w1 = *(u32 *)(r9 + {NEWSTATE});
        *(u8 *)(r10 + {event!(newstate)}) = w1;

        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {event!(ts)}) = r0;
        ..remember(sock);
        ..owner::actor_into_event(sock, event!(pid), event!(comm));

        ..apply_filters(&options.filter, sock);
        r1 = *(u64 *)(r10 + {stack_layout::KEY});
        *(u64 *)(r10 + {event!(skaddr)}) = r1;
        ..endpoints::into_event(sock, event_endpoints!());
        ..emit::emit(target, options.ring_bytes, Event::LAYOUT);
    out:
        r0 = 0;
        exit;
    }
}

/// Counts the event as filtered and jumps to `out` unless it passes all filters.
fn apply_filters(filter: &Filter, sock: Sock) -> Fragment {
    let checks = bpf! {
        ..filter.socket(sock, "filtered");
        ..filter.owner(event!(pid), "filtered");
    };
    filtered(checks)
}

/// Copies the time of the last change from the table into the event, and this one's time into the
/// table. `r8` = the entry, or 0.
///
/// This comes before all filters, so that the next change of the socket finds the time even if this
/// one is filtered: for example, a connecting socket has no local port yet.
fn remember(sock: Sock) -> Fragment {
    bpf! {
        *(u64 *)(r10 + {event!(last)}) = 0;
        w1 = *(u8 *)(r10 + {event!(oldstate)});
        if w1 != {State::LISTEN.0} goto existing;
        w1 = *(u8 *)(r10 + {event!(newstate)});
        if w1 == {State::SYN_RECV.0} goto new;          // a new connection, which may reuse an old address
    existing:
        ..table::lookup();
        if r8 == 0 goto new;
        r1 = *(u64 *)(r8 + {offset_of!(Entry, last)});
        *(u64 *)(r10 + {event!(last)}) = r1;
        r1 = *(u64 *)(r10 + {event!(ts)});
        *(u64 *)(r8 + {offset_of!(Entry, last)}) = r1;
        w1 = *(u8 *)(r10 + {event!(oldstate)});
        if w1 == {State::CLOSE.0} goto used;
        ..owner::into_entry(sock, Rank::Closed);
        goto done;
    used:
        ..owner::into_entry(sock, Rank::Used);
        goto done;

    new:
        ..table::clear(Entry::LAYOUT);
        r1 = *(u64 *)(r10 + {event!(ts)});
        *(u64 *)(r10 + {entry!(last)}) = r1;
        w1 = *(u8 *)(r10 + {event!(oldstate)});
        if w1 == {State::CLOSE.0} goto new_used;
        ..owner::into_new_entry(sock, Rank::Closed);
        goto store;
    new_used:
        ..owner::into_new_entry(sock, Rank::Used);
    store:
        ..table::store(IfExists::Replace);
        r8 = 0;
        if w0 == 0 goto done;
        ..count(Count::Untracked);
    done:
    }
}
