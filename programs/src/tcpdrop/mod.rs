//! tcpdrop: one event for each TCP packet that the kernel drops.

mod event;

use bpfasm::object::{Need, Object};
use bpfasm::reg::R8;
use bpfasm::symbol::Text;
use bpfasm::target::{Access, Target};
use bpfasm::{AsmError, Fragment, Reg, Size, bpf};

pub use self::event::Event;
use crate::endpoints::{self, Endpoints};
use crate::filter::Filter;
use crate::owner;
use crate::packet;
use crate::sock::Sock;
use crate::stack_layout::{ENTRY, SCRATCH, event};
use crate::stats::{self, Count, count, filtered};
use crate::tcp::{IPPROTO_TCP, SOCK_STREAM, State};
use crate::{emit, hook, kernel_stack, owner_hooks, table};

/// A drop reason by its kernel names: an enum, and one of its values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// `skb_drop_reason`, or the enum of a subsystem.
    pub enumeration: Text,
    /// `SKB_DROP_REASON_NO_SOCKET`
    pub enumerator: Text,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which packets. "Local" means the socket's endpoint, or the packet's destination if it has no
    /// socket.
    pub filter: Filter,
    /// Only these reasons. Empty: any.
    pub reasons: Vec<Reason>,
    /// Also packets that are left in a socket's queue when it is closed.
    pub purged: bool,
    /// Send the call stack.
    pub stack: bool,
    /// Track the owners of sockets. A filter by process needs it.
    pub owners: bool,
    /// The size of the table of owners.
    pub max_sockets: u32,
    pub ring_bytes: u32,
}

pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let mut maps = vec![emit::map(target.ring, options.ring_bytes), stats::map()];
    let mut hooks = Vec::new();
    if options.stack {
        maps.push(kernel_stack::map(Event::LAYOUT));
    }
    if options.owners {
        maps.push(owner_hooks::map(options.max_sockets));
        hooks = owner_hooks::all(target)?;
    }
    hooks.push(hook::tracepoint("drop", Need::Required, "kfree_skb", target, drop(options, target))?);
    Ok(crate::object("tcpdrop", hooks, maps))
}

/// Offsets of the arguments in the context, where each takes eight bytes.
const SKB: i16 = 0;
const LOCATION: i16 = 8;
const REASON: i16 = 16;
const RX_SK: i16 = 24;

/// The places of the local and the remote port for filters. The packet's headers were there before.
const LPORT: i16 = ENTRY;
const RPORT: i16 = ENTRY + 2;

/// The places of the packet's addresses, ports and flags.
const PACKET: packet::Place = packet::Place {
    family: event!(family),
    saddr: event!(saddr),
    daddr: event!(daddr),
    sport: event!(sport),
    dport: event!(dport),
    flags: event!(flags),
    transport: event!(transport),
};

/// `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock
/// *rx_sk)`. `reason` exists since 5.17, `rx_sk` (the socket that was receiving the packet) since
/// 6.11.
fn drop(options: &Options, target: &Target) -> Fragment {
    // Sockets are read by probe reads with both kinds of access: `rx_sk` may be NULL, which some
    // verifiers do not take into account, and `skb->sk` may point to a time-wait or request socket.
    let sock = Sock::new(Access::Probed);
    let send = if options.stack { kernel_stack::emit } else { emit::emit };
    bpf! {
        r9 = r1;
        r6 = *(u64 *)(r9 + {SKB});
        ..packet::tcp(target.access, PACKET, "out");
        ..stats::open("out");
        ..count(Count::Seen);
        ..reason(options);
        ..hide_purged(options, false);
        ..find_socket(sock, target.access);
        *(u8 *)(r10 + {event!(state)}) = 0;
        ..owner::unknown_into_event(event!(pid), event!(comm));
        *(u16 *)(r10 + {event!(sent)}) = 0;
        if r6 == 0 goto no_socket;
        ..describe(options, sock);
        goto described;
    no_socket:
        ..netns_of_packet(sock);
    described:
        ..apply_filters(options);
        ..hide_purged(options, true);
        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {event!(ts)}) = r0;
        r1 = *(u64 *)(r9 + {LOCATION});
        *(u64 *)(r10 + {event!(location)}) = r1;
        ..send(target, options.ring_bytes, Event::LAYOUT);
    out:
        r0 = 0;
        exit;
    }
}

/// Stores the reason. Counts the event as filtered and jumps to `out` unless the reason is wanted.
fn reason(options: &Options) -> Fragment {
    let mut wanted = Fragment::new();
    for Reason { enumeration, enumerator } in &options.reasons {
        wanted.splice(bpf! { if w8 == enum({enumeration.clone()}.{enumerator.clone()}) goto wanted; });
    }
    if !options.reasons.is_empty() {
        wanted.splice(bpf! {
            ..count(Count::Filtered);
            goto out;
        });
    }
    bpf! {
        w8 = 0;
        w1 = params(btf_trace_kfree_skb);
        if w1 < 3 goto no_reason;
        w8 = *(u32 *)(r9 + {REASON});
    no_reason:
        *(u32 *)(r10 + {event!(reason)}) = w8;
        ..wanted;
    wanted:
    }
}

/// Counts the event as hidden and jumps to `out` if the packet was left in the queue of a socket
/// that was closed. Every connection whose last FIN was not read has such a packet. Kernels before
/// 6.7 give no reason for it.
///
/// A packet that a filter rejects does not count as hidden, so this comes after the filters;
/// without filters, it comes as early as possible.
fn hide_purged(options: &Options, filtered: bool) -> Fragment {
    if options.purged || !options.reasons.is_empty() || options.filter.is_empty() == filtered {
        return Fragment::new();
    }
    bpf! {
        w1 = exists(skb_drop_reason.SKB_DROP_REASON_QUEUE_PURGE);
        if w1 == 0 goto shown;
        w1 = *(u32 *)(r10 + {event!(reason)});
        if w1 != enum(skb_drop_reason.SKB_DROP_REASON_QUEUE_PURGE) goto shown;
        ..count(Count::Filtered);
        ..count(Count::Hidden);
        goto out;
    shown:
    }
}

/// `r6` = the address, as a plain number, of the socket that was receiving the packet, or that the
/// packet belongs to; or 0.
fn find_socket(sock: Sock, access: Access) -> Fragment {
    let receiving = match access {
        Access::Probed => bpf! { r8 = *(u64 *)(r9 + {RX_SK}); },
        // Loaded from the context it would be a typed pointer, which some verifiers even take for
        // never NULL.
        Access::Typed => bpf! {
            r1 = r10;
            r1 += {SCRATCH};
            w2 = 8;
            r3 = r9;
            r3 += {RX_SK};
            call bpf_probe_read_kernel;
            r8 = *(u64 *)(r10 + {SCRATCH});
        },
    };
    bpf! {
        w1 = params(btf_trace_kfree_skb);
        if w1 < 4 goto packet_socket;
        ..receiving;
        if r8 != 0 goto found;
    packet_socket:
        ..sock.load(R8, Size::B8, "sk_buff.sk");
    found:
        r6 = r8;
    }
}

/// Stores state, direction, network namespace and owner of the socket in `r6`. Leaves it in `r6` if
/// it is a full TCP socket, else 0. Jumps to `no_socket` if its family is neither IPv4 nor IPv6.
fn describe(options: &Options, sock: Sock) -> Fragment {
    let owner = if options.owners {
        bpf! {
            ..table::lookup();
            ..owner::stored_into_event(event!(pid), event!(comm));
        }
    } else {
        Fragment::new()
    };
    bpf! {
        ..table::key();
        ..sock.common_head("no_socket");
        ..direction(sock);
        ..sock.netns();
        *(u32 *)(r10 + {event!(netns)}) = w1;
        ..sock.common(R8, Size::B1, "sock_common.skc_state");
        if w8 == {State::TIME_WAIT.0} goto not_full;
        if w8 == {State::NEW_SYN_RECV.0} goto not_full;
        ..sock.load(Reg::R1, Size::B2, "sock.sk_protocol");
        if w1 != {IPPROTO_TCP} goto not_tcp;
        ..sock.load(Reg::R1, Size::B2, "sock.sk_type");
        if w1 != {SOCK_STREAM} goto not_tcp;
        *(u8 *)(r10 + {event!(state)}) = w8;
        ..owner;
        goto done;
    not_full:
        *(u8 *)(r10 + {event!(state)}) = w8;
    not_tcp:                                            // a raw socket's state is not a TCP state
        r6 = 0;
    done:
    }
}

/// Stores whether the socket in `r6`, whose head can be read, sent the packet: then the packet goes
/// to the socket's peer.
fn direction(sock: Sock) -> Fragment {
    bpf! {
        ..sock.common(Reg::R1, Size::B2, "sock_common.skc_dport");
        w2 = *(u16 *)(r10 + {event!(dport)});
        if w1 != w2 goto received;
        w2 = *(u16 *)(r10 + {event!(sport)});
        if w1 == w2 goto received;
        *(u16 *)(r10 + {event!(sent)}) = 1;
    received:
    }
}

/// Stores the packet's ports as local and remote port, if a filter needs them.
fn ports(filter: &Filter) -> Fragment {
    if filter.local_ports.is_empty() && filter.remote_ports.is_empty() {
        return Fragment::new();
    }
    bpf! {
        w1 = *(u16 *)(r10 + {event!(dport)});
        w2 = *(u16 *)(r10 + {event!(sport)});
        w3 = *(u16 *)(r10 + {event!(sent)});
        if w3 == 0 goto received;
        w3 = w1;
        w1 = w2;
        w2 = w3;
    received:
        *(u16 *)(r10 + {LPORT}) = w1;
        *(u16 *)(r10 + {RPORT}) = w2;
    }
}

/// Stores the network namespace of a packet without a socket: that of its device, or of its route.
fn netns_of_packet(sock: Sock) -> Fragment {
    bpf! {
        r6 = *(u64 *)(r9 + {SKB});
        ..sock.load(R8, Size::B8, "sk_buff.dev");
        ..netns_of_device(sock, "route");
        goto have_netns;
    route:
        ..sock.load(R8, Size::B8, "sk_buff._skb_refdst");
        r8 &= {-8};                                     // without the flag for reference counting
        if r8 == 0 goto unknown;
        ..sock.load_from(R8, R8, Size::B8, "dst_entry.dev");
        ..netns_of_device(sock, "unknown");
        goto have_netns;
    unknown:
        w1 = 0;
    have_netns:
        *(u32 *)(r10 + {event!(netns)}) = w1;
        r6 = 0;                                         // no socket
    }
}

/// `w1` = the network namespace of the device in `r8`. Jumps to `unknown` if this is not a device.
/// Clobbers `r8`.
///
/// A queue may have stored something else in the field for the packet's device. So the pointer is
/// checked: it is a device if its namespace has a loopback device that is in the same namespace.
fn netns_of_device(sock: Sock, unknown: &'static str) -> Fragment {
    bpf! {
        if r8 == 0 goto {unknown};
        ..sock.load_from(R8, R8, Size::B8, "net_device.nd_net.net");
        if r8 == 0 goto {unknown};
        ..sock.load_from(R8, Reg::R1, Size::B8, "net.loopback_dev");
        if r1 == 0 goto {unknown};
        ..sock.load_from(Reg::R1, Reg::R1, Size::B8, "net_device.nd_net.net");
        if r1 != r8 goto {unknown};
        ..sock.load_from(R8, Reg::R1, Size::B4, "net.ns.inum");
    }
}

/// Counts the packet as filtered and jumps to `out` unless it passes all filters. An unknown value
/// passes none.
fn apply_filters(options: &Options) -> Fragment {
    let filter = &options.filter;
    let place = endpoints::Place {
        base: Reg::R10,
        family: event!(family),
        laddr: event!(daddr),
        raddr: event!(saddr),
        lport: LPORT,
        rport: RPORT,
        netns: event!(netns),
    };
    let checks = bpf! {
        ..ports(filter);
        ..filter.endpoints(Endpoints::Event(place), "filtered");
        ..filter.cgroup(Reg::R6, "filtered");
        ..filter.owner(event!(pid), "filtered");
    };
    filtered(checks)
}
