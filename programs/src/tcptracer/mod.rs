//! tcptracer: one event for each connection that a process opens, accepts or closes.

mod event;
mod state;

use bpfasm::object::Object;
use bpfasm::target::{Access, Target};
use bpfasm::{AsmError, Fragment, bpf};

pub use self::event::{Event, Kind};
use crate::containers::Containers;
use crate::endpoints::{self, event_endpoints};
use crate::filter::Filter;
use crate::layout::layout;
use crate::sock::Sock;
use crate::stack_layout::event;
use crate::state_tool::StateTool;
use crate::stats::only_if;
use crate::{accept, actor, emit, owner, stop_flag};

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which connections, and whose.
    pub filter: Filter,
    /// Only processes in these containers.
    pub containers: Containers,
    /// Only processes of this user.
    pub uid: Option<u32>,
    /// Connections the table has room for: those that processes here opened.
    pub max_sockets: u32,
    /// Bytes of the ring.
    pub ring_bytes: u32,
}

layout! {
    /// What is kept of a connection that was opened here, or that was closed and is not yet gone; starts like [`owner::Owner`].
    pub struct Entry as "tcptracer_entry" {
        /// See [`owner::Owner::pid`]: who connected.
        pub pid: u32,
        /// See [`owner::Owner::rank`].
        pub rank: u32,
        /// See [`owner::Owner::comm`].
        pub comm: [u8; 16],
        /// See [`Event::uid`].
        pub uid: u32,
        /// A [`Stage`] as a number.
        pub stage: u32,
    }
}

owner::entry_starts_with_owner!();

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Stage {
    /// Asked for, and not established.
    Connecting = 1,
    /// Established, and told of.
    Open = 2,
    /// Closed, and told of unless a filter said no.
    Closed = 3,
}

/// Programs and maps for these options on this target.
///
/// Only the process that connects has to be remembered. Accept and close happen in the process that is told, so there is no
/// walk over open sockets, and nothing is looked at when data is sent.
pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let mut object = StateTool {
        name: "tcptracer",
        entry: Entry::LAYOUT,
        max_sockets: options.max_sockets,
        ring_bytes: options.ring_bytes,
        state_change: state::change(options, target),
        destroyed: Some(state::destroyed(options, target)),
        learn: accept::hooks(target, &|sock| accepted(options, target, sock))?,
        snapshot: None,
    }
    .object(target)?;
    object.maps.push(stop_flag::map());
    object.maps.extend(options.containers.maps());
    Ok(object)
}

impl Options {
    /// Jumps to `reject` unless the current task is wanted. For moments in process context.
    fn actor(&self, reject: &'static str) -> Fragment {
        actor::wanted(&self.filter, self.uid, &self.containers, reject)
    }
}

/// An accept, as [`accept::hooks`] finds it.
fn accepted(options: &Options, target: &Target, sock: Sock) -> Fragment {
    let checks = bpf! {
        ..options.actor("filtered");
        ..options.filter.socket(sock, "filtered");
    };
    let any = !checks.is_empty();
    bpf! {
        ..only_if(checks, any);
        ..by_current(target.access, Kind::Accept);
        ..tell(options, target, sock);
    }
}

/// Writes what happened, and that the current task did it, into the event.
fn by_current(access: Access, kind: Kind) -> Fragment {
    bpf! {
        *(u16 *)(r10 + {event!(kind)}) = {kind as i32};
        ..actor::into_event(access, event!(pid), event!(comm), event!(uid));
    }
}

/// Completes the event from the socket in `r6`, and sends it.
fn tell(options: &Options, target: &Target, sock: Sock) -> Fragment {
    bpf! {
        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {event!(ts)}) = r0;
        *(u32 *)(r10 + {event!(reserved)}) = 0;
        ..endpoints::into_event(sock, event_endpoints!());
        ..emit::emit(target, options.ring_bytes, Event::LAYOUT);
    }
}
