//! tcptracer: a row for each connect, accept and close, with the process that did it.

mod containers;
mod filters;
mod formats;
mod uring;

use std::fs;
use std::net::SocketAddr;

use kernel_tests::actor::{Actor, Conn, Who};
use kernel_tests::cli::{Output, Tool};
use kernel_tests::deadline::{WAIT_LIMIT, wait_until};
use kernel_tests::mntns;
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::rows::TraceRow;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::scratch::Scratch;
use kernel_tests::stage::{End, Role, Session, Stage, Via};
use kernel_tests::traffic::{self, Scenario};
use nix::libc;

pub const TESTS: &[&[Test]] = &[OWN, filters::TESTS, containers::TESTS, formats::TESTS, uring::TESTS];

const OWN: &[Test] = &[
    test("tcptracer::client_closes_first", || plays(traffic::client_closes_first)),
    test("tcptracer::server_closes_first", || plays(traffic::server_closes_first)),
    test("tcptracer::half_close", || plays(traffic::half_close)),
    test("tcptracer::client_resets", || plays(traffic::client_resets)),
    test("tcptracer::server_resets", || plays(traffic::server_resets)),
    test("tcptracer::server_closes_unread", || plays(traffic::server_closes_unread)),
    test("tcptracer::client_killed", || plays(traffic::client_killed)),
    test("tcptracer::handed_to_child", || plays(traffic::handed_to_child)),
    test("tcptracer::passed_on_unused", || plays(traffic::passed_on_unused)),
    test("tcptracer::shared_with_child", || plays(traffic::shared_with_child)),
    test("tcptracer::never_accepted", || plays(traffic::never_accepted)),
    test("tcptracer::refused", || plays(traffic::refused)),
    test("tcptracer::never_established", never_established),
    test("tcptracer::ipv6", || all_endings(Via::V6)),
    test("tcptracer::mapped_client", || all_endings(Via::MappedClient)),
    test("tcptracer::mapped_server", || all_endings(Via::DualStackServer)),
    test("tcptracer::connects_without_waiting", connects_without_waiting),
    test("tcptracer::waits_in_accept_before_the_tool", waits_in_accept_before_the_tool),
    test("tcptracer::accepts_in_a_thread", accepts_in_a_thread),
    test("tcptracer::passed_over_a_socket", passed_over_a_socket),
    test("tcptracer::open_before_the_tool", open_before_the_tool),
    test("tcptracer::by_tracepoints_of_system_calls", by_tracepoints_of_system_calls),
    test("tcptracer::access_modes_agree", access_modes_agree),
    test("tcptracer::each_of_2000_exactly_once", each_of_2000_exactly_once),
];

/// A connect, accept or close of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Action {
    local: SocketAddr,
    remote: SocketAddr,
    kind: &'static str,
    who: Who,
    uid: u32,
}

impl Action {
    fn new(kind: &'static str, who: Who, conn: Conn) -> Self {
        Self { local: conn.local, remote: conn.remote, kind, who, uid: 0 }
    }

    /// The actions at an end: its first owner opened it, its last owner closed it. An end without
    /// owners has no actions.
    fn of(end: &End) -> Vec<Self> {
        let opened = match end.role {
            Role::Active => "connect",
            Role::Passive => "accept",
        };
        let action =
            |kind, who: &Who| Self { local: end.local, remote: end.remote, kind, who: who.clone(), uid: 0 };
        match end.owners.as_slice() {
            [first, ..] if end.path.contains("ESTABLISHED") => {
                let last = end.owners.last().unwrap_or(first);
                vec![action(opened, first), action("close", last)]
            }
            _ => Vec::new(),
        }
    }

    fn all(sessions: &[Session]) -> Vec<Self> {
        sessions.iter().flat_map(|session| &session.ends).flat_map(Self::of).collect()
    }

    fn is_row(&self, row: &TraceRow) -> bool {
        let Self { local, remote, kind, who, uid } = self;
        row.kind == *kind
            && (row.laddr, row.lport, row.raddr, row.rport)
                == (local.ip(), local.port(), remote.ip(), remote.port())
            && (row.pid, row.comm.as_deref(), row.uid) == (Some(who.pid), Some(&*who.comm), Some(*uid))
            && row.ip == if local.is_ipv4() { 4 } else { 6 }
    }
}

#[track_caller]
fn start(args: &[&str]) -> Tool {
    Tool::start("tcptracer", &[&["--json"], args].concat())
}

/// Waits for these actions and stops the tool: there must be one row for each, and no others.
#[track_caller]
fn finish(mut tool: Tool, netns: &Netns, actions: &[Action]) -> Output {
    tool.wait_rows(netns.inode(), actions.len());
    let output = tool.stop();
    assert_rows(&output, netns, actions, 0);
    output
}

/// The rows of a namespace must be these actions, those of an end in order, with at most this many
/// faults.
#[track_caller]
fn assert_rows(output: &Output, netns: &Netns, actions: &[Action], allowed: usize) {
    output.assert_code(0).assert_complete_lines();
    let mut rows = output.rows::<TraceRow>(netns.inode());
    let mut faults = Vec::new();
    for action in actions {
        match rows.iter().position(|row| action.is_row(row)) {
            Some(at) => {
                let row = rows.remove(at);
                // If the actions are in order, earlier rows of this end have been removed already.
                let same = |other: &TraceRow| {
                    (other.laddr, other.lport, other.raddr, other.rport)
                        == (row.laddr, row.lport, row.raddr, row.rport)
                };
                if rows.iter().any(|other| same(other) && other.ts < row.ts) {
                    faults.push(format!("out of order: {row:?}"));
                }
            }
            None => faults.push(format!("no row for {action:?}")),
        }
    }
    faults.extend(rows.iter().map(|row| format!("a row of no action: {row:?}")));
    assert!(faults.len() <= allowed, "{}\n{output}", faults.join("\n"));
}

/// Plays a scenario while the tool runs; the listener is closed too.
#[track_caller]
fn plays(scenario: Scenario) -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut stage = Stage::new(Via::V4);
    let session = scenario(&mut stage);
    stage.server.unlisten();
    // One more connection, so that there are rows to wait for even if the scenario has none.
    let last = traffic::client_closes_first(&mut Stage::new(Via::V4));
    finish(tool, &netns, &Action::all(&[session, last]));
    Ok(())
}

/// Attempts that end before they are connections: by a time limit, and by a close.
fn never_established() -> Outcome {
    let netns = Netns::enter_new();
    let mut silent = traffic::with_full_backlog();
    let tool = start(&[]);
    traffic::timed_out(&mut silent);
    traffic::aborted(&mut silent);
    let last = traffic::client_closes_first(&mut Stage::new(Via::V4));
    finish(tool, &netns, &Action::all(&[last]));
    Ok(())
}

#[track_caller]
fn all_endings(via: Via) -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut stage = Stage::new(via);
    let scenarios: [Scenario; 4] = [
        traffic::client_closes_first,
        traffic::server_resets,
        traffic::server_closes_unread,
        traffic::never_accepted,
    ];
    let sessions = scenarios.map(|scenario| scenario(&mut stage));
    finish(tool, &netns, &Action::all(&sessions));
    Ok(())
}

/// `connect(2)` on a nonblocking socket: the connection is established after the call has returned.
fn connects_without_waiting() -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut stage = Stage::new(Via::V4);
    let started = stage.client.start_connect(stage.target, None);
    stage.client.finish_connect(started).expect("a connection");
    let accepted = stage.server.accept();
    stage.client.close(started);
    stage.server.close(accepted);
    let (client, server) = (stage.client.who(), stage.server.who());
    let actions = [
        Action::new("connect", client.clone(), started),
        Action::new("accept", server.clone(), accepted),
        Action::new("close", client, started),
        Action::new("close", server, accepted),
    ];
    finish(tool, &netns, &actions);
    Ok(())
}

/// A server waits in `accept(2)` when the tool starts: its next connection is shown.
fn waits_in_accept_before_the_tool() -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    stage.server.start_accept();
    let server = stage.server.who();
    wait_until("server in accept(2)", WAIT_LIMIT, || {
        // The number of the system call in which a task waits; a running task has none.
        let call = fs::read_to_string(format!("/proc/{}/syscall", server.pid)).unwrap_or_default();
        let number = call.split(' ').next().and_then(|number| number.parse().ok());
        let waits = [libc::SYS_accept, libc::SYS_accept4].into_iter().any(|accept| number == Some(accept));
        if waits { Ok(()) } else { Err(call) }
    });
    let tool = start(&[]);
    let client = stage.client.connect(stage.target);
    let accepted = stage.server.accepted();
    stage.server.close_taken();
    stage.client.recv_eof(client, 0);
    stage.client.close(client);
    let actions = [
        Action::new("connect", stage.client.who(), client),
        Action::new("accept", server.clone(), accepted),
        Action::new("close", server, accepted),
        Action::new("close", stage.client.who(), client),
    ];
    finish(tool, &netns, &actions);
    Ok(())
}

/// One thread accepts, another one closes: each row has the name of the thread, both the same
/// process.
fn accepts_in_a_thread() -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut stage = Stage::new(Via::V4);
    stage.server.start_accept_in_thread("kt-acceptor");
    let client = stage.client.connect(stage.target);
    let accepted = stage.server.accepted();
    stage.client.close(client);
    stage.server.recv_eof(accepted, 0);
    stage.server.close(accepted);
    let server = stage.server.who();
    let thread = Who { comm: "kt-acceptor".to_owned(), ..server.clone() };
    let actions = [
        Action::new("connect", stage.client.who(), client),
        Action::new("accept", thread, accepted),
        Action::new("close", stage.client.who(), client),
        Action::new("close", server, accepted),
    ];
    finish(tool, &netns, &actions);
    Ok(())
}

/// One process accepts, passes the connection over a unix socket, and another closes it.
fn passed_over_a_socket() -> Outcome {
    let scratch = Scratch::new();
    let meeting = scratch.path("meeting");
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut stage = Stage::new(Via::V4);
    let mut taker = Actor::start("kt-taker");
    let pair = stage.open();
    taker.start_take(&meeting);
    stage.server.pass(pair.server, &meeting);
    taker.finish();
    taker.close_taken();
    stage.client.recv_eof(pair.client, 0);
    stage.client.close(pair.client);
    let actions = [
        Action::new("connect", stage.client.who(), pair.client),
        Action::new("accept", stage.server.who(), pair.server),
        Action::new("close", taker.who(), pair.server),
        Action::new("close", stage.client.who(), pair.client),
    ];
    finish(tool, &netns, &actions);
    Ok(())
}

/// A connection and a listener from before the tool: the closes of the connection and the
/// listener's new connection are shown, and the close of a connection that was reset before.
fn open_before_the_tool() -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let open = traffic::begun(&mut stage);
    let reset = stage.open();
    stage.server.linger0(reset.server);
    stage.server.close(reset.server);
    stage.client.recv_reset(reset.client);
    let tool = start(&[]);
    stage.client.close(reset.client);
    let mut actions = Action::all(&[traffic::finish(&mut stage, open)]);
    actions.retain(|action| action.kind == "close");
    actions.push(Action::new("close", stage.client.who(), reset.client));
    actions.extend(Action::all(&[traffic::server_closes_first(&mut stage)]));
    finish(tool, &netns, &actions);
    Ok(())
}

/// With tracefs the tool attaches to the returns of two system calls, not to those of all. If it
/// can trace functions, it needs neither. Both kinds of accept are seen.
fn by_tracepoints_of_system_calls() -> Outcome {
    mntns::enter_new();
    mntns::mount_tracefs();
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let seen = tool.seen().stderr;
    let attached = |hook: &str| {
        let prefix = format!("tcptools: tcptracer: {hook}: ");
        seen.lines().filter_map(|line| line.strip_prefix(&prefix)).find(|option| !option.starts_with("not "))
    };
    if attached("accepted").is_none() {
        let both = "tracepoint syscalls:sys_exit_accept,syscalls:sys_exit_accept4";
        assert_eq!(attached("accept returns"), Some(both), "{seen}");
    }
    assert_eq!(attached("system call returns"), None, "{seen}");
    let mut stage = Stage::new(Via::V4);
    let mut actions = Action::all(&[traffic::client_closes_first(&mut stage)]);
    stage.server.start_accept();
    let client = stage.client.connect(stage.target);
    let accepted = stage.server.accepted();
    stage.client.close(client);
    stage.server.close_taken();
    actions.extend([
        Action::new("connect", stage.client.who(), client),
        Action::new("accept", stage.server.who(), accepted),
        Action::new("close", stage.client.who(), client),
        Action::new("close", stage.server.who(), accepted),
    ]);
    finish(tool, &netns, &actions);
    Ok(())
}

fn access_modes_agree() -> Outcome {
    needs(Feature::PerfEvents)?;
    needs(Feature::KernelBtf)?;
    needs(Feature::ProbeReads)?;
    let netns = Netns::enter_new();
    let modes: [&[&str]; 3] = [&["--access", "typed"], &["--access", "probed"], &["--perf"]];
    let tools = modes.map(start);
    let mut stage = Stage::new(Via::V4);
    let scenarios: [Scenario; 4] =
        [traffic::half_close, traffic::server_resets, traffic::shared_with_child, traffic::refused];
    let actions = Action::all(&scenarios.map(|scenario| scenario(&mut stage)));
    for tool in tools {
        finish(tool, &netns, &actions);
    }
    Ok(())
}

fn each_of_2000_exactly_once() -> Outcome {
    const COUNT: u32 = 2000;
    let netns = Netns::enter_new();
    let mut tool = start(&["--stats"]);
    let mut stage = Stage::new(Via::V4);
    traffic::start_storm(&mut stage, COUNT);
    let sessions = tool.read_during(|| traffic::end_storm(&mut stage, COUNT));
    let actions = Action::all(&sessions);
    let output = tool.stop();
    let missed = crate::cli::assert_only_missed(&output);
    assert_rows(&output, &netns, &actions, missed);
    Ok(())
}
