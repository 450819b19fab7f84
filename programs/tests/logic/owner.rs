//! The owner of a socket: what each event teaches about it, and which of two events counts.

use bpfasm::Target;
use programs::owner::{Owner, Rank};
use programs::stats::Stats;

use crate::lab::state::*;
use crate::lab::{Lab, cases, fate};
use crate::spec::{NO_PROCESS, OTHER, OTHERS, OWNER, Spec};
use crate::specimens::{AttachKind, Tracepoint, fitting};
use crate::tcpretrans;
use crate::tool::{S_IFSOCK, Sock, Tool, WALKERS};
use crate::vm::machine::Task;

/// The tracepoints of a tool that follows sockets and learns who owns them.
pub const TRACEPOINTS: &[Tracepoint] = &[
    Tracepoint { name: "inet_sock_set_state", first: Some("sock"), lacking: &[] },
    Tracepoint { name: "tcp_destroy_sock", first: Some("sock"), lacking: &[] },
    Tracepoint { name: "sock_send_length", first: Some("sock"), lacking: BEFORE_6_3 },
    Tracepoint { name: "sock_recv_length", first: Some("sock"), lacking: BEFORE_6_3 },
];

/// The kernels without tracepoints on the bytes that were sent or received.
pub const BEFORE_6_3: &[&str] = &["5.10-x86_64", "5.10-aarch64", "6.1-x86_64"];

/// How such a tool attaches.
pub fn attach_kinds(target: &Target) -> Vec<AttachKind> {
    fitting(
        &[
            AttachKind::TpBtf,
            AttachKind::RawTp,
            AttachKind::Fentry,
            AttachKind::Fexit,
            AttachKind::Kprobe,
            AttachKind::Kretprobe,
            AttachKind::Iter,
        ],
        target,
    )
}

/// A tool of each kind: what they keep of a socket starts with the same owner.
fn tools(lab: &Lab) -> [Tool<'_>; 3] {
    [lab.tcplife(&lab.life()), lab.tcpstates(&lab.states()), tcpretrans::knowing(lab)]
}

/// The same, with each program that walks over open files.
fn walks(lab: &Lab) -> impl Iterator<Item = (Tool<'_>, &'static str)> {
    WALKERS.into_iter().flat_map(|walker| tools(lab).map(|tool| (tool, walker)))
}

/// A socket that was there before: open, and nothing is known of it.
fn open(tool: &mut Tool<'_>, spec: &Spec) -> Sock {
    let sock = tool.sock(spec);
    tool.set_sock(sock, "sock_common.skc_state", ESTABLISHED.0.into());
    sock
}

/// Who owns a socket, and how that is known; `None` when the table does not have it.
fn owner(tool: &mut Tool<'_>, sock: Sock) -> Option<Owner> {
    tool.entry(sock).map(|bytes| Owner::decode(&bytes).expect("an entry starts with it"))
}

fn known(task: Task, rank: Rank) -> Option<Owner> {
    Some(Owner { pid: task.tgid, rank: rank as u32, comm: task.comm })
}

/// A connection without an owner so far.
fn arrived(tool: &mut Tool<'_>) -> Sock {
    let sock = tool.sock(&Spec::V4);
    tool.softirq(10, sock, LISTEN, SYN_RECV);
    tool.softirq(20, sock, SYN_RECV, ESTABLISHED);
    assert_eq!(owner(tool, sock), known(NO_PROCESS, Rank::Unknown));
    sock
}

/// Each event that teaches an owner after birth, and its rank.
type Lesson = (Rank, fn(&mut Tool<'_>, Task, Sock));

/// Lowest rank first.
const LESSONS: [Lesson; 7] = [
    (Rank::Closed, |tool, task, sock| {
        tool.call(30, task, sock, ESTABLISHED, FIN_WAIT1);
    }),
    (Rank::Accepted, |tool, task, sock| {
        tool.at(0, task);
        assert_eq!(tool.run("graft_fentry", &[sock.address, 0x1111]), fate::NOTHING);
    }),
    (Rank::Accepted, |tool, task, sock| {
        tool.at(0, task);
        assert_eq!(tool.enters("graft_kprobe", &[sock.address, 0x1111]), fate::NOTHING);
    }),
    (Rank::Accepted, |tool, task, sock| tool.accept_fexit(task, Some(sock.address))),
    (Rank::Accepted, |tool, task, sock| tool.accept_ret(task, sock.address)),
    (Rank::Used, |tool, task, sock| tool.length("sock_send_length", task, sock)),
    (Rank::Used, |tool, task, sock| tool.length("sock_recv_length", task, sock)),
];

cases! {
    /// Of two events with different processes the one of higher rank counts, of equal ones the
    /// first.
    fn higher_rank_wins(lab) in [Narrow] {
        for mut tool in tools(lab) {
            for (first, learn_first) in LESSONS {
                for (second, learn_second) in LESSONS {
                    let sock = arrived(&mut tool);
                    learn_first(&mut tool, OWNER, sock);
                    assert_eq!(owner(&mut tool, sock), known(OWNER, first));
                    learn_second(&mut tool, OTHER, sock);
                    let expected = if second > first { known(OTHER, second) } else { known(OWNER, first) };
                    assert_eq!(owner(&mut tool, sock), expected, "{first:?}, then {second:?}");
                    tool.destroy(sock);
                }
            }
        }
    }

    /// The process that had the socket open when tracing began is its owner until a process accepts
    /// or uses it.
    fn holder(lab) in [Wide] {
        for (mut tool, walker) in walks(lab) {
            for (rank, learn) in LESSONS {
                let sock = open(&mut tool, &Spec::V4);
                tool.walker = walker;
                tool.walk(1, OWNER, sock);
                assert_eq!(owner(&mut tool, sock), known(OWNER, Rank::Preexisting));
                learn(&mut tool, OTHER, sock);
                let expected = if rank > Rank::Preexisting { known(OTHER, rank) } else { known(OWNER, Rank::Preexisting) };
                assert_eq!(owner(&mut tool, sock), expected, "{rank:?}");
                tool.destroy(sock);
            }
        }
    }

    /// A change of state of a socket that is not locked has no process: a packet makes it, and the
    /// current task does not matter.
    fn packets_have_no_process(lab) in [Narrow, Wide, Filtered, Six] {
        for mut tool in tools(lab) {
            let sock = arrived(&mut tool);
            for (old, new) in [(ESTABLISHED, CLOSE_WAIT), (CLOSE_WAIT, LAST_ACK)] {
                tool.softirq(30, sock, old, new);
                assert_eq!(owner(&mut tool, sock), known(NO_PROCESS, Rank::Unknown));
            }
            let sock = tool.sock(&Spec::V4);
            tool.softirq(30, sock, CLOSE, SYN_SENT);
            assert_eq!(owner(&mut tool, sock), known(NO_PROCESS, Rank::Unknown));
        }
    }

    /// A connecting process is an owner of the highest rank.
    fn connecting(lab) in [Narrow] {
        for mut tool in tools(lab) {
            let sock = tool.sock(&Spec::V4);
            tool.call(10, OWNER, sock, CLOSE, SYN_SENT);
            assert_eq!(owner(&mut tool, sock), known(OWNER, Rank::Used));
            for (_, learn) in LESSONS {
                learn(&mut tool, OTHER, sock);
                assert_eq!(owner(&mut tool, sock), known(OWNER, Rank::Used));
            }
        }
    }

    /// Use of a socket that is not in the table enters nothing, because its birth is unknown.
    fn unknown_sockets_stay_unknown(lab) in [Narrow] {
        for mut tool in tools(lab) {
            let (known, unknown) = (arrived(&mut tool), tool.sock(&Spec::V4));
            let before = owner(&mut tool, known);
            for (_, learn) in &LESSONS[1..] {
                learn(&mut tool, OWNER, unknown);
            }
            assert_eq!((owner(&mut tool, unknown), tool.machine().len("sockets")), (None, 1));
            assert_eq!(owner(&mut tool, known), before);
        }
    }

    /// An accept that failed, or whose result is not available, has no process.
    fn failed_accept(lab) in [Narrow] {
        for mut tool in tools(lab) {
            let sock = arrived(&mut tool);
            tool.accept_fexit(OWNER, Some(0));
            tool.accept_fexit(OWNER, None);
            tool.accept_ret(OWNER, 0);
            assert_eq!(owner(&mut tool, sock), known(NO_PROCESS, Rank::Unknown));
            assert_eq!(tool.machine().len("sockets"), 1);
        }
    }

    /// The walk does not change a socket that was entered in the meantime: its entry is newer.
    fn walk_keeps_what_is_newer(lab) in [Wide] {
        for (mut tool, walker) in walks(lab) {
            let sock = arrived(&mut tool);
            let before = tool.entry(sock);
            tool.set_sock(sock, "sock_common.skc_state", ESTABLISHED.0.into());
            tool.walker = walker;
            tool.walk(1000, OWNER, sock);
            assert_eq!(tool.entry(sock), before);
        }
    }

    /// The walk meets many files that are not TCP sockets.
    fn walk_enters_tcp_sockets_only(lab) in [Wide] {
        for (mut tool, walker) in walks(lab) {
            tool.walker = walker;
            for (family, protocol) in OTHERS {
                let sock = open(&mut tool, &Spec { family, protocol, ..Spec::V4 });
                tool.walk(1, OWNER, sock);
            }
            // SOCK_RAW, and what has SOCK_STREAM's lower byte.
            for kind in [3, 0x101] {
                let sock = open(&mut tool, &Spec { kind, ..Spec::V4 });
                tool.walk(1, OWNER, sock);
            }
            let sock = open(&mut tool, &Spec::V4);
            let holder = tool.holder(OWNER);
            // Directories, devices, pipes and plain files; what they carry is not a socket.
            for mode in [0o010_000, 0o020_000, 0o040_000, 0o060_000, 0o100_000, 0o120_000, 0o000_777] {
                let file = tool.file(mode, sock.address);
                tool.walk_to(holder, file);
            }
            // The end of the walk; the end of a task's files; a socket that is closed; a file that
            // is nothing yet.
            let (file, closed) = (tool.file(S_IFSOCK, sock.address), tool.file(S_IFSOCK, 0));
            let bare = tool.object("file");
            tool.set(bare, "file.f_inode", 0);
            let bare = tool.machine().object(bare).address();
            tool.walk_to(0, 0);
            tool.walk_to(0, file);
            tool.walk_to(holder, 0);
            tool.walk_to(holder, closed);
            tool.walk_to(holder, bare);
            assert_eq!(tool.machine().len("sockets"), 0);
            tool.walk_to(holder, file);
            assert_eq!(owner(&mut tool, sock), known(OWNER, Rank::Preexisting));
        }
    }

    /// Sockets that do not fit into the table are counted, and its entries stay.
    fn walk_into_a_full_table(lab) in [Wide] {
        for (mut tool, walker) in walks(lab) {
            tool.walker = walker;
            let [first, second, third] = [(); 3].map(|()| open(&mut tool, &Spec::V4));
            for sock in [first, second] {
                tool.walk(1, OWNER, sock);
            }
            assert_eq!(tool.try_walk(1, OWNER, third), Stats { untracked: 1, ..fate::NOTHING });
            assert_eq!(owner(&mut tool, first), known(OWNER, Rank::Preexisting));
            assert_eq!(owner(&mut tool, second), known(OWNER, Rank::Preexisting));
            assert_eq!(owner(&mut tool, third), None);
        }
    }

    /// If the kernel cannot attach to an accept, the hook has no program, and the tool still has
    /// its other hooks.
    fn accept_cannot_be_attached(lab) in [Narrow] {
        for specimen in [crate::tcplife::SPECIMEN, crate::tcpstates::SPECIMEN] {
            let object = (specimen.object)(lab, &lab.filter(), &bare(lab));
            let accept = object.hooks.iter().find(|hook| hook.name == "accept").expect("the hook itself");
            assert_eq!((accept.attach_options.len(), accept.need), (0, bpfasm::Need::Optional));
        }
    }
}

/// A kernel that can attach to tracepoints only.
fn bare(lab: &Lab) -> Target {
    Target { trampolines: false, kprobes: false, ..lab.target() }
}
