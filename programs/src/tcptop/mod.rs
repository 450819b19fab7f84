//! tcptop: bytes sent and received by each process on each connection, added up in the kernel.
//!
//! No events are sent. Flows are added up in one of two maps, which the array [`FLOWS`] selects. At
//! the end of an interval the reader puts the other map into the array, and then has the first one
//! for itself: the kernel returns from this only when no program uses the old map any more, which
//! takes 20 ms or longer. To save that time at the start, an empty array selects the first map.

mod flow;

use std::mem::offset_of;

use bpfasm::object::{MapDef, MapKind, Need, Object};
use bpfasm::reg::R10;
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, Reg, Size, bpf};

pub use self::flow::{Flow, Traffic};
use crate::containers::Containers;
use crate::filter::Filter;
use crate::owner::{self, COMM_LEN};
use crate::sock::Sock;
use crate::stack_layout;
use crate::stats::{self, Count, count, filtered};
use crate::{flows, hook, map, stream, table};

/// The place on the stack of a member of the flow.
macro_rules! flow {
    ($member:ident) => {
        stack_layout::at(stack_layout::EVENT, offset_of!(Flow, $member))
    };
}

/// The place on the stack of a member of the traffic of a new flow.
macro_rules! traffic {
    ($member:ident) => {
        stack_layout::at(stack_layout::ENTRY, offset_of!(Traffic, $member))
    };
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub filter: Filter,
    /// Only processes in these containers.
    pub containers: Containers,
    /// The size of the table of sockets, and of each map of flows.
    pub max_sockets: u32,
}

/// The array of maps with one slot, which has the map of the current interval. While it is empty,
/// programs use the first of [`INTERVAL_MAPS`].
pub const FLOWS: &str = flows::MAP;
/// The two maps of flows, used in turn. Keys are [`Flow`], values [`Traffic`].
pub const INTERVAL_MAPS: [&str; 2] = ["flows0", "flows1"];

pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let sock = Sock::new(target.access);
    let sent = |sock| {
        bpf! {
            ..current();
            ..add(options, sock, SENT);
        }
    };
    let [destroyed, born, open] = stream::table_hooks(target)?;
    let [send, release] = stream::sent_hooks(target, &sent)?;
    let received = received(options, sock);
    let receive = hook::tracepoint("receive", Need::Required, "tcp_rcv_space_adjust", target, received)?;
    let hooks = vec![destroyed, born, send, release, receive, open];
    let slot = MapDef {
        inner: INTERVAL_MAPS.map(Into::into).into(),
        ..MapDef::new(FLOWS, MapKind::ArrayOfMaps, 4, 4, 1)
    };
    let mut maps = vec![stats::map(), table::map(stream::Entry::LAYOUT, options.max_sockets), slot];
    maps.extend(
        INTERVAL_MAPS.map(|name| flows::map(name, Flow::LAYOUT, Traffic::LAYOUT, options.max_sockets)),
    );
    maps.extend(options.containers.maps());
    Ok(crate::object("tcptop", hooks, maps))
}

const SENT: usize = offset_of!(Traffic, sent);
const RECEIVED: usize = offset_of!(Traffic, received);

/// `tcp_rcv_space_adjust(struct sock *sk)`
fn received(options: &Options, sock: Sock) -> Fragment {
    bpf! {
        r6 = *(u64 *)(r1 + 0);                          // sk
        ..table::key();
        ..sock.tcp("out");
        ..stream::read(sock, "out");
        ..current_if_owned(sock);
        ..add(options, sock, RECEIVED);
    out:
        r0 = 0;
        exit;
    }
}

/// The flow belongs to the current process.
fn current() -> Fragment {
    bpf! {
        call bpf_get_current_pid_tgid;
        r0 >>= 32;
        *(u32 *)(r10 + {flow!(pid)}) = w0;
    }
}

/// The flow belongs to the current process if that acts for the socket. The kernel also reads for
/// itself, for example in a soft interrupt: then the flow belongs to process 0.
fn current_if_owned(sock: Sock) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {flow!(pid)}) = 0;
        ..owner::unless_owned(sock, "not_acting");
        ..current();
    not_acting:
    }
}

/// Adds [`stream::MOVED`] bytes to a member of the traffic of the socket in `r6`, or jumps to
/// `out`. The process is in the flow already.
fn add(options: &Options, sock: Sock, member: usize) -> Fragment {
    let load_map = || bpf! { r1 = r8; };
    bpf! {
        ..stats::open("out");
        ..count(Count::Seen);
        ..apply_filters(options, sock);
        ..sock.common(Reg::R1, Size::B8, "sock_common.skc_net.net");
        *(u64 *)(r10 + {flow!(net)}) = r1;
        ..sock.addresses(flow!(laddr), flow!(raddr));
        ..sock.common(Reg::R1, Size::B2, "sock_common.skc_dport");
        *(u16 *)(r10 + {flow!(rport)}) = w1;
        ..sock.load(Reg::R1, Size::B2, "inet_sock.inet_sport");
        *(u16 *)(r10 + {flow!(lport)}) = w1;

        ..map::lookup(FLOWS, stack_layout::ZERO);
        r8 = r0;
        if r8 != 0 goto have_map;
        r8 = map {INTERVAL_MAPS[0]} ll;
    have_map:
        ..flows::lookup(load_map());
        if r0 != 0 goto add;
        ..begin(sock, member);
        ..flows::store(load_map());
        if w0 == 0 goto added;
        ..flows::lookup(load_map());                    // another CPU may have been first
        if r0 == 0 goto full;
    add:
        r1 = *(u64 *)(r10 + {stream::MOVED});
        lock *(u64 *)(r0 + {member}) += r1;
    added:
        ..count(Count::Aggregated);
        goto out;
    full:
        ..count(Count::LostMap);
    }
}

/// Builds the traffic of a new flow.
fn begin(sock: Sock, member: usize) -> Fragment {
    // The process that sends is always known.
    let unless_no_process = (member == RECEIVED).then(|| {
        bpf! {
            w1 = *(u32 *)(r10 + {flow!(pid)});
            if w1 == 0 goto no_process;
        }
    });
    bpf! {
        ..table::clear(Traffic::LAYOUT);
        r1 = *(u64 *)(r10 + {stream::MOVED});
        *(u64 *)(r10 + {stack_layout::at(stack_layout::ENTRY, member)}) = r1;
        ..sock.netns();
        *(u32 *)(r10 + {traffic!(netns)}) = w1;
        ..sock.common(Reg::R1, Size::B2, "sock_common.skc_family");
        *(u32 *)(r10 + {traffic!(family)}) = w1;
        ..unless_no_process;
        r1 = {R10};
        r1 += {traffic!(comm)};
        w2 = {COMM_LEN};
        call bpf_get_current_comm;
    no_process:
    }
}

/// Counts the event as filtered and jumps to `out` unless it passes all filters.
fn apply_filters(options: &Options, sock: Sock) -> Fragment {
    let Options { filter, containers, .. } = options;
    let containers = (!containers.is_empty()).then(|| {
        bpf! {
            w1 = *(u32 *)(r10 + {flow!(pid)});
            if w1 == 0 goto filtered;
            ..containers.current("filtered");
        }
    });
    let checks = bpf! {
        ..filter.owner(flow!(pid), "filtered");
        ..containers;
        ..filter.socket(sock, "filtered");
    };
    filtered(checks)
}
