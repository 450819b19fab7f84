//! tcpretrans: one event for each retransmission, or counts of them for each flow.

mod event;

use std::mem::offset_of;

use bpfasm::object::{Need, Object};
use bpfasm::reg::{R1, R6};
use bpfasm::target::{Access, Target};
use bpfasm::{AsmError, Fragment, Size, bpf};

pub use self::event::{Event, Flow, Kind, Tally};
use crate::endpoints::{self, Endpoints, event_endpoints};
use crate::filter::Filter;
use crate::owner;
use crate::sock::Sock;
use crate::stack_layout::event;
use crate::stats::{self, Count, count, filtered_if};
use crate::table;
use crate::{emit, flows, hook, owner_hooks};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which sockets. A filter by process needs `owners`.
    pub filter: Filter,
    /// Count by flow, in the map [`FLOWS`], and send no events.
    pub count: bool,
    /// Distinguish tail loss probes.
    pub loss_probes: bool,
    /// Also packets that the kernel could not send.
    pub failed: bool,
    /// Track the owners of sockets.
    pub owners: bool,
    /// The size of the table of owners, and of the map of flows.
    pub max_sockets: u32,
    pub ring_bytes: u32,
}

/// The map of counts: a [`Tally`] by [`Flow`].
pub const FLOWS: &str = flows::MAP;

/// `ICSK_TIME_LOSS_PROBE`, include/net/inet_connection_sock.h: the timer that is set is that of a
/// probe.
const ICSK_TIME_LOSS_PROBE: i32 = 5;

/// Offset of the packet, or the request for a connection, in the context, where each argument takes
/// eight bytes.
const PACKET_OR_REQUEST: i16 = 8;
/// Offset of the error, on kernels that have it.
const ERR: i16 = 16;

pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let mut hooks = if options.owners { owner_hooks::all(target)? } else { Vec::new() };
    let mut own = |name, tracepoint, body| -> Result<(), AsmError> {
        hooks.push(hook::tracepoint(name, Need::Required, tracepoint, target, body)?);
        Ok(())
    };
    own("retransmission", "tcp_retransmit_skb", retransmit_skb(options, target))?;
    own("SYN-ACK retransmission", "tcp_retransmit_synack", retransmit_synack(options, target))?;
    let mut maps = vec![stats::map()];
    maps.push(if options.count {
        flows::map(FLOWS, Flow::LAYOUT, Tally::LAYOUT, options.max_sockets)
    } else {
        emit::map(target.ring, options.ring_bytes)
    });
    if options.owners {
        maps.push(owner_hooks::map(options.max_sockets));
    }
    Ok(crate::object("tcpretrans", hooks, maps))
}

/// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, int err)`. `err` exists
/// from 6.17 on; older kernels do not call the tracepoint if the packet could not be sent.
fn retransmit_skb(options: &Options, target: &Target) -> Fragment {
    let Options { filter, .. } = options;
    let sock = Sock::new(target.access);
    let checks = bpf! {
        ..status(options.failed, "filtered");
        ..filter.socket(sock, "filtered");
        ..owner(
            options,
            owner::into_event(sock, event!(pid), event!(comm)),
            owner::acting_into_event(sock, event!(pid), event!(comm)),
        );
        ..filter.owner(event!(pid), "filtered");
    };
    bpf! {
        r9 = r1;
        r6 = *(u64 *)(r9 + 0);                          // sk
        ..options.owners.then(table::key);
        ..sock.tcp("out");
        ..stats::open("out");
        ..count(Count::Seen);
        ..filtered_if(!options.failed || !filter.is_empty(), checks);

        ..endpoints::into_event(sock, event_endpoints!());
        *(u16 *)(r10 + {event!(reserved)}) = 0;
        r1 = *(u64 *)(r9 + {PACKET_OR_REQUEST});        // skb
        r1 += sk_buff.cb;
        ..sock.load_from(R1, R1, Size::B2, "tcp_skb_cb.tcp_gso_segs");
        *(u16 *)(r10 + {event!(segments)}) = w1;
        ..report(options, target, bpf! {
            ..kind(options.loss_probes, sock);
            ..sock.common(R1, Size::B1, "sock_common.skc_state");
            *(u8 *)(r10 + {event!(state)}) = w1;
            r1 = *(u64 *)(r9 + {PACKET_OR_REQUEST});    // skb
            r1 += sk_buff.cb;
            ..sock.load_from(R1, R1, Size::B4, "tcp_skb_cb.seq");
            *(u32 *)(r10 + {event!(first)}) = w1;
            *(u8 *)(r10 + {event!(has_first)}) = 1;
        });
    out:
        r0 = 0;
        exit;
    }
}

/// `tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)`, called only if
/// the packet was sent.
///
/// The socket is the listener (with Fast Open, the connection itself), which does not have the
/// remote address; the request does. The tracepoint is called in soft interrupts. A process that
/// accepts may have locked the listener meanwhile, so the lock proves nothing about the current
/// task.
fn retransmit_synack(options: &Options, target: &Target) -> Fragment {
    let Options { filter, .. } = options;
    let sock = Sock::new(target.access);
    let checks = bpf! {
        ..filter.endpoints(Endpoints::Event(event_endpoints!()), "filtered");
        ..filter.cgroup.map(|_| bpf! {
            r1 = *(u64 *)(r9 + 0);                      // sk
            ..filter.cgroup(R1, "filtered");
        });
        ..owner(
            options,
            owner::stored_into_event(event!(pid), event!(comm)),
            owner::unknown_into_event(event!(pid), event!(comm)),
        );
        ..filter.owner(event!(pid), "filtered");
    };
    bpf! {
        r9 = r1;
        ..options.owners.then(|| bpf! {
            r6 = *(u64 *)(r9 + 0);                      // sk
            ..table::key();
        });
        r6 = *(u64 *)(r9 + {PACKET_OR_REQUEST});        // req
        ..sock.request();
        ..stats::open("out");
        ..count(Count::Seen);
        ..endpoints::into_event_with(sock, event_endpoints!(), bpf! {
            ..sock.common(R1, Size::B2, "sock_common.skc_num");
            r1 = be16 r1;
        });
        *(u16 *)(r10 + {event!(reserved)}) = 0;
        ..filtered_if(!filter.is_empty(), checks);

        *(u16 *)(r10 + {event!(segments)}) = 1;
        ..report(options, target, bpf! {
            *(u32 *)(r10 + {event!(status)}) = 0;
            *(u8 *)(r10 + {event!(kind)}) = {Kind::SynAck as u8};
            ..sock.common(R1, Size::B1, "sock_common.skc_state");
            *(u8 *)(r10 + {event!(state)}) = w1;
            ..isn(sock);
        });
    out:
        r0 = 0;
        exit;
    }
}

/// Writes whether the packet was sent. If it was not, jumps to `reject` unless the options include
/// such packets.
fn status(failed: bool, reject: &'static str) -> Fragment {
    let unsent = match failed {
        true => bpf! { *(u32 *)(r10 + {event!(status)}) = w1; },
        false => bpf! { if w1 != 0 goto {reject}; },
    };
    bpf! {
        *(u32 *)(r10 + {event!(status)}) = 0;
        w1 = params(btf_trace_tcp_retransmit_skb);
        if w1 < 3 goto sent;
        w1 = *(u32 *)(r9 + {ERR});
        ..unsent;
    sent:
    }
}

/// Writes the owner: by `from_table` if the tool tracks owners, else by `without_table`. Counts by
/// flow have no owner.
fn owner(options: &Options, from_table: Fragment, without_table: Fragment) -> Fragment {
    let untracked = bpf! { *(u8 *)(r10 + {event!(tracked)}) = 0; };
    match (options.owners, options.count) {
        (true, _) => bpf! {
            ..table::lookup();
            ..untracked;
            if r8 == 0 goto untracked;
            *(u8 *)(r10 + {event!(tracked)}) = 1;
        untracked:
            ..from_table;
        },
        (false, false) => bpf! {
            ..untracked;
            ..without_table;
        },
        (false, true) => Fragment::new(),
    }
}

/// Writes the letter. A packet belongs to a probe if the probe's timer is set and the connection is
/// not in recovery. The second condition is necessary because a fast retransmission, which begins a
/// recovery, finds the timer still set.
fn kind(loss_probes: bool, sock: Sock) -> Fragment {
    let plain = bpf! { *(u8 *)(r10 + {event!(kind)}) = {Kind::Retransmit as u8}; };
    if !loss_probes {
        return plain;
    }
    bpf! {
        ..plain;
        ..sock.load(R1, Size::B1, "inet_connection_sock.icsk_pending");
        if w1 != {ICSK_TIME_LOSS_PROBE} goto done;
        ..sock.load(R1, Size::B1, "inet_connection_sock.icsk_ca_state");
        w1 >>= shift(inet_connection_sock.icsk_ca_state);
        w1 &= mask(inet_connection_sock.icsk_ca_state);
        if w1 >= enum(tcp_ca_state.TCP_CA_Recovery) goto done;
        *(u8 *)(r10 + {event!(kind)}) = {Kind::LossProbe as u8};
    done:
    }
}

/// Writes the sequence number of the request's SYN-ACK.
fn isn(sock: Sock) -> Fragment {
    match sock.access() {
        // The helper accepts only requests of TCP proper, not those of a protocol that has replaced
        // it.
        Access::Typed => bpf! {
            *(u32 *)(r10 + {event!(first)}) = 0;
            *(u8 *)(r10 + {event!(has_first)}) = 0;
            r1 = r6;
            call bpf_skc_to_tcp_request_sock;
            if r0 == 0 goto unknown;
            w1 = *(u32 *)(r0 + tcp_request_sock.snt_isn);
            *(u32 *)(r10 + {event!(first)}) = w1;
            *(u8 *)(r10 + {event!(has_first)}) = 1;
        unknown:
        },
        Access::Probed => bpf! {
            ..sock.load_from(R6, R1, Size::B4, "tcp_request_sock.snt_isn");
            *(u32 *)(r10 + {event!(first)}) = w1;
            *(u8 *)(r10 + {event!(has_first)}) = 1;
        },
    }
}

/// Completes the event by `rest` and sends it, or counts it.
fn report(options: &Options, target: &Target, rest: Fragment) -> Fragment {
    if options.count {
        return tally();
    }
    bpf! {
        ..rest;
        *(u16 *)(r10 + {event!(padding)}) = 0;
        call bpf_ktime_get_ns;
        *(u64 *)(r10 + {event!(ts)}) = r0;
        ..emit::emit(target, options.ring_bytes, Event::LAYOUT);
    }
}

/// Adds the event to the counters of its flow.
fn tally() -> Fragment {
    let load_map = || bpf! { r1 = map {FLOWS} ll; };
    bpf! {
        ..flows::lookup(load_map());
        if r0 != 0 goto add;
        // Another CPU may store the same flow meanwhile. Then this store fails, and both add to one
        // value.
        ..table::clear(Tally::LAYOUT);
        ..flows::store(load_map());
        ..flows::lookup(load_map());
        if r0 == 0 goto full;
    add:
        r1 = 1;
        lock *(u64 *)(r0 + {offset_of!(Tally, retransmits)}) += r1;
        w1 = *(u16 *)(r10 + {event!(segments)});
        lock *(u64 *)(r0 + {offset_of!(Tally, segments)}) += r1;
        ..count(Count::Aggregated);
        goto out;
    full:
        ..count(Count::LostMap);
    }
}
