//! tcpstates: one event for each change of state.

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
use crate::stats::{Count, count, only_if};
use crate::table::{self, IfExists};
use crate::tcp::State;
use crate::{emit, owner_hooks, stack_layout};

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which sockets.
    pub filter: Filter,
    /// Sockets the table has room for.
    pub max_sockets: u32,
    /// Bytes of the ring.
    pub ring_bytes: u32,
}

layout! {
    /// What is kept of a socket while it lives; starts like [`owner::Owner`].
    pub struct Entry as "tcpstates_entry" {
        /// See [`owner::Owner::pid`].
        pub pid: u32,
        /// See [`owner::Owner::rank`].
        pub rank: u32,
        /// See [`owner::Owner::comm`].
        pub comm: [u8; 16],
        /// The last change, 0 where none was seen.
        pub last: u64,
    }
}

owner::entry_starts_with_owner!();

/// Programs and maps for these options on this target.
pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    StateTool {
        name: "tcpstates",
        entry: Entry::LAYOUT,
        max_sockets: options.max_sockets,
        ring_bytes: options.ring_bytes,
        state_change: state_change(options, target),
        destroyed: None,
        learn: owner_hooks::improve(target)?,
        // Nothing to complete: an entry without a last change.
        snapshot: Some(|_| Fragment::new()),
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

        ..only_wanted(&options.filter, sock);
        r1 = *(u64 *)(r10 + {stack_layout::KEY});
        *(u64 *)(r10 + {event!(skaddr)}) = r1;
        ..endpoints::into_event(sock, event_endpoints!());
        ..emit::emit(target, options.ring_bytes, Event::LAYOUT);
    out:
        r0 = 0;
        exit;
    }
}

/// Counts the event as filtered and jumps to `out` unless it is wanted.
fn only_wanted(filter: &Filter, sock: Sock) -> Fragment {
    let checks = bpf! {
        ..filter.socket(sock, "filtered");
        ..filter.owner(event!(pid), "filtered");
    };
    only_if(checks, !filter.is_empty())
}

/// Takes the last change from the table into the event and leaves this one there; `r8` = the entry, or 0.
///
/// Done before any filter, so that the next change of this socket knows how long this state lasted even if this change is not
/// wanted: a connecting socket has no local port yet.
fn remember(sock: Sock) -> Fragment {
    bpf! {
        *(u64 *)(r10 + {event!(last)}) = 0;
        w1 = *(u8 *)(r10 + {event!(oldstate)});
        if w1 != {State::LISTEN.0} goto known;
        w1 = *(u8 *)(r10 + {event!(newstate)});
        if w1 == {State::SYN_RECV.0} goto unknown;      // a new connection, whatever its address was before
    known:
        ..table::lookup();
        if r8 == 0 goto unknown;
        r1 = *(u64 *)(r8 + {offset_of!(Entry, last)});
        *(u64 *)(r10 + {event!(last)}) = r1;
        r1 = *(u64 *)(r10 + {event!(ts)});
        *(u64 *)(r8 + {offset_of!(Entry, last)}) = r1;
        w1 = *(u8 *)(r10 + {event!(oldstate)});
        if w1 == {State::CLOSE.0} goto opened;
        ..owner::into_entry(sock, Rank::Closed);
        goto done;
    opened:
        ..owner::into_entry(sock, Rank::Used);
        goto done;

    unknown:
        ..table::clear(Entry::LAYOUT);
        r1 = *(u64 *)(r10 + {event!(ts)});
        *(u64 *)(r10 + {entry!(last)}) = r1;
        w1 = *(u8 *)(r10 + {event!(oldstate)});
        if w1 == {State::CLOSE.0} goto opened_now;
        ..owner::into_new_entry(sock, Rank::Closed);
        goto store;
    opened_now:
        ..owner::into_new_entry(sock, Rank::Used);
    store:
        ..table::store(IfExists::Replace);
        r8 = 0;
        if w0 == 0 goto done;
        ..count(Count::Untracked);
    done:
    }
}
