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
use crate::stats::filtered;
use crate::{accept, actor, emit, owner, stop_flag};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which connections, and whose.
    pub filter: Filter,
    /// Only processes in these containers.
    pub containers: Containers,
    /// Only processes of this user.
    pub uid: Option<u32>,
    /// The size of the table, which has the connections that processes here opened.
    pub max_sockets: u32,
    pub ring_bytes: u32,
}

layout! {
    /// What the table has for a connection that was opened here, or that a process has closed and
    /// the kernel has not destroyed. Starts like [`owner::Owner`].
    pub struct Entry as "tcptracer_entry" {
        /// The process that connected.
        pub pid: u32,
        pub rank: u32,
        pub comm: [u8; 16],
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
    /// A process has called connect, and waits for the answer.
    Connecting = 1,
    /// Established. The connect has been reported.
    Open = 2,
    /// Closed by a process. The close has been reported, or filtered.
    Closed = 3,
}

/// Only a connect needs the table: its event is sent when the answer arrives, in a soft interrupt.
/// An accept or a close happens in the process that the event is about. So there is no walk over
/// open sockets, and no hook on sending and receiving.
pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let mut object = StateTool {
        name: "tcptracer",
        entry: Entry::LAYOUT,
        max_sockets: options.max_sockets,
        ring_bytes: options.ring_bytes,
        state_change: state::change(options, target),
        destroyed: Some(state::destroyed(options, target)),
        other_hooks: accept::hooks(target, &|sock| accepted(options, target, sock))?,
        open_sockets: None,
    }
    .object(target)?;
    object.maps.push(stop_flag::map());
    object.maps.extend(options.containers.maps());
    Ok(object)
}

impl Options {
    /// Jumps to `reject` unless the current task passes the filters by process. For moments in
    /// process context.
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
    bpf! {
        ..filtered(checks);
        ..by_current(target.access, Kind::Accept);
        ..send(options, target, sock);
    }
}

/// Writes what happened into the event, and that the current task did it.
fn by_current(access: Access, kind: Kind) -> Fragment {
    bpf! {
        *(u16 *)(r10 + {event!(kind)}) = {kind as i32};
        ..actor::into_event(access, event!(pid), event!(comm), event!(uid));
    }
}

/// Completes the event from the socket in `r6`, and sends it.
fn send(options: &Options, target: &Target, sock: Sock) -> Fragment {
    bpf! {
        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {event!(ts)}) = r0;
        *(u32 *)(r10 + {event!(reserved)}) = 0;
        ..endpoints::into_event(sock, event_endpoints!());
        ..emit::emit(target, options.ring_bytes, Event::LAYOUT);
    }
}
