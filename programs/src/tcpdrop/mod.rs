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
use crate::owner::{self, Owner};
use crate::packet;
use crate::sock::Sock;
use crate::stack_layout::{ENTRY, SCRATCH, event};
use crate::stats::{self, Count, count, only_if};
use crate::tcp::{IPPROTO_TCP, SOCK_STREAM, State};
use crate::{emit, hook, kernel_stack, owner_hooks, table};

/// A reason in the kernel's words: an enum, and one of its values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// `skb_drop_reason`, or that of a subsystem.
    pub enumeration: Text,
    /// `SKB_DROP_REASON_NO_SOCKET`
    pub enumerator: Text,
}

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which packets. "Local" is the end that the socket is; without a socket, where the packet was going.
    pub filter: Filter,
    /// Only these reasons; empty: any.
    pub reasons: Vec<Reason>,
    /// Also what is left in a socket's queue when it is closed.
    pub purged: bool,
    /// With the stack.
    pub stack: bool,
    /// Whose sockets are. A filter by process needs it.
    pub owners: bool,
    /// Sockets the table of owners has room for.
    pub max_sockets: u32,
    /// Bytes of the ring.
    pub ring_bytes: u32,
}

/// Programs and maps for these options on this target.
pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let mut maps = vec![emit::map(target.ring, options.ring_bytes), stats::map()];
    let mut hooks = Vec::new();
    if options.stack {
        maps.push(kernel_stack::map(Event::LAYOUT));
    }
    if options.owners {
        maps.push(table::map(Owner::LAYOUT, options.max_sockets));
        hooks = owner_hooks::all(target)?;
    }
    hooks.push(hook::tracepoint("drop", Need::Required, "kfree_skb", target, drop(options, target))?);
    Ok(crate::object("tcpdrop", hooks, maps))
}

/// Where the context has the arguments: they are eight bytes apart.
const SKB: i16 = 0;
const LOCATION: i16 = 8;
const REASON: i16 = 16;
const RX_SK: i16 = 24;

/// Where the ports lie as a filter wants them; nothing reads the packet's headers any more.
const LPORT: i16 = ENTRY;
const RPORT: i16 = ENTRY + 2;

/// Where the packet's tuple and flags go.
const PACKET: packet::Place = packet::Place {
    family: event!(family),
    saddr: event!(saddr),
    daddr: event!(daddr),
    sport: event!(sport),
    dport: event!(dport),
    flags: event!(flags),
    transport: event!(transport),
};

/// `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk)`; the reason is there since
/// 5.17, the socket that was receiving since 6.11.
fn drop(options: &Options, target: &Target) -> Fragment {
    // Sockets are read by probe reads in either access: `rx_sk` may be NULL, which some verifiers do not know, and what
    // `skb->sk` points to may be no whole socket.
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
        if r6 == 0 goto device;
        ..describe(options, sock);
        goto described;
    device:
        ..netns_of_packet(sock);
    described:
        ..only_wanted(options);
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

/// Stores the reason, and ends here when it is not wanted.
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
        if w1 < 3 goto none;
        w8 = *(u32 *)(r9 + {REASON});
    none:
        *(u32 *)(r10 + {event!(reason)}) = w8;
        ..wanted;
    wanted:
    }
}

/// Ends here when the reason is that a socket was closed with this packet in its queue. Every connection whose last FIN nobody
/// read has such a one. Kernels before 6.7 give no reason for it.
///
/// What a filter rejects is not hidden, so with one this comes after it, and without one as early as can be.
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

/// `r6` = the address of the socket that was receiving the packet, or that the packet belongs to, as a plain number; or 0.
fn find_socket(sock: Sock, access: Access) -> Fragment {
    let receiving = match access {
        Access::Probed => bpf! { r8 = *(u64 *)(r9 + {RX_SK}); },
        // As it stands in the context it would be a pointer to the verifier, to some even one that is never NULL.
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
        if w1 < 4 goto of_packet;
        ..receiving;
        if r8 != 0 goto found;
    of_packet:
        ..sock.load(R8, Size::B8, "sk_buff.sk");
    found:
        r6 = r8;
    }
}

/// Stores what the socket in `r6` tells. Leaves it in `r6` if it is a whole socket, else 0. Jumps to `device` when it is none
/// of the internet.
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
        ..sock.common_head("device");
        ..direction(sock);
        ..sock.netns();
        *(u32 *)(r10 + {event!(netns)}) = w1;
        ..sock.common(R8, Size::B1, "sock_common.skc_state");
        if w8 == {State::TIME_WAIT.0} goto mini;
        if w8 == {State::NEW_SYN_RECV.0} goto mini;
        ..sock.load(Reg::R1, Size::B2, "sock.sk_protocol");
        if w1 != {IPPROTO_TCP} goto other;
        ..sock.load(Reg::R1, Size::B2, "sock.sk_type");
        if w1 != {SOCK_STREAM} goto other;
        *(u8 *)(r10 + {event!(state)}) = w8;
        ..owner;
        goto done;
    mini:
        *(u8 *)(r10 + {event!(state)}) = w8;
    other:                                              // a raw socket's state is none of TCP
        r6 = 0;
    done:
    }
}

/// Stores whether the packet was sent by the socket in `r6`, whose head can be read: then its peer is where the packet goes.
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

/// Stores the packet's ports as those of this end and of the other, if a filter asks for them.
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

/// Stores the network namespace of a packet without a socket: that of its device, or of the route it has got already.
fn netns_of_packet(sock: Sock) -> Fragment {
    bpf! {
        r6 = *(u64 *)(r9 + {SKB});
        ..sock.load(R8, Size::B8, "sk_buff.dev");
        ..netns_of_device(sock, "route");
        goto known;
    route:
        ..sock.load(R8, Size::B8, "sk_buff._skb_refdst");
        r8 &= {-8};                                     // without the bits that tell who counts references
        if r8 == 0 goto unknown;
        ..sock.load_from(R8, R8, Size::B8, "dst_entry.dev");
        ..netns_of_device(sock, "unknown");
        goto known;
    unknown:
        w1 = 0;
    known:
        *(u32 *)(r10 + {event!(netns)}) = w1;
        r6 = 0;                                         // no socket
    }
}

/// `w1` = the network namespace of the device in `r8`; jumps to `unknown` when it is none. Clobbers `r8`.
///
/// A queue may have put something else where the packet had its device. A device is one when its namespace's loopback device
/// says that it is of the same namespace.
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

/// Counts the packet as filtered and jumps to `out` unless it is wanted. What is not known is not wanted.
fn only_wanted(options: &Options) -> Fragment {
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
    only_if(checks, !filter.is_empty())
}
