//! tcpretrans: the event of each retransmission, and the counts.

use bpfasm::{Access, Object, Ring};
use programs::filter::{Family, Filter};
use programs::owner::{Owner, Rank};
use programs::stats::Stats;
use programs::tcp::State;
use programs::tcpretrans::{self, Event, FLOWS, Flow, Options, Tally};

use crate::golden;
use crate::lab::fate::{self, AGGREGATED, FILTERED, LOST_RING, NOTHING, REPORTED};
use crate::lab::state::*;
use crate::lab::{Lab, RING_BYTES, Set, cases, ns};
use crate::owner::{self, BEFORE_6_3};
use crate::spec::{NO_PROCESS, OTHER, OTHERS, OWNER, STRANGER, Spec};
use crate::specimens::{CURRENT_TASK, Specimen, Tracepoint};
use crate::tool::{Sock, Tool};
use crate::vm::machine::{TCP_PROT, Task};

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcpretrans",
    object: |lab, filter, target| {
        let plain = lab.retrans();
        let owners = plain.owners || filter.pid.is_some();
        let options = Options { filter: filter.clone(), owners, ..plain };
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
    cases: &[CASES],
    reports: Some(reports),
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
    registers: &["ax", "di"],
    optional: &[CURRENT_TASK],
    tracepoints: &[
        Tracepoint { name: "inet_sock_set_state", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "sock_recv_length", first: Some("sock"), lacking: BEFORE_6_3 },
        Tracepoint { name: "sock_send_length", first: Some("sock"), lacking: BEFORE_6_3 },
        Tracepoint { name: "tcp_destroy_sock", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "tcp_retransmit_skb", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "tcp_retransmit_synack", first: Some("sock"), lacking: &[] },
    ],
    attach_kinds: owner::attach_kinds,
    wanted: &[],
    mutate: true,
};

/// The same for the program on SYN-ACKs: one of a request to a listener of `OWNER`.
pub const SYN_ACKS: Specimen = Specimen {
    golden: Vec::new,
    cases: &[],
    reports: Some(|tool, spec| {
        let request = Request::new(tool, spec);
        request.listens(tool, OWNER);
        let fate = request.run(tool);
        if tool.has("tcp_destroy_sock") {
            tool.destroy(request.listener);
        }
        fate::is_reported(fate)
    }),
    ..SPECIMEN
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

/// Whether it reports a retransmission of a socket like this one by `OWNER`.
fn reports(tool: &mut Tool<'_>, spec: &Spec) -> bool {
    let sock = tool.sock(spec);
    let skb = packet(tool);
    tool.at(10, OWNER);
    tool.owned(sock, true);
    fate::is_reported(tool.run("tcp_retransmit_skb", &[sock.address, skb, 0]))
}

impl Lab {
    /// tcpretrans' options of this set.
    pub fn retrans(&self) -> Options {
        let wide = self.set == Set::Wide;
        Options {
            filter: self.filter(),
            count: false,
            loss_probes: wide,
            failed: wide,
            owners: self.set != Set::Six,
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

    /// Whether the kernel reports what it could not send.
    fn tells_failures(&self) -> bool {
        let tracepoint = self.kernel.index.tracepoint("tcp_retransmit_skb").expect("asked for");
        let reports = tracepoint.found().expect("every kernel has it").args.len() == 3;
        assert_eq!(reports, self.kernel.name >= "6.18" && !self.kernel.name.starts_with("5"));
        reports
    }

    /// Runs the program on a retransmission, with this error if the kernel passes it.
    fn retransmit(&self, tool: &mut Tool<'_>, sock: Sock, skb: u64, err: i32) -> Stats {
        // An int in a register of 64 bits: the upper half says nothing.
        let err = 0x5a5a_5a5a_u64 << 32 | u64::from(err.cast_unsigned());
        let arguments = [sock.address, skb, err];
        tool.run("tcp_retransmit_skb", if self.tells_failures() { &arguments } else { &arguments[..2] })
    }
}

/// tcpretrans at work, knowing whose sockets are.
pub fn knowing(lab: &Lab) -> Tool<'_> {
    lab.tcpretrans(&Options { owners: true, ..lab.retrans() })
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
        let number = tool.object("tcp_request_sock");
        tool.set_endpoints(number, spec);
        let object = tool.machine().object(number);
        object.set("sock_common.skc_state", State::NEW_SYN_RECV.0.into());
        object.set("sock_common.skc_prot", TCP_PROT);
        object.set("sock_common.skc_num", spec.lport.into());
        object.set("tcp_request_sock.snt_isn", SEQ.into());
        let address = object.address();
        Self { listener, number, address }
    }

    /// Makes the listener the task's, where owners are known.
    fn listens(&self, tool: &mut Tool<'_>, task: Task) {
        if tool.has("inet_sock_set_state") {
            tool.call(5, task, self.listener, CLOSE, LISTEN);
        }
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
    /// A retransmission by a system call, on every kind of socket, has every field.
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

    /// In a soft interrupt no process is reported, unless the table has the owner.
    fn by_a_timer(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let spec = lab.spec();
        let sock = connection(&mut tool, &spec, ESTABLISHED);
        let (skb, request) = (packet(&mut tool), Request::new(&mut tool, &spec));
        let packet = |task, tracked| Event { tracked, ..event(&spec, task, ESTABLISHED, b'R') };
        let syn_ack =
            |task, tracked| Event { segments: 1, tracked, ..event(&spec, task, State::NEW_SYN_RECV, b'S') };
        let check = |tool: &mut Tool<'_>, by, owner: Task, tracked| {
            tool.at(10, by);
            let wanted = lab.filter().pid.is_none_or(|pid| pid == owner.tgid);
            let fate = if wanted { REPORTED } else { FILTERED };
            assert_eq!([lab.retransmit(tool, sock, skb, 0), request.run(tool)], [fate; 2]);
            let expected = [packet(owner, tracked), syn_ack(owner, tracked)];
            assert_eq!(events(tool), if wanted { &expected[..] } else { &[] });
        };
        check(&mut tool, STRANGER, NO_PROCESS, 0);
        if !lab.retrans().owners {
            return;
        }
        for rank in [Rank::Unknown, Rank::Closed, Rank::Preexisting, Rank::Accepted, Rank::Used] {
            // Until the rank is written, which is last, the rest is not to be looked at.
            let entry = [&OWNER.tgid.to_ne_bytes(), &(rank as u32).to_ne_bytes(), &OWNER.comm[..]].concat();
            for address in [sock.address, request.listener.address] {
                tool.machine().insert("sockets", &address.to_ne_bytes(), &entry);
            }
            check(&mut tool, STRANGER, if rank == Rank::Unknown { NO_PROCESS } else { OWNER }, 1);
        }
        // The process that acts for them now is not their owner.
        for sock in [sock, request.listener] {
            tool.owned(sock, true);
        }
        check(&mut tool, OTHER, OWNER, 1);
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
            assert_eq!(events(&mut tool), [event(&Spec::V4, NO_PROCESS, ESTABLISHED, kind)], "{pending} {ca_state}");
        }
    }

    /// A segment that could not be sent is reported only if asked for, with its error.
    fn failures(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let spec = lab.spec();
        let sock = connection(&mut tool, &spec, ESTABLISHED);
        let skb = packet(&mut tool);
        tool.at(10, OWNER);
        tool.owned(sock, true);
        for err in [-1, 1, -16, i32::MIN] {
            let (fate, expected) = match (lab.tells_failures(), lab.retrans().failed) {
                (true, false) => (FILTERED, None),
                (true, true) => (REPORTED, Some(err.cast_unsigned())),
                (false, _) => (REPORTED, Some(0)),
            };
            assert_eq!(lab.retransmit(&mut tool, sock, skb, err), fate);
            let expected: Vec<_> = expected
                .map(|status| Event { status, ..event(&spec, OWNER, ESTABLISHED, b'R') })
                .into_iter()
                .collect();
            assert_eq!(events(&mut tool), expected);
        }
    }

    /// Segments of other protocols do not belong to the tool.
    fn other_protocols(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        for (family, protocol) in OTHERS {
            let sock = connection(&mut tool, &Spec { family, protocol, ..Spec::V4 }, ESTABLISHED);
            let skb = packet(&mut tool);
            assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), NOTHING);
        }
    }

    /// Events that do not fit into the ring are counted.
    fn full_ring(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let sock = connection(&mut tool, &lab.spec(), ESTABLISHED);
        let (skb, request) = (packet(&mut tool), Request::new(&mut tool, &lab.spec()));
        request.listens(&mut tool, OWNER);
        tool.at(10, OWNER);
        tool.owned(sock, true);
        tool.machine().ring_full = true;
        assert_eq!(lab.retransmit(&mut tool, sock, skb, 0), LOST_RING);
        assert_eq!(request.run(&mut tool), LOST_RING);
    }

    /// A SYN-ACK is reported with the endpoints of the request and never with the current task,
    /// even if a process has locked the listener.
    fn syn_acks(lab) in [Narrow, Wide, Filtered, Six] {
        for spec in lab.specs() {
            let mut tool = lab.tcpretrans(&lab.retrans());
            let request = Request::new(&mut tool, &spec);
            let expected = Event { segments: 1, ..event(&spec, NO_PROCESS, State::NEW_SYN_RECV, b'S') };
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

    /// If a request is not the kernel's own TCP, its sequence number is unknown to typed access.
    fn requests_of_others(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpretrans(&lab.retrans());
        let request = Request::new(&mut tool, &lab.spec());
        tool.set(request.number, "sock_common.skc_prot", TCP_PROT + 8);
        request.listens(&mut tool, OWNER);
        tool.at(10, STRANGER);
        assert_eq!(request.run(&mut tool), REPORTED);
        let known = u8::from(lab.access == Access::Probed);
        let event = events(&mut tool).remove(0);
        assert_eq!((event.first, event.has_first, event.seq()), (u32::from(known) * SEQ, known, (known != 0).then_some(SEQ)));
    }

    /// A filter is about the endpoints of the request, not those of the listener.
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
        request.listens(&mut tool, OWNER);
        assert_eq!(request.run(&mut tool), AGGREGATED);
        let expected = Tally { retransmits: 4, segments: 3 * segments + 1 };
        assert_eq!((tally(&mut tool, &spec), tool.machine().len(FLOWS)), (Some(expected), 1));
    }

    /// Flows differ by every field of their key; if the map is full, events are counted as lost.
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

    /// A failure is not a retransmission.
    fn failures_do_not_count(lab) in [Narrow] {
        let mut tool = lab.tcpretrans(&counting(lab));
        let sock = connection(&mut tool, &Spec::V4, ESTABLISHED);
        let skb = packet(&mut tool);
        let (fate, flows) = if lab.tells_failures() { (FILTERED, 0) } else { (AGGREGATED, 1) };
        assert_eq!(lab.retransmit(&mut tool, sock, skb, -1), fate);
        assert_eq!(tool.machine().len(FLOWS), flows);
    }
}
