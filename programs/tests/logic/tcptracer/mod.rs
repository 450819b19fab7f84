//! tcptracer: the events of connects and closes; see [`accept`] for accepts.

pub mod accept;

use bpfasm::{Access, Object, Ring};
use programs::containers::Containers;
use programs::filter::Filter;
use programs::owner::Rank;
use programs::stats::Stats;
use programs::tcptracer::{self, Entry, Event, Kind, Options, Stage};

use crate::golden;
use crate::lab::fate::{self, AGGREGATED, FILTERED, LOST_MAP, LOST_RING, NOTHING, REPORTED};
use crate::lab::state::*;
use crate::lab::{Lab, RING_BYTES, Set, cases, ns};
use crate::spec::{NO_PROCESS, OTHER, OTHERS, OWNER, Spec};
use crate::specimens::{AttachKind, CURRENT_TASK, Specimen, Tracepoint, fitting};
use crate::tool::{Sock, Tool};
use crate::vm::machine::Task;

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcptracer",
    object: |lab, filter, target| {
        let options = Options { filter: filter.clone(), ..lab.tracer() };
        tcptracer::object(&options, target).expect("links")
    },
    every: |filter, target, ring_bytes| {
        let path = || Some("/sys/fs/bpf/x".into());
        let objects =
            [(None, None, None), (Some(1000), path(), None), (None, None, path()), (Some(0), path(), path())]
                .map(|(uid, cgroups, mount_namespaces)| {
                    let (filter, containers) = (filter.clone(), Containers { cgroups, mount_namespaces });
                    let options = Options { filter, containers, uid, max_sockets: 1 << 20, ring_bytes };
                    tcptracer::object(&options, target).expect("links")
                });
        objects.into()
    },
    golden,
    cases: &[CASES, accept::CASES],
    reports: Some(reports),
    events: &[Event::LAYOUT],
    entry: Some(Entry::LAYOUT),
    fields: &[
        "fdtable.fd",
        "fdtable.max_fds",
        "file.private_data",
        "files_struct.fdt",
        "inet_sock.inet_sport",
        "io_kiocb.opcode",
        "io_uring_cqe.res",
        "mnt_namespace.ns.inum",
        "net.ns.inum",
        "nsproxy.mnt_ns",
        "sock.sk_lock.owned",
        "sock.sk_protocol",
        "sock.sk_shutdown",
        "sock_common.skc_daddr",
        "sock_common.skc_dport",
        "sock_common.skc_family",
        "sock_common.skc_net.net",
        "sock_common.skc_rcv_saddr",
        "sock_common.skc_v6_daddr",
        "sock_common.skc_v6_rcv_saddr",
        "socket.file",
        "socket.sk",
        "task_struct.comm",
        "task_struct.files",
        "task_struct.nsproxy",
        "task_struct.tgid",
        "tcp_sock.rcv_nxt",
    ],
    registers: &["ax", "cs", "di", "orig_ax"],
    optional: &[CURRENT_TASK],
    tracepoints: &[
        Tracepoint { name: "inet_sock_set_state", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "tcp_destroy_sock", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "sys_exit", first: Some("pt_regs"), lacking: &[] },
        Tracepoint { name: "io_uring_complete", first: None, lacking: &[] },
    ],
    attach_kinds: |target| {
        use AttachKind::*;
        // All its programs read the socket; what io_uring completes is read by address whatever the
        // target.
        fitting(&[TpBtf, RawTp, Fentry, Fexit, Kprobe, Kretprobe, Tracepoint], target)
    },
    wanted: &[],
    // Most of its code is shared with other tools, and repeated for each hook that sees an accept.
    mutate: false,
};

fn golden() -> Vec<(&'static str, Object)> {
    let typed = golden::target(Access::Typed, Ring::RingBuf);
    let perf = golden::target(Access::Probed, Ring::PerfEventArray);
    let object = |filter, uid, containers, target| {
        let options = Options { filter, containers, uid, max_sockets: 16384, ring_bytes: 1 << 22 };
        tcptracer::object(&options, target).expect("links")
    };
    let containers = Containers {
        cgroups: Some("/sys/fs/bpf/cgroups".into()),
        mount_namespaces: Some("/sys/fs/bpf/namespaces".into()),
    };
    vec![
        ("tcptracer-typed-ringbuf", object(Filter::default(), None, Containers::default(), &typed)),
        ("tcptracer-probed-perf", object(Filter::default(), None, Containers::default(), &perf)),
        ("tcptracer-filtered-typed-ringbuf", object(golden::filter(), Some(1000), containers, &typed)),
    ]
}

/// The user that [`OWNER`] and everybody else is, unless a case says otherwise.
pub const USER: u32 = 0x0102_0304;
/// The cgroup they are in.
const CGROUP: u64 = 0x1112_1314_1516_1718;
/// The mount namespace they are in.
const MOUNT_NAMESPACE: u64 = 0xf102_0304;

impl Lab {
    /// tcptracer's options of this set: the wide one asks for a user and containers, and gets them.
    pub fn tracer(&self) -> Options {
        let wide = self.set == Set::Wide;
        let path = || wide.then(|| "/sys/fs/bpf/x".into());
        Options {
            filter: self.filter(),
            containers: Containers { cgroups: path(), mount_namespaces: path() },
            uid: wide.then_some(USER),
            max_sockets: 2,
            ring_bytes: RING_BYTES,
        }
    }

    /// tcptracer at work.
    pub fn tcptracer(&self) -> Tool<'_> {
        let mut tool = SPECIMEN.tool(self, &self.filter());
        settle(&mut tool);
        tool
    }

    /// Whether the options exclude what some tasks do. Then an event whose task is unknown is
    /// excluded too.
    fn asks_who(&self) -> bool {
        matches!(self.set, Set::Wide | Set::Filtered)
    }

    /// What becomes of what this task does, on a socket that is wanted.
    pub fn fate_of(&self, task: Task) -> Stats {
        if self.set == Set::Filtered && task != OWNER { FILTERED } else { REPORTED }
    }
}

/// Puts the current task into the container and under the user that the options ask for.
pub fn settle(tool: &mut Tool<'_>) {
    let [task, proxy, namespace] = ["task_struct", "nsproxy", "mnt_namespace"].map(|root| tool.object(root));
    tool.set(namespace, "mnt_namespace.ns.inum", MOUNT_NAMESPACE);
    let at = tool.address(namespace);
    tool.set(proxy, "nsproxy.mnt_ns", at);
    let at = tool.address(proxy);
    tool.set(task, "task_struct.nsproxy", at);
    let task = tool.address(task);
    let machine = tool.machine();
    (machine.uid, machine.cgroup, machine.task_struct) = (USER, CGROUP, task);
    if machine.has("cgroups") {
        machine.insert("cgroups", &CGROUP.to_ne_bytes(), &[0; 8]);
    }
    if machine.has("mount_ns") {
        machine.insert("mount_ns", &MOUNT_NAMESPACE.to_ne_bytes(), &[0; 4]);
    }
}

/// Whether it reports the close of a socket like this one by `OWNER`.
fn reports(tool: &mut Tool<'_>, spec: &Spec) -> bool {
    settle(tool);
    let sock = socket(tool, spec);
    let fate = close(tool, 10, OWNER, sock);
    destroy(tool, 20, None, sock);
    fate::is_reported(fate)
}

/// A socket that no process has shut down, and that has received something.
fn socket(tool: &mut Tool<'_>, spec: &Spec) -> Sock {
    let sock = tool.sock(spec);
    tool.set_sock(sock, "sock.sk_shutdown", 0);
    tool.set_sock(sock, "tcp_sock.rcv_nxt", 1);
    sock
}

/// `task` closes a connection that is established.
fn close(tool: &mut Tool<'_>, now: u64, task: Task, sock: Sock) -> Stats {
    tool.set_sock(sock, "sock.sk_shutdown", 3);
    tool.call(now, task, sock, ESTABLISHED, FIN_WAIT1)
}

/// The kernel destroys the socket, in a system call of this task or in a soft interrupt, where the
/// owner happens to run.
fn destroy(tool: &mut Tool<'_>, now: u64, task: Option<Task>, sock: Sock) -> Stats {
    tool.at(now, task.unwrap_or(OWNER));
    tool.owned(sock, task.is_some());
    let fate = tool.run("tcp_destroy_sock", &[sock.address]);
    tool.owned(sock, false);
    assert_eq!(entry(tool, sock), None, "nothing is left of it");
    fate
}

/// `OWNER` connects, and the other side answers.
fn connect(tool: &mut Tool<'_>, now: u64, sock: Sock) {
    assert_eq!(tool.call(now, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
    assert_eq!(tool.softirq(now + 1, sock, SYN_SENT, ESTABLISHED), REPORTED);
}

/// The event of what `task` does to a socket with these fields.
pub fn event(spec: &Spec, now: u64, kind: Kind, task: Task) -> Event {
    Event {
        ts: ns(now),
        raddr: spec.raddr,
        laddr: spec.laddr,
        comm: task.comm,
        pid: task.tgid,
        uid: if task == NO_PROCESS { 0 } else { USER },
        netns: spec.netns,
        rport: spec.rport.to_be(),
        lport: spec.lport.to_be(),
        family: spec.family,
        kind: kind as u16,
        reserved: 0,
    }
}

/// What was sent since the last time.
pub fn events(tool: &mut Tool<'_>) -> Vec<Event> {
    tool.events(Event::SIZE, Event::decode)
}

/// What the table has of a socket.
fn entry(tool: &mut Tool<'_>, sock: Sock) -> Option<Entry> {
    tool.entry(sock).map(|bytes| Entry::decode(&bytes).expect("an entry's size"))
}

/// The table's entry of a socket that `task` has connected, or an unknown process.
fn connected(task: Task, stage: Stage) -> Option<Entry> {
    let known = task != NO_PROCESS;
    let rank = if known { Rank::Used } else { Rank::Unknown } as u32;
    let uid = if known { USER } else { 0 };
    Some(Entry { pid: task.tgid, rank, comm: task.comm, uid, stage: stage as u32 })
}

cases! {
    /// A connection is reported when it is established, with the process that connected; then its
    /// close, with the process that closes it; and nothing else.
    fn connects_and_closes(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        for spec in lab.specs() {
            for closer in [OWNER, OTHER] {
                let sock = socket(&mut tool, &spec);
                assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
                assert_eq!(entry(&mut tool, sock), connected(OWNER, Stage::Connecting));
                assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), REPORTED);
                assert_eq!(entry(&mut tool, sock), connected(OWNER, Stage::Open));
                let mut expected = vec![event(&spec, 200, Kind::Connect, OWNER)];
                assert_eq!(close(&mut tool, 300, closer, sock), lab.fate_of(closer));
                assert_eq!(entry(&mut tool, sock), connected(OWNER, Stage::Closed));
                if lab.fate_of(closer) == REPORTED {
                    expected.push(event(&spec, 300, Kind::Close, closer));
                }
                assert_eq!(tool.call(310, OWNER, sock, FIN_WAIT1, FIN_WAIT2), FILTERED);
                assert_eq!(tool.softirq(320, sock, FIN_WAIT2, CLOSE), FILTERED);
                assert_eq!(destroy(&mut tool, 330, Some(OWNER), sock), FILTERED);
                assert_eq!(events(&mut tool), expected);
            }
        }
    }

    /// A connection that came out of a listener is reported when it is closed, in every state.
    fn closes(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        for (old, new) in [
            (ESTABLISHED, FIN_WAIT1),
            (ESTABLISHED, CLOSE),
            (SYN_RECV, FIN_WAIT1),
            (CLOSE_WAIT, LAST_ACK),
            (CLOSE_WAIT, CLOSE),
            (FIN_WAIT2, CLOSE),
            (FIN_WAIT1, CLOSE),
        ] {
            let sock = socket(&mut tool, &lab.spec());
            assert_eq!(tool.softirq(10, sock, LISTEN, SYN_RECV), FILTERED);
            assert_eq!(tool.softirq(20, sock, SYN_RECV, ESTABLISHED), FILTERED);
            assert_eq!(entry(&mut tool, sock), None);
            // A change by a packet is not a close, nor is a shutdown of one side.
            for shutdown in [0, 1, 2, 3] {
                tool.set_sock(sock, "sock.sk_shutdown", shutdown);
                assert_eq!(tool.softirq(30, sock, old, new), FILTERED);
                if shutdown != 3 {
                    assert_eq!(tool.call(40, OWNER, sock, old, new), FILTERED);
                }
            }
            assert_eq!(entry(&mut tool, sock), None);
            assert_eq!(tool.call(50, OWNER, sock, old, new), REPORTED, "{old:?} to {new:?}");
            let closed = Entry { pid: 0, rank: 0, comm: [0; 16], uid: 0, stage: Stage::Closed as u32 };
            assert_eq!(entry(&mut tool, sock), Some(closed));
            assert_eq!(tool.call(60, OWNER, sock, old, new), FILTERED, "once is enough");
            assert_eq!(destroy(&mut tool, 70, Some(OWNER), sock), FILTERED);
            assert_eq!(events(&mut tool), [event(&lab.spec(), 50, Kind::Close, OWNER)]);
        }
    }

    /// A connection that the other side has reset changes its state no more: its close is its end.
    fn closes_by_its_end(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        for (at, closer) in [OWNER, OTHER].into_iter().enumerate() {
            let now = 100 * (at as u64 + 1);
            for spec in lab.specs() {
                let known = socket(&mut tool, &spec);
                connect(&mut tool, now, known);
                let sent = events(&mut tool);
                assert_eq!(sent.len(), 1);
                assert_eq!(tool.softirq(now + 2, known, ESTABLISHED, CLOSE), FILTERED);
                let unknown = socket(&mut tool, &spec);
                let unacknowledged = socket(&mut tool, &spec);
                tool.set_sock(unacknowledged, "tcp_sock.rcv_nxt", 0x0100_0000);
                for sock in [known, unknown, unacknowledged] {
                    assert_eq!(destroy(&mut tool, now + 3, Some(closer), sock), lab.fate_of(closer));
                    let reported = events(&mut tool);
                    let expected = [event(&spec, now + 3, Kind::Close, closer)];
                    assert_eq!(reported, expected[..usize::from(lab.fate_of(closer) == REPORTED)]);
                }
            }
        }
    }

    /// An end without a close: no process had the socket open any more, or it never received or
    /// never sent anything.
    fn ends_without_a_close(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let orphan = socket(&mut tool, &lab.spec());
        connect(&mut tool, 10, orphan);
        let child = socket(&mut tool, &lab.spec());
        for sock in [orphan, child] {
            assert_eq!(destroy(&mut tool, 20, None, sock), FILTERED);
        }
        let unheard = socket(&mut tool, &lab.spec());
        tool.set_sock(unheard, "tcp_sock.rcv_nxt", 0);
        // Ports whose lower byte is 0 on the wire, and 1, are ports.
        for port in [1, 1 << 8] {
            let sock = socket(&mut tool, &Spec { rport: port, ..lab.spec() });
            let fate = if lab.filter().remote_ports.contains(&port) || lab.filter().remote_ports.is_empty() { REPORTED } else { FILTERED };
            assert_eq!(destroy(&mut tool, 25, Some(OWNER), sock), fate);
            events(&mut tool);
        }
        // A listener, and a connection that was taken back by connect(AF_UNSPEC).
        let listener = socket(&mut tool, &lab.spec());
        let taken_back = socket(&mut tool, &lab.spec());
        connect(&mut tool, 30, taken_back);
        assert_eq!(tool.call(40, OWNER, taken_back, ESTABLISHED, CLOSE), FILTERED);
        for sock in [listener, taken_back] {
            tool.set_sock(sock, "sock_common.skc_dport", 0);
        }
        for sock in [unheard, listener, taken_back] {
            assert_eq!(destroy(&mut tool, 50, Some(OWNER), sock), FILTERED);
        }
        assert_eq!(events(&mut tool).len(), 1, "the one that was connected since");
    }

    /// For a connect that fails, neither the connect nor the close is reported.
    fn refused(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        for given_up in [false, true] {
            for both_sides in [false, true] {
                let sock = socket(&mut tool, &lab.spec());
                assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
                let mut last = SYN_SENT;
                if both_sides {
                    assert_eq!(tool.softirq(20, sock, SYN_SENT, SYN_RECV), FILTERED);
                    last = SYN_RECV;
                }
                if given_up {
                    tool.set_sock(sock, "sock.sk_shutdown", 3);
                    assert_eq!(tool.call(30, OWNER, sock, last, CLOSE), FILTERED);
                } else {
                    assert_eq!(tool.softirq(30, sock, last, CLOSE), FILTERED);
                }
                assert_eq!(entry(&mut tool, sock), connected(OWNER, Stage::Connecting));
                assert_eq!(destroy(&mut tool, 40, Some(OWNER), sock), FILTERED);
            }
        }
        // Its begin was not seen either.
        let sock = socket(&mut tool, &lab.spec());
        tool.set_sock(sock, "sock.sk_shutdown", 3);
        assert_eq!(tool.call(50, OWNER, sock, SYN_SENT, CLOSE), FILTERED);
        assert_eq!((entry(&mut tool, sock), events(&mut tool)), (None, vec![]));
    }

    /// Both sides send a SYN: established out of SYN_RECV, and it is the connect of the same
    /// process still.
    fn simultaneous_open(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let sock = socket(&mut tool, &lab.spec());
        assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
        assert_eq!(tool.softirq(20, sock, SYN_SENT, SYN_RECV), FILTERED);
        assert_eq!(tool.softirq(30, sock, SYN_RECV, ESTABLISHED), REPORTED);
        assert_eq!(tool.softirq(40, sock, SYN_RECV, ESTABLISHED), FILTERED, "once is enough");
        assert_eq!(events(&mut tool), [event(&lab.spec(), 30, Kind::Connect, OWNER)]);
    }

    /// A connect whose begin was not seen has no process, nor has one by a packet: it is reported
    /// if no process is asked for.
    fn connects_without_a_process(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let reported = if lab.asks_who() { FILTERED } else { REPORTED };
        let unseen = socket(&mut tool, &lab.spec());
        let by_packet = socket(&mut tool, &lab.spec());
        tool.at(10, OWNER);
        let kept = if lab.asks_who() { FILTERED } else { AGGREGATED };
        assert_eq!(tool.change(by_packet, CLOSE, SYN_SENT), kept);
        let expected = if lab.asks_who() { None } else { connected(NO_PROCESS, Stage::Connecting) };
        assert_eq!(entry(&mut tool, by_packet), expected);
        for sock in [unseen, by_packet] {
            tool.at(20, OWNER);
            assert_eq!(tool.change(sock, SYN_SENT, ESTABLISHED), reported);
            let expected = [event(&lab.spec(), 20, Kind::Connect, NO_PROCESS)];
            assert_eq!(events(&mut tool), expected[..usize::from(reported == REPORTED)]);
        }
    }

    /// A socket may connect again: what was known of it counts no more, even if who connects now is
    /// not wanted.
    fn connects_again(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let sock = socket(&mut tool, &lab.spec());
        connect(&mut tool, 10, sock);
        assert_eq!(close(&mut tool, 20, OWNER, sock), REPORTED);
        connect(&mut tool, 30, sock);
        assert_eq!(entry(&mut tool, sock), connected(OWNER, Stage::Open));
        assert_eq!(events(&mut tool).len(), 3);
        if lab.set == Set::Filtered {
            assert_eq!(tool.call(40, OTHER, sock, CLOSE, SYN_SENT), FILTERED);
            assert_eq!(entry(&mut tool, sock), None);
            assert_eq!(tool.softirq(50, sock, SYN_SENT, ESTABLISHED), FILTERED);
        }
        assert_eq!(events(&mut tool), []);
    }

    /// The kernel uses a socket's address again before the last one was seen to go.
    fn address_reused(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let sock = socket(&mut tool, &lab.spec());
        assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
        assert_eq!(tool.softirq(20, sock, LISTEN, SYN_RECV), FILTERED);
        assert_eq!(entry(&mut tool, sock), None);
        assert_eq!(tool.softirq(30, sock, SYN_RECV, ESTABLISHED), FILTERED);
        assert_eq!(events(&mut tool), []);
    }

    /// A listener is not a connection, however it begins and ends.
    fn listener(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let sock = socket(&mut tool, &lab.spec());
        for shutdown in [0, 3] {
            tool.set_sock(sock, "sock.sk_shutdown", shutdown);
            assert_eq!(tool.call(10, OWNER, sock, CLOSE, LISTEN), FILTERED);
            assert_eq!(tool.call(20, OWNER, sock, LISTEN, CLOSE), FILTERED);
        }
        assert_eq!((entry(&mut tool, sock), events(&mut tool)), (None, vec![]));
    }

    /// Filters by user and by container: each has to match at the time of the event.
    fn users_and_containers(lab) in [Wide] {
        let mut tool = lab.tcptracer();
        let elsewhere = 0x2122_2324_2526_2728_u64;
        let [task, proxy, namespace] = ["task_struct", "nsproxy", "mnt_namespace"].map(|root| tool.object(root));
        tool.set(namespace, "mnt_namespace.ns.inum", MOUNT_NAMESPACE + 1);
        let at = tool.address(namespace);
        tool.set(proxy, "nsproxy.mnt_ns", at);
        let at = tool.address(proxy);
        tool.set(task, "task_struct.nsproxy", at);
        let task = tool.address(task);
        let strangers: [fn(&mut Tool<'_>, u64, u64); 3] = [
            |tool, _, _| tool.machine().uid = USER ^ 1 << 16,
            |tool, cgroup, _| tool.machine().cgroup = cgroup,
            |tool, _, task| tool.machine().task_struct = task,
        ];
        for stranger in strangers {
            settle(&mut tool);
            let [closed, destroyed] = [(); 2].map(|()| socket(&mut tool, &lab.spec()));
            for sock in [closed, destroyed] {
                connect(&mut tool, 10, sock);
            }
            stranger(&mut tool, elsewhere, task);
            assert_eq!(close(&mut tool, 20, OWNER, closed), FILTERED);
            assert_eq!(destroy(&mut tool, 20, Some(OWNER), destroyed), FILTERED);
            let sock = socket(&mut tool, &lab.spec());
            assert_eq!(tool.call(30, OWNER, sock, CLOSE, SYN_SENT), FILTERED);
            settle(&mut tool);
            assert_eq!(tool.softirq(40, sock, SYN_SENT, ESTABLISHED), FILTERED);
            // What a wanted one had begun on the same socket counts no more.
            assert_eq!(tool.call(50, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
            stranger(&mut tool, elsewhere, task);
            assert_eq!(tool.call(60, OWNER, sock, CLOSE, SYN_SENT), FILTERED);
            assert_eq!(entry(&mut tool, sock), None);
            settle(&mut tool);
            assert_eq!(destroy(&mut tool, 70, Some(OWNER), closed), FILTERED, "only the first who closes counts");
            assert_eq!(events(&mut tool).len(), 2);
        }
    }

    /// A task that has left its mount namespace may have been in a wanted one.
    fn unknown_mount_namespace(lab) in [Wide] {
        let mut tool = lab.tcptracer();
        for broken in 0..3 {
            let [task, proxy] = ["task_struct", "nsproxy"].map(|root| tool.object(root));
            tool.set(proxy, "nsproxy.mnt_ns", 0);
            let at = if broken == 1 { 0 } else { tool.address(proxy) };
            tool.set(task, "task_struct.nsproxy", at);
            tool.machine().task_struct = if broken == 2 { 0 } else { tool.address(task) };
            let sock = socket(&mut tool, &lab.spec());
            connect(&mut tool, 10, sock);
            assert_eq!(close(&mut tool, 20, OWNER, sock), REPORTED);
            destroy(&mut tool, 30, None, sock);
            let sock = socket(&mut tool, &lab.spec());
            assert_eq!(destroy(&mut tool, 40, Some(OWNER), sock), REPORTED);
        }
    }

    /// A full table is counted. A connection that is not in it is reported without a process, and
    /// its close is not reported, because it might be reported twice.
    fn table_full(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let [first, second, third] = [(); 3].map(|()| socket(&mut tool, &lab.spec()));
        connect(&mut tool, 10, first);
        connect(&mut tool, 10, second);
        assert_eq!(tool.call(20, OWNER, third, CLOSE, SYN_SENT), LOST_MAP);
        let reported = if lab.asks_who() { FILTERED } else { REPORTED };
        assert_eq!(tool.softirq(30, third, SYN_SENT, ESTABLISHED), reported);
        assert_eq!(close(&mut tool, 40, OWNER, third), LOST_MAP);
        assert_eq!(destroy(&mut tool, 50, None, first), FILTERED);
        assert_eq!(close(&mut tool, 60, OWNER, third), REPORTED);
    }

    /// A ring that is full is said, and what is known stays right.
    fn ring_full(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let [sock, reset] = [(); 2].map(|()| socket(&mut tool, &lab.spec()));
        assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
        tool.machine().ring_full = true;
        assert_eq!(tool.softirq(20, sock, SYN_SENT, ESTABLISHED), LOST_RING);
        assert_eq!(close(&mut tool, 30, OWNER, sock), LOST_RING);
        assert_eq!(destroy(&mut tool, 40, Some(OWNER), reset), LOST_RING);
        tool.machine().ring_full = false;
        assert_eq!(destroy(&mut tool, 50, Some(OWNER), sock), FILTERED);
        assert_eq!(events(&mut tool), []);
    }

    /// A change to the same state (MPTCP makes such changes) is not even seen.
    fn repeats(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        let sock = socket(&mut tool, &lab.spec());
        tool.set_sock(sock, "sock.sk_shutdown", 3);
        for state in [ESTABLISHED, FIN_WAIT1, SYN_SENT] {
            assert_eq!(tool.call(100, OWNER, sock, state, state), NOTHING);
        }
        assert_eq!((entry(&mut tool, sock), events(&mut tool)), (None, vec![]));
    }

    /// Sockets that are not TCP are none of the tool's business.
    fn other_protocols(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcptracer();
        for (family, protocol) in OTHERS {
            let sock = socket(&mut tool, &Spec { family, protocol, ..lab.spec() });
            assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), NOTHING, "{family}, {protocol}");
            assert_eq!(close(&mut tool, 100, OWNER, sock), NOTHING, "{family}, {protocol}");
            assert_eq!(destroy(&mut tool, 100, Some(OWNER), sock), NOTHING, "{family}, {protocol}");
        }
        assert_eq!((tool.machine().len("sockets"), events(&mut tool)), (0, vec![]));
    }
}
