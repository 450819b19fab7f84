//! tcpconnlat: what becomes of a connect, from the SYN to its answer.

use bpfasm::{Access, Object, Ring};
use programs::filter::Filter;
use programs::owner::Rank;
use programs::tcp::State;
use programs::tcpconnlat::{self, Entry, Event, Options};

use crate::ending::ENDINGS;
use crate::golden;
use crate::lab::fate::{self, AGGREGATED, FILTERED, LOST_MAP, LOST_RING, NOTHING, REPORTED};
use crate::lab::state::*;
use crate::lab::{Lab, RING_BYTES, Set, cases, ns};
use crate::spec::{NO_PROCESS, OTHER, OTHERS, OWNER, STRANGER, Spec};
use crate::specimens::{AttachKind, CURRENT_TASK, Specimen, Tracepoint, fitting};
use crate::tool::{Sock, Tool};
use crate::vm::machine::Task;

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcpconnlat",
    object: |lab, filter, target| {
        let options = Options { filter: filter.clone(), ..lab.latency() };
        tcpconnlat::object(&options, target).expect("links")
    },
    every: |filter, target, ring_bytes| {
        [(0, false), (0, true), (1, false), (u64::MAX, true)]
            .map(|(min_ns, failed)| {
                let filter = filter.clone();
                let options = Options { filter, min_ns, failed, max_sockets: 1, ring_bytes };
                tcpconnlat::object(&options, target).expect("links")
            })
            .into()
    },
    golden,
    cases: &[CASES],
    reports: Some(reports),
    events: &[Event::LAYOUT],
    entry: Some(Entry::LAYOUT),
    fields: &[
        "inet_sock.inet_sport",
        "net.ns.inum",
        "sock.sk_backlog.len",
        "sock.sk_err",
        "sock.sk_lock.owned",
        "sock.sk_protocol",
        "sock.sk_shutdown",
        "sock.sk_socket",
        "sock_common.skc_daddr",
        "sock_common.skc_dport",
        "sock_common.skc_family",
        "sock_common.skc_net.net",
        "sock_common.skc_rcv_saddr",
        "sock_common.skc_v6_daddr",
        "sock_common.skc_v6_rcv_saddr",
        "task_struct.comm",
        "task_struct.tgid",
    ],
    registers: &[],
    optional: &[CURRENT_TASK],
    // The process that connects is known, so nothing watches which process sends, receives, accepts
    // or has a socket open.
    tracepoints: &[
        Tracepoint { name: "inet_sock_set_state", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "tcp_destroy_sock", first: Some("sock"), lacking: &[] },
    ],
    attach_kinds: |target| fitting(&[AttachKind::TpBtf, AttachKind::RawTp], target),
    wanted: &[],
    mutate: true,
};

fn golden() -> Vec<(&'static str, Object)> {
    let typed = golden::target(Access::Typed, Ring::RingBuf);
    let perf = golden::target(Access::Probed, Ring::PerfEventArray);
    let object = |filter, min_ns, failed, target| {
        let options = Options { filter, min_ns, failed, max_sockets: 16384, ring_bytes: 1 << 22 };
        tcpconnlat::object(&options, target).expect("links")
    };
    vec![
        ("tcpconnlat-typed-ringbuf", object(Filter::default(), 0, false, &typed)),
        ("tcpconnlat-failed-probed-perf", object(Filter::default(), 0, true, &perf)),
        ("tcpconnlat-filtered-min-typed-ringbuf", object(golden::filter(), 5_000_000_000, false, &typed)),
    ]
}

/// Whether it reports a connect of a socket like this one that `OWNER` makes.
fn reports(tool: &mut Tool<'_>, spec: &Spec) -> bool {
    let sock = tool.sock(spec);
    let at_connect = tool.call(10, OWNER, sock, CLOSE, SYN_SENT);
    let fate = tool.softirq(70, sock, SYN_SENT, ESTABLISHED);
    assert!(at_connect == AGGREGATED || (at_connect, fate) == (FILTERED, FILTERED), "{at_connect:?}");
    tool.destroy(sock);
    fate::is_reported(fate)
}

impl Lab {
    /// tcpconnlat's options of this set: with filters also a least time, which is that of 50 steps.
    pub fn latency(&self) -> Options {
        Options {
            filter: self.filter(),
            min_ns: if matches!(self.set, Set::Filtered | Set::Six) { ns(50) } else { 0 },
            failed: matches!(self.set, Set::Wide | Set::Six),
            max_sockets: 2,
            ring_bytes: RING_BYTES,
        }
    }

    /// tcpconnlat at work.
    fn tcpconnlat(&self, options: &Options) -> Tool<'_> {
        self.tool(&format!("tcpconnlat {options:?}"), |target| {
            tcpconnlat::object(options, target).expect("links")
        })
    }
}

/// What is sent when a connect of `task` that began at 100 is answered at `now`.
fn event(spec: &Spec, task: Task, now: u64, newstate: State) -> Event {
    Event {
        ts: ns(now),
        latency: ns(now) - ns(100),
        raddr: spec.raddr,
        laddr: spec.laddr,
        comm: task.comm,
        pid: task.tgid,
        netns: spec.netns,
        err: if newstate == ESTABLISHED { 0 } else { spec.err },
        err_taken: 0,
        newstate: newstate.0.into(),
        rport: spec.rport.to_be(),
        lport: spec.lport.to_be(),
        family: spec.family,
        reserved: 0,
    }
}

/// What was sent since the last time.
fn events(tool: &mut Tool<'_>) -> Vec<Event> {
    tool.events(Event::SIZE, Event::decode)
}

/// What the table has of a socket.
fn entry(tool: &mut Tool<'_>, sock: Sock) -> Option<Entry> {
    tool.entry(sock).map(|bytes| Entry::decode(&bytes).expect("an entry's size"))
}

/// A socket by which `task` connects at 100.
fn connecting(tool: &mut Tool<'_>, spec: &Spec, task: Task) -> Sock {
    let sock = tool.sock(spec);
    assert_eq!(tool.call(100, task, sock, CLOSE, SYN_SENT), AGGREGATED);
    sock
}

/// Every state that a socket may leave or reach, but for TIME_WAIT and NEW_SYN_RECV, which no full
/// socket has.
const STATES: [State; 10] =
    [ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING];

cases! {
    /// A connect is reported once, when it is established, with the process that connected; then it
    /// is forgotten.
    fn established(lab) in [Narrow, Wide, Filtered, Six] {
        for spec in lab.specs() {
            let mut tool = lab.tcpconnlat(&lab.latency());
            let sock = connecting(&mut tool, &spec, OWNER);
            assert_eq!(events(&mut tool), [], "not before its answer");
            assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), REPORTED);
            assert_eq!(events(&mut tool), [event(&spec, OWNER, 200, ESTABLISHED)]);
            assert_eq!(tool.machine().len("sockets"), 0);
            assert_eq!(tool.call(300, OTHER, sock, ESTABLISHED, FIN_WAIT1), FILTERED);
            assert_eq!(tool.softirq(400, sock, FIN_WAIT1, CLOSE), FILTERED);
            assert_eq!(events(&mut tool), []);
        }
    }

    /// A connect that fails is reported only if asked for, and forgotten in any case.
    fn failed(lab) in [Narrow, Wide, Filtered, Six] {
        let wanted = lab.latency().failed;
        let mut tool = lab.tcpconnlat(&lab.latency());
        for end in STATES.into_iter().filter(|end| ![SYN_SENT, SYN_RECV, ESTABLISHED].contains(end)) {
            let sock = connecting(&mut tool, &lab.spec(), OWNER);
            let fate = tool.softirq(200, sock, SYN_SENT, end);
            assert_eq!(fate, if wanted { REPORTED } else { FILTERED }, "{end:?}");
            let expected = event(&lab.spec(), OWNER, 200, end);
            assert_eq!(events(&mut tool), if wanted { vec![expected] } else { vec![] });
            assert_eq!(tool.machine().len("sockets"), 0, "{end:?}");
        }
    }

    /// If a process may have taken the error that would show why, the event says so.
    fn errors_that_a_process_took(lab) in [Wide, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        for ending in ENDINGS {
            let sock = connecting(&mut tool, &lab.spec(), OWNER);
            assert_eq!(ending.happens(&mut tool, 200, sock, SYN_SENT), REPORTED);
            let reported = event(&lab.spec(), OWNER, 200, CLOSE);
            let expected = Event { err: ending.err, err_taken: ending.taken.into(), ..reported };
            assert_eq!(events(&mut tool), [expected], "{ending:?}");
        }
    }

    /// Both sides send a SYN: that is not an answer yet. Whatever follows is.
    fn simultaneous_open(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        for end in [ESTABLISHED, CLOSE, FIN_WAIT1] {
            let sock = connecting(&mut tool, &lab.spec(), OWNER);
            let before = entry(&mut tool, sock);
            assert_eq!(tool.softirq(150, sock, SYN_SENT, SYN_RECV), AGGREGATED);
            assert_eq!(entry(&mut tool, sock), before);
            let wanted = end == ESTABLISHED || lab.latency().failed;
            let fate = tool.step(200, OWNER, sock, SYN_RECV, end);
            assert_eq!(fate, if wanted { REPORTED } else { FILTERED }, "{end:?}");
            let expected = event(&lab.spec(), OWNER, 200, end);
            assert_eq!(events(&mut tool), if wanted { vec![expected] } else { vec![] });
            assert_eq!(tool.machine().len("sockets"), 0);
        }
    }

    /// Changes of sockets that are not about to connect are nothing, and neither enter nor change
    /// anything.
    fn other_changes(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let (other, sock) = (tool.sock(&lab.spec()), connecting(&mut tool, &lab.spec(), OWNER));
        let before = entry(&mut tool, sock);
        for old in STATES {
            for new in STATES.into_iter().filter(|new| *new != SYN_SENT && *new != old) {
                assert_eq!(tool.call(200, OTHER, other, old, new), FILTERED, "{old:?} to {new:?}");
                if old != SYN_SENT && old != SYN_RECV {
                    assert_eq!(tool.call(200, OTHER, sock, old, new), FILTERED, "{old:?} to {new:?}");
                }
            }
        }
        assert_eq!((entry(&mut tool, sock), entry(&mut tool, other)), (before, None));
        assert_eq!(events(&mut tool), []);
    }

    /// An entry has what is known, and zeroes otherwise.
    fn entries(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let sock = connecting(&mut tool, &lab.spec(), OWNER);
        let Task { tgid: pid, comm, .. } = OWNER;
        assert_eq!(entry(&mut tool, sock), Some(Entry { pid, rank: Rank::Used as u32, comm, begin: ns(100) }));
    }

    /// The process that connected is reported, not the one that handles the answer.
    fn owner_is_who_connected(lab) in [Narrow, Wide, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let sock = connecting(&mut tool, &lab.spec(), OWNER);
        assert_eq!(tool.call(200, OTHER, sock, SYN_SENT, ESTABLISHED), REPORTED);
        assert_eq!(events(&mut tool), [event(&lab.spec(), OWNER, 200, ESTABLISHED)]);
    }

    /// A connect whose task is unknown has no process; if a process is asked for, it is not even
    /// entered.
    fn without_an_owner(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let sock = tool.sock(&lab.spec());
        tool.at(100, OWNER);
        if lab.set == Set::Filtered {
            assert_eq!(tool.change(sock, CLOSE, SYN_SENT), FILTERED);
            assert_eq!((tool.softirq(200, sock, SYN_SENT, ESTABLISHED), tool.machine().len("sockets")), (FILTERED, 0));
        } else {
            assert_eq!(tool.change(sock, CLOSE, SYN_SENT), AGGREGATED);
            let (Task { tgid: pid, comm, .. }, rank) = (NO_PROCESS, Rank::Unknown as u32);
            assert_eq!(entry(&mut tool, sock), Some(Entry { pid, rank, comm, begin: ns(100) }));
            assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), REPORTED);
            assert_eq!(events(&mut tool), [event(&lab.spec(), NO_PROCESS, 200, ESTABLISHED)]);
        }
    }

    /// Another process's connect is not entered when one is asked for.
    fn of_another_process(lab) in [Filtered] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(100, OTHER, sock, CLOSE, SYN_SENT), FILTERED);
        assert_eq!(entry(&mut tool, sock), None);
        assert_eq!(tool.call(200, OWNER, sock, SYN_SENT, ESTABLISHED), FILTERED);
        assert_eq!(events(&mut tool), []);
    }

    /// Connects excluded by what is known at the connect take no table entry. The local port is not
    /// known: the kernel chooses it later.
    fn filters_apply_as_early_as_possible(lab) in [Filtered, Six] {
        let spec = lab.spec();
        let mut tool = lab.tcpconnlat(&lab.latency());
        let other_family = if spec == Spec::V4 { Spec::V6 } else { Spec::V4 };
        let mut unwanted = vec![other_family];
        if !lab.filter().remote_ports.is_empty() {
            unwanted.push(Spec { rport: spec.rport + 1, ..spec.clone() });
        }
        for spec in unwanted {
            let sock = tool.sock(&spec);
            assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), FILTERED, "{spec:?}");
            assert_eq!(entry(&mut tool, sock), None);
            assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), FILTERED);
        }
        for (lport, fate) in [(spec.lport, REPORTED), (spec.lport + 1, FILTERED)] {
            let sock = connecting(&mut tool, &Spec { lport: 0, ..spec.clone() }, OWNER);
            tool.set_sock(sock, "inet_sock.inet_sport", lport.to_be().into());
            assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), fate);
            assert_eq!((events(&mut tool).len(), tool.machine().len("sockets")), (usize::from(fate == REPORTED), 0));
        }
    }

    /// A connect that took exactly the minimum time is reported; one that took a nanosecond less is
    /// only forgotten.
    fn least_time(lab) in [Narrow, Filtered, Six] {
        let min = lab.latency().min_ns;
        let mut tool = lab.tcpconnlat(&lab.latency());
        for (latency, wanted) in
            [(min, true), (min + 1, true), (min + (1 << 40), true), (min.saturating_sub(1), min == 0), (0, min == 0)]
        {
            let sock = connecting(&mut tool, &lab.spec(), OWNER);
            tool.at(200, STRANGER);
            tool.machine().now = ns(100) + latency;
            assert_eq!(tool.change(sock, SYN_SENT, ESTABLISHED), if wanted { REPORTED } else { FILTERED }, "{latency}");
            let reported: Vec<u64> = events(&mut tool).iter().map(|event| event.latency).collect();
            assert_eq!(reported, if wanted { vec![latency] } else { vec![] });
            assert_eq!(tool.machine().len("sockets"), 0);
        }
    }

    /// A socket may connect again, or another at its address: the last beginning counts.
    fn connected_again(lab) in [Narrow, Wide, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(50, OTHER, sock, CLOSE, SYN_SENT), AGGREGATED);
        assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
        assert_eq!(tool.machine().len("sockets"), 1);
        assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), REPORTED);
        assert_eq!(events(&mut tool), [event(&lab.spec(), OWNER, 200, ESTABLISHED)]);
    }

    /// A full table is counted; an answer frees an entry at once.
    fn table_full(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let [first, _] = [(); 2].map(|()| connecting(&mut tool, &lab.spec(), OWNER));
        let third = tool.sock(&lab.spec());
        assert_eq!(tool.call(100, OWNER, third, CLOSE, SYN_SENT), LOST_MAP);
        assert_eq!(tool.softirq(200, third, SYN_SENT, ESTABLISHED), FILTERED);
        assert_eq!(tool.softirq(200, first, SYN_SENT, ESTABLISHED), REPORTED);
        assert_eq!(tool.call(300, OWNER, third, CLOSE, SYN_SENT), AGGREGATED);
    }

    /// A ring that is full is said, and nothing is sent.
    fn ring_full(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let sock = connecting(&mut tool, &lab.spec(), OWNER);
        tool.machine().ring_full = true;
        assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), LOST_RING);
        assert_eq!((events(&mut tool), tool.machine().len("sockets")), (vec![], 0));
    }

    /// The kernel frees a socket without an answer: that one is forgotten, and no other.
    fn destroyed(lab) in [Narrow] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let [first, second] = [(); 2].map(|()| connecting(&mut tool, &lab.spec(), OWNER));
        let unknown = tool.sock(&lab.spec());
        tool.destroy(unknown);
        tool.destroy(first);
        assert_eq!((entry(&mut tool, first), entry(&mut tool, second).is_some()), (None, true));
    }

    /// A change to the same state (MPTCP makes such changes) is not even seen.
    fn repeats(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let sock = connecting(&mut tool, &lab.spec(), OWNER);
        let before = entry(&mut tool, sock);
        for state in STATES {
            assert_eq!(tool.call(500, OTHER, sock, state, state), NOTHING);
        }
        assert_eq!((entry(&mut tool, sock), events(&mut tool)), (before, vec![]));
    }

    /// Sockets that are not TCP are none of the tool's business.
    fn other_protocols(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        for (family, protocol) in OTHERS {
            let sock = tool.sock(&Spec { family, protocol, ..lab.spec() });
            for (old, new) in [(CLOSE, SYN_SENT), (SYN_SENT, ESTABLISHED), (SYN_SENT, CLOSE)] {
                assert_eq!(tool.call(100, OWNER, sock, old, new), NOTHING, "{family}, {protocol}");
            }
        }
        assert_eq!((tool.machine().len("sockets"), events(&mut tool)), (0, vec![]));
    }

    /// Memory that cannot be read is not taken for a connect.
    fn unreadable(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpconnlat(&lab.latency());
        let sock = tool.sock(&lab.spec());
        tool.machine().unreadable = true;
        let fate = tool.call(100, OWNER, sock, CLOSE, SYN_SENT);
        // Typed access reads without asking: the kernel answers what it cannot read with zeroes
        // itself.
        assert_eq!(fate, if lab.access == Access::Probed { NOTHING } else { AGGREGATED });
    }
}
