//! tcpdrop: the event of each dropped packet.

mod headers;
mod packet;

use packet::{LOCATION, Packet, v4, v6};

use bpfasm::{Access, Object, Ring};
use btf::Want;
use programs::filter::Filter;
use programs::kernel_stack::MAX_FRAMES;
use programs::owner::{Owner, Rank};
use programs::stats::Stats;
use programs::tcpdrop::{self, Event, Options, Reason};

use crate::lab::fate::{self, FILTERED, LOST_RING, NOTHING, REPORTED};
use crate::lab::state::*;
use crate::lab::{Lab, RING_BYTES, Set, cases};
use crate::spec::{OTHER, OWNER, STRANGER, Spec};
use crate::specimens::{CURRENT_TASK, Lacking, Specimen, Tracepoint};
use crate::tool::Tool;
use crate::vm::kernel::Kernel;
use crate::{golden, owner, spec};

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcpdrop",
    object: |lab, filter, target| {
        let owners = lab.drops().owners || filter.pid.is_some();
        let options = Options { filter: filter.clone(), owners, ..lab.drops() };
        tcpdrop::object(&options, target).expect("links")
    },
    every: |filter, target, ring_bytes| {
        let reasons = if target.version.major < 6 { vec![] } else { reasons() };
        let mut objects = Vec::new();
        for (purged, stack) in [(false, false), (false, true), (true, false), (true, true)] {
            for (reasons, owners) in [(vec![], true), (reasons.clone(), filter.pid.is_some())] {
                let filter = filter.clone();
                let options =
                    Options { filter, reasons, purged, stack, owners, max_sockets: 1 << 20, ring_bytes };
                objects.push(tcpdrop::object(&options, target).expect("links"));
            }
        }
        objects
    },
    golden,
    cases: &[CASES, headers::CASES],
    reports: Some(reports),
    events: &[],
    entry: Some(Owner::LAYOUT),
    fields: &[
        "bpf_iter__task_file.file",
        "bpf_iter__task_file.task",
        "dst_entry.dev",
        "file.f_inode",
        "file.private_data",
        "inode.i_mode",
        "net.loopback_dev",
        "net.ns.inum",
        "net_device.nd_net.net",
        "sk_buff._skb_refdst",
        "sk_buff.data",
        "sk_buff.dev",
        "sk_buff.head",
        "sk_buff.network_header",
        "sk_buff.protocol",
        "sk_buff.sk",
        "sk_buff.tail",
        "sock.sk_lock.owned",
        "sock.sk_protocol",
        "sock.sk_type",
        "sock_common.skc_dport",
        "sock_common.skc_family",
        "sock_common.skc_net.net",
        "sock_common.skc_state",
        "sock_common.skc_v6_rcv_saddr",
        "socket.sk",
        "task_struct.comm",
        "task_struct.tgid",
    ],
    registers: &["ax", "di"],
    optional: &[
        CURRENT_TASK,
        Lacking { name: PURGE, kernels: &["5.10-x86_64", "5.10-aarch64", "6.1-x86_64"] },
    ],
    tracepoints: &[
        Tracepoint { name: "inet_sock_set_state", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "kfree_skb", first: Some("sk_buff"), lacking: &[] },
        Tracepoint { name: "sock_recv_length", first: Some("sock"), lacking: BEFORE_6_3 },
        Tracepoint { name: "sock_send_length", first: Some("sock"), lacking: BEFORE_6_3 },
        Tracepoint { name: "tcp_destroy_sock", first: Some("sock"), lacking: &[] },
    ],
    attach_kinds: owner::attach_kinds,
    wanted: &[(Want::Enum, "skb_drop_reason"), (Want::Tracepoint, "kfree_skb")],
    mutate: false,
};

const BEFORE_6_3: &[&str] = &["5.10-x86_64", "5.10-aarch64", "6.1-x86_64"];

const PURGE: &str = "skb_drop_reason.SKB_DROP_REASON_QUEUE_PURGE";

/// Two reasons that every kernel has which has any.
fn reasons() -> Vec<Reason> {
    ["SKB_DROP_REASON_NO_SOCKET", "SKB_DROP_REASON_TCP_CSUM"]
        .map(|name| Reason { enumeration: "skb_drop_reason".into(), enumerator: name.into() })
        .into()
}

fn golden() -> Vec<(&'static str, Object)> {
    let typed = golden::target(Access::Typed, Ring::RingBuf);
    let probed = golden::target(Access::Probed, Ring::RingBuf);
    let perf = golden::target(Access::Probed, Ring::PerfEventArray);
    let plain = Options {
        filter: Filter::default(),
        reasons: vec![],
        purged: false,
        stack: true,
        owners: false,
        max_sockets: 16384,
        ring_bytes: 1 << 22,
    };
    let full = Options { filter: golden::filter(), reasons: reasons(), owners: true, ..plain.clone() };
    let object = |options: &Options, target| tcpdrop::object(options, target).expect("links");
    vec![
        ("tcpdrop-typed-ringbuf", object(&plain, &typed)),
        ("tcpdrop-probed-ringbuf", object(&plain, &probed)),
        ("tcpdrop-probed-perf", object(&plain, &perf)),
        ("tcpdrop-no-stack-typed-ringbuf", object(&Options { stack: false, ..plain.clone() }, &typed)),
        ("tcpdrop-purged-probed-ringbuf", object(&Options { purged: true, ..plain.clone() }, &probed)),
        ("tcpdrop-filtered-typed-ringbuf", object(&full, &typed)),
        ("tcpdrop-filtered-probed-perf", object(&full, &perf)),
    ]
}

/// Whether it reports a segment that a socket like this one of [`OWNER`] receives.
pub fn reports(tool: &mut Tool<'_>, spec: &Spec) -> bool {
    let sock = tool.sock(spec);
    if tool.has("inet_sock_set_state") {
        assert_eq!(tool.call(1, OWNER, sock, CLOSE, SYN_SENT), NOTHING);
    }
    let packet = Packet::received(spec);
    let reason = reason(tool, NO_SOCKET);
    let fate = drop(tool, &packet, Socket::Receiving(sock.address), reason);
    if tool.has("tcp_destroy_sock") {
        tool.destroy(sock);
    }
    fate::is_reported(fate)
}

impl Lab {
    /// tcpdrop's options of this set.
    pub fn drops(&self) -> Options {
        let named = self.set == Set::Six && self.kernel.version.major >= 6;
        Options {
            filter: self.filter(),
            reasons: if named { reasons() } else { vec![] },
            purged: self.set == Set::Wide,
            stack: matches!(self.set, Set::Wide | Set::Filtered),
            owners: matches!(self.set, Set::Wide | Set::Filtered),
            max_sockets: 2,
            ring_bytes: RING_BYTES,
        }
    }

    /// tcpdrop at work.
    pub fn tcpdrop(&self, options: &Options) -> Tool<'_> {
        self.tool(&format!("tcpdrop {options:?}"), |target| tcpdrop::object(options, target).expect("links"))
    }
}

const NO_SOCKET: &str = "SKB_DROP_REASON_NO_SOCKET";

/// A reason's number, 0 on kernels without reasons.
fn reason(tool: &mut Tool<'_>, name: &str) -> u32 {
    let kernel = tool.machine().kernel;
    if kernel.version.major < 6 { 0 } else { kernel.enum_value("skb_drop_reason", name) }
}

/// How many arguments the tracepoint has.
fn arguments(kernel: &Kernel) -> usize {
    match kernel.index.tracepoint("kfree_skb") {
        Ok(btf::Lookup::Found(tracepoint)) => tracepoint.args.len(),
        other => panic!("kfree_skb on {kernel:?}: {other:?}"),
    }
}

/// The socket of a packet.
#[derive(Clone, Copy, Debug)]
enum Socket {
    None,
    /// It was about to receive the packet.
    Receiving(u64),
    /// The packet is its own.
    Owning(u64),
}

/// Puts a packet into the machine; returns the number of its `struct sk_buff`.
fn skb(tool: &mut Tool<'_>, packet: &Packet, socket: Socket) -> usize {
    let mut memory = vec![0x5a; packet.headroom];
    memory.extend(&packet.bytes);
    let head = tool.bytes(&memory);
    let skb = tool.object("sk_buff");
    let tail = memory.len() - packet.missing;
    tool.set(skb, "sk_buff.protocol", packet.protocol.to_be().into());
    tool.set(skb, "sk_buff.head", head);
    tool.set(skb, "sk_buff.data", head + packet.headroom as u64);
    tool.set(skb, "sk_buff.tail", tail as u64);
    let network = if packet.network_header { packet.headroom } else { 0 };
    tool.set(skb, "sk_buff.network_header", network as u64);
    tool.set(skb, "sk_buff.dev", 0);
    tool.set(skb, "sk_buff._skb_refdst", 0);
    // Before 6.11 the tracepoint does not pass the receiving socket.
    let is_passed = arguments(tool.machine().kernel) >= 4;
    let sk = match socket {
        Socket::Owning(sk) => sk,
        Socket::Receiving(sk) if !is_passed => sk,
        _ => 0,
    };
    tool.set(skb, "sk_buff.sk", sk);
    skb
}

/// The kernel drops what is in a `struct sk_buff`, at time 100, while [`STRANGER`] runs.
fn free(tool: &mut Tool<'_>, skb: usize, receiving: u64, reason: u32) -> Stats {
    let (kernel, skb) = (tool.machine().kernel, tool.address(skb));
    let all = [skb, LOCATION, reason.into(), receiving];
    tool.at(100, STRANGER);
    tool.run("kfree_skb", &all[..arguments(kernel)])
}

/// The kernel drops a packet.
fn drop(tool: &mut Tool<'_>, packet: &Packet, socket: Socket, reason: u32) -> Stats {
    let skb = skb(tool, packet, socket);
    let receiving = if let Socket::Receiving(sk) = socket { sk } else { 0 };
    free(tool, skb, receiving, reason)
}

/// The events that were sent, and the stacks behind them.
fn events(tool: &mut Tool<'_>) -> Vec<(Event, Vec<u64>)> {
    let sent = tool.sent();
    sent.iter()
        .map(|sent| {
            let stack: Vec<_> = Event::stack(&sent.bytes).collect();
            assert_eq!(sent.bytes.len(), usize::from(Event::SIZE) + 8 * stack.len());
            (Event::decode(&sent.bytes).expect("an event"), stack)
        })
        .collect()
}

/// The options of this set, but everything is wanted.
fn unfiltered(lab: &Lab) -> Options {
    Options { filter: Filter::default(), reasons: vec![], ..lab.drops() }
}

/// Drops a packet without a socket, which must be reported as `expected`.
#[track_caller]
fn reported(tool: &mut Tool<'_>, packet: &Packet, expected: Event) {
    assert_eq!(drop(tool, packet, Socket::None, 0), REPORTED, "{packet:?}");
    assert_eq!(events(tool), [(expected, vec![])], "{packet:?}");
}

/// Drops a packet without a socket, which must be ignored.
#[track_caller]
fn ignored(tool: &mut Tool<'_>, packet: &Packet) {
    assert_eq!(drop(tool, packet, Socket::None, 0), NOTHING, "{packet:?}");
    assert_eq!(events(tool), [], "{packet:?}");
}

cases! {
    /// A segment that a socket receives or sends, of every kind of address: the packet's own tuple,
    /// the socket's state.
    fn sockets(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpdrop(&lab.drops());
        for spec in lab.specs() {
            for (state, sent) in [(ESTABLISHED, false), (LISTEN, false), (FIN_WAIT2, true), (SYN_SENT, true)] {
                let sock = tool.sock(&spec);
                if tool.has("inet_sock_set_state") {
                    assert_eq!(tool.call(1, OWNER, sock, CLOSE, SYN_SENT), NOTHING);
                }
                tool.set_sock(sock, "sock_common.skc_state", state.0.into());
                let (packet, socket) = if sent {
                    (Packet::sent(&spec), Socket::Owning(sock.address))
                } else {
                    (Packet::received(&spec), Socket::Receiving(sock.address))
                };
                let reason = reason(&mut tool, NO_SOCKET);
                assert_eq!(drop(&mut tool, &packet, socket, reason), REPORTED, "{spec:?} {state:?} {sent}");
                let (pid, comm) = if lab.drops().owners { (OWNER.tgid, OWNER.comm) } else { (0, [0; 16]) };
                let sent = u16::from(sent);
                let expected = Event { reason, state: state.0, netns: spec.netns, pid, comm, sent, ..packet.event };
                assert_eq!(events(&mut tool), [(expected, vec![])]);
                if tool.has("tcp_destroy_sock") {
                    tool.destroy(sock);
                }
            }
        }
    }

    /// The current task does not matter, even if the socket is locked; the owner from the table is
    /// reported.
    fn owners(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&lab.drops());
        let sock = tool.sock(&Spec::V4);
        tool.owned(sock, true);
        let reported = |tool: &mut Tool<'_>| {
            assert_eq!(drop(tool, &v4(), Socket::Receiving(sock.address), 0), REPORTED);
            events(tool).remove(0).0.pid
        };
        assert_eq!(reported(&mut tool), 0);
        if tool.has("inet_sock_set_state") {
            assert_eq!(tool.call(1, OTHER, sock, CLOSE, LISTEN), NOTHING);
            let entry = tool.entry(sock).expect("it was born");
            assert_eq!(entry[4..8], (Rank::Used as u32).to_ne_bytes());
            assert_eq!(reported(&mut tool), OTHER.tgid);
        }
    }

    /// Which is this end's port follows from the socket; without one a packet is taken as received.
    fn local_ports(lab) in [Narrow] {
        let Spec { lport, rport, .. } = Spec::V4;
        let options = |local: &[u16], remote: &[u16]| Options {
            filter: Filter { local_ports: local.to_vec(), remote_ports: remote.to_vec(), ..Filter::default() },
            ..lab.drops()
        };
        for (options, right) in [
            (options(&[lport], &[]), true),
            (options(&[], &[rport]), true),
            (options(&[lport], &[rport]), true),
            (options(&[rport], &[]), false),
            (options(&[], &[lport]), false),
            (options(&[rport], &[lport]), false),
        ] {
            let mut tool = lab.tcpdrop(&options);
            let sock = tool.sock(&Spec::V4).address;
            let (here, there) = if right { (REPORTED, FILTERED) } else { (FILTERED, REPORTED) };
            let (received, sent) = (v4(), Packet::sent(&Spec::V4));
            for socket in [Socket::Receiving(sock), Socket::Owning(sock), Socket::None] {
                assert_eq!(drop(&mut tool, &received, socket, 0), here, "{options:?} {socket:?}");
            }
            assert_eq!(drop(&mut tool, &sent, Socket::Owning(sock), 0), here, "{options:?}");
            assert_eq!(drop(&mut tool, &sent, Socket::None, 0), there, "{options:?}");
            // Both endpoints have the same port.
            let same = tool.sock(&Spec { lport: rport, ..Spec::V4 }).address;
            let packet = Packet::received(&Spec { lport: rport, ..Spec::V4 });
            let wanted = if options.filter.local_ports.contains(&lport) || options.filter.remote_ports.contains(&lport) { FILTERED } else { REPORTED };
            assert_eq!(drop(&mut tool, &packet, Socket::Receiving(same), 0), wanted, "{options:?}");
            // No port is known.
            let fragment = v4().with(6, &[0, 1]);
            assert_eq!(drop(&mut tool, &fragment, Socket::None, 0), FILTERED, "{options:?}");
        }
    }

    /// What is left of a connection (time-wait) or not one yet (a request) has a state and nothing
    /// else.
    fn minisocks(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for state in [6, 12] {
            let sock = tool.sock(&Spec { protocol: 17, kind: 3, ..Spec::V4 });
            tool.set_sock(sock, "sock_common.skc_state", state);
            assert_eq!(drop(&mut tool, &v4(), Socket::Receiving(sock.address), 0), REPORTED);
            let state = u8::try_from(state).expect("a state");
            assert_eq!(events(&mut tool), [(Event { state, netns: Spec::V4.netns, ..v4().event }, vec![])]);
        }
    }

    /// A socket that is not TCP gives no state, and one that is not IPv4 or IPv6 gives nothing.
    fn other_sockets(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        let strange = [(1, 6), (16, 6), (0x102, 6)];
        for (family, protocol) in spec::OTHERS {
            let sock = tool.sock(&Spec { family, protocol, ..Spec::V4 });
            assert_eq!(drop(&mut tool, &v4(), Socket::Receiving(sock.address), 0), REPORTED);
            let netns = if strange.contains(&(family, protocol)) { 0 } else { Spec::V4.netns };
            assert_eq!(events(&mut tool), [(Event { netns, ..v4().event }, vec![])], "{family}, {protocol}");
        }
        let raw = tool.sock(&Spec { kind: 3, ..Spec::V4 });
        assert_eq!(drop(&mut tool, &v4(), Socket::Owning(raw.address), 0), REPORTED);
        assert_eq!(events(&mut tool), [(Event { netns: Spec::V4.netns, ..v4().event }, vec![])]);
        // Not even memory.
        assert_eq!(drop(&mut tool, &v4(), Socket::Owning(0x1234), 0), REPORTED);
        assert_eq!(events(&mut tool), [(v4().event, vec![])]);
    }

    /// Without a socket the network namespace comes from the device, or else from the route; what
    /// only looks like a device gives none.
    fn netns(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        let device = |tool: &mut Tool<'_>, inum: u64, honest: bool| {
            let [net, lo, device] = ["net", "net_device", "net_device"].map(|root| tool.object(root));
            let [net_at, lo_at] = [net, lo].map(|object| tool.address(object));
            tool.set(net, "net.ns.inum", inum);
            tool.set(net, "net.loopback_dev", lo_at);
            tool.set(lo, "net_device.nd_net.net", if honest { net_at } else { net_at + 8 });
            tool.set(device, "net_device.nd_net.net", net_at);
            tool.address(device)
        };
        let of_device = device(&mut tool, 0xf000_0001, true);
        let of_route = device(&mut tool, 0xf000_0002, true);
        let false_one = device(&mut tool, 0xf000_0003, false);
        let homeless = tool.object("net_device");
        tool.set(homeless, "net_device.nd_net.net", 0);
        let homeless = tool.address(homeless);
        let (net, lost) = (tool.object("net"), tool.object("net_device"));
        tool.set(net, "net.loopback_dev", 0);
        let net = tool.address(net);
        tool.set(lost, "net_device.nd_net.net", net);
        let lost = tool.address(lost);
        let route = tool.object("dst_entry");
        for (dev, via, expected) in [
            (of_device, of_route, 0xf000_0001),
            (of_device, 0, 0xf000_0001),
            (0, of_route, 0xf000_0002),
            (false_one, of_route, 0xf000_0002),
            (homeless, of_route, 0xf000_0002),
            (lost, of_route, 0xf000_0002),
            (0x4141, of_route, 0xf000_0002),
            (0, false_one, 0),
            (0, homeless, 0),
            (0, lost, 0),
            (0, 0, 0),
        ] {
            let skb = skb(&mut tool, &v4(), Socket::None);
            tool.set(skb, "sk_buff.dev", dev);
            tool.set(route, "dst_entry.dev", via);
            for counted in [0, 1] {
                let at = tool.address(route) | counted;
                tool.set(skb, "sk_buff._skb_refdst", at);
                assert_eq!(free(&mut tool, skb, 0, 0), REPORTED);
                assert_eq!(events(&mut tool), [(Event { netns: expected, ..v4().event }, vec![])], "{dev:#x} {via:#x}");
            }
            if via == 0 {
                tool.set(skb, "sk_buff._skb_refdst", 1);
                assert_eq!(free(&mut tool, skb, 0, 0), REPORTED);
                assert_eq!(events(&mut tool), [(Event { netns: expected, ..v4().event }, vec![])]);
            }
        }
    }

    /// A filter excludes unknown values: without a socket, there is neither a namespace nor a
    /// cgroup.
    fn unknown_is_unwanted(lab) in [Narrow] {
        for filter in [
            Filter { netns: Some(Spec::V4.netns), ..Filter::default() },
            Filter { cgroup: Some(77), ..Filter::default() },
        ] {
            let options = Options { filter: filter.clone(), ..lab.drops() };
            let mut tool = lab.tcpdrop(&options);
            assert_eq!(drop(&mut tool, &v4(), Socket::None, 0), FILTERED, "{filter:?}");
            let sock = tool.sock(&Spec::V4);
            let fate = drop(&mut tool, &v4(), Socket::Receiving(sock.address), 0);
            assert_eq!(fate, if filter.netns.is_some() { REPORTED } else { FILTERED });
        }
    }

    /// The reasons asked for and no others; what was purged only if asked for.
    fn reasons_asked_for(lab) in [Narrow, Wide] {
        let names = ["NO_SOCKET", "TCP_CSUM", "NETFILTER_DROP"].map(|name| format!("SKB_DROP_REASON_{name}"));
        let purge = lab.kernel.index.exists(PURGE).expect("asked for");
        for asked in [vec![], reasons()] {
            if lab.kernel.version.major < 6 && !asked.is_empty() {
                continue;
            }
            let mut tool = lab.tcpdrop(&Options { reasons: asked.clone(), ..unfiltered(lab) });
            for name in &names {
                let number = reason(&mut tool, name);
                let wanted = asked.is_empty() || asked.iter().any(|reason| reason.enumerator == *name);
                let fate = drop(&mut tool, &v4(), Socket::None, number);
                assert_eq!(fate, if wanted { REPORTED } else { FILTERED }, "{name}");
                let sent: Vec<_> = events(&mut tool).iter().map(|(event, _)| event.reason).collect();
                assert_eq!(sent, if wanted { vec![number] } else { vec![] });
            }
            if purge {
                let number = reason(&mut tool, "SKB_DROP_REASON_QUEUE_PURGE");
                let hidden = Stats { hidden: 1, ..FILTERED };
                let expected = match (lab.drops().purged, asked.is_empty()) {
                    (_, false) => FILTERED,
                    (false, true) => hidden,
                    (true, true) => REPORTED,
                };
                assert_eq!(drop(&mut tool, &v4(), Socket::None, number), expected);
                // What a filter rejects is not said to be hidden.
                for (port, fate) in [(Spec::V4.lport, expected), (1, FILTERED)] {
                    let filter = Filter { local_ports: vec![port], ..Filter::default() };
                    let options = Options { filter, reasons: asked.clone(), ..lab.drops() };
                    let mut tool = lab.tcpdrop(&options);
                    assert_eq!(drop(&mut tool, &v4(), Socket::None, number), fate);
                }
            }
        }
    }

    /// The stack goes behind the event, as far as it was taken and fits.
    fn stacks(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for count in [None, Some(0), Some(1), Some(2), Some(20), Some(126), Some(127), Some(128), Some(300)] {
            let trace = count.map(|count| (0..count).map(|at| 0xffff_ffff_8000_0000 + at).collect::<Vec<u64>>());
            tool.machine().stack_trace = trace.clone();
            assert_eq!(drop(&mut tool, &v4(), Socket::None, 0), REPORTED);
            let mut expected = trace.filter(|_| lab.drops().stack).unwrap_or_default();
            expected.truncate(MAX_FRAMES.into());
            assert_eq!(events(&mut tool), [(v4().event, expected)], "{count:?}");
        }
    }

    /// An event that interrupts another one leaves alone what that one is putting together, and
    /// goes without a stack.
    fn interrupting(lab) in [Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        tool.machine().stack_trace = Some(vec![7, 8]);
        assert_eq!(drop(&mut tool, &v4(), Socket::None, 0), REPORTED);
        let mut value = tool.machine().value("scratch", &[0; 4]).expect("always there");
        assert_eq!(value[..8], [0; 8], "not in use any more");
        value[0] = 1;
        tool.machine().insert("scratch", &[0; 4], &value);
        assert_eq!(drop(&mut tool, &v6(&[]), Socket::None, 0), REPORTED);
        assert_eq!(events(&mut tool), [(v4().event, vec![7, 8]), (v6(&[]).event, vec![])]);
        assert_eq!(tool.machine().value("scratch", &[0; 4]), Some(value));
    }

    /// A ring that is full is said, and the next event has its stack again.
    fn ring_full(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        tool.machine().stack_trace = Some(vec![1]);
        tool.machine().ring_full = true;
        assert_eq!(drop(&mut tool, &v4(), Socket::None, 0), LOST_RING);
        tool.machine().ring_full = false;
        assert_eq!(drop(&mut tool, &v4(), Socket::None, 0), REPORTED);
        let stack = if lab.drops().stack { vec![1] } else { vec![] };
        assert_eq!(events(&mut tool), [(v4().event, stack)]);
    }

    /// An event wakes the reader only as the ring passes a quarter; with a stack it may be as long
    /// as the longest.
    fn waking(lab) in [Narrow, Wide] {
        let most = u64::from(Event::SIZE) + if lab.drops().stack { 1023 } else { 0 };
        // Each of the long ones looks; of the short ones, one of four.
        let records = if lab.drops().stack { 4 } else { 4 * 16 };
        let (quarter, window) = (u64::from(RING_BYTES) / 4, records * (most.next_multiple_of(8) + 8));
        for (before, used, wakes) in [
            (0, 0, false),
            (0, quarter - 1, false),
            (0, quarter, true),
            (0, quarter + window - 1, true),
            (0, quarter + window, false),
            (1, quarter, lab.drops().stack),
            (4, quarter, true),
        ] {
            let mut tool = lab.tcpdrop(&unfiltered(lab));
            tool.reported_before(before);
            tool.machine().ring_used = used;
            assert_eq!(drop(&mut tool, &v4(), Socket::None, 0), REPORTED);
            let flags: Vec<_> = tool.sent().iter().map(|sent| sent.flags).collect();
            let expected = match (lab.ring, wakes) {
                (Ring::RingBuf, true) => 2,
                (Ring::RingBuf, false) => 1,
                (Ring::PerfEventArray, _) => 0xffff_ffff,
            };
            assert_eq!(flags, [expected], "{used}");
        }
    }

    /// Memory that cannot be read is not taken for a packet.
    fn unreadable(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        tool.machine().unreadable = true;
        ignored(&mut tool, &v4());
        ignored(&mut tool, &v6(&[]));
    }
}
