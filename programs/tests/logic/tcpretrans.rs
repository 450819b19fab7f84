//! tcpretrans: what is told of each retransmission, and what is counted.

use bpfasm::{Access, Object, Ring};
use programs::filter::{Family, Filter};
use programs::owner::Owner;
use programs::stats::Stats;
use programs::tcp::{AF_INET6, State};
use programs::tcpretrans::{self, Event, FLOWS, Flow, Options, Tally};

use crate::golden;
use crate::lab::fate::{self, AGGREGATED, FILTERED, LOST_RING, NOTHING, REPORTED};
use crate::lab::state::*;
use crate::lab::{Lab, RING_BYTES, Set, cases, ns};
use crate::owner;
use crate::spec::{NOBODY, OTHER, OTHERS, OWNER, STRANGER, Spec};
use crate::specimens::{Specimen, Tracepoint};
use crate::tool::{Sock, Tool};
use crate::vm::machine::{TCP_PROT, Task};

const BEFORE_6_3: &[&str] = &["5.10-x86_64", "5.10-aarch64", "6.1-x86_64"];

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcpretrans",
    object: |lab, filter, target| {
        let options = Options {
            owners: lab.set == Set::Wide || filter.pid.is_some(),
            filter: filter.clone(),
            ..lab.retrans()
        };
        tcpretrans::object(&options, target).expect("links")
    },
    every: |filter, target, ring_bytes| {
        let mut objects = Vec::new();
        for (count, failed) in [(false, false), (false, true), (true, false)] {
            for loss_probes in [false, true] {
                for owners in [false, true] {
                    let options = Options {
                        filter: filter.clone(),
                        count,
                        loss_probes,
                        failed,
                        owners: owners || filter.pid.is_some(),
                        max_sockets: 1 << 20,
                        ring_bytes,
                    };
                    objects.push(tcpretrans::object(&options, target).expect("links"));
                }
            }
        }
        objects
    },
    golden,
    cases: CASES,
    tells: Some(tells),
    events: &[Event::LAYOUT],
    entry: Some(Owner::LAYOUT),
    fields: &[
        "bpf_iter__task_file.file",
        "bpf_iter__task_file.task",
        "file.f_inode",
        "file.private_data",
        "inet_connection_sock.icsk_ca_state",
        "inet_connection_sock.icsk_pending",
        "inet_sock.inet_sport",
        "inode.i_mode",
        "net.ns.inum",
        "sk_buff.cb",
        "sock.sk_lock.owned",
        "sock.sk_protocol",
        "sock.sk_type",
        "sock_common.skc_daddr",
        "sock_common.skc_dport",
        "sock_common.skc_family",
        "sock_common.skc_net.net",
        "sock_common.skc_num",
        "sock_common.skc_rcv_saddr",
        "sock_common.skc_state",
        "sock_common.skc_v6_daddr",
        "sock_common.skc_v6_rcv_saddr",
        "socket.sk",
        "task_struct.comm",
        "task_struct.tgid",
        "tcp_request_sock.snt_isn",
        "tcp_skb_cb.seq",
        "tcp_skb_cb.tcp_gso_segs",
    ],
    registers: &["ax"],
    optional: &[],
    tracepoints: &[
        Tracepoint { name: "inet_sock_set_state", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "sock_recv_length", first: Some("sock"), lacking: BEFORE_6_3 },
        Tracepoint { name: "sock_send_length", first: Some("sock"), lacking: BEFORE_6_3 },
        Tracepoint { name: "tcp_destroy_sock", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "tcp_retransmit_skb", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "tcp_retransmit_synack", first: Some("sock"), lacking: &[] },
    ],
    ways: owner::ways,
    wanted: &[],
    mutate: true,
};

fn golden() -> Vec<(&'static str, Object)> {
    let typed = golden::target(Access::Typed, Ring::RingBuf);
    let probed = golden::target(Access::Probed, Ring::RingBuf);
    let perf = golden::target(Access::Probed, Ring::PerfEventArray);
    let plain = Options {
        filter: Filter::default(),
        count: false,
        loss_probes: false,
        failed: false,
        owners: false,
        max_sockets: 16384,
        ring_bytes: 1 << 22,
    };
    let everything = Options { loss_probes: true, failed: true, ..plain.clone() };
    let filtered = Options { filter: golden::filter(), owners: true, ..plain.clone() };
    let count = Options { count: true, ..plain.clone() };
    let object = |options: &Options, target| tcpretrans::object(options, target).expect("links");
    vec![
        ("tcpretrans-typed-ringbuf", object(&plain, &typed)),
        ("tcpretrans-probed-ringbuf", object(&plain, &probed)),
        ("tcpretrans-lossprobe-failed-typed-ringbuf", object(&everything, &typed)),
        ("tcpretrans-lossprobe-failed-probed-ringbuf", object(&everything, &probed)),
        ("tcpretrans-filtered-typed-ringbuf", object(&filtered, &typed)),
        ("tcpretrans-filtered-probed-perf", object(&filtered, &perf)),
        ("tcpretrans-count-typed", object(&count, &typed)),
    ]
}

/// Whether it tells of a retransmission of a socket like this one by `OWNER`.
fn tells(tool: &mut Tool<'_>, spec: &Spec) -> bool {
    let sock = tool.sock(spec);
    let skb = packet(tool);
    tool.at(10, OWNER);
    tool.owned(sock, true);
    fate::told(tool.run("tcp_retransmit_skb", &[sock.address, skb, 0]))
}

impl Lab {
    /// tcpretrans' options of this set.
    pub fn retrans(&self) -> Options {
        let (filter, wide) = (self.filter(), self.set == Set::Wide);
        Options {
            count: false,
            loss_probes: wide,
            failed: wide,
            owners: wide || filter.pid.is_some(),
            filter,
            max_sockets: 2,
            ring_bytes: RING_BYTES,
        }
    }

    /// tcpretrans at work.
    pub fn tcpretrans(&self, options: &Options) -> Tool<'_> {
        self.tool(&format!("tcpretrans {options:?}"), |target| {
            tcpretrans::object(options, target).expect("links")
        })
    }

    /// Whether the kernel tells of what it could not send.
    fn tells_failures(&self) -> bool {
        let tracepoint = self.kernel.index.tracepoint("tcp_retransmit_skb").expect("asked for");
        let tells = tracepoint.found().expect("every kernel has it").args.len() == 3;
        assert_eq!(tells, self.kernel.name >= "6.18" && !self.kernel.name.starts_with("5"));
        tells
    }

    /// Runs the program on a retransmission with this error, or without one where the kernel has none to tell.
    fn retransmit(&self, tool: &mut Tool<'_>, sock: Sock, skb: u64, err: i32) -> Stats {
        // An int in a register of 64 bits: the upper half says nothing.
        let err = 0x5a5a_5a5a_u64 << 32 | u64::from(err.cast_unsigned());
        let arguments = [sock.address, skb, err];
        tool.run("tcp_retransmit_skb", if self.tells_failures() { &arguments } else { &arguments[..2] })
    }
}

const SEQ: u32 = 0x7172_7374;
const SEGMENTS: u16 = 0x8182;

/// A packet's address.
fn packet(tool: &mut Tool<'_>) -> u64 {
    let skb = tool.object("sk_buff");
    let kernel = tool.machine().kernel;
    let block = kernel.object("tcp_skb_cb", 5);
    block.set("tcp_skb_cb.seq", SEQ.into());
    block.set("tcp_skb_cb.tcp_gso_segs", SEGMENTS.into());
    let object = tool.machine().object(skb);
    object.set_bytes("sk_buff.cb", &block.memory.bytes());
    object.address()
}

/// A socket in a state, on whose connection a timer is due.
fn connection(tool: &mut Tool<'_>, spec: &Spec, state: State) -> Sock {
    let sock = tool.sock(spec);
    tool.set_sock(sock, "sock_common.skc_state", state.0.into());
    timer(tool, sock, RETRANS, LOSS);
    sock
}

/// `ICSK_TIME_RETRANS` and `ICSK_TIME_LOSS_PROBE`, include/net/inet_connection_sock.h.
const RETRANS: u8 = 1;
const LOSS_PROBE: u8 = 5;
/// `enum tcp_ca_state`, include/uapi/linux/tcp.h.
const OPEN: u8 = 0;
const CWR: u8 = 2;
const RECOVERY: u8 = 3;
const LOSS: u8 = 4;

/// Which timer is due, and in what state congestion control is.
fn timer(tool: &mut Tool<'_>, sock: Sock, pending: u8, ca_state: u8) {
    let object = tool.machine().object(sock.object);
    object.set("inet_connection_sock.icsk_pending", pending.into());
    object.set_bits("inet_connection_sock.icsk_ca_state", ca_state);
}

/// The event of a retransmission on a socket with these fields.
fn event(spec: &Spec, task: Task, state: State, kind: u8) -> Event {
    Event {
        laddr: spec.laddr,
        raddr: spec.raddr,
        netns: spec.netns,
        lport: spec.lport.to_be(),
        rport: spec.rport.to_be(),
        family: spec.family,
        reserved: 0,
        pid: task.tgid,
        comm: task.comm,
        ts: ns(10),
        first: SEQ,
        status: 0,
        segments: SEGMENTS,
        state: state.0,
        kind,
        has_first: 1,
        tracked: 0,
        padding: 0,
    }
}

fn events(tool: &mut Tool<'_>) -> Vec<Event> {
    tool.events(Event::SIZE, Event::decode)
}

/// A request for a connection to the listener; the program's arguments.
struct Request {
    listener: Sock,
    number: usize,
    address: u64,
}

impl Request {
    fn new(tool: &mut Tool<'_>, spec: &Spec) -> Self {
        // Nothing of the listener's is the request's.
        let elsewhere = Spec { netns: 0x1111, rport: 0, lport: 0x2222, raddr: [0; 16], ..spec.clone() };
        let listener = connection(tool, &elsewhere, LISTEN);
        let (net, number) = (tool.object("net"), tool.object("tcp_request_sock"));
        tool.set(net, "net.ns.inum", spec.netns.into());
        let net = tool.address(net);
        let object = tool.machine().object(number);
        object.set("sock_common.skc_net.net", net);
        object.set("sock_common.skc_state", State::NEW_SYN_RECV.0.into());
        object.set("sock_common.skc_prot", TCP_PROT);
        object.set("sock_common.skc_family", spec.family.into());
        let (local, remote, len) = if spec.family == AF_INET6 {
            ("sock_common.skc_v6_rcv_saddr", "sock_common.skc_v6_daddr", 16)
        } else {
            ("sock_common.skc_rcv_saddr", "sock_common.skc_daddr", 4)
        };
        object.set_bytes(local, &spec.laddr[..len]);
        object.set_bytes(remote, &spec.raddr[..len]);
        object.set("sock_common.skc_dport", spec.rport.to_be().into());
        object.set("sock_common.skc_num", spec.lport.into());
        object.set("tcp_request_sock.snt_isn", SEQ.into());
        let address = object.address();
        Self { listener, number, address }
    }

    fn run(&self, tool: &mut Tool<'_>) -> Stats {
        tool.run("tcp_retransmit_synack", &[self.listener.address, self.address])
    }
}

/// Options that count.
fn counting(lab: &Lab) -> Options {
    Options { count: true, failed: false, ..lab.retrans() }
}

fn flow(spec: &Spec) -> Vec<u8> {
    let mut key = [spec.laddr, spec.raddr].concat();
    key.extend(spec.netns.to_ne_bytes());
    for half in [spec.lport.to_be(), spec.rport.to_be(), spec.family, 0] {
        key.extend(half.to_ne_bytes());
    }
    assert_eq!(key.len(), usize::from(Flow::SIZE));
    key
}

fn tally(tool: &mut Tool<'_>, spec: &Spec) -> Option<Tally> {
    tool.machine().value(FLOWS, &flow(spec)).map(|bytes| Tally::decode(&bytes).expect("a tally's size"))
}

cases! {
    /// A retransmission by a system call, on every kind of socket, has all there is to tell.
    fn by_a_call(lab) in [Narrow, Wide, Filtered, Six] {
        for spec in lab.specs() {
            let mut tool = lab.tcpretrans(&lab.retrans());
            let sock = connection(&mut tool, &spec, SYN_SENT);
            let skb = packet(&mut tool);
            tool.at(10, OWNER);
            tool.owned(sock, true);
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), REPORTED);
            assert_eq!(events(&mut tool), [event(&spec, OWNER, SYN_SENT, b'R')]);
        }
    }

    /// In a soft interrupt nobody is named, unless the table knows the owner.
    fn by_a_timer(lab) in [Narrow, Wide, Six] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let spec = lab.spec();
        let sock = connection(&mut tool, &spec, ESTABLISHED);
        let skb = packet(&mut tool);
        tool.at(10, STRANGER);
        assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), REPORTED);
        assert_eq!(events(&mut tool), [event(&spec, NOBODY, ESTABLISHED, b'R')]);
        if lab.retrans().owners {
            // A connection whose owner is not known yet is one that the table has all the same.
            tool.softirq(5, sock, LISTEN, SYN_RECV);
            tool.set_sock(sock, "sock_common.skc_state", ESTABLISHED.0.into());
            tool.at(10, STRANGER);
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), REPORTED);
            let unknown = Event { tracked: 1, ..event(&spec, NOBODY, ESTABLISHED, b'R') };
            assert_eq!(events(&mut tool), [unknown]);
            tool.length("sock_send_length", OWNER, sock);
            tool.at(10, STRANGER);
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), REPORTED);
            let known = Event { tracked: 1, ..event(&spec, OWNER, ESTABLISHED, b'R') };
            assert_eq!(events(&mut tool), [known]);
            // Who acts for it now is not who it belongs to.
            tool.at(10, OTHER);
            tool.owned(sock, true);
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), REPORTED);
            assert_eq!(events(&mut tool), [known]);
        }
    }

    /// Only of the wanted process.
    fn wanted_process(lab) in [Filtered] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let spec = lab.spec();
        let sock = connection(&mut tool, &spec, ESTABLISHED);
        let skb = packet(&mut tool);
        for (task, owned, fate) in [(OTHER, true, FILTERED), (OWNER, false, FILTERED), (OWNER, true, REPORTED)] {
            tool.at(10, task);
            tool.owned(sock, owned);
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), fate);
        }
        let request = Request::new(&mut tool, &spec);
        tool.at(10, OWNER);
        assert_eq!(request.run(&mut tool), FILTERED);
        tool.call(5, OTHER, request.listener, CLOSE, LISTEN);
        tool.at(10, OWNER);
        assert_eq!(request.run(&mut tool), FILTERED);
    }

    /// A probe is one where its timer is due and no recovery has begun.
    fn loss_probes(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let sock = connection(&mut tool, &Spec::V4, ESTABLISHED);
        let skb = packet(&mut tool);
        tool.at(10, STRANGER);
        for (pending, ca_state, probe) in [
            (LOSS_PROBE, OPEN, true),
            (LOSS_PROBE, 1, true),
            (LOSS_PROBE, CWR, true),
            (LOSS_PROBE, RECOVERY, false),
            (LOSS_PROBE, LOSS, false),
            (RETRANS, OPEN, false),
            (0, OPEN, false),
            (4, OPEN, false),
            (6, CWR, false),
        ] {
            timer(&mut tool, sock, pending, ca_state);
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), REPORTED);
            let kind = if probe && lab.set == Set::Wide { b'L' } else { b'R' };
            assert_eq!(events(&mut tool), [event(&Spec::V4, NOBODY, ESTABLISHED, kind)], "{pending} {ca_state}");
        }
    }

    /// What could not be sent is told only where it is asked for, and with its error.
    fn failures(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let sock = connection(&mut tool, &Spec::V4, ESTABLISHED);
        let skb = packet(&mut tool);
        tool.at(10, STRANGER);
        for err in [-1, 1, -16, i32::MIN] {
            let (fate, expected) = match (lab.tells_failures(), lab.set) {
                (true, Set::Narrow) => (FILTERED, None),
                (true, _) => (REPORTED, Some(err.cast_unsigned())),
                (false, _) => (REPORTED, Some(0)),
            };
            assert_eq!(lab.retransmit(&mut tool, sock, skb, err), fate);
            let expected: Vec<_> = expected
                .map(|status| Event { status, ..event(&Spec::V4, NOBODY, ESTABLISHED, b'R') })
                .into_iter()
                .collect();
            assert_eq!(events(&mut tool), expected);
        }
    }

    /// What is not TCP does not belong to the tool.
    fn other_protocols(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        for (family, protocol) in OTHERS {
            let sock = connection(&mut tool, &Spec { family, protocol, ..Spec::V4 }, ESTABLISHED);
            let skb = packet(&mut tool);
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), NOTHING);
        }
    }

    /// What finds no room in the ring is counted.
    fn full_ring(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let sock = connection(&mut tool, &lab.spec(), ESTABLISHED);
        let (skb, request) = (packet(&mut tool), Request::new(&mut tool, &lab.spec()));
        if lab.retrans().owners {
            tool.call(5, OWNER, request.listener, CLOSE, LISTEN);
        }
        tool.at(10, OWNER);
        tool.owned(sock, true);
        tool.machine().ring_full = true;
        assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), LOST_RING);
        assert_eq!(request.run(&mut tool), LOST_RING);
    }

    /// A SYN-ACK is told with the ends of the request and never by who runs, even where somebody has locked the listener.
    fn syn_acks(lab) in [Narrow, Wide, Filtered, Six] {
        for spec in lab.specs() {
            let mut tool = lab.tcpretrans(&lab.retrans());
            let request = Request::new(&mut tool, &spec);
            let expected = Event { segments: 1, ..event(&spec, NOBODY, State::NEW_SYN_RECV, b'S') };
            if lab.set != Set::Filtered {
                tool.at(10, STRANGER);
                tool.owned(request.listener, true);
                assert_eq!(request.run(&mut tool), REPORTED);
                assert_eq!(events(&mut tool), [expected]);
                tool.owned(request.listener, false);
            }
            if lab.retrans().owners {
                tool.call(5, OWNER, request.listener, CLOSE, LISTEN);
                tool.at(10, STRANGER);
                assert_eq!(request.run(&mut tool), REPORTED);
                let expected = Event { pid: OWNER.tgid, comm: OWNER.comm, tracked: 1, ..expected };
                assert_eq!(events(&mut tool), [expected]);
            }
        }
    }

    /// Where a request is not the kernel's own TCP, only typed access does not know its sequence number.
    fn requests_of_others(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let request = Request::new(&mut tool, &Spec::V4);
        tool.set(request.number, "sock_common.skc_prot", TCP_PROT + 8);
        tool.at(10, STRANGER);
        assert_eq!(request.run(&mut tool), REPORTED);
        let known = u8::from(lab.access == Access::Probed);
        let plain = event(&Spec::V4, NOBODY, State::NEW_SYN_RECV, b'S');
        let expected = Event { segments: 1, first: u32::from(known) * SEQ, has_first: known, ..plain };
        assert_eq!(events(&mut tool), [expected]);
    }

    /// A filter asks for the ends of the request, not for the listener's.
    fn filtered_syn_acks(lab) in [Narrow] {
        let v4 = Filter { family: Some(Family::V4), ..Filter::default() };
        let v6 = Filter { family: Some(Family::V6), ..Filter::default() };
        let local = Filter { local_ports: vec![Spec::V4.lport], ..Filter::default() };
        let remote = Filter { remote_ports: vec![Spec::V4.rport], ..Filter::default() };
        let other_port = Filter { local_ports: vec![0x2222], ..Filter::default() };
        let netns = |netns| Filter { netns: Some(netns), ..Filter::default() };
        let addr = |text: &str| Filter {
            subnets: vec![text.parse().expect("a subnet")],
            ..Filter::default()
        };
        for (filter, wanted) in [
            (v4, [true, false, true]),
            (v6, [false, true, false]),
            (local, [true, true, true]),
            (remote, [true, true, true]),
            (other_port, [false, false, false]),
            (netns(Spec::V4.netns), [true, true, true]),
            (netns(0x1111), [false, false, false]),
            (addr("198.51.100.0/24"), [true, false, true]),
            (addr("2001:db8::/32"), [false, true, false]),
        ] {
            for (spec, wanted) in [Spec::V4, Spec::V6, Spec::MAPPED].into_iter().zip(wanted) {
                let options = Options { filter: filter.clone(), ..lab.retrans() };
                let mut tool = lab.tcpretrans(&options);
                let request = Request::new(&mut tool, &spec);
                assert_eq!(request.run(&mut tool), if wanted { REPORTED } else { FILTERED }, "{filter:?} {spec:?}");
            }
        }
    }

    /// The cgroup of a SYN-ACK is the listener's.
    fn cgroup_of_syn_acks(lab) in [Narrow] {
        const WANTED: u64 = 0x9192_9394_9596;
        let filter = Filter { cgroup: Some(WANTED), ..Filter::default() };
        let mut tool = lab.tcpretrans(&Options { filter, ..lab.retrans() });
        let request = Request::new(&mut tool, &Spec::V4);
        let (cgroup, node) = (tool.object("cgroup"), tool.object("kernfs_node"));
        let node_address = tool.address(node);
        tool.set(cgroup, "cgroup.kn", node_address);
        tool.set(cgroup, "cgroup.self.parent", 0);
        let address = tool.address(cgroup);
        let listener = tool.machine().object(request.listener.object);
        listener.set_bytes("sock.sk_cgrp_data", &address.to_ne_bytes());
        for (id, fate) in [(WANTED, REPORTED), (WANTED + 1, FILTERED)] {
            let node = tool.machine().object(node);
            node.set_bytes("kernfs_node.id", &id.to_ne_bytes());
            assert_eq!(request.run(&mut tool), fate);
        }
    }

    /// Counts add up by flow, over all that is retransmitted, and nothing is sent.
    fn counts(lab) in [Narrow, Wide, Filtered, Six] {
        let spec = lab.spec();
        let mut tool = lab.tcpretrans(&counting(lab));
        let sock = connection(&mut tool, &spec, ESTABLISHED);
        let skb = packet(&mut tool);
        let segments = u64::from(SEGMENTS);
        tool.at(10, OWNER);
        tool.owned(sock, true);
        for times in 1..4 {
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), AGGREGATED);
            assert_eq!(tally(&mut tool, &spec), Some(Tally { retransmits: times, segments: times * segments }));
        }
        let request = Request::new(&mut tool, &spec);
        if lab.retrans().owners {
            tool.call(5, OWNER, request.listener, CLOSE, LISTEN);
        }
        assert_eq!(request.run(&mut tool), AGGREGATED);
        let expected = Tally { retransmits: 4, segments: 3 * segments + 1 };
        assert_eq!((tally(&mut tool, &spec), tool.machine().len(FLOWS)), (Some(expected), 1));
    }

    /// Flows are told apart by everything that is in their key; past the room for them events are lost, and are counted as that.
    fn full_counts(lab) in [Narrow, Wide] {
        let base = Spec::V4;
        for other in [
            Spec { lport: 9, ..base.clone() },
            Spec { rport: 9, ..base.clone() },
            Spec { netns: 9, ..base.clone() },
            Spec { laddr: [9, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], ..base.clone() },
            Spec { raddr: [9, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], ..base.clone() },
            Spec::V6,
        ] {
            let mut tool = lab.tcpretrans(&counting(lab));
            let skb = packet(&mut tool);
            let third = Spec { lport: 77, ..base.clone() };
            let one = Tally { retransmits: 1, segments: SEGMENTS.into() };
            for (spec, fate) in
                [(&base, AGGREGATED), (&other, AGGREGATED), (&third, Stats { untracked: 0, ..fate::LOST_MAP })]
            {
                let sock = connection(&mut tool, spec, ESTABLISHED);
                assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), fate);
            }
            assert_eq!([&base, &other, &third].map(|spec| tally(&mut tool, spec)), [Some(one), Some(one), None]);
            assert_eq!(tool.sent(), []);
        }
    }

    /// A failure is no retransmission.
    fn failures_do_not_count(lab) in [Narrow] {
        let mut tool = lab.tcpretrans(&counting(lab));
        let sock = connection(&mut tool, &Spec::V4, ESTABLISHED);
        let skb = packet(&mut tool);
        let (fate, flows) = if lab.tells_failures() { (FILTERED, 0) } else { (AGGREGATED, 1) };
        assert_eq!(lab.retransmit(&mut tool, sock, skb, -1), fate);
        assert_eq!(tool.machine().len(FLOWS), flows);
    }
}
