//! tcplife: the life of a connection, from birth to CLOSE.

mod existing;

use bpfasm::{Access, Object, Ring};
use programs::filter::{Family, Filter};
use programs::owner::Rank;
use programs::tcplife::{self, Entry, Event, Options, Role};

use crate::ending::ENDINGS;
use crate::lab::fate::{self, AGGREGATED, FILTERED, LOST_MAP, LOST_RING, NOTHING, REPORTED};
use crate::lab::state::*;
use crate::lab::{Lab, RING_BYTES, Set, cases, ns};
use crate::spec::{NO_PROCESS, OTHER, OTHERS, OWNER, STRANGER, Spec};
use crate::specimens::{CURRENT_TASK, Specimen};
use crate::tool::{Sock, Tool};
use crate::vm::machine::Task;
use crate::{golden, owner};

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcplife",
    object: |lab, filter, target| {
        let options = Options { filter: filter.clone(), ..lab.life() };
        tcplife::object(&options, target).expect("links")
    },
    every: |filter, target, ring_bytes| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(existing, failed)| {
                let filter = filter.clone();
                let options = Options { filter, existing, failed, max_sockets: 1, ring_bytes };
                tcplife::object(&options, target).expect("links")
            })
            .into()
    },
    golden,
    cases: &[CASES, existing::CASES],
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
        "sock.sk_backlog.len",
        "sock.sk_err",
        "sock.sk_lock.owned",
        "sock.sk_protocol",
        "sock.sk_shutdown",
        "sock.sk_socket",
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
        "task_struct.comm",
        "task_struct.tgid",
        "tcp_sock.bytes_acked",
        "tcp_sock.bytes_received",
        "tcp_sock.bytes_retrans",
        "tcp_sock.bytes_sent",
        "tcp_sock.snd_una",
        "tcp_sock.write_seq",
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
    let none = Filter::default();
    let six = Filter { family: Some(Family::V6), ..Filter::default() };
    let object = |filter: &Filter, existing, failed, target| {
        let filter = filter.clone();
        let options = Options { filter, existing, failed, max_sockets: 16384, ring_bytes: 1 << 22 };
        tcplife::object(&options, target).expect("links")
    };
    vec![
        ("tcplife-typed-ringbuf", object(&none, false, false, &typed)),
        ("tcplife-probed-ringbuf", object(&none, false, false, &probed)),
        ("tcplife-probed-perf", object(&none, false, false, &perf)),
        ("tcplife-existing-failed-typed-ringbuf", object(&none, true, true, &typed)),
        ("tcplife-existing-probed-ringbuf", object(&none, true, false, &probed)),
        ("tcplife-filtered-typed-ringbuf", object(&golden::filter(), false, false, &typed)),
        ("tcplife-filtered-probed-perf", object(&golden::filter(), false, false, &perf)),
        ("tcplife-ipv6-typed-ringbuf", object(&six, false, false, &typed)),
    ]
}

/// Whether it reports a connection like this one that `OWNER` makes.
fn reports(tool: &mut Tool<'_>, spec: &Spec) -> bool {
    let sock = tool.sock(spec);
    assert_eq!(tool.call(10, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED, "filters wait for the end");
    assert_eq!(tool.softirq(20, sock, SYN_SENT, ESTABLISHED), AGGREGATED);
    let fate = tool.softirq(30, sock, ESTABLISHED, CLOSE);
    tool.destroy(sock);
    fate::is_reported(fate)
}

impl Lab {
    /// tcplife's options of this set.
    pub fn life(&self) -> Options {
        Options {
            filter: self.filter(),
            existing: self.set == Set::Wide,
            failed: self.set == Set::Six,
            max_sockets: 2,
            ring_bytes: RING_BYTES,
        }
    }

    /// tcplife at work.
    pub fn tcplife(&self, options: &Options) -> Tool<'_> {
        self.tool(&format!("tcplife {options:?}"), |target| tcplife::object(options, target).expect("links"))
    }
}

/// The event of a socket with these fields that `task` owns, without what depends on its history.
pub fn event(lab: &Lab, spec: &Spec, task: Task) -> Event {
    let options = lab.life();
    Event {
        ts: 0,
        birth: 0,
        established: 0,
        bytes_acked: spec.bytes_acked,
        bytes_received: spec.bytes_received,
        bytes_sent: if options.existing { spec.bytes_sent } else { 0 },
        bytes_retrans: if options.existing { spec.bytes_retrans } else { 0 },
        raddr: spec.raddr,
        laddr: spec.laddr,
        comm: task.comm,
        pid: task.tgid,
        netns: spec.netns,
        snd_una: spec.snd_una,
        write_seq: spec.write_seq,
        err: spec.err,
        rport: spec.rport.to_be(),
        lport: spec.lport.to_be(),
        family: spec.family,
        oldstate: 0,
        role: Role::Unknown as u8,
        fin_received: spec.fin_received.into(),
        existing: 0,
        err_taken: 0,
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

/// `OWNER` connects at 100, and the connection stands at 200.
fn connect(tool: &mut Tool<'_>, sock: Sock) {
    assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
    assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), AGGREGATED);
}

/// A connection comes out of a listener at 110, and stands at 220.
fn arrive(tool: &mut Tool<'_>, sock: Sock) {
    assert_eq!(tool.softirq(110, sock, LISTEN, SYN_RECV), AGGREGATED);
    assert_eq!(tool.softirq(220, sock, SYN_RECV, ESTABLISHED), AGGREGATED);
}

cases! {
    /// A connection that this side opens is reported once, at its end, however it ends; then it is
    /// forgotten.
    fn active(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        for end in ENDS {
            let sock = tool.sock(&lab.spec());
            connect(&mut tool, sock);
            let mut last = ESTABLISHED;
            for &state in end {
                assert_eq!(tool.step(300, OWNER, sock, last, state), AGGREGATED);
                last = state;
            }
            assert_eq!(events(&mut tool), [], "not before its end");
            assert_eq!(tool.softirq(400, sock, last, CLOSE), REPORTED);
            let expected = Event {
                ts: ns(400),
                birth: ns(100),
                established: ns(200),
                oldstate: last.0,
                role: Role::Active as u8,
                ..event(lab, &lab.spec(), OWNER)
            };
            assert_eq!(events(&mut tool), [expected], "{end:?}");
            tool.destroy(sock);
            assert_eq!(tool.machine().len("sockets"), 0);
        }
    }

    /// If a process may have taken the error that would show why it ended, the event says so.
    fn errors_that_a_process_took(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        for ending in ENDINGS {
            let sock = tool.sock(&lab.spec());
            connect(&mut tool, sock);
            assert_eq!(ending.happens(&mut tool, 400, sock, ESTABLISHED), REPORTED);
            let reported = events(&mut tool);
            assert_eq!([(reported[0].err, reported[0].err_taken)], [(ending.err, ending.taken.into())], "{ending:?}");
            assert_eq!(reported.len(), 1);
            tool.destroy(sock);
        }
    }

    /// The first process that closes it ranks above those that close it later, and below those that
    /// use it.
    fn closers(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        for comm in [OWNER.comm, [0; 16]] {
            let nameless = Task { comm, ..OWNER };
            let sock = tool.sock(&lab.spec());
            arrive(&mut tool, sock);
            assert_eq!(tool.call(300, nameless, sock, ESTABLISHED, FIN_WAIT1), AGGREGATED);
            let known = entry(&mut tool, sock).expect("entered");
            assert_eq!((known.pid, known.rank, known.comm), (OWNER.tgid, Rank::Closed as u32, comm));
            assert_eq!(tool.call(400, OTHER, sock, FIN_WAIT1, FIN_WAIT2), AGGREGATED);
            assert_eq!(entry(&mut tool, sock), Some(known));
            assert_eq!(tool.call(500, OTHER, sock, FIN_WAIT2, CLOSE), REPORTED);
            let reported = events(&mut tool);
            assert_eq!((reported[0].pid, reported[0].comm), (OWNER.tgid, comm));
            tool.destroy(sock);
        }
    }

    /// With a process asked for, the connections of other processes are not reported.
    fn of_another_process(lab) in [Narrow, Filtered] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(100, OTHER, sock, CLOSE, SYN_SENT), AGGREGATED);
        assert_eq!(tool.softirq(200, sock, SYN_SENT, ESTABLISHED), AGGREGATED);
        let fate = tool.call(300, OWNER, sock, ESTABLISHED, CLOSE);
        assert_eq!(fate, if lab.set == Set::Filtered { FILTERED } else { REPORTED });
        let expected = Event {
            ts: ns(300),
            birth: ns(100),
            established: ns(200),
            oldstate: ESTABLISHED.0,
            role: Role::Active as u8,
            ..event(lab, &lab.spec(), OTHER)
        };
        assert_eq!(events(&mut tool), if lab.set == Set::Filtered { vec![] } else { vec![expected] });
    }

    /// One that the other side opens belongs to who closes it, when nothing better is known.
    fn passive(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        arrive(&mut tool, sock);
        assert_eq!(tool.call(330, OWNER, sock, ESTABLISHED, FIN_WAIT1), AGGREGATED);
        assert_eq!(tool.softirq(440, sock, FIN_WAIT1, FIN_WAIT2), AGGREGATED);
        assert_eq!(tool.softirq(550, sock, FIN_WAIT2, CLOSE), REPORTED);
        let expected = Event {
            ts: ns(550),
            birth: ns(110),
            established: ns(220),
            oldstate: FIN_WAIT2.0,
            role: Role::Passive as u8,
            ..event(lab, &lab.spec(), OWNER)
        };
        assert_eq!(events(&mut tool), [expected]);
    }

    /// A process that closes it at once is reported, although it was never stored.
    fn passive_cut_off_by_its_owner(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        arrive(&mut tool, sock);
        assert_eq!(tool.call(300, OWNER, sock, ESTABLISHED, CLOSE), REPORTED);
        let expected = Event {
            ts: ns(300),
            birth: ns(110),
            established: ns(220),
            oldstate: ESTABLISHED.0,
            role: Role::Passive as u8,
            ..event(lab, &lab.spec(), OWNER)
        };
        assert_eq!(events(&mut tool), [expected]);
    }

    /// A connection that no process of this host touched has no owner: pid 0, no name, and not the
    /// task that ran when its packets arrived, even if that is the process asked for.
    fn without_an_owner(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        tool.at(100, OWNER);
        for (old, new) in [(LISTEN, SYN_RECV), (SYN_RECV, ESTABLISHED), (ESTABLISHED, CLOSE_WAIT)] {
            assert_eq!(tool.change(sock, old, new), AGGREGATED);
        }
        let known = entry(&mut tool, sock).expect("entered");
        assert_eq!((known.pid, known.rank, known.comm), (NO_PROCESS.tgid, Rank::Unknown as u32, NO_PROCESS.comm));
        let fate = tool.change(sock, CLOSE_WAIT, CLOSE);
        assert_eq!(fate, if lab.set == Set::Filtered { FILTERED } else { REPORTED });
        for event in events(&mut tool) {
            assert_eq!((event.pid, event.comm), (NO_PROCESS.tgid, NO_PROCESS.comm));
        }
    }

    /// Established is established, whatever the lower half of the time.
    fn established_at_a_round_time(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
        tool.machine().now = 7 << 32;
        assert_eq!(tool.change(sock, SYN_SENT, ESTABLISHED), AGGREGATED);
        assert_eq!(tool.softirq(300, sock, ESTABLISHED, CLOSE), REPORTED);
        assert_eq!(events(&mut tool)[0].established, 7 << 32);
    }

    /// Both sides send a SYN: SYN_SENT goes to SYN_RECV, and it is this side's connection all the
    /// same.
    fn simultaneous_open(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
        assert_eq!(tool.softirq(150, sock, SYN_SENT, SYN_RECV), AGGREGATED);
        assert_eq!(tool.softirq(200, sock, SYN_RECV, ESTABLISHED), AGGREGATED);
        assert_eq!(tool.softirq(300, sock, ESTABLISHED, CLOSE), REPORTED);
        let reported = events(&mut tool);
        assert_eq!((reported[0].birth, reported[0].established, reported[0].role), (ns(100), ns(200), Role::Active as u8));
    }

    /// A connection that was never established is reported only if asked for, with the time of its
    /// SYN.
    fn failed(lab) in [Narrow, Wide, Filtered, Six] {
        let wanted = lab.life().failed;
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(100, OWNER, sock, CLOSE, SYN_SENT), AGGREGATED);
        let fate = tool.softirq(200, sock, SYN_SENT, CLOSE);
        assert_eq!(fate, if wanted { REPORTED } else { FILTERED });
        let expected = Event {
            ts: ns(200),
            birth: ns(100),
            oldstate: SYN_SENT.0,
            role: Role::Active as u8,
            ..event(lab, &lab.spec(), OWNER)
        };
        assert_eq!(events(&mut tool), if wanted { vec![expected] } else { vec![] });
    }

    /// The end of a connection whose birth was not seen is reported only if those are asked for,
    /// without times.
    fn end_without_a_beginning(lab) in [Narrow, Wide, Filtered, Six] {
        let wanted = lab.life().existing;
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        for (fate, task) in [
            (tool.softirq(400, sock, LAST_ACK, CLOSE), NO_PROCESS),
            (tool.call(400, OTHER, sock, LAST_ACK, CLOSE), OTHER),
        ] {
            assert_eq!(fate, if wanted { REPORTED } else { FILTERED }, "{task:?}");
        }
        let expected =
            |task| Event { ts: ns(400), oldstate: LAST_ACK.0, ..event(lab, &lab.spec(), task) };
        assert_eq!(events(&mut tool), if wanted { vec![expected(NO_PROCESS), expected(OTHER)] } else { vec![] });
        assert_eq!(entry(&mut tool, sock), None);
    }

    /// Of those, one that was about to be established counts as failed.
    fn failure_without_a_beginning(lab) in [Narrow, Wide, Filtered, Six] {
        for (failed, old) in
            [(lab.life().failed, SYN_SENT), (lab.life().failed, SYN_RECV), (true, SYN_SENT), (true, SYN_RECV)]
        {
            let options = Options { failed, ..lab.life() };
            let wanted = options.existing && failed;
            let mut tool = lab.tcplife(&options);
            let sock = tool.sock(&lab.spec());
            let fate = tool.call(400, OWNER, sock, old, CLOSE);
            assert_eq!(fate, if wanted { REPORTED } else { FILTERED });
            let expected = Event { ts: ns(400), oldstate: old.0, ..event(lab, &lab.spec(), OWNER) };
            assert_eq!(events(&mut tool), if wanted { vec![expected] } else { vec![] });
        }
    }

    /// Other changes of such a socket are nothing, and do not enter it.
    fn middle_without_a_beginning(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        for (old, new) in [(SYN_SENT, ESTABLISHED), (ESTABLISHED, FIN_WAIT1), (ESTABLISHED, CLOSE_WAIT)] {
            assert_eq!(tool.step(100, OWNER, sock, old, new), FILTERED);
        }
        assert_eq!((entry(&mut tool, sock), events(&mut tool)), (None, vec![]));
    }

    /// A change to the same state (MPTCP makes such changes) is not even seen.
    fn repeats(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        connect(&mut tool, sock);
        let before = entry(&mut tool, sock);
        for state in [ESTABLISHED, FIN_WAIT1, CLOSE, LISTEN, SYN_SENT, SYN_RECV] {
            assert_eq!(tool.call(500, OTHER, sock, state, state), NOTHING);
        }
        assert_eq!((entry(&mut tool, sock), events(&mut tool)), (before, vec![]));
    }

    /// Sockets that are not TCP are none of the tool's business: MPTCP (262, whose lower byte is
    /// 6), SCTP, UDP, and a family that is not the internet's.
    fn other_protocols(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        for (family, protocol) in OTHERS {
            let sock = tool.sock(&Spec { family, protocol, ..lab.spec() });
            for (old, new) in [(CLOSE, SYN_SENT), (SYN_SENT, ESTABLISHED), (ESTABLISHED, CLOSE), (LISTEN, SYN_RECV)] {
                assert_eq!(tool.call(100, OWNER, sock, old, new), NOTHING, "{family}, {protocol}");
            }
        }
        assert_eq!((tool.machine().len("sockets"), events(&mut tool)), (0, vec![]));
    }

    /// A listener is not a connection, and enters nothing.
    fn listener(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.call(100, OWNER, sock, CLOSE, LISTEN), FILTERED);
        assert_eq!(tool.call(200, OWNER, sock, LISTEN, CLOSE), FILTERED);
        assert_eq!((tool.machine().len("sockets"), events(&mut tool)), (0, vec![]));
        // A socket may listen that was a connection before.
        connect(&mut tool, sock);
        let before = entry(&mut tool, sock);
        assert_eq!(tool.call(300, OTHER, sock, CLOSE, LISTEN), FILTERED);
        assert_eq!(tool.call(400, OTHER, sock, LISTEN, CLOSE), FILTERED);
        assert_eq!((entry(&mut tool, sock), events(&mut tool)), (before, vec![]));
    }

    /// Each birth that does not fit into the full table is counted; its entries stay.
    fn table_full(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let [first, second, third] = [(); 3].map(|()| tool.sock(&lab.spec()));
        connect(&mut tool, first);
        arrive(&mut tool, second);
        assert_eq!(tool.call(100, OWNER, third, CLOSE, SYN_SENT), LOST_MAP);
        assert_eq!(tool.softirq(100, third, LISTEN, SYN_RECV), LOST_MAP);
        assert_eq!(entry(&mut tool, third), None);
        assert_eq!(tool.softirq(300, first, ESTABLISHED, CLOSE), REPORTED);
        tool.destroy(first);
        assert_eq!(tool.call(100, OWNER, third, CLOSE, SYN_SENT), AGGREGATED);
    }

    /// A ring that is full is said, and nothing is sent.
    fn ring_full(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        connect(&mut tool, sock);
        tool.machine().ring_full = true;
        assert_eq!(tool.softirq(300, sock, ESTABLISHED, CLOSE), LOST_RING);
        assert_eq!(events(&mut tool), []);
    }

    /// An entry has what is known, and zeroes otherwise.
    fn entries(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let (active, passive) = (tool.sock(&lab.spec()), tool.sock(&lab.spec()));
        connect(&mut tool, active);
        let expected = Entry {
            pid: OWNER.tgid,
            rank: Rank::Used as u32,
            comm: OWNER.comm,
            birth: ns(100),
            established: ns(200),
            role: Role::Active as u8,
            existing: 0,
            reserved: [0; 6],
        };
        assert_eq!(entry(&mut tool, active), Some(expected));
        arrive(&mut tool, passive);
        let expected = Entry {
            pid: 0,
            rank: Rank::Unknown as u32,
            comm: [0; 16],
            birth: ns(110),
            established: ns(220),
            role: Role::Passive as u8,
            ..expected
        };
        assert_eq!(entry(&mut tool, passive), Some(expected));
    }

    /// The kernel uses a socket's address again before the last one was seen to go: a birth forgets
    /// all that was.
    fn address_reused(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        connect(&mut tool, sock);
        assert_eq!(tool.softirq(1000, sock, LISTEN, SYN_RECV), AGGREGATED);
        let passive = entry(&mut tool, sock).expect("entered");
        assert_eq!((passive.pid, passive.rank, passive.comm), (0, Rank::Unknown as u32, [0; 16]));
        assert_eq!((passive.birth, passive.established, passive.role), (ns(1000), 0, Role::Passive as u8));
        assert_eq!(tool.call(2000, OTHER, sock, CLOSE, SYN_SENT), AGGREGATED);
        let active = entry(&mut tool, sock).expect("entered");
        assert_eq!((active.pid, active.rank, active.comm), (OTHER.tgid, Rank::Used as u32, OTHER.comm));
        assert_eq!((active.birth, active.established, active.role), (ns(2000), 0, Role::Active as u8));
        assert_eq!(tool.machine().len("sockets"), 1);
    }

    /// If the kernel frees a socket, that one is forgotten and no other; one that was never known
    /// is ignored.
    fn destroyed(lab) in [Narrow] {
        let mut tool = lab.tcplife(&lab.life());
        let [first, second, unknown] = [(); 3].map(|()| tool.sock(&lab.spec()));
        connect(&mut tool, first);
        connect(&mut tool, second);
        tool.destroy(unknown);
        tool.destroy(first);
        assert_eq!(entry(&mut tool, first), None);
        assert!(entry(&mut tool, second).is_some());
    }

    /// IPv6 addresses are complete, mapped ones are as the socket has them, and an IPv4 address is
    /// followed by zeroes.
    fn addresses(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        for spec in lab.specs() {
            let sock = tool.sock(&spec);
            connect(&mut tool, sock);
            assert_eq!(tool.softirq(300, sock, ESTABLISHED, CLOSE), REPORTED);
            let reported = events(&mut tool);
            assert_eq!((reported[0].laddr, reported[0].raddr, reported[0].family), (spec.laddr, spec.raddr, spec.family));
            tool.destroy(sock);
        }
    }

    /// The other side's FIN is one flag of many.
    fn fin_received(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        for fin_received in [false, true] {
            let sock = tool.sock(&Spec { fin_received, ..lab.spec() });
            connect(&mut tool, sock);
            assert_eq!(tool.softirq(300, sock, ESTABLISHED, CLOSE), REPORTED);
            assert_eq!(events(&mut tool)[0].fin_received, u8::from(fin_received));
            tool.destroy(sock);
        }
    }

    /// Memory that cannot be read is not taken for a socket.
    fn unreadable(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcplife(&lab.life());
        let sock = tool.sock(&lab.spec());
        tool.machine().unreadable = true;
        let fate = tool.call(100, STRANGER, sock, CLOSE, SYN_SENT);
        // Typed access reads without asking: the kernel answers what it cannot read with zeroes
        // itself.
        assert_eq!(fate, if lab.access == Access::Probed { NOTHING } else { AGGREGATED });
    }
}
