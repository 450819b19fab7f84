//! tcptop: bytes sent and received by each process on each connection, added up in the kernel.
//!
//! Nothing is sent to the reader. Flows are added up in one of two maps; at the end of an interval the reader puts the other one
//! in its place, and has the first for itself. To put one there waits for all programs that run, 20 ms and more: the first is
//! meant as long as there is none.

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
use crate::stats::{self, Count, count, only_if};
use crate::{flows, hook, map, stream, table};

/// Where the caller's flow is built.
macro_rules! flow {
    ($member:ident) => {
        stack_layout::at(stack_layout::EVENT, offset_of!(Flow, $member))
    };
}

/// Where the caller's traffic is built, when the flow is new.
macro_rules! traffic {
    ($member:ident) => {
        stack_layout::at(stack_layout::ENTRY, offset_of!(Traffic, $member))
    };
}

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which connections.
    pub filter: Filter,
    /// Processes of which containers.
    pub containers: Containers,
    /// Room for so many open sockets, and for so many flows in an interval.
    pub max_sockets: u32,
}

/// The array of maps in whose only slot the map of the current interval is; the first of [`INTERVAL_MAPS`] while it is empty.
pub const FLOWS: &str = flows::MAP;
/// The maps that take turns there. Keys are [`Flow`], values [`Traffic`].
pub const INTERVAL_MAPS: [&str; 2] = ["flows0", "flows1"];

/// Programs and maps for these options on this target.
pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let sock = Sock::new(target.access);
    let released = |sock| {
        bpf! {
            ..current();
            ..add(options, sock, SENT);
        }
    };
    let [destroyed, born, open] = stream::table_hooks(target)?;
    let tracepoint = |hook, need, name, body| hook::tracepoint(hook, need, name, target, body);
    let hooks = vec![
        destroyed,
        born,
        tracepoint(SEND, Need::Optional, "sock_send_length", sent(options, sock))?
            .without(stream::WITHOUT_SEND),
        stream::release_hook("sent bytes", target, &released)?.fallback_for(SEND),
        tracepoint("receive", Need::Required, "tcp_rcv_space_adjust", received(options, sock))?,
        open,
    ];
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

/// The hook that kernels have since 6.3.
const SEND: &str = "send";

const SENT: usize = offset_of!(Traffic, sent);
const RECEIVED: usize = offset_of!(Traffic, received);

/// `sock_send_length(struct sock *sk, int ret, int flags)`
fn sent(options: &Options, sock: Sock) -> Fragment {
    bpf! {
        ..stream::sent(sock, "out");
        ..current();
        ..add(options, sock, SENT);
    out:
        r0 = 0;
        exit;
    }
}

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

/// The flow is the current process's.
fn current() -> Fragment {
    bpf! {
        call bpf_get_current_pid_tgid;
        r0 >>= 32;
        *(u32 *)(r10 + {flow!(pid)}) = w0;
    }
}

/// The flow is the current process's if it reads: what the kernel reads for its own sake may be read in a soft interrupt.
fn current_if_owned(sock: Sock) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {flow!(pid)}) = 0;
        ..owner::unless_owned(sock, "nobody");
        ..current();
    nobody:
    }
}

/// Adds [`stream::MOVED`] bytes to a member of the traffic of the socket in `r6`, or jumps to `out`. The flow knows its process.
fn add(options: &Options, sock: Sock, member: usize) -> Fragment {
    let load_map = || bpf! { r1 = r8; };
    bpf! {
        ..stats::open("out");
        ..count(Count::Seen);
        ..only_wanted(options, sock);
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
        if r0 != 0 goto known;
        ..begin(sock, member);
        ..flows::store(load_map());
        if w0 == 0 goto added;
        ..flows::lookup(load_map());                    // another CPU may have been first
        if r0 == 0 goto full;
    known:
        r1 = *(u64 *)(r10 + {stream::MOVED});
        lock *(u64 *)(r0 + {member}) += r1;
    added:
        ..count(Count::Aggregated);
        goto out;
    full:
        ..count(Count::LostMap);
    }
}

/// Builds the traffic of a flow that had none yet.
fn begin(sock: Sock, member: usize) -> Fragment {
    // Who sends is always known.
    let unless_known = (member == RECEIVED).then(|| {
        bpf! {
            w1 = *(u32 *)(r10 + {flow!(pid)});
            if w1 == 0 goto nobody;
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
        ..unless_known;
        r1 = {R10};
        r1 += {traffic!(comm)};
        w2 = {COMM_LEN};
        call bpf_get_current_comm;
    nobody:
    }
}

/// Counts the event as filtered and jumps to `out` unless it is wanted.
fn only_wanted(options: &Options, sock: Sock) -> Fragment {
    let Options { filter, containers, .. } = options;
    let some = !filter.is_empty() || !containers.is_empty();
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
    only_if(checks, some)
}
