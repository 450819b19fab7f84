//! tcptop: which bytes are added up, and for which process.

use bpfasm::{Access, Object, Ring};
use programs::containers::Containers;
use programs::filter::Filter;
use programs::stats::Stats;
use programs::stream;
use programs::tcp::AF_INET6;
use programs::tcptop::{self, FLOWS, Flow, INTERVAL_MAPS, Options, Traffic};

use crate::golden;
use crate::lab::fate::{AGGREGATED, FILTERED, NOTHING};
use crate::lab::state::*;
use crate::lab::{Lab, Set, cases};
use crate::owner::BEFORE_6_3;
use crate::spec::{NO_PROCESS, OTHER, OTHERS, OWNER, Spec};
use crate::specimens::{AttachKind, Specimen, Tracepoint, fitting};
use crate::streams::{RELEASES, Streams, UNTRACKED};
use crate::tool::{Sock, Tool, WALKERS};
use crate::vm::machine::Task;

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcptop",
    object: |lab, filter, target| {
        let options = Options { filter: filter.clone(), ..lab.top() };
        tcptop::object(&options, target).expect("links")
    },
    every: |filter, target, _| {
        let containers = Containers { cgroups: Some("/a".into()), mount_namespaces: Some("/b".into()) };
        [Containers::default(), containers]
            .map(|containers| Options { filter: filter.clone(), containers, max_sockets: 1 << 20 })
            .map(|options| tcptop::object(&options, target).expect("links"))
            .into()
    },
    golden,
    cases: &[CASES],
    reports: None,
    events: &[],
    entry: Some(stream::Entry::LAYOUT),
    fields: &[
        "bpf_iter__task_file.file",
        "bpf_iter__task_file.task",
        "file.f_inode",
        "file.private_data",
        "inet_sock.inet_sport",
        "inode.i_mode",
        "mnt_namespace.ns.inum",
        "net.ns.inum",
        "nsproxy.mnt_ns",
        "sock.sk_lock.owned",
        "sock.sk_protocol",
        "sock.sk_shutdown",
        "sock.sk_type",
        "sock_common.skc_daddr",
        "sock_common.skc_dport",
        "sock_common.skc_family",
        "sock_common.skc_flags",
        "sock_common.skc_net.net",
        "sock_common.skc_rcv_saddr",
        "sock_common.skc_state",
        "sock_common.skc_v6_daddr",
        "sock_common.skc_v6_rcv_saddr",
        "socket.sk",
        "task_struct.nsproxy",
        "tcp_sock.bytes_acked",
        "tcp_sock.bytes_received",
        "tcp_sock.copied_seq",
        "tcp_sock.rcv_nxt",
        "tcp_sock.snd_una",
        "tcp_sock.write_seq",
    ],
    registers: &["di"],
    optional: &[],
    tracepoints: &[
        Tracepoint { name: "inet_sock_set_state", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "tcp_destroy_sock", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "sock_send_length", first: Some("sock"), lacking: BEFORE_6_3 },
        Tracepoint { name: "tcp_rcv_space_adjust", first: Some("sock"), lacking: &[] },
    ],
    attach_kinds: |target| {
        fitting(
            &[AttachKind::TpBtf, AttachKind::RawTp, AttachKind::Fentry, AttachKind::Kprobe, AttachKind::Iter],
            target,
        )
    },
    wanted: &[],
    mutate: false,
};

fn golden() -> Vec<(&'static str, Object)> {
    let typed = golden::target(Access::Typed, Ring::RingBuf);
    let probed = golden::target(Access::Probed, Ring::RingBuf);
    let object = |filter, target| {
        let options = Options { filter, containers: Containers::default(), max_sockets: 16384 };
        tcptop::object(&options, target).expect("links")
    };
    vec![
        ("tcptop-typed", object(Filter::default(), &typed)),
        ("tcptop-probed", object(Filter::default(), &probed)),
        ("tcptop-filtered-typed", object(golden::filter(), &typed)),
    ]
}

/// The map of flows is full.
const NO_ROOM: Stats = Stats { seen: 1, lost_map: 1, ..NOTHING };

impl Lab {
    /// tcptop's options of this set.
    fn top(&self) -> Options {
        Options { filter: self.filter(), containers: Containers::default(), max_sockets: 2 }
    }

    /// tcptop at work.
    fn tcptop(&self, options: &Options) -> Tool<'_> {
        self.tool(&format!("tcptop {options:?}"), |target| tcptop::object(options, target).expect("links"))
    }
}

/// What programs add to now, as `[received, sent]`; nothing else may be in the map.
fn flows(tool: &mut Tool<'_>, turn: usize) -> Vec<(Flow, Traffic)> {
    let mut flows: Vec<_> = tool
        .machine()
        .values(INTERVAL_MAPS[turn])
        .map(|(key, value)| (Flow::decode(&key).expect("a flow"), Traffic::decode(&value).expect("traffic")))
        .collect();
    flows.sort_by_key(|(flow, _)| (flow.pid, flow.lport));
    flows
}

/// The flow of a task on a socket with these fields, and its bytes.
fn flow(
    tool: &mut Tool<'_>,
    spec: &Spec,
    sock: Sock,
    task: Task,
    [received, sent]: [u64; 2],
) -> (Flow, Traffic) {
    let flow = Flow {
        net: tool.get_sock(sock, "sock_common.skc_net.net"),
        pid: task.tgid,
        lport: spec.lport.to_be(),
        rport: spec.rport.to_be(),
        laddr: spec.laddr,
        raddr: spec.raddr,
    };
    let traffic = Traffic { sent, received, comm: task.comm, netns: spec.netns, family: spec.family.into() };
    (flow, traffic)
}

/// A connection that `OWNER` opened.
fn connected(tool: &mut Tool<'_>, spec: &Spec) -> Sock {
    let sock = tool.sock(spec);
    assert_eq!(tool.call(1, OWNER, sock, CLOSE, SYN_SENT), NOTHING);
    assert_eq!(tool.softirq(2, sock, SYN_SENT, ESTABLISHED), NOTHING);
    sock
}

/// Moves this many bytes of a connection, as a task.
type Mover = fn(&mut Tool<'_>, Task, Sock, u32) -> Stats;

/// How bytes of a connection that `OWNER` opened come to be counted.
const MOVERS: [Mover; 4] = [
    |tool, task, sock, bytes| tool.sends(task, sock, bytes.cast_signed()),
    |tool, task, sock, bytes| {
        let received = entry(tool, sock).read + u64::from(bytes);
        tool.streams(sock, Streams { received, ..Streams::default() });
        tool.reads(task, sock)
    },
    |tool, task, sock, bytes| released(tool, RELEASES[0], task, sock, bytes),
    |tool, task, sock, bytes| released(tool, RELEASES[1], task, sock, bytes),
];

fn released(tool: &mut Tool<'_>, release: &str, task: Task, sock: Sock, bytes: u32) -> Stats {
    let written = entry(tool, sock).written - 1 + u64::from(bytes);
    tool.streams(sock, Streams { syn: 1, written, ..Streams::default() });
    tool.releases(release, task, sock)
}

/// What the table has of a socket.
fn entry(tool: &mut Tool<'_>, sock: Sock) -> stream::Entry {
    tool.entry(sock).and_then(|bytes| stream::Entry::decode(&bytes)).expect("it is entered")
}

/// What becomes of bytes that `task` moves.
fn unless_filtered(lab: &Lab, task: Task) -> Stats {
    if lab.set == Set::Filtered && task != OWNER { FILTERED } else { AGGREGATED }
}

cases! {
    /// Each step of reading counts what it took out of the socket, and no more: neither what waits,
    /// nor the FIN, nor a look.
    fn received(lab) in [Narrow, Wide, Filtered, Six] {
        for spec in lab.specs() {
            let mut tool = lab.tcptop(&lab.top());
            let sock = connected(&mut tool, &spec);
            // The sequence runs past the end of its 32 bits.
            let mut streams = Streams { irs: u32::MAX - 700, ..Streams::default() };
            let mut step = |tool: &mut Tool<'_>, arrives: u64, reads: u64| {
                streams.arrive(arrives);
                streams.read(reads);
                tool.streams(sock, streams);
                tool.reads(OWNER, sock)
            };
            assert_eq!(step(&mut tool, 500, 200), AGGREGATED);
            assert_eq!(step(&mut tool, 0, 0), NOTHING, "a look");
            assert_eq!(step(&mut tool, 1000, 1300), AGGREGATED);
            assert_eq!(step(&mut tool, 10, 4), AGGREGATED);
            streams.fin = true;
            tool.streams(sock, streams);
            assert_eq!(tool.reads(OWNER, sock), NOTHING, "a FIN is not data");
            streams.read(6);
            tool.streams(sock, streams);
            assert_eq!(tool.reads(OWNER, sock), AGGREGATED);
            streams.fin_read = true;
            tool.streams(sock, streams);
            assert_eq!(tool.reads(OWNER, sock), NOTHING, "nor is a FIN that was read");
            let expected = flow(&mut tool, &spec, sock, OWNER, [1510, 0]);
            assert_eq!(flows(&mut tool, 0), [expected]);
        }
    }

    /// A connection that the other side opened has read nothing when it is born, whatever had its
    /// address before.
    fn accepted(lab) in [Narrow, Wide, Six] {
        let spec = lab.spec();
        let mut tool = lab.tcptop(&lab.top());
        let sock = connected(&mut tool, &spec);
        tool.streams(sock, Streams { received: 70_000, ..Streams::default() });
        assert_eq!(tool.reads(OWNER, sock), AGGREGATED);
        assert_eq!(tool.softirq(5, sock, LISTEN, SYN_RECV), NOTHING);
        // With TCP Fast Open there may be data before it is established.
        tool.streams(sock, Streams { received: 77, ..Streams::default() });
        assert_eq!(tool.reads(OWNER, sock), AGGREGATED);
        assert_eq!(tool.softirq(6, sock, SYN_RECV, ESTABLISHED), NOTHING);
        tool.streams(sock, Streams { received: 78, ..Streams::default() });
        assert_eq!(tool.reads(OWNER, sock), AGGREGATED);
        let expected = flow(&mut tool, &spec, sock, OWNER, [70_078, 0]);
        assert_eq!(flows(&mut tool, 0), [expected]);
    }

    /// Every state but the births leaves the count as it is.
    fn other_changes(lab) in [Narrow, Six] {
        let mut tool = lab.tcptop(&lab.top());
        let sock = connected(&mut tool, &lab.spec());
        tool.streams(sock, Streams { received: 1000, ..Streams::default() });
        assert_eq!(tool.reads(OWNER, sock), AGGREGATED);
        for (old, new) in [(SYN_SENT, SYN_RECV), (ESTABLISHED, CLOSE_WAIT), (LISTEN, CLOSE), (CLOSE, LISTEN), (CLOSE_WAIT, LAST_ACK)] {
            assert_eq!(tool.softirq(9, sock, old, new), NOTHING);
            assert_eq!(tool.reads(OWNER, sock), NOTHING, "{old:?} to {new:?}");
        }
        tool.destroy(sock);
        assert_eq!(tool.machine().len("sockets"), 0);
    }

    /// The bytes that a call returned as sent, for the process that called; errors and empty calls
    /// do not count.
    fn sent(lab) in [Narrow, Wide, Filtered, Six] {
        for spec in lab.specs() {
            let mut tool = lab.tcptop(&lab.top());
            let sock = tool.sock(&spec);
            for (bytes, fate) in [(1, AGGREGATED), (0, NOTHING), (-11, NOTHING), (i32::MIN, NOTHING), (i32::MAX, AGGREGATED)] {
                assert_eq!(tool.sends(OWNER, sock, bytes), fate, "{bytes}");
            }
            let expected = flow(&mut tool, &spec, sock, OWNER, [0, 1 << 31]);
            assert_eq!(flows(&mut tool, 0), [expected]);
        }
    }

    /// Processes that share a connection have a row each, with the name of the first thread; both
    /// directions meet in it.
    fn processes(lab) in [Narrow, Wide, Filtered, Six] {
        let spec = lab.spec();
        let mut tool = lab.tcptop(&lab.top());
        let sock = connected(&mut tool, &spec);
        assert_eq!(tool.sends(OWNER, sock, 5), AGGREGATED);
        assert_eq!(tool.sends(OTHER, sock, 7), unless_filtered(lab, OTHER));
        let thread = Task { tid: OWNER.tid + 5, comm: *b"another-thread!\0", ..OWNER };
        assert_eq!(tool.sends(thread, sock, 11), AGGREGATED);
        tool.streams(sock, Streams { received: 13, ..Streams::default() });
        assert_eq!(tool.reads(OTHER, sock), unless_filtered(lab, OTHER));
        tool.streams(sock, Streams { received: 30, ..Streams::default() });
        assert_eq!(tool.reads(OWNER, sock), AGGREGATED, "only what was read since");
        let mut expected = vec![flow(&mut tool, &spec, sock, OWNER, [17, 16])];
        if lab.set != Set::Filtered {
            expected.push(flow(&mut tool, &spec, sock, OTHER, [13, 7]));
        }
        assert_eq!(flows(&mut tool, 0), expected);
    }

    /// Bytes that a soft interrupt reads for the kernel itself have no process.
    fn read_by_the_kernel(lab) in [Narrow, Filtered, Six] {
        let spec = lab.spec();
        let mut tool = lab.tcptop(&lab.top());
        let sock = connected(&mut tool, &spec);
        tool.streams(sock, Streams { received: 40, ..Streams::default() });
        tool.at(5, OWNER);
        assert_eq!(tool.run("tcp_rcv_space_adjust", &[sock.address]), unless_filtered(lab, NO_PROCESS));
        let expected = flow(&mut tool, &spec, sock, NO_PROCESS, [40, 0]);
        assert_eq!(flows(&mut tool, 0), if lab.set == Set::Filtered { vec![] } else { vec![expected] });
    }

    /// A socket that was open before counts from when it was found, by the walk or else by its
    /// first event.
    fn open_before(lab) in [Narrow, Wide, Six] {
        for walker in WALKERS.map(Some).into_iter().chain([None]) {
            let spec = lab.spec();
            let mut tool = lab.tcptop(&lab.top());
            let sock = tool.sock(&spec);
            tool.set_sock(sock, "sock_common.skc_state", ESTABLISHED.0.into());
            let mut streams = Streams { received: 1 << 40, waiting: 10, written: 99, ..Streams::default() };
            tool.streams(sock, streams);
            match walker {
                Some(walker) => {
                    tool.walker = walker;
                    tool.walk(3, OTHER, sock);
                }
                None => assert_eq!(tool.reads(OWNER, sock), UNTRACKED),
            }
            assert_eq!(tool.reads(OWNER, sock), NOTHING);
            streams.read(10);
            tool.streams(sock, streams);
            assert_eq!(tool.reads(OWNER, sock), AGGREGATED);
            let expected = flow(&mut tool, &spec, sock, OWNER, [10, 0]);
            assert_eq!(flows(&mut tool, 0), [expected], "{walker:?}");
        }
    }

    /// A socket that is new to the tool is entered as it is, whatever finds it first; from then on
    /// every byte counts.
    fn entered_as_it_is(lab) in [Narrow, Wide, Six] {
        let long = Streams { irs: u32::MAX - 5, received: 5 << 33, iss: u32::MAX - 9, written: 3 << 33, acked: (3 << 33) - 70_000, ..Streams::default() };
        for start in [
            long,
            Streams { waiting: 100_000, syn: 1, acked: long.acked + 1, ..long },
            Streams { waiting: 10, fin: true, acked: long.written, ..long },
            Streams { fin: true, ..long },
            Streams { fin: true, fin_read: true, ..long },
        ] {
            for finder in [WALKERS[0], WALKERS[1], RELEASES[0], RELEASES[1], ""] {
                let mut tool = lab.tcptop(&lab.top());
                let sock = tool.sock(&lab.spec());
                tool.set_sock(sock, "sock_common.skc_state", ESTABLISHED.0.into());
                tool.streams(sock, start);
                if WALKERS.contains(&finder) {
                    tool.walker = finder;
                    tool.walk(3, OTHER, sock);
                } else if finder.is_empty() {
                    assert_eq!(tool.reads(OWNER, sock), UNTRACKED);
                } else {
                    assert_eq!(tool.releases(finder, OWNER, sock), UNTRACKED);
                }
                // Of what was written before, all that matters is that it stays the same.
                let written = start.acked + (start.written + start.syn - start.acked);
                assert_eq!(entry(&mut tool, sock), stream::Entry { read: start.received, written }, "{finder}: {start:?}");

                let more = Streams { received: start.received + start.waiting + (1 << 33), waiting: 0, written: start.written + (1 << 34), acked: start.acked + (1 << 34), ..start };
                tool.streams(sock, more);
                assert_eq!(tool.reads(OWNER, sock), AGGREGATED);
                assert_eq!(tool.releases(RELEASES[0], OTHER, sock), unless_filtered(lab, OTHER));
                let received = start.waiting + (1 << 33);
                let expected = [flow(&mut tool, &lab.spec(), sock, OWNER, [received, 0]), flow(&mut tool, &lab.spec(), sock, OTHER, [0, 1 << 34])];
                assert_eq!(flows(&mut tool, 0), expected, "{finder}: {start:?}");
            }
        }
    }

    /// The walk leaves what is known already as it is, and a listener, a raw socket and a socket of
    /// another protocol are no use.
    fn walked(lab) in [Narrow, Six] {
        for walker in WALKERS {
            let mut tool = lab.tcptop(&lab.top());
            tool.walker = walker;
            let sock = connected(&mut tool, &lab.spec());
            tool.streams(sock, Streams { received: 10, ..Streams::default() });
            tool.walk(3, OWNER, sock);
            assert_eq!(tool.reads(OWNER, sock), AGGREGATED);
            let raw = tool.sock(&Spec { kind: 3, ..lab.spec() });
            tool.walk(4, OWNER, raw);
            assert_eq!(tool.machine().len("sockets"), 1);
        }
    }

    /// A new map takes the other's place: what was added before stays where it is.
    fn turns(lab) in [Narrow, Six] {
        let spec = lab.spec();
        let mut tool = lab.tcptop(&lab.top());
        let sock = tool.sock(&spec);
        assert_eq!(tool.sends(OWNER, sock, 5), AGGREGATED);
        tool.machine().set_inner(FLOWS, 0, INTERVAL_MAPS[1]);
        assert_eq!(tool.sends(OWNER, sock, 7), AGGREGATED);
        for (turn, sent) in [(0, 5), (1, 7)] {
            let expected = flow(&mut tool, &spec, sock, OWNER, [0, sent]);
            assert_eq!(flows(&mut tool, turn), [expected]);
        }
    }

    /// Two CPUs may be the first of a flow at once: neither's bytes are lost.
    fn at_once(lab) in [Narrow, Filtered, Six] {
        for mover in MOVERS {
            let mut tool = lab.tcptop(&lab.top());
            let sock = connected(&mut tool, &lab.spec());
            assert_eq!(mover(&mut tool, OWNER, sock, 5), AGGREGATED);
            tool.machine().unseen = Some(INTERVAL_MAPS[0]);
            assert_eq!(mover(&mut tool, OWNER, sock, 7), AGGREGATED);
            let found = flows(&mut tool, 0);
            assert_eq!(found.iter().map(|(_, traffic)| traffic.sent + traffic.received).collect::<Vec<_>>(), [12]);
        }
    }

    /// A full map is said, and flows that are in it go on.
    fn full(lab) in [Narrow, Wide, Six] {
        for mover in MOVERS {
            let mut tool = lab.tcptop(&lab.top());
            let sock = connected(&mut tool, &lab.spec());
            for (tgid, fate) in [(1, AGGREGATED), (2, AGGREGATED), (3, NO_ROOM), (1, AGGREGATED)] {
                assert_eq!(mover(&mut tool, Task { tgid, ..OWNER }, sock, 5), fate, "{tgid}");
            }
            assert_eq!(flows(&mut tool, 0).len(), 2);
        }
    }

    /// And so is a full table of sockets, at a birth and later.
    fn table_full(lab) in [Narrow, Six] {
        let mut tool = lab.tcptop(&lab.top());
        for _ in 0..2 {
            connected(&mut tool, &lab.spec());
        }
        let third = tool.sock(&lab.spec());
        assert_eq!(tool.call(1, OWNER, third, CLOSE, SYN_SENT), UNTRACKED);
        tool.softirq(2, third, SYN_SENT, ESTABLISHED);
        for received in [10, 20] {
            tool.streams(third, Streams { received, ..Streams::default() });
            assert_eq!(tool.reads(OWNER, third), UNTRACKED);
            assert_eq!(tool.releases(RELEASES[0], OWNER, third), UNTRACKED);
        }
        assert_eq!(tool.try_walk(3, OWNER, third), Stats { untracked: 1, ..NOTHING });
        assert_eq!((flows(&mut tool, 0).len(), tool.machine().len("sockets")), (0, 2));
    }

    /// Only flows that match the filters; for the others, bytes that were read are remembered as
    /// well.
    fn filtered(lab) in [Filtered, Six] {
        let spec = lab.spec();
        let elsewhere = Spec { lport: spec.lport + 1, ..spec.clone() };
        let other_family = if spec.family == AF_INET6 { Spec::V4 } else { Spec::V6 };
        let mut tool = lab.tcptop(&lab.top());
        for spec in [elsewhere, other_family] {
            let sock = connected(&mut tool, &spec);
            assert_eq!(tool.sends(OWNER, sock, 5), FILTERED);
            tool.streams(sock, Streams { received: 10, ..Streams::default() });
            assert_eq!(tool.reads(OWNER, sock), FILTERED);
            assert_eq!(tool.reads(OWNER, sock), NOTHING);
            tool.destroy(sock);
        }
        assert_eq!(flows(&mut tool, 0), []);
    }

    /// Only processes of the given containers; bytes without a process belong to no container.
    fn containers(lab) in [Narrow, Filtered] {
        let containers = Containers { cgroups: Some("/sys/fs/bpf/wanted".into()), mount_namespaces: None };
        let mut tool = lab.tcptop(&Options { containers, ..lab.top() });
        tool.machine().insert("cgroups", &7_u64.to_ne_bytes(), &[0; 8]);
        let sock = connected(&mut tool, &lab.spec());
        for (cgroup, fate) in [(7, AGGREGATED), (8, FILTERED)] {
            tool.machine().cgroup = cgroup;
            assert_eq!(tool.sends(OWNER, sock, 5), fate);
        }
        tool.machine().cgroup = 7;
        tool.streams(sock, Streams { received: 10, ..Streams::default() });
        assert_eq!(tool.run("tcp_rcv_space_adjust", &[sock.address]), FILTERED);
    }

    /// Sockets that are not TCP, or that are raw, are none of the tool's business.
    fn other_sockets(lab) in [Narrow, Filtered, Six] {
        let mut tool = lab.tcptop(&lab.top());
        let mut specs: Vec<_> =
            OTHERS.iter().map(|&(family, protocol)| Spec { family, protocol, ..lab.spec() }).collect();
        specs.extend([3, 0x101].map(|kind| Spec { kind, ..lab.spec() }));
        for spec in specs {
            let sock = tool.sock(&spec);
            assert_eq!(tool.sends(OWNER, sock, 5), NOTHING, "{spec:?}");
            if spec.kind == 1 {
                assert_eq!(tool.reads(OWNER, sock), NOTHING, "{spec:?}");
                assert_eq!(tool.call(1, OWNER, sock, CLOSE, SYN_SENT), NOTHING);
                for release in RELEASES {
                    assert_eq!(tool.releases(release, OWNER, sock), NOTHING);
                }
            }
        }
        assert_eq!((flows(&mut tool, 0).len(), tool.machine().len("sockets")), (0, 0));
    }

    /// Without the tracepoint, what was written since a socket's lock was last given back counts:
    /// not its SYN, nor its FIN.
    fn written(lab) in [Narrow, Wide, Filtered, Six] {
        for release in RELEASES {
            let births = [((CLOSE, SYN_SENT), 1), ((LISTEN, SYN_RECV), 0)];
            for (spec, (birth, syn)) in lab.specs().into_iter().flat_map(|spec| births.map(|birth| (spec.clone(), birth))) {
                let mut tool = lab.tcptop(&lab.top());
                let sock = tool.sock(&spec);
                assert_eq!(tool.call(1, OWNER, sock, birth.0, birth.1), NOTHING);
                let mut streams = Streams { iss: u32::MAX - 300, syn, ..Streams::default() };
                let mut step = |tool: &mut Tool<'_>, written: u64, acked: u64| {
                    streams.written += written;
                    streams.acked += acked;
                    tool.streams(sock, streams);
                    tool.releases(release, OWNER, sock)
                };
                assert_eq!(step(&mut tool, 0, 0), NOTHING, "connecting");
                assert_eq!(step(&mut tool, 0, syn), NOTHING, "connected");
                assert_eq!(tool.softirq(2, sock, birth.1, ESTABLISHED), NOTHING);
                assert_eq!(step(&mut tool, 500, 100), AGGREGATED);
                assert_eq!(step(&mut tool, 0, 400), NOTHING);
                assert_eq!(step(&mut tool, 1, 0), AGGREGATED);
                tool.set_sock(sock, "sock.sk_shutdown", 1);
                assert_eq!(step(&mut tool, 2, 0), AGGREGATED, "only the other side has ended");
                for shutdown in [2, 3] {
                    tool.set_sock(sock, "sock.sk_shutdown", shutdown);
                    assert_eq!(step(&mut tool, 1, 0), NOTHING, "a FIN");
                }
                let expected = flow(&mut tool, &spec, sock, OWNER, [0, 503]);
                assert_eq!(flows(&mut tool, 0), [expected]);
            }
        }
    }

    /// For a socket that was open before, only bytes written from then on; a socket that is not
    /// connected has no numbers that mean anything.
    fn written_before(lab) in [Narrow, Filtered, Six] {
        for release in RELEASES {
            let mut tool = lab.tcptop(&lab.top());
            let sock = tool.sock(&lab.spec());
            let unconnected = |tool: &mut Tool<'_>| {
                for state in [CLOSE, LISTEN] {
                    tool.set_sock(sock, "sock_common.skc_state", state.0.into());
                    assert_eq!(tool.releases(release, OWNER, sock), NOTHING, "{state:?}");
                }
                tool.set_sock(sock, "sock_common.skc_state", ESTABLISHED.0.into());
            };
            tool.set_sock(sock, "sock.sk_shutdown", 0);
            tool.streams(sock, Streams { written: 1 << 33, acked: 1 << 33, ..Streams::default() });
            unconnected(&mut tool);
            assert_eq!(tool.releases(release, OWNER, sock), UNTRACKED);
            tool.streams(sock, Streams { written: (1 << 33) + 9, acked: 1 << 33, ..Streams::default() });
            unconnected(&mut tool);
            assert_eq!(tool.releases(release, OWNER, sock), AGGREGATED);
            // Less than before cannot be: nothing is made of it, but for where to go on from.
            tool.streams(sock, Streams { written: 100, ..Streams::default() });
            assert_eq!(tool.releases(release, OWNER, sock), NOTHING);
            tool.streams(sock, Streams { written: 103, ..Streams::default() });
            assert_eq!(tool.releases(release, OTHER, sock), unless_filtered(lab, OTHER));
            let first = flow(&mut tool, &lab.spec(), sock, OWNER, [0, 9]);
            assert_eq!(flows(&mut tool, 0)[0], first);
        }
    }
}
