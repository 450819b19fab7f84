//! tcpstates: the event of each change of state.

use bpfasm::{Access, Object, Ring};
use programs::filter::Filter;
use programs::owner::Rank;
use programs::tcp::State;
use programs::tcpstates::{self, Entry, Event, Options};

use crate::lab::fate::{
    self, FILTERED, FILTERED_UNTRACKED, LOST_RING, NOTHING, REPORTED, REPORTED_UNTRACKED,
};
use crate::lab::state::*;
use crate::lab::{Lab, RING_BYTES, Set, cases, ns};
use crate::spec::{NO_PROCESS, OTHER, OTHERS, OWNER, STRANGER, Spec};
use crate::specimens::{CURRENT_TASK, Specimen};
use crate::tool::{Sock, Tool, WALKERS};
use crate::vm::machine::Task;
use crate::{golden, owner};

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcpstates",
    object: |lab, filter, target| {
        let options = Options { filter: filter.clone(), ..lab.states() };
        tcpstates::object(&options, target).expect("links")
    },
    every: |filter, target, ring_bytes| {
        let options = Options { filter: filter.clone(), max_sockets: 1 << 20, ring_bytes };
        vec![tcpstates::object(&options, target).expect("links")]
    },
    golden,
    cases: &[CASES],
    reports: Some(reports),
    events: &[Event::LAYOUT],
    entry: Some(Entry::LAYOUT),
    fields: &[
        "bpf_iter__task_file.file",
        "bpf_iter__task_file.task",
        "file.f_inode",
        "file.private_data",
        "inet_sock.inet_sport",
        "inode.i_mode",
        "net.ns.inum",
        "sock.sk_lock.owned",
        "sock.sk_protocol",
        "sock.sk_type",
        "sock_common.skc_daddr",
        "sock_common.skc_dport",
        "sock_common.skc_family",
        "sock_common.skc_net.net",
        "sock_common.skc_rcv_saddr",
        "sock_common.skc_v6_daddr",
        "sock_common.skc_v6_rcv_saddr",
        "socket.sk",
        "task_struct.comm",
        "task_struct.tgid",
    ],
    registers: &["ax", "di"],
    optional: &[CURRENT_TASK],
    tracepoints: owner::TRACEPOINTS,
    attach_kinds: owner::attach_kinds,
    wanted: &[],
    mutate: true,
};

fn golden() -> Vec<(&'static str, Object)> {
    let typed = golden::target(Access::Typed, Ring::RingBuf);
    let probed = golden::target(Access::Probed, Ring::RingBuf);
    let perf = golden::target(Access::Probed, Ring::PerfEventArray);
    let object = |filter, target| {
        let options = Options { filter, max_sockets: 16384, ring_bytes: 1 << 22 };
        tcpstates::object(&options, target).expect("links")
    };
    vec![
        ("tcpstates-typed-ringbuf", object(Filter::default(), &typed)),
        ("tcpstates-probed-ringbuf", object(Filter::default(), &probed)),
        ("tcpstates-probed-perf", object(Filter::default(), &perf)),
        ("tcpstates-filtered-typed-ringbuf", object(golden::filter(), &typed)),
        ("tcpstates-filtered-probed-perf", object(golden::filter(), &perf)),
    ]
}

/// Whether it reports a change of a socket like this one that `OWNER` makes.
pub fn reports(tool: &mut Tool<'_>, spec: &Spec) -> bool {
    let sock = tool.sock(spec);
    let fate = tool.call(10, OWNER, sock, ESTABLISHED, FIN_WAIT1);
    tool.destroy(sock);
    fate::is_reported(fate)
}

impl Lab {
    /// tcpstates' options of this set.
    pub fn states(&self) -> Options {
        Options { filter: self.filter(), max_sockets: 2, ring_bytes: RING_BYTES }
    }

    /// tcpstates at work.
    pub fn tcpstates(&self, options: &Options) -> Tool<'_> {
        self.tool(&format!("tcpstates {options:?}"), |target| {
            tcpstates::object(options, target).expect("links")
        })
    }
}

/// The event of a change that `task` makes, on a socket with these fields.
fn event(spec: &Spec, sock: Sock, task: Task, times: (u64, u64), states: (State, State)) -> Event {
    Event {
        ts: ns(times.1),
        last: ns(times.0),
        skaddr: sock.address,
        raddr: spec.raddr,
        laddr: spec.laddr,
        comm: task.comm,
        pid: task.tgid,
        netns: spec.netns,
        rport: spec.rport.to_be(),
        lport: spec.lport.to_be(),
        family: spec.family,
        oldstate: states.0.0,
        newstate: states.1.0,
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

/// What becomes of a change whose actor the filter does not want.
fn unless_filtered(lab: &Lab, task: Task) -> programs::stats::Stats {
    if lab.set == Set::Filtered && task != OWNER { FILTERED } else { REPORTED }
}

cases! {
    /// Every change of a connection that this side opens is reported, with the time since the last
    /// one and the owner, however it ends; then it is forgotten.
    fn active(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        for end in ENDS {
            let sock = tool.sock(&lab.spec());
            let mut path = vec![CLOSE, SYN_SENT, ESTABLISHED];
            path.extend(end);
            path.push(CLOSE);
            let mut last = 0;
            for (step, change) in path.windows(2).enumerate() {
                let now = 1000 + step as u64;
                let (old, new) = (change[0], change[1]);
                assert_eq!(tool.step(now, OWNER, sock, old, new), REPORTED, "{old:?} to {new:?}");
                let expected = event(&lab.spec(), sock, OWNER, (last, now), (old, new));
                assert_eq!(events(&mut tool), [expected]);
                last = now;
            }
            tool.destroy(sock);
            assert_eq!(tool.machine().len("sockets"), 0);
        }
    }

    /// A connection that the other side opens has no owner until a process uses it; that process is
    /// remembered.
    fn passive(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        let paths = [
            (SYN_RECV, NO_PROCESS),
            (ESTABLISHED, NO_PROCESS),
            (CLOSE_WAIT, NO_PROCESS),
            (LAST_ACK, OWNER),
            (CLOSE, OWNER),
        ];
        let (mut old, mut last) = (LISTEN, 0);
        for (step, (new, whose)) in paths.into_iter().enumerate() {
            let now = 50 + step as u64;
            assert_eq!(tool.step(now, OWNER, sock, old, new), unless_filtered(lab, whose), "{old:?} to {new:?}");
            let expected = event(&lab.spec(), sock, whose, (last, now), (old, new));
            let reported = unless_filtered(lab, whose) == REPORTED;
            assert_eq!(events(&mut tool), if reported { vec![expected] } else { vec![] });
            (old, last) = (new, now);
        }
    }

    /// The process that makes a change is reported, not the socket's owner; for a change by a
    /// packet it is the owner.
    fn actor(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(1, OWNER, sock, CLOSE, SYN_SENT), REPORTED);
        assert_eq!(tool.softirq(2, sock, SYN_SENT, ESTABLISHED), REPORTED);
        assert_eq!(tool.call(3, OTHER, sock, ESTABLISHED, FIN_WAIT1), unless_filtered(lab, OTHER));
        assert_eq!(tool.softirq(4, sock, FIN_WAIT1, FIN_WAIT2), REPORTED);
        let reported: Vec<_> = events(&mut tool).iter().map(|event| (event.ts, event.pid, event.comm)).collect();
        let mut expected = [(1, OWNER), (2, OWNER), (3, OTHER), (4, OWNER)].map(|(step, task)| (ns(step), task.tgid, task.comm)).to_vec();
        expected.retain(|(_, pid, _)| lab.set != Set::Filtered || *pid == OWNER.tgid);
        assert_eq!(reported, expected);
    }

    /// A change by a packet of a socket without an owner has no process, even if the process asked
    /// for happens to run.
    fn without_an_owner(lab) in [Narrow, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        tool.at(10, OWNER);
        for (old, new) in [(SYN_SENT, ESTABLISHED), (ESTABLISHED, CLOSE_WAIT), (LISTEN, SYN_RECV), (CLOSE, SYN_SENT)] {
            assert_eq!(tool.change(sock, old, new), unless_filtered(lab, NO_PROCESS));
            let unknown = Entry { pid: 0, rank: Rank::Unknown as u32, comm: [0; 16], last: ns(10) };
            assert_eq!(entry(&mut tool, sock), Some(unknown));
        }
        for event in events(&mut tool) {
            assert_eq!((event.pid, event.comm), (NO_PROCESS.tgid, NO_PROCESS.comm));
        }
    }

    /// A listener's opening and its end are reported, and how long it listened.
    fn listener(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(100, OWNER, sock, CLOSE, LISTEN), REPORTED);
        assert_eq!(tool.call(300, OWNER, sock, LISTEN, CLOSE), REPORTED);
        let expected = [
            event(&lab.spec(), sock, OWNER, (0, 100), (CLOSE, LISTEN)),
            event(&lab.spec(), sock, OWNER, (100, 300), (LISTEN, CLOSE)),
        ];
        assert_eq!(events(&mut tool), expected);
    }

    /// The first change seen of a socket enters it: who opens it is its owner, who closes it may
    /// be.
    fn entries(lab) in [Narrow, Wide, Filtered, Six] {
        for (old, new, rank) in [
            (CLOSE, SYN_SENT, Rank::Used),
            (CLOSE, LISTEN, Rank::Used),
            (ESTABLISHED, FIN_WAIT1, Rank::Closed),
            (LISTEN, CLOSE, Rank::Closed),
        ] {
            let mut tool = lab.tcpstates(&lab.states());
            let sock = tool.sock(&lab.spec());
            assert_eq!(tool.call(70, OWNER, sock, old, new), REPORTED);
            let owned = Entry { pid: OWNER.tgid, rank: rank as u32, comm: OWNER.comm, last: ns(70) };
            assert_eq!(entry(&mut tool, sock), Some(owned), "{old:?} to {new:?}");
            assert_eq!(events(&mut tool)[0].last, 0);

            let sock = tool.sock(&lab.spec());
            tool.softirq(80, sock, old, new);
            let unknown = Entry { pid: 0, rank: Rank::Unknown as u32, comm: [0; 16], last: ns(80) };
            assert_eq!(entry(&mut tool, sock), Some(unknown), "{old:?} to {new:?}");
        }
    }

    /// The next change of a socket whose owner is not known may teach it: fully if it opens the
    /// socket again.
    fn entries_improve(lab) in [Narrow, Wide, Filtered, Six] {
        for comm in [OTHER.comm, [0; 16]] {
            let other = Task { comm, ..OTHER };
            let mut tool = lab.tcpstates(&lab.states());
            let sock = tool.sock(&lab.spec());
            assert_eq!(tool.softirq(10, sock, SYN_SENT, ESTABLISHED), unless_filtered(lab, NO_PROCESS));
            assert_eq!(tool.call(20, other, sock, ESTABLISHED, FIN_WAIT1), unless_filtered(lab, OTHER));
            let closed = Entry { pid: other.tgid, rank: Rank::Closed as u32, comm, last: ns(20) };
            assert_eq!(entry(&mut tool, sock), Some(closed));
            assert_eq!(tool.call(30, OWNER, sock, FIN_WAIT1, CLOSE), REPORTED);
            assert_eq!(entry(&mut tool, sock), Some(Entry { last: ns(30), ..closed }), "closing does not beat closing");
            assert_eq!(tool.softirq(35, sock, CLOSE, SYN_SENT), unless_filtered(lab, OTHER));
            assert_eq!(entry(&mut tool, sock), Some(Entry { last: ns(35), ..closed }), "a packet teaches nothing");
            assert_eq!(tool.call(40, OWNER, sock, CLOSE, SYN_SENT), REPORTED);
            let used = Entry { pid: OWNER.tgid, rank: Rank::Used as u32, comm: OWNER.comm, last: ns(40) };
            assert_eq!(entry(&mut tool, sock), Some(used));
            assert_eq!(tool.call(50, other, sock, CLOSE, LISTEN), unless_filtered(lab, OTHER));
            assert_eq!(entry(&mut tool, sock), Some(Entry { last: ns(50), ..used }), "opening does not beat opening");
        }
    }

    /// The kernel uses a socket's address again before the last one was seen to go: a connection
    /// out of a listener begins anew.
    fn address_reused(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), REPORTED);
        events(&mut tool);
        assert_eq!(tool.softirq(20, sock, LISTEN, SYN_RECV), unless_filtered(lab, NO_PROCESS));
        for event in events(&mut tool) {
            assert_eq!((event.last, event.pid, event.comm), (0, NO_PROCESS.tgid, NO_PROCESS.comm));
        }
        let unknown = Entry { pid: 0, rank: Rank::Unknown as u32, comm: [0; 16], last: ns(20) };
        assert_eq!(entry(&mut tool, sock), Some(unknown));
        // A listener that closes is the same socket still.
        assert_eq!(tool.call(30, OWNER, sock, LISTEN, CLOSE), REPORTED);
        assert_eq!(events(&mut tool)[0].last, ns(20));
    }

    /// Both sides send a SYN: SYN_SENT goes to SYN_RECV, and it is the same socket still.
    fn simultaneous_open(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), REPORTED);
        events(&mut tool);
        assert_eq!(tool.softirq(20, sock, SYN_SENT, SYN_RECV), REPORTED);
        let expected = event(&lab.spec(), sock, OWNER, (10, 20), (SYN_SENT, SYN_RECV));
        assert_eq!(events(&mut tool), [expected]);
    }

    /// A change to the same state (MPTCP makes such changes) is not even seen.
    fn repeats(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        for state in [ESTABLISHED, FIN_WAIT1, CLOSE, LISTEN] {
            assert_eq!(tool.call(100, OWNER, sock, state, state), NOTHING);
        }
        assert_eq!((entry(&mut tool, sock), events(&mut tool)), (None, vec![]));
    }

    /// Sockets that are not TCP are none of the tool's business.
    fn other_protocols(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        for (family, protocol) in OTHERS {
            let sock = tool.sock(&Spec { family, protocol, ..lab.spec() });
            assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), NOTHING, "{family}, {protocol}");
            assert_eq!(tool.call(100, OWNER, sock, SYN_SENT, CLOSE), NOTHING, "{family}, {protocol}");
        }
        assert_eq!((tool.machine().len("sockets"), events(&mut tool)), (0, vec![]));
    }

    /// A full table is counted, and changes are reported in any case, without the time since the
    /// last one.
    fn table_full(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let [first, second, third] = [(); 3].map(|()| tool.sock(&lab.spec()));
        for sock in [first, second] {
            assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), REPORTED);
        }
        assert_eq!(tool.call(20, OWNER, third, CLOSE, SYN_SENT), REPORTED_UNTRACKED);
        let passed_on = if lab.set == Set::Filtered { FILTERED_UNTRACKED } else { REPORTED_UNTRACKED };
        assert_eq!(tool.softirq(30, third, SYN_SENT, ESTABLISHED), passed_on, "its owner is unknown");
        assert_eq!(entry(&mut tool, third), None);
        let reported = events(&mut tool);
        assert_eq!((reported[2].ts, reported[2].last, reported[2].pid), (ns(20), 0, OWNER.tgid));
        if let Some(event) = reported.get(3) {
            assert_eq!((event.ts, event.last, event.pid, event.comm), (ns(30), 0, NO_PROCESS.tgid, NO_PROCESS.comm));
        }
        tool.destroy(first);
        assert_eq!(tool.call(40, OWNER, third, ESTABLISHED, FIN_WAIT1), REPORTED);
    }

    /// A ring that is full is said, and the change is remembered: the next one knows how long the
    /// state lasted.
    fn ring_full(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        tool.machine().ring_full = true;
        assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), LOST_RING);
        tool.machine().ring_full = false;
        assert_eq!(tool.softirq(30, sock, SYN_SENT, ESTABLISHED), REPORTED);
        let reported = events(&mut tool);
        assert_eq!((reported.len(), reported[0].last, reported[0].ts), (1, ns(10), ns(30)));
    }

    /// A change that a filter rejects is remembered too: a connecting socket has no local port yet.
    fn filtered_and_remembered(lab) in [Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        tool.set_sock(sock, "inet_sock.inet_sport", 0);
        assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), FILTERED);
        tool.set_sock(sock, "inet_sock.inet_sport", lab.spec().lport.to_be().into());
        assert_eq!(tool.softirq(30, sock, SYN_SENT, ESTABLISHED), REPORTED);
        let expected = event(&lab.spec(), sock, OWNER, (10, 30), (SYN_SENT, ESTABLISHED));
        assert_eq!(events(&mut tool), [expected]);
    }

    /// IPv6 addresses are complete, mapped ones are as the socket has them, and an IPv4 address is
    /// followed by zeroes.
    fn addresses(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        for spec in lab.specs() {
            let sock = tool.sock(&spec);
            assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), REPORTED);
            let expected = event(&spec, sock, OWNER, (0, 10), (CLOSE, SYN_SENT));
            assert_eq!(events(&mut tool), [expected]);
            tool.destroy(sock);
        }
    }

    /// A socket that was open when tracing began: its owner is known, the beginning of its state is
    /// not.
    fn existing(lab) in [Narrow, Wide, Filtered, Six] {
        let changes = [(ESTABLISHED, CLOSE_WAIT), (LISTEN, CLOSE), (CLOSE, SYN_SENT)];
        for ((state, next), walker) in changes.into_iter().flat_map(|change| WALKERS.map(|walker| (change, walker))) {
            let mut tool = lab.tcpstates(&lab.states());
            tool.walker = walker;
            let sock = tool.sock(&lab.spec());
            tool.set_sock(sock, "sock_common.skc_state", state.0.into());
            tool.walk(1000, OWNER, sock);
            let held = Entry { pid: OWNER.tgid, rank: Rank::Preexisting as u32, comm: OWNER.comm, last: 0 };
            assert_eq!(entry(&mut tool, sock), Some(held));
            assert_eq!(tool.softirq(2000, sock, state, next), REPORTED);
            let expected = event(&lab.spec(), sock, OWNER, (0, 2000), (state, next));
            assert_eq!(events(&mut tool), [expected], "{state:?}");
            assert_eq!(entry(&mut tool, sock), Some(Entry { last: ns(2000), ..held }));
        }
    }

    /// Memory that cannot be read is not taken for a socket.
    fn unreadable(lab) in [Narrow, Wide, Six] {
        let mut tool = lab.tcpstates(&lab.states());
        let sock = tool.sock(&lab.spec());
        tool.machine().unreadable = true;
        let fate = tool.call(100, STRANGER, sock, CLOSE, SYN_SENT);
        // Typed access reads without asking: the kernel answers what it cannot read with zeroes
        // itself.
        assert_eq!(fate, if lab.access == Access::Probed { NOTHING } else { REPORTED });
    }
}
