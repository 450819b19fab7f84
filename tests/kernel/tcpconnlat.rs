//! tcpconnlat: a row for each connect with its outcome and latency, and no other row.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use kernel_tests::actor::{Actor, Conn};
use kernel_tests::cli::{Output, Tool};
use kernel_tests::deadline::patient;
use kernel_tests::netns::{self, Netns};
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::rows::ConnRow;
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::stage::{End, Role, Session, Stage, Via};
use kernel_tests::traffic::{self, Scenario};
use kernel_tests::wire::{Wire, flags};

use crate::cli::{assert_nothing_lost, assert_number, assert_only_missed};

pub const TESTS: &[Test] = &[
    test("tcpconnlat::established", established),
    test("tcpconnlat::ipv6_and_mapped", ipv6_and_mapped),
    test("tcpconnlat::latency_is_the_delay_of_the_answer", latency_is_the_delay_of_the_answer)
        .alone(Alone::Time),
    test("tcpconnlat::both_sides_send_a_syn", both_sides_send_a_syn),
    test("tcpconnlat::refused", || fails(|| Stage::new(Via::V4), traffic::refused)),
    test("tcpconnlat::timed_out", || fails(traffic::with_full_backlog, traffic::timed_out))
        .alone(Alone::Timers),
    test("tcpconnlat::aborted", || fails(traffic::with_full_backlog, traffic::aborted)),
    test("tcpconnlat::unreachable", unreachable).alone(Alone::Timers),
    test("tcpconnlat::reset", reset),
    test("tcpconnlat::errors_that_the_process_takes_first", errors_that_the_process_takes_first),
    test("tcpconnlat::failures_in_a_table_only_with_the_option", failures_in_a_table_only_with_the_option),
    test("tcpconnlat::started_before_the_tool", started_before_the_tool),
    test("tcpconnlat::min_time", min_time),
    test("tcpconnlat::pid", pid),
    test("tcpconnlat::local_port", local_port),
    test("tcpconnlat::remote_port", remote_port),
    test("tcpconnlat::family", family),
    test("tcpconnlat::each_of_2000_exactly_once", each_of_2000_exactly_once),
    test("tcpconnlat::refused_connects_leave_the_table", refused_connects_leave_the_table),
    test("tcpconnlat::unanswered_connects_leave_the_table", unanswered_connects_leave_the_table)
        .alone(Alone::Timers),
    test("tcpconnlat::access_modes_and_rings_agree", access_modes_and_rings_agree),
    test("tcpconnlat::table", table),
    test("tcpconnlat::csv", csv),
    test("tcpconnlat::json", json),
];

/// How long a connect waits for its answer: much longer than any delay of the machine itself.
const DELAY: Duration = Duration::from_millis(300);

/// The error of a row's time, which is converted from another clock.
fn clock_tolerance() -> Duration {
    patient(Duration::from_millis(100))
}

#[track_caller]
fn start(args: &[&str]) -> Tool {
    Tool::start("tcpconnlat", &[&["--json"], args].concat())
}

#[track_caller]
fn finish(tool: Tool, netns: &Netns, rows: usize) -> Output {
    tool.stop_after(netns.inode(), rows)
}

/// The rows of a namespace must be the connecting ends of these sessions, with all their facts, and
/// no others.
#[track_caller]
fn assert_rows(output: &Output, netns: &Netns, sessions: &[Session]) {
    assert_rows_but(output, netns, sessions, 0);
}

/// The same with at most this many faults.
#[track_caller]
fn assert_rows_but(output: &Output, netns: &Netns, sessions: &[Session], allowed: usize) {
    let mut rows: BTreeMap<(SocketAddr, SocketAddr), Vec<ConnRow>> = BTreeMap::new();
    for row in output.rows::<ConnRow>(netns.inode()) {
        let key = ((row.laddr, row.lport).into(), (row.raddr, row.rport).into());
        rows.entry(key).or_default().push(row);
    }
    let mut faults = Vec::new();
    for (session, end) in connects(sessions) {
        match rows.remove(&(end.local, end.remote)).as_deref() {
            Some([row]) => {
                let wrong = differences(row, end, session);
                if !wrong.is_empty() {
                    faults.push(format!("wrong {}\n  in {row:?}\n  of {end:?}", wrong.join(", ")));
                }
            }
            found => faults.push(format!("{} rows for {end:?}", found.map_or(0, <[_]>::len))),
        }
    }
    faults.extend(rows.into_values().flatten().map(|row| format!("a row of no connect: {row:?}")));
    assert!(faults.len() <= allowed, "{}\n{output}", faults.join("\n"));
}

/// The ends that connected.
fn connects(sessions: &[Session]) -> impl Iterator<Item = (&Session, &End)> {
    let ends = sessions.iter().flat_map(|session| session.ends.iter().map(move |end| (session, end)));
    ends.filter(|(_, end)| end.role == Role::Active)
}

/// The outcome of the connect, in the tool's word.
fn outcome(end: &End) -> &'static str {
    if end.path.contains("ESTABLISHED") { "established" } else { end.ending.word() }
}

/// What is wrong in a row.
fn differences(row: &ConnRow, end: &End, session: &Session) -> Vec<&'static str> {
    let who = &end.owners[0];
    let at = UNIX_EPOCH + Duration::from_nanos(row.ts);
    let checks = [
        ("pid", row.pid == Some(who.pid)),
        ("comm", row.comm.as_deref() == Some(&who.comm)),
        ("ip", row.ip == if end.local.is_ipv4() { 4 } else { 6 }),
        ("outcome", row.outcome.as_deref() == Some(outcome(end))),
        ("latency_ns", row.latency_ns > 0 && Duration::from_nanos(row.latency_ns) <= session.at_most),
        ("ts", session.span.0 - clock_tolerance() <= at && at <= session.span.1 + clock_tolerance()),
    ];
    checks.into_iter().filter(|(_, right)| !right).map(|(what, _)| what).collect()
}

/// The connect succeeds, no matter how the connection ends later; the accepting end has no row.
fn established() -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut stage = Stage::new(Via::V4);
    let sessions: Vec<Session> = [
        traffic::client_closes_first as Scenario,
        traffic::server_closes_first,
        traffic::client_resets,
        traffic::handed_to_child,
    ]
    .map(|scenario| scenario(&mut stage))
    .into();
    assert_rows(&finish(tool, &netns, 4), &netns, &sessions);
    Ok(())
}

fn ipv6_and_mapped() -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let sessions = [Via::V6, Via::MappedClient, Via::DualStackServer]
        .map(|via| traffic::client_closes_first(&mut Stage::new(via)));
    assert_rows(&finish(tool, &netns, 3), &netns, &sessions);
    Ok(())
}

/// A nonblocking connect whose answer the test sends itself after [`DELAY`]. Returns the
/// connection, and the time from before the connect until after the answer.
#[track_caller]
fn answered_late(stage: &mut Stage, wire: &Wire) -> (Conn, Duration) {
    let begin = Instant::now();
    let conn = stage.client.start_connect(stage.target, None);
    let syn = wire.syn_to(stage.target);
    thread::sleep(DELAY); // the delay that the tool measures
    wire.send(syn.answer(1, flags::SYN | flags::ACK));
    // The listener does not know this connection and resets it. Whether the client has seen that
    // already does not matter.
    let _ = stage.client.finish_connect(conn);
    let took = begin.elapsed();
    stage.client.close(conn);
    (conn, took)
}

/// The latency is the delay, with an error of at most a tenth.
fn latency_is_the_delay_of_the_answer() -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = traffic::with_full_backlog();
    let wire = Wire::tap();
    let tool = start(&[]);
    let (conn, took) = answered_late(&mut stage, &wire);
    let output = finish(tool, &netns, 1);
    let rows = output.rows::<ConnRow>(netns.inode());
    let latency = Duration::from_nanos(rows[0].latency_ns);
    assert!(DELAY <= latency && latency <= took, "{DELAY:?} <= {latency:?} <= {took:?}\n{output}");
    assert!(latency <= DELAY + patient(DELAY / 10), "{latency:?} is not {DELAY:?}\n{output}");
    let found = (rows.len(), rows[0].lport, rows[0].outcome.as_deref(), rows[0].pid);
    assert_eq!(found, (1, conn.local.port(), Some("established"), Some(stage.client.who().pid)), "{output}");
    Ok(())
}

/// A socket that connects to itself: SYN_SENT, SYN_RECV, ESTABLISHED, and one row.
fn both_sides_send_a_syn() -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut client = Actor::start("kt-client");
    let itself: SocketAddr = (Ipv4Addr::LOCALHOST, 40_404).into();
    let conn = client.connect_from(itself, itself);
    client.close(conn);
    let output = finish(tool, &netns, 1);
    let rows = output.rows::<ConnRow>(netns.inode());
    let [row] = &rows[..] else { panic!("one row\n{output}") };
    let ends = [(row.laddr, row.lport), (row.raddr, row.rport)].map(SocketAddr::from);
    assert_eq!(
        (ends, row.outcome.as_deref(), row.pid),
        ([itself; 2], Some("established"), Some(client.who().pid)),
        "{output}"
    );
    Ok(())
}

/// A failed connect has a row with the reason.
#[track_caller]
fn fails(stage: fn() -> Stage, scenario: Scenario) -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = stage();
    let tool = start(&[]);
    let session = scenario(&mut stage);
    assert_rows(&finish(tool, &netns, 1), &netns, &[session]);
    Ok(())
}

fn unreachable() -> Outcome {
    needs(Feature::Veth)?;
    fails(traffic::with_no_neighbour, traffic::unreachable)
}

/// A reset while both SYNs are on the way: the test answers with a SYN, and the listener resets the
/// connection it does not know.
fn reset() -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = traffic::with_full_backlog();
    let wire = Wire::tap();
    let tool = start(&[]);
    let conn = stage.client.start_connect(stage.target, None);
    wire.send(wire.syn_to(stage.target).answer(1, flags::SYN));
    let failed = stage.client.finish_connect(conn).expect_err("a reset");
    assert_eq!(failed.errno, "ECONNRESET");
    let output = finish(tool, &netns, 1);
    let rows = output.rows::<ConnRow>(netns.inode());
    let found: Vec<_> = rows.iter().map(|row| (row.lport, row.outcome.as_deref())).collect();
    assert_eq!(found, [(conn.local.port(), Some("reset"))], "{output}");
    Ok(())
}

/// Another thread reads the socket's error in a loop, and so clears it, usually before the kernel
/// closes the socket. Then the tool cannot know the reason, and must not report that this side gave
/// up.
fn errors_that_the_process_takes_first() -> Outcome {
    const COUNT: usize = 500;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    stage.server.unlisten();
    let tool = start(&["--stats"]);
    for _ in 0..COUNT {
        traffic::refused_while_asked(stage.target);
    }
    let output = finish(tool, &netns, COUNT);
    assert_nothing_lost(&output);
    for row in output.rows::<ConnRow>(netns.inode()) {
        assert!(matches!(row.outcome.as_deref(), None | Some("refused")), "{row:?}\n{output}");
    }
    Ok(())
}

/// The cells of each row of a table, without the heading.
fn cells(output: &Output) -> Vec<Vec<&str>> {
    output.stdout.lines().skip(1).map(|line| line.split_ascii_whitespace().collect()).collect()
}

/// Without `--failed` a refused connect has no row, also in CSV; the connect after it has one.
fn failures_in_a_table_only_with_the_option() -> Outcome {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    for (options, ports) in [(&[][..], 1), (&["--csv"], 1), (&["--failed"], 2), (&["--failed", "--csv"], 2)] {
        let mut tool = Tool::start("tcpconnlat", &[options, &["--netns", &inode]].concat());
        traffic::refused(&mut Stage::new(Via::V4));
        traffic::client_closes_first(&mut Stage::new(Via::V4));
        tool.wait_for("the rows", |seen| seen.stdout.lines().count() > ports);
        let output = tool.stop();
        assert_eq!(output.assert_code(0).stdout.lines().count(), 1 + ports, "{output}");
        for word in ["OUTCOME", "refused", "established"] {
            assert_eq!(output.stdout.contains(word), ports == 2, "{word}\n{output}");
        }
    }
    Ok(())
}

/// A connect that started before the tool has no row, because its latency is unknown.
fn started_before_the_tool() -> Outcome {
    let netns = Netns::enter_new();
    let mut silent = traffic::with_full_backlog();
    let old = silent.client.start_connect(silent.target, None);
    let tool = start(&[]);
    silent.client.close(old);
    let session = traffic::client_closes_first(&mut Stage::new(Via::V4));
    assert_rows(&finish(tool, &netns, 1), &netns, &[session]);
    Ok(())
}

/// Two tools watch a connect that takes [`DELAY`] and a fast one: only the slow connect is above
/// the lower threshold, and none is above the higher one.
fn min_time() -> Outcome {
    let netns = Netns::enter_new();
    let mut silent = traffic::with_full_backlog();
    let wire = Wire::tap();
    let millis = |duration: Duration| (duration.as_secs_f64() * 1e3).to_string();
    let (below, above) = (millis(DELAY), millis(patient(DELAY) * 100));
    let (low, high) = (start(&[&below]), start(&[&above]));
    traffic::client_closes_first(&mut Stage::new(Via::V4));
    let (slow, _) = answered_late(&mut silent, &wire);
    let output = finish(low, &netns, 1);
    let ports: Vec<u16> = output.rows::<ConnRow>(netns.inode()).iter().map(|row| row.lport).collect();
    assert_eq!(ports, [slow.local.port()], "{output}");
    assert!(finish(high, &netns, 0).rows::<ConnRow>(netns.inode()).is_empty());
    Ok(())
}

fn pid() -> Outcome {
    let netns = Netns::enter_new();
    let mut stages = [Stage::new(Via::V4), Stage::new(Via::V4)];
    let tool = start(&["-p", &stages[1].client.who().pid.to_string()]);
    let [_, wanted] = stages.each_mut().map(traffic::server_closes_first);
    assert_rows(&finish(tool, &netns, 1), &netns, &[wanted]);
    Ok(())
}

/// `--localport`; `-L` is another option here. The kernel chooses the local port only after the
/// connect has started.
fn local_port() -> Outcome {
    const PORT: u16 = 40_404;
    let netns = Netns::enter_new();
    // Only two ports are allowed, so that the test knows the next one.
    netns.set_sysctl("net/ipv4/ip_local_port_range", "40404 40405");
    let mut stage = Stage::between(
        Actor::start("kt-client"),
        Actor::start("kt-server"),
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::LOCALHOST.into(),
        4,
    );
    // The listener has one of them.
    let port = if stage.listener.port() == PORT { PORT + 1 } else { PORT };
    let tools = [port, stage.listener.port()].map(|port| start(&["--localport", &port.to_string()]));
    let session = traffic::server_closes_first(&mut stage);
    assert_eq!(session.ends[0].local.port(), port);
    let [wanted, unwanted] = tools;
    assert_rows(&finish(wanted, &netns, 1), &netns, &[session]);
    assert_rows(&finish(unwanted, &netns, 0), &netns, &[]);
    Ok(())
}

fn remote_port() -> Outcome {
    let netns = Netns::enter_new();
    let mut stages = [Stage::new(Via::V4), Stage::new(Via::V4)];
    let tool = start(&["--remoteport", &format!("1,{}", stages[1].listener.port())]);
    let [_, wanted] = stages.each_mut().map(traffic::client_closes_first);
    assert_rows(&finish(tool, &netns, 1), &netns, &[wanted]);
    Ok(())
}

/// By the addresses on the wire.
fn family() -> Outcome {
    needs(Feature::Ipv6)?;
    for (option, wanted) in [("-4", &[Via::V4, Via::MappedClient][..]), ("-6", &[Via::V6])] {
        let netns = Netns::enter_new();
        let tool = start(&[option]);
        let all = [Via::V4, Via::MappedClient, Via::V6];
        let sessions = all.map(|via| (via, traffic::client_closes_first(&mut Stage::new(via))));
        let sessions: Vec<Session> = sessions
            .into_iter()
            .filter(|(via, _)| wanted.contains(via))
            .map(|(_, session)| session)
            .collect();
        assert_rows(&finish(tool, &netns, wanted.len()), &netns, &sessions);
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
    let output = finish(tool, &netns, 0);
    let missed = assert_only_missed(&output);
    assert_rows_but(&output, &netns, &sessions, missed);
    Ok(())
}

/// A table of one entry is enough for 200 connects one after the other.
fn refused_connects_leave_the_table() -> Outcome {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let mut stage = Stage::new(Via::V4);
    let one = ["--stats", "--max-sockets", "1", "--netns", &inode];
    let (shown, too_short) = (start(&one), start(&[&one[..], &["1000000"]].concat()));
    stage.server.unlisten();
    for _ in 0..200 {
        stage.client.connect_fails(stage.target);
    }
    let output = finish(shown, &netns, 200);
    assert_nothing_lost(&output);
    assert!(
        output.rows::<ConnRow>(netns.inode()).iter().all(|row| row.outcome.as_deref() == Some("refused")),
        "{output}"
    );
    let output = finish(too_short, &netns, 0);
    assert_nothing_lost(&output);
    assert_eq!(output.stdout, "", "{output}");
    Ok(())
}

/// A table of 100 entries, filled by 100 unanswered connects, is free again for as many afterwards.
fn unanswered_connects_leave_the_table() -> Outcome {
    const COUNT: usize = 100;
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let mut stage = traffic::with_full_backlog();
    let tool = start(&["--stats", "--max-sockets", &COUNT.to_string(), "--netns", &inode]);
    for _ in 0..2 {
        let time_limit = Some(Duration::from_millis(300));
        let conns: Vec<Conn> =
            (0..COUNT).map(|_| stage.client.start_connect(stage.target, time_limit)).collect();
        for conn in conns {
            let failed = stage.client.finish_connect(conn).expect_err("a connect without an answer");
            assert_eq!(failed.errno, "ETIMEDOUT");
            stage.client.close(conn);
        }
    }
    let output = finish(tool, &netns, 2 * COUNT);
    assert_nothing_lost(&output);
    assert!(
        output.rows::<ConnRow>(netns.inode()).iter().all(|row| row.outcome.as_deref() == Some("timeout")),
        "{output}"
    );
    Ok(())
}

fn access_modes_and_rings_agree() -> Outcome {
    needs(Feature::PerfEvents)?;
    needs(Feature::KernelBtf)?;
    needs(Feature::ProbeReads)?;
    let netns = Netns::enter_new();
    let modes: [&[&str]; 3] = [&["--access", "typed"], &["--access", "probed"], &["--perf"]];
    let tools = modes.map(|mode| start(&[mode, &["--stats"]].concat()));
    let mut stage = Stage::new(Via::V4);
    let sessions = [traffic::client_closes_first, traffic::refused].map(|scenario| scenario(&mut stage));
    for tool in tools {
        let output = finish(tool, &netns, 2);
        assert_nothing_lost(&output);
        assert_rows(&output, &netns, &sessions);
    }
    Ok(())
}

/// An address that is wider than its column.
const WIDE_ADDRESS: &str = "2001:db8:1234:5678:9abc:def0:1234:5678";

/// Has the tool watch connects over IPv4, to a port without a listener, between [`WIDE_ADDRESS`]
/// addresses, and over IPv4 again, of a process whose name the table cuts.
#[track_caller]
fn watch(options: &[&str]) -> (Output, Vec<Session>) {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let wide: IpAddr = WIDE_ADDRESS.parse().expect("an address");
    netns::add_to_loopback(wide);
    let mut tool = Tool::start("tcpconnlat", &[&["--netns", &inode], options].concat());
    let four = IpAddr::from(Ipv4Addr::LOCALHOST);
    let scenarios: [(IpAddr, Scenario); 4] = [
        (four, traffic::client_closes_first),
        (four, traffic::refused),
        (wide, traffic::client_closes_first),
        (four, traffic::client_closes_first),
    ];
    let sessions = scenarios.map(|(address, scenario)| {
        let actors = ["kt-a-long-name", "kt-server"].map(Actor::start);
        let [client, server] = actors;
        scenario(&mut Stage::between(client, server, address, address, 4))
    });
    let heading = usize::from(!options.contains(&"--json"));
    tool.wait_for("the rows", |seen| seen.stdout.lines().count() >= heading + sessions.len());
    let output = tool.stop();
    output.assert_code(0).assert_complete_lines();
    assert_eq!(output.stdout.lines().count(), heading + sessions.len(), "{output}");
    (output, sessions.into())
}

/// All columns, character by character, and the headings without options.
fn table() -> Outcome {
    needs(Feature::Ipv6)?;
    let (output, sessions) = watch(&["-t", "-L", "--failed"]);
    let mut lines = output.stdout.lines();
    let heading =
        "TIME(s)   PID     COMM         IP SADDR            LPORT  DADDR            DPORT LAT(ms)  OUTCOME";
    assert_eq!(lines.next(), Some(heading), "{output}");
    let mut width = 16;
    for (number, ((_, end), line)) in connects(&sessions).zip(lines).enumerate() {
        let cells: Vec<&str> = line.split_ascii_whitespace().collect();
        let (time, latency) = (cells[0], cells[8]);
        assert_number(time, 3, &output);
        assert_eq!(
            number == 0 || time != "0.000",
            number != 0 || time == "0.000",
            "from the first row\n{output}"
        );
        assert_number(latency, 2, &output);
        let [laddr, raddr] = [end.local, end.remote].map(|address| address.ip().to_string());
        width = width.max(laddr.len());
        let (pid, ip) = (end.owners[0].pid, if end.local.is_ipv4() { 4 } else { 6 });
        let (lport, rport, outcome) = (end.local.port(), end.remote.port(), outcome(end));
        let expected = format!(
            "{time:<9} {pid:<7} kt-a-long-na {ip}  {laddr:<width$} {lport:<6} {raddr:<width$} {rport:<5} {latency:<8} {outcome}"
        );
        assert_eq!(line, expected, "{output}");
    }
    let (output, sessions) = watch(&["--failed"]);
    let heading = "PID     COMM         IP SADDR            DADDR            DPORT LAT(ms)  OUTCOME";
    assert_eq!(output.stdout.lines().next(), Some(heading), "{output}");
    assert_eq!(cells(&output).len(), sessions.len(), "{output}");
    // The headings without options.
    Netns::enter_new();
    let output = Tool::start("tcpconnlat", &["--netns", "1"]).stop();
    assert_eq!(
        output.stdout, "PID     COMM         IP SADDR            DADDR            DPORT LAT(ms)\n",
        "{output}"
    );
    Ok(())
}

fn csv() -> Outcome {
    needs(Feature::Ipv6)?;
    let (output, sessions) = watch(&["--csv", "-tL", "--failed"]);
    let mut lines = output.stdout.lines();
    assert_eq!(lines.next(), Some("TIME(s),PID,COMM,IP,SADDR,LPORT,DADDR,DPORT,LAT(ms),OUTCOME"), "{output}");
    for ((_, end), line) in connects(&sessions).zip(lines) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_number(cells[0], 3, &output);
        assert_number(cells[8], 2, &output);
        let (pid, ip) = (end.owners[0].pid, if end.local.is_ipv4() { 4 } else { 6 });
        let ([time, latency], outcome) = ([cells[0], cells[8]], outcome(end));
        let [(laddr, lport), (raddr, rport)] = [end.local, end.remote].map(|end| (end.ip(), end.port()));
        let expected =
            format!("{time},{pid},kt-a-long-name,{ip},{laddr},{lport},{raddr},{rport},{latency},{outcome}");
        assert_eq!(line, expected, "{output}");
    }
    Ok(())
}

fn json() -> Outcome {
    needs(Feature::Ipv6)?;
    let (output, sessions) = watch(&["--json"]);
    let netns = Netns::current().inode();
    let rows = output.rows::<ConnRow>(netns);
    for (((_, end), line), row) in connects(&sessions).zip(output.stdout.lines()).zip(rows) {
        let (pid, ip) = (end.owners[0].pid, if end.local.is_ipv4() { 4 } else { 6 });
        let (ts, latency, outcome) = (row.ts, row.latency_ns, outcome(end));
        let [(laddr, lport), (raddr, rport)] = [end.local, end.remote].map(|end| (end.ip(), end.port()));
        let expected = format!(
            "{{\"ts\":{ts},\"pid\":{pid},\"comm\":\"kt-a-long-name\",\"ip\":{ip},\"laddr\":\"{laddr}\",\"lport\":{lport},\
             \"raddr\":\"{raddr}\",\"rport\":{rport},\"latency_ns\":{latency},\"outcome\":\"{outcome}\",\"netns\":{netns}}}"
        );
        assert_eq!(line, expected, "{output}");
    }
    Ok(())
}
