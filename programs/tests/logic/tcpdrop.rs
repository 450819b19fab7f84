//! tcpdrop: what is told of each dropped packet.

use bpfasm::{Access, Object, Ring};
use btf::Want;
use programs::filter::Filter;
use programs::kernel_stack::MAX_FRAMES;
use programs::owner::{Owner, Rank};
use programs::stats::Stats;
use programs::tcp::{AF_INET, AF_INET6};
use programs::tcpdrop::{self, Event, Options, Reason};

use crate::lab::fate::{self, FILTERED, LOST_RING, NOTHING, REPORTED};
use crate::lab::state::*;
use crate::lab::{Lab, RING_BYTES, Set, cases, ns};
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
    cases: CASES,
    tells: Some(tells),
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
    ways: owner::ways,
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

/// Whether it tells of a segment that a socket like this one of [`OWNER`] receives.
pub fn tells(tool: &mut Tool<'_>, spec: &Spec) -> bool {
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
    fate::told(fate)
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

/// A packet and what the kernel has noted of it.
#[derive(Clone, Debug)]
struct Packet {
    /// From the network header on.
    bytes: Vec<u8>,
    /// Bytes before it.
    headroom: usize,
    protocol: u16,
    /// `None`: not set yet.
    network_header: bool,
    /// Bytes that are not in the linear part.
    missing: usize,
    event: Event,
}

const HEADROOM: usize = 70;

impl Packet {
    /// What a socket receives from its peer.
    fn received(spec: &Spec) -> Self {
        let [local, remote] = [(spec.laddr, spec.lport), (spec.raddr, spec.rport)];
        let v4 = |bytes: [u8; 16]| {
            let mut plain = [0; 16];
            plain[..4].copy_from_slice(if spec.family == AF_INET { &bytes[..4] } else { &bytes[12..] });
            plain
        };
        let mapped = spec.raddr.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        if spec.family == AF_INET || mapped {
            Self::ipv4((v4(remote.0), remote.1), (v4(local.0), local.1), &[])
        } else {
            Self::ipv6(remote, local, &[])
        }
    }

    /// What it sends.
    fn sent(spec: &Spec) -> Self {
        Self::received(&Spec {
            laddr: spec.raddr,
            raddr: spec.laddr,
            lport: spec.rport,
            rport: spec.lport,
            ..spec.clone()
        })
    }

    fn new(bytes: Vec<u8>, protocol: u16, event: Event) -> Self {
        Self { bytes, headroom: HEADROOM, protocol, network_header: true, missing: 0, event }
    }

    fn ipv4(from: ([u8; 16], u16), to: ([u8; 16], u16), options: &[u8]) -> Self {
        let words = u8::try_from(5 + options.len() / 4).expect("15 at most");
        let mut bytes = vec![0x40 | words, 0x11, 0x22, 0x33, 0x44, 0x55, 0x40, 0, 0x77, 6, 0x88, 0x99];
        bytes.extend(&from.0[..4]);
        bytes.extend(&to.0[..4]);
        bytes.extend(options);
        bytes.extend(tcp(from.1, to.1));
        Self::new(bytes, 0x0800, event(AF_INET, from, to))
    }

    /// With extension headers: the type of each, and its bytes, of which the first is the type of the next.
    fn ipv6(from: ([u8; 16], u16), to: ([u8; 16], u16), extensions: &[(u8, Vec<u8>)]) -> Self {
        let next = |at: usize| extensions.get(at).map_or(6, |(kind, _)| *kind);
        let mut bytes = vec![0x61, 0x12, 0x23, 0x34, 0x45, 0x56, next(0), 0x78];
        bytes.extend(from.0);
        bytes.extend(to.0);
        for (at, (_, extension)) in extensions.iter().enumerate() {
            bytes.push(next(at + 1));
            bytes.extend(&extension[1..]);
        }
        bytes.extend(tcp(from.1, to.1));
        Self::new(bytes, 0x86dd, event(AF_INET6, from, to))
    }

    /// The same without a TCP header.
    fn headless(mut self) -> Self {
        (self.event.sport, self.event.dport, self.event.flags, self.event.transport) = (0, 0, 0, 0);
        self
    }

    /// The same with other bytes.
    fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
}

/// SYN, PSH, URG and CWR, which the byte's halves have in other places each.
const FLAGS: u8 = 0b1010_1010;

fn tcp(sport: u16, dport: u16) -> Vec<u8> {
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x50, FLAGS, 0x1b, 0x1c, 0x1d, 0x1e, 0, 0]);
    bytes
}

fn event(family: u16, from: ([u8; 16], u16), to: ([u8; 16], u16)) -> Event {
    Event {
        ts: ns(100),
        location: LOCATION,
        saddr: from.0,
        daddr: to.0,
        comm: [0; 16],
        pid: 0,
        netns: 0,
        reason: 0,
        sport: from.1.to_be(),
        dport: to.1.to_be(),
        family,
        flags: FLAGS,
        state: 0,
        transport: 1,
        sent: 0,
    }
}

const LOCATION: u64 = 0xffff_ffff_8123_4567;

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
    // Before 6.11 the tracepoint does not tell who was receiving.
    let told = arguments(tool.machine().kernel) >= 4;
    let sk = match socket {
        Socket::Owning(sk) => sk,
        Socket::Receiving(sk) if !told => sk,
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

/// Drops a packet without a socket, which must be told as `expected`.
#[track_caller]
fn told(tool: &mut Tool<'_>, packet: &Packet, expected: Event) {
    assert_eq!(drop(tool, packet, Socket::None, 0), REPORTED, "{packet:?}");
    assert_eq!(events(tool), [(expected, vec![])], "{packet:?}");
}

/// Drops a packet without a socket, which is not the tool's business.
#[track_caller]
fn ignored(tool: &mut Tool<'_>, packet: &Packet) {
    assert_eq!(drop(tool, packet, Socket::None, 0), NOTHING, "{packet:?}");
    assert_eq!(events(tool), [], "{packet:?}");
}

fn v4() -> Packet {
    Packet::received(&Spec::V4)
}

fn v6(extensions: &[(u8, Vec<u8>)]) -> Packet {
    let Spec { laddr, lport, raddr, rport, .. } = Spec::V6;
    Packet::ipv6((raddr, rport), (laddr, lport), extensions)
}

/// An extension header of so many bytes: its length stands in the second, in eights without the first.
fn extension(kind: u8, len: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0xee; len];
    bytes[1] = match kind {
        44 => 0,                                         // reserved
        51 => u8::try_from(len / 4 - 2).expect("short"), // in fours without the first two
        _ => u8::try_from(len / 8 - 1).expect("short"),
    };
    if kind == 44 {
        bytes[2..4].copy_from_slice(&[0, 0x07]); // no offset, all flags
    }
    (kind, bytes)
}

cases! {
    /// A segment that a socket receives or sends, of every kind of address: the packet's own tuple, the socket's state.
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

    /// The task that runs is nobody's business, even if the socket is locked; the owner from the table is told.
    fn owners(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&lab.drops());
        let sock = tool.sock(&Spec::V4);
        tool.owned(sock, true);
        let told = |tool: &mut Tool<'_>| {
            assert_eq!(drop(tool, &v4(), Socket::Receiving(sock.address), 0), REPORTED);
            events(tool).remove(0).0.pid
        };
        assert_eq!(told(&mut tool), 0);
        if tool.has("inet_sock_set_state") {
            assert_eq!(tool.call(1, OTHER, sock, CLOSE, LISTEN), NOTHING);
            let entry = tool.entry(sock).expect("it was born");
            assert_eq!(entry[4..8], (Rank::Used as u32).to_ne_bytes());
            assert_eq!(told(&mut tool), OTHER.tgid);
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
            // Both ends have the same port.
            let same = tool.sock(&Spec { lport: rport, ..Spec::V4 }).address;
            let packet = Packet::received(&Spec { lport: rport, ..Spec::V4 });
            let wanted = if options.filter.local_ports.contains(&lport) || options.filter.remote_ports.contains(&lport) { FILTERED } else { REPORTED };
            assert_eq!(drop(&mut tool, &packet, Socket::Receiving(same), 0), wanted, "{options:?}");
            // No port is known.
            let fragment = v4().with(6, &[0, 1]);
            assert_eq!(drop(&mut tool, &fragment, Socket::None, 0), FILTERED, "{options:?}");
        }
    }

    /// What is left of a connection (time-wait) or not one yet (a request) has a state and nothing else.
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

    /// Sockets that are not TCP's have no state of TCP; what is none of the internet's is none.
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

    /// Without a socket the device tells the network namespace, or else the route; what only looks like a device tells none.
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

    /// What is not known is not wanted: no namespace and no cgroup without a socket.
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

    /// Only IP that carries TCP is looked at.
    fn not_tcp(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for protocol in [0, 0x0806, 0x8847, 0x0008, 0xdd86, 0x0801, 0x86dc, 0xffff] {
            ignored(&mut tool, &Packet { protocol, ..v4() });
            ignored(&mut tool, &Packet { protocol, ..v6(&[]) });
        }
        ignored(&mut tool, &Packet { protocol: 0x86dd, ..v4() });
        ignored(&mut tool, &Packet { protocol: 0x0800, ..v6(&[]) });
        for next in [17, 1, 0, 7, 132, 255] {
            ignored(&mut tool, &v4().with(9, &[next]));
        }
        for next in [17, 58, 50, 59, 7, 61, 135, 255] {
            ignored(&mut tool, &v6(&[]).with(6, &[next]));
        }
        for first in [0x44, 0x40, 0x55, 0x65, 0x05, 0x35] {
            ignored(&mut tool, &v4().with(0, &[first]));
        }
        for first in [0x40, 0x50, 0x70, 0xe0, 0] {
            ignored(&mut tool, &v6(&[]).with(0, &[first]));
        }
    }

    /// A packet that ends too early: without an IP header it is nothing, without the TCP header's flags it has no ports.
    fn cut_short(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for (packet, ip) in [(v4(), 20), (v6(&[]), 40), (v6(&[extension(0, 16)]), 56)] {
            for len in 0..=packet.bytes.len() {
                let short = Packet { missing: packet.bytes.len() - len, ..packet.clone() };
                // An extension header counts as there when its first eight bytes are.
                let whole = if ip == 56 { 48 } else { ip };
                match len {
                    _ if len < whole => ignored(&mut tool, &short),
                    _ if len < ip + 14 => told(&mut tool, &short, packet.clone().headless().event),
                    _ => told(&mut tool, &short, packet.event),
                }
            }
        }
        // The end is right and the memory is not.
        let mut gone = v4();
        gone.bytes.truncate(30);
        let expected = gone.clone().headless().event;
        let skb = skb(&mut tool, &gone, Socket::None);
        tool.set(skb, "sk_buff.tail", 1000);
        assert_eq!(free(&mut tool, skb, 0, 0), REPORTED);
        assert_eq!(events(&mut tool), [(expected, vec![])]);
    }

    /// Where the IP header is: where the kernel noted, or, when it noted nothing, where the packet starts.
    fn offsets(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for packet in [v4(), v6(&[])] {
            for headroom in [1, 2, 255, 256, 4000] {
                told(&mut tool, &Packet { headroom, ..packet.clone() }, packet.event);
                let unset = Packet { headroom, network_header: false, ..packet.clone() };
                told(&mut tool, &unset, packet.event);
            }
            told(&mut tool, &Packet { headroom: 0, network_header: false, ..packet.clone() }, packet.event);
        }
        // The end may lie farther than two bytes count.
        for packet in [v4(), v6(&[extension(0, 8)])] {
            let mut long = packet.clone();
            long.bytes.resize(65536, 0);
            told(&mut tool, &long, packet.event);
        }
        // Options make the header longer.
        let Spec { laddr, lport, raddr, rport, .. } = Spec::V4;
        for words in 0..=10 {
            let packet = Packet::ipv4((raddr, rport), (laddr, lport), &vec![0xee; words * 4]);
            told(&mut tool, &packet, packet.event);
        }
        // A header that says that it is longer than the packet.
        told(&mut tool, &v4().with(0, &[0x4f]), v4().headless().event);
    }

    /// Only the first fragment has the TCP header.
    fn fragments(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for first in [[0, 0], [0x20, 0], [0x40, 0], [0x80, 0], [0xe0, 0]] {
            told(&mut tool, &v4().with(6, &first), v4().event);
        }
        for later in [[0, 1], [0x20, 1], [0x01, 0], [0x1f, 0xff], [0x10, 0]] {
            told(&mut tool, &v4().with(6, &later), v4().headless().event);
        }
        let fragment = |offset: [u8; 2]| {
            let (kind, mut bytes) = extension(44, 8);
            bytes[2..4].copy_from_slice(&offset);
            v6(&[(kind, bytes)])
        };
        for first in [[0, 0], [0, 1], [0, 7]] {
            told(&mut tool, &fragment(first), v6(&[]).event);
        }
        for later in [[0, 8], [1, 0], [0x80, 0], [0xff, 0xf8]] {
            told(&mut tool, &fragment(later), v6(&[]).headless().event);
            ignored(&mut tool, &fragment(later).with(40, &[17]));
        }
    }

    /// Extension headers are walked over, four of them.
    fn extensions(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for kind in [0, 43, 60] {
            for len in [8, 16, 264, 2048] {
                told(&mut tool, &v6(&[extension(kind, len)]), v6(&[]).event);
            }
        }
        for len in [12, 16, 24, 28] {
            told(&mut tool, &v6(&[extension(51, len)]), v6(&[]).event);
        }
        let all = [extension(0, 8), extension(60, 24), extension(43, 16), extension(44, 8), extension(51, 24)];
        for count in 0..=4 {
            told(&mut tool, &v6(&all[..count]), v6(&[]).event);
            told(&mut tool, &v6(&all[5 - count..]), v6(&[]).event);
        }
        ignored(&mut tool, &v6(&all));
        // Each kind at each place, whole and cut short.
        for before in 0..4 {
            for (kind, len) in [(0, 16), (43, 24), (60, 8), (44, 8), (51, 12)] {
                let mut walk = vec![extension(0, 8); before];
                walk.push(extension(kind, len));
                let packet = v6(&walk);
                told(&mut tool, &packet, v6(&[]).event);
                let end = 40 + 8 * before;
                ignored(&mut tool, &packet.clone().with(end, &[17]));
                for there in [end, end + 7] {
                    ignored(&mut tool, &Packet { missing: packet.bytes.len() - there, ..packet.clone() });
                }
                let there = Packet { missing: packet.bytes.len() - end - 8, ..packet.clone() };
                told(&mut tool, &there, v6(&[]).headless().event);
                if kind == 44 {
                    let later = packet.with(end + 2, &[1, 0]);
                    told(&mut tool, &later, v6(&[]).headless().event);
                    ignored(&mut tool, &later.with(end, &[17]));
                }
            }
        }
        // What follows is no TCP.
        ignored(&mut tool, &v6(&all[..1]).with(40, &[17]));
        ignored(&mut tool, &v6(&all[..4]).with(40 + 8 + 24 + 16, &[17]));
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

    /// An event that interrupts another one leaves alone what that one is putting together, and goes without a stack.
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

    /// An event wakes the reader only as the ring passes a quarter; with a stack it may be as long as the longest.
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

    /// Memory that cannot be read is no packet.
    fn unreadable(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        tool.machine().unreadable = true;
        ignored(&mut tool, &v4());
        ignored(&mut tool, &v6(&[]));
    }
}
