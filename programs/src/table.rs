//! The table of sockets: what earlier events leave for later ones, by the socket's address.
//!
//! The kernel gives the address of a dead socket to a new one within microseconds. An entry left
//! behind would therefore be taken for the new socket's. Three rules prevent that:
//!
//! 1. At a socket's birth, its entry is stored with [`IfExists::Replace`], whatever is there.
//! 2. Later hooks look the entry up and change it in place. The hook that enters sockets which were
//!    open before can run at the same time as all others, so it uses [`IfExists::Keep`].
//! 3. When the kernel destroys the socket, its entry is deleted ([`destroy_hook`]).
//!
//! The table has a fixed size. A socket for which it has no space is counted ([`IfFull`]), and its
//! later events find no entry.
//!
//! In tools that show owners, each entry starts with the socket's owner ([`owner`](crate::owner));
//! the rest is the tool's.

use bpfasm::object::{Hook, Layout, MapDef, MapKind, Need};
use bpfasm::reg::R6;
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, bpf};

use crate::stats::{self, Count, count};
use crate::{hook, map, stack_layout};

pub const MAP: &str = "sockets";

/// The map, for `max_entries` sockets whose entries have this layout.
///
/// All its memory is allocated at the start. With a map that grows ([`MapDef::grows`]), each
/// connection of a storm takes one to two microseconds longer, in the interrupts that refill the
/// kernel's allocator.
#[must_use]
pub fn map(value: Layout, max_entries: u32) -> MapDef {
    let plain = MapDef::new(MAP, MapKind::Hash, 8, value.size.into(), max_entries);
    MapDef { value: Some(value), ..plain }
}

/// Stores the key, which is the address in `r6`. Has to come before
/// [`Sock::tcp`](crate::sock::Sock::tcp), which changes what the verifier takes `r6` for.
pub fn key() -> Fragment {
    bpf! { *(u64 *)(r10 + {stack_layout::KEY}) = {R6}; }
}

/// `r8` = the socket's entry, or 0.
pub fn lookup() -> Fragment {
    bpf! {
        ..map::lookup(MAP, stack_layout::KEY);
        r8 = r0;
    }
}

/// What to do if the socket has an entry already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IfExists {
    /// `BPF_ANY`, include/uapi/linux/bpf.h.
    Replace = 0,
    /// `BPF_NOEXIST`, include/uapi/linux/bpf.h.
    Keep = 1,
}

/// Stores the entry built at [`stack_layout::ENTRY`]; `w0` is not 0 if it was not stored.
pub fn store(if_exists: IfExists) -> Fragment {
    bpf! {
        r1 = map {MAP} ll;
        r2 = r10;
        r2 += {stack_layout::KEY};
        r3 = r10;
        r3 += {stack_layout::ENTRY};
        r4 = {if_exists as i32};
        call bpf_map_update_elem;
    }
}

/// What is lost if the table is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IfFull {
    /// The event itself, which was to be kept in the entry. It has been counted as seen.
    EventLost,
    /// Only the socket's entry: the program has no event of the tool's, and has not opened the
    /// counters.
    SocketLost,
}

/// Enters a socket at its birth: clears the entry, lets `build` fill it in, and stores it. Jumps to
/// `stored`, or counts the loss if the table is full.
pub fn enter(entry: Layout, build: Fragment, if_full: IfFull, stored: &'static str) -> Fragment {
    bpf! {
        ..clear(entry);
        ..build;
        ..enter_built(if_full, stored);
    }
}

/// As [`enter`], for an entry that has been built at [`stack_layout::ENTRY`].
pub fn enter_built(if_full: IfFull, stored: &'static str) -> Fragment {
    let count_loss = match if_full {
        IfFull::EventLost => count_lost_event(),
        IfFull::SocketLost => bpf! {
            ..stats::open(stored);
            ..count(Count::Untracked);
        },
    };
    bpf! {
        ..store(IfExists::Replace);
        if w0 == 0 goto {stored};
        ..count_loss;
    }
}

/// Counts an event that found no space in the table, and its socket.
pub fn count_lost_event() -> Fragment {
    bpf! {
        ..count(Count::LostMap);
        ..count(Count::Untracked);
    }
}

/// Deletes the socket's entry, if there is one.
pub fn forget() -> Fragment {
    bpf! {
        r1 = map {MAP} ll;
        r2 = r10;
        r2 += {stack_layout::KEY};
        call bpf_map_delete_elem;
    }
}

/// Zeroes the entry at [`stack_layout::ENTRY`], before it is built.
pub fn clear(layout: Layout) -> Fragment {
    assert!(layout.size.is_multiple_of(8) && layout.size <= stack_layout::ENTRY.abs_diff(stack_layout::ZERO));
    let mut fragment = Fragment::new();
    for offset in (0..usize::from(layout.size)).step_by(8) {
        fragment.splice(bpf! { *(u64 *)(r10 + {stack_layout::at(stack_layout::ENTRY, offset)}) = 0; });
    }
    fragment
}

/// The hook that deletes a socket's entry when the kernel destroys the socket.
pub fn destroy_hook() -> Result<Hook, AsmError> {
    let body = bpf! {
        r6 = *(u64 *)(r1 + 0);                          // sk
        ..key();
        ..forget();
        r0 = 0;
        exit;
    };
    hook::untyped_tracepoint(DESTROYED, Need::Required, DESTROY, body)
}

const DESTROYED: &str = "socket destroyed";
/// `tcp_destroy_sock(struct sock *sk)`
const DESTROY: &str = "tcp_destroy_sock";

/// The same hook for a tool that has more to do then: `program` has to delete the entry
/// ([`forget`]).
pub fn destroyed_hook(target: &Target, program: Fragment) -> Result<Hook, AsmError> {
    hook::tracepoint(DESTROYED, Need::Required, DESTROY, target, program)
}
