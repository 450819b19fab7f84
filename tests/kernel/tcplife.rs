//! tcplife: a row for each end of each connection that has ended, with its facts, and no other row.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kernel_tests::actor::Actor;
use kernel_tests::cli::{Output, Tool};
use kernel_tests::deadline::patient;
use kernel_tests::netns::{self, Netns};
use kernel_tests::peer;
use kernel_tests::requirements::{Feature, needs, needs_owners};
use kernel_tests::rows::LifeRow;
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::stage::{End, Ending, Role, Session, Stage, Via};
use kernel_tests::traffic::{self, Scenario};

pub const TESTS: &[Test] = &[
    test("tcplife::client_closes_first", || plays(traffic::client_closes_first)),
    test("tcplife::server_closes_first", || plays(traffic::server_closes_first)),
    test("tcplife::no_bytes", || plays(traffic::no_bytes)),
    test("tcplife::many_bytes", || plays(traffic::many_bytes)),
    test("tcplife::half_close", || plays(traffic::half_close)),
    test("tcplife::client_resets", || plays(traffic::client_resets)),
    test("tcplife::server_resets", || plays(traffic::server_resets)),
    test("tcplife::server_closes_unread", || plays(traffic::server_closes_unread)),
    test("tcplife::client_killed", || plays(traffic::client_killed)),
    test("tcplife::handed_to_child", || plays(traffic::handed_to_child)),
    test("tcplife::shared_with_child", || plays(traffic::shared_with_child)),
    test("tcplife::passed_on_unused", || plays(traffic::passed_on_unused)),
    test("tcplife::the_user_of_a_socket_owns_it", the_user_of_a_socket_owns_it),
    test("tcplife::the_acceptor_owns_an_unused_socket", the_acceptor_owns_an_unused_socket),
    test("tcplife::never_accepted", || plays(traffic::never_accepted)),
    test("tcplife::ipv6", ipv6),
    test("tcplife::mapped", mapped),
    test("tcplife::refused", refused),
    test("tcplife::timed_out", || fails(traffic::timed_out)).alone(Alone::Timers),
    test("tcplife::aborted", || fails(traffic::aborted)),
    test("tcplife::unreachable", unreachable).alone(Alone::Timers),
    test("tcplife::failed_connects_have_no_row", failed_connects_have_no_row),
    test("tcplife::open_before_the_tool", open_before_the_tool),
    test("tcplife::existing", || existing(&["--existing"])),
    test("tcplife::existing_by_sock_diag_and_proc", || existing(&["--existing", "--no-iter"])),
    test("tcplife::two_namespaces", two_namespaces),
    test("tcplife::each_of_2000_exactly_once", each_of_2000_exactly_once),
    test("tcplife::local_port", local_port),
    test("tcplife::remote_port", remote_port),
    test("tcplife::port_lists", port_lists),
    test("tcplife::pid_of_client", pid_of_client),
    test("tcplife::pid_of_server_that_closes_first", pid_of_server_that_closes_first),
    test("tcplife::family", family),
    test("tcplife::access_modes_and_rings_agree", access_modes_and_rings_agree),
    test("tcplife::agrees_with_libbpf_tools", agrees_with_libbpf_tools).alone(Alone::OtherTools),
];

/// The error of a row's time. It is converted from the monotonic clock, and the packet that ends a
/// connection may still be in a queue when the last close returns.
fn tolerance() -> Duration {
    patient(Duration::from_millis(100))
}

/// Plays a scenario while the tool runs. Each end must have its row, and there must be no other
/// row.
#[track_caller]
fn plays(scenario: Scenario) -> Outcome {
    watched(&[], Via::V4, scenario);
    Ok(())
}

#[track_caller]
fn watched(args: &[&str], via: Via, scenario: Scenario) {
    let netns = Netns::enter_new();
    let tool = start(args);
    let mut stage = Stage::new(via);
    let session = scenario(&mut stage);
    assert_rows(&finish(tool, &netns, session.ends.len()), &netns, &[session]);
}

#[track_caller]
fn start(args: &[&str]) -> Tool {
    Tool::start("tcplife", &[&["--json"], args].concat())
}

#[track_caller]
fn finish(tool: Tool, netns: &Netns, rows: usize) -> Output {
    tool.stop_after(netns.inode(), rows)
}

type Key = (SocketAddr, SocketAddr);

/// The rows of a namespace must be the ends of these sessions, with all their facts, and no others.
#[track_caller]
fn assert_rows(output: &Output, netns: &Netns, sessions: &[Session]) {
    assert_rows_but(output, netns, sessions, 0);
}

/// The same with at most this many faults.
#[track_caller]
fn assert_rows_but(output: &Output, netns: &Netns, sessions: &[Session], allowed: usize) {
    let mut rows: BTreeMap<Key, Vec<LifeRow>> = BTreeMap::new();
    for row in output.rows::<LifeRow>(netns.inode()) {
        let key = ((row.laddr, row.lport).into(), (row.raddr, row.rport).into());
        rows.entry(key).or_default().push(row);
    }
    let mut faults = Vec::new();
    for (session, end) in sessions.iter().flat_map(|s| s.ends.iter().map(move |e| (s, e))) {
        match rows.remove(&(end.local, end.remote)).as_deref() {
            None => faults.push(format!("no row for {end:?}")),
            Some([row]) => {
                let differences = differences(row, end, session);
                if !differences.is_empty() {
                    faults.push(format!("{}\n  in {row:?}\n  of {end:?}", differences.join("; ")));
                }
            }
            Some(rows) => faults.push(format!("{} rows for {end:?}", rows.len())),
        }
    }
    faults.extend(rows.into_values().flatten().map(|row| format!("a row of no connection: {row:?}")));
    assert!(faults.len() <= allowed, "{}\n{output}", faults.join("\n"));
}

/// What is wrong in a row.
fn differences(row: &LifeRow, end: &End, session: &Session) -> Vec<String> {
    let mut faults = owner_fault(row.pid, row.comm.as_deref(), end).into_iter().collect::<Vec<_>>();
    let mut check = |what: &str, right: bool| {
        if !right {
            faults.push(format!("wrong {what}"));
        }
    };
    check("ip", row.ip == if end.local.is_ipv4() { 4 } else { 6 });
    check("tx_bytes", row.tx_bytes == end.tx);
    check("rx_bytes", row.rx_bytes == end.rx);
    check("outcome", row.outcome.as_deref() == Some(end.ending.word()));
    let role = match end.role {
        Role::Active => "active",
        Role::Passive => "passive",
    };
    check("role", row.role.as_deref() == Some(role));
    check("existing", !row.existing);
    let duration = Duration::from_nanos(row.duration_ns);
    check("duration_ns (too short)", duration >= session.at_least);
    check("duration_ns (too long)", duration <= session.at_most + tolerance());
    let established = end.path.contains("ESTABLISHED");
    match row.handshake_ns.map(Duration::from_nanos) {
        Some(took) => {
            check("handshake_ns (of no handshake)", established);
            check("handshake_ns (too long)", took <= session.at_most);
        }
        None => check("handshake_ns (missing)", !(established && end.role == Role::Active)),
    }
    check("ts", in_span(row.ts, session));
    faults
}

/// A row names one of the processes that had the socket open, or no process if none had.
fn owner_fault(pid: Option<u32>, comm: Option<&str>, end: &End) -> Option<String> {
    let right = match (pid, comm) {
        (None, None) => end.owners.is_empty(),
        (Some(pid), Some(comm)) => end.owners.iter().any(|who| (who.pid, who.comm.as_str()) == (pid, comm)),
        _ => false,
    };
    (!right).then(|| "wrong owner".to_owned())
}

fn in_span(ts: u64, session: &Session) -> bool {
    let at: SystemTime = UNIX_EPOCH + Duration::from_nanos(ts);
    let (begin, end) = session.span;
    begin - tolerance() <= at && at <= end + tolerance()
}

/// If the kernel has tracepoints for send and receive, the process that sends and receives is the
/// owner, even if another one accepted the connection.
fn the_user_of_a_socket_owns_it() -> Outcome {
    needs(Feature::SocketLengths)?;
    watched(&[], Via::V4, |stage| {
        let mut session = traffic::handed_to_child(stage);
        session.ends[1].owners.remove(0);
        session
    });
    Ok(())
}

/// The owner is the process that accepted the connection, not the one that closed it.
fn the_acceptor_owns_an_unused_socket() -> Outcome {
    needs(Feature::Kprobes)?;
    watched(&[], Via::V4, |stage| {
        let mut session = traffic::passed_on_unused(stage);
        session.ends[1].owners.truncate(1);
        session
    });
    Ok(())
}

fn ipv6() -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut stage = Stage::new(Via::V6);
    let sessions = [traffic::client_closes_first(&mut stage), traffic::server_closes_first(&mut stage)];
    assert_rows(&finish(tool, &netns, 4), &netns, &sessions);
    Ok(())
}

/// An IPv6 socket that uses IPv4 is shown with mapped addresses, its peer as an IPv4 socket.
fn mapped() -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let sessions = [Via::MappedClient, Via::DualStackServer].map(|via| {
        let session = traffic::client_closes_first(&mut Stage::new(via));
        let families: Vec<bool> = session.ends.iter().map(|end| end.local.is_ipv6()).collect();
        assert_eq!(families, [via == Via::MappedClient, via == Via::DualStackServer], "one mapped end");
        session
    });
    assert_rows(&finish(tool, &netns, 4), &netns, &sessions);
    Ok(())
}

fn refused() -> Outcome {
    watched(&["--failed"], Via::V4, traffic::refused);
    Ok(())
}

/// Connects to a listener that drops all SYNs.
#[track_caller]
fn fails(scenario: Scenario) -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = traffic::with_full_backlog();
    let tool = start(&["--failed"]);
    let session = scenario(&mut stage);
    assert_rows(&finish(tool, &netns, 1), &netns, &[session]);
    Ok(())
}

/// The neighbour does not exist; the kernel notices after the SYN.
fn unreachable() -> Outcome {
    needs(Feature::Veth)?;
    let netns = Netns::enter_new();
    let mut stage = traffic::with_no_neighbour();
    let tool = start(&["--failed"]);
    let session = traffic::unreachable(&mut stage);
    assert_eq!(session.ends[0].ending, Ending::Unreachable);
    assert_rows(&finish(tool, &netns, 1), &netns, &[session]);
    Ok(())
}

/// Without `--failed` a failed connect has no row; the session after it has one.
fn failed_connects_have_no_row() -> Outcome {
    let netns = Netns::enter_new();
    let mut silent = traffic::with_full_backlog();
    let tool = start(&[]);
    traffic::refused(&mut Stage::new(Via::V4));
    traffic::aborted(&mut silent);
    let session = traffic::client_closes_first(&mut Stage::new(Via::V4));
    assert_rows(&finish(tool, &netns, 2), &netns, &[session]);
    Ok(())
}

/// Without `--existing` a connection that was opened before the tool has no row.
fn open_before_the_tool() -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let old = traffic::begun(&mut stage);
    let tool = start(&[]);
    traffic::finish(&mut stage, old);
    let session = traffic::client_closes_first(&mut stage);
    assert_rows(&finish(tool, &netns, 2), &netns, &[session]);
    Ok(())
}

/// With `--existing` it has one, with owner and bytes; its duration counts from the start of the
/// tool.
fn existing(args: &[&str]) -> Outcome {
    needs(Feature::KernelBtf)?;
    needs_owners(args)?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let pair = traffic::begun(&mut stage);
    let tool = start(args);
    let session = traffic::finish(&mut stage, pair);
    let output = finish(tool, &netns, 2);
    let rows = output.rows::<LifeRow>(netns.inode());
    for end in &session.ends {
        let row =
            rows.iter().find(|r| r.lport == end.local.port()).unwrap_or_else(|| panic!("{end:?}\n{output}"));
        assert_eq!(owner_fault(row.pid, row.comm.as_deref(), end), None, "{row:?}\n{output}");
        assert_eq!((row.tx_bytes, row.rx_bytes), (end.tx, end.rx), "{row:?}\n{output}");
        assert!(row.existing, "{row:?}\n{output}");
        assert!(Duration::from_nanos(row.duration_ns) <= session.at_most, "{row:?}\n{output}");
        assert_eq!(row.outcome.as_deref(), Some(end.ending.word()), "{row:?}\n{output}");
        assert_eq!(row.handshake_ns, None, "{row:?}\n{output}");
    }
    assert_eq!(rows.len(), 2, "{output}");
    Ok(())
}

/// Client and server are in different namespaces: each row has its own, and the handshake goes over
/// a real queue.
fn two_namespaces() -> Outcome {
    needs(Feature::Veth)?;
    let (here, there) = (Netns::enter_new(), Netns::beside());
    let (client, server) = netns::join(&here, &there).expect("a veth pair");
    let mut tool = start(&[]);
    let there_server = there.run(|| Actor::start("kt-server"));
    let mut stage = Stage::between(Actor::start("kt-client"), there_server, server, server, 4);
    let session = traffic::server_closes_first(&mut stage);
    assert_eq!((session.ends[0].local.ip(), session.ends[1].local.ip()), (client, server));
    tool.wait_rows(there.inode(), 1);
    let output = finish(tool, &here, 1);
    for (netns, end) in [&here, &there].into_iter().zip(&session.ends) {
        let one = Session { ends: vec![end.clone()], ..session.clone() };
        assert_rows(&output, netns, &[one]);
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
    // A skipped program makes one row wrong or missing.
    let missed = crate::cli::assert_only_missed(&output);
    assert_rows_but(&output, &netns, &sessions, missed);
    Ok(())
}

/// Connections to two listeners, with a filter: the rows must be the ends that `wanted` selects.
#[track_caller]
fn filtered(args: impl FnOnce(&[Stage; 2]) -> Vec<String>, wanted: impl Fn(&[Stage; 2], &End) -> bool) {
    let netns = Netns::enter_new();
    let mut stages = [Stage::new(Via::V4), Stage::new(Via::V4)];
    let args = args(&stages);
    let tool = start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut sessions: Vec<Session> = Vec::new();
    for stage in &mut stages {
        sessions.push(traffic::server_closes_first(stage));
        sessions.push(traffic::client_closes_first(stage));
    }
    for session in &mut sessions {
        session.ends.retain(|end| wanted(&stages, end));
    }
    let rows = sessions.iter().map(|s| s.ends.len()).sum();
    assert!(rows > 0, "the filter must select some ends");
    assert_rows(&finish(tool, &netns, rows), &netns, &sessions);
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

/// `-L` of a listener's port: its own ends, not those of its clients.
fn local_port() -> Outcome {
    filtered(
        |[one, _]| words(&["-L", &one.listener.port().to_string()]),
        |[one, _], end| end.local.port() == one.listener.port(),
    );
    Ok(())
}

/// `-D` of a listener's port: the ends of its clients.
fn remote_port() -> Outcome {
    filtered(
        |[one, _]| words(&["-D", &one.listener.port().to_string()]),
        |[one, _], end| end.remote.port() == one.listener.port(),
    );
    Ok(())
}

/// Several ports are alternatives. With `-L` and `-D`, both must match.
fn port_lists() -> Outcome {
    filtered(
        |[one, two]| words(&["-L", &format!("1,{},{}", one.listener.port(), two.listener.port())]),
        |[one, two], end| [one.listener.port(), two.listener.port()].contains(&end.local.port()),
    );
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let from: SocketAddr = (Ipv4Addr::LOCALHOST, 40_404).into();
    let to = stage.target;
    let tool = start(&["-L", "40404", "-D", &to.port().to_string()]);
    let pair = stage.open_from(Some(from));
    let session = traffic::close(&mut stage, pair, (0, 0));
    let other = traffic::client_closes_first(&mut stage);
    assert_ne!(other.ends[0].local, from);
    let only = Session { ends: session.ends[..1].to_vec(), ..session };
    assert_rows(&finish(tool, &netns, 1), &netns, &[only]);
    Ok(())
}

fn pid_of_client() -> Outcome {
    filtered(
        |[one, _]| words(&["-p", &one.client.who().pid.to_string()]),
        |[one, _], end| end.owners == [one.client.who()],
    );
    Ok(())
}

/// Also the session that the server closed first, which ends in a soft interrupt.
fn pid_of_server_that_closes_first() -> Outcome {
    filtered(
        |[_, two]| words(&["-p", &two.server.who().pid.to_string()]),
        |[_, two], end| end.owners == [two.server.who()],
    );
    Ok(())
}

/// `-4` and `-6` select by the addresses on the wire: an IPv6 socket with mapped addresses uses
/// IPv4.
fn family() -> Outcome {
    needs(Feature::Ipv6)?;
    for (option, wanted) in [("-4", [true, true, false]), ("-6", [false, false, true])] {
        let netns = Netns::enter_new();
        let tool = start(&[option]);
        let mut sessions = Vec::new();
        for (via, wanted) in [Via::V4, Via::MappedClient, Via::V6].into_iter().zip(wanted) {
            let session = traffic::client_closes_first(&mut Stage::new(via));
            if wanted {
                sessions.push(session);
            }
        }
        let rows = 2 * sessions.len();
        assert_rows(&finish(tool, &netns, rows), &netns, &sessions);
    }
    Ok(())
}

/// Direct loads and probe reads see the same: both run at once on the same connections.
fn access_modes_and_rings_agree() -> Outcome {
    needs(Feature::PerfEvents)?;
    needs(Feature::KernelBtf)?;
    needs(Feature::ProbeReads)?;
    let netns = Netns::enter_new();
    let tools = [&["--access", "typed"][..], &["--access", "probed"], &["--perf"]]
        .map(|mode| start(&[&["--failed"], mode].concat()));
    let mut stage = Stage::new(Via::V4);
    let sessions = [
        traffic::client_closes_first(&mut stage),
        traffic::server_closes_first(&mut stage),
        traffic::half_close(&mut stage),
        traffic::server_closes_unread(&mut stage),
        traffic::client_resets(&mut stage),
        traffic::refused(&mut stage),
    ];
    let rows = sessions.iter().map(|s| s.ends.len()).sum();
    for tool in tools {
        assert_rows(&finish(tool, &netns, rows), &netns, &sessions);
    }
    Ok(())
}

/// The tuples of all sessions are the same as those of libbpf-tools, if they are installed.
fn agrees_with_libbpf_tools() -> Outcome {
    let netns = Netns::enter_new();
    let mut peer = peer::start("tcplife")?;
    let tool = start(&[]);
    let address = peer::unique_address();
    let mut stage =
        Stage::between(Actor::start("kt-client"), Actor::start("kt-server"), address, address, 16);
    let sessions = [
        traffic::client_closes_first(&mut stage),
        traffic::server_closes_first(&mut stage),
        traffic::half_close(&mut stage),
        traffic::client_resets(&mut stage),
        traffic::server_closes_unread(&mut stage),
    ];
    let ours = |tuple: &peer::Tuple| tuple.0 == address || tuple.2 == address;
    let rows = 2 * sessions.len();
    peer.wait_for("the rows of libbpf-tools", |seen| {
        peer::sessions(seen).iter().filter(|t| ours(t)).count() >= rows
    });
    let mut theirs = peer::sessions(&peer.stop());
    theirs.retain(ours);
    let output = finish(tool, &netns, rows);
    let tuples =
        output.rows::<LifeRow>(netns.inode()).into_iter().map(|r| (r.laddr, r.lport, r.raddr, r.rport));
    let mut tuples: Vec<peer::Tuple> = tuples.collect();
    theirs.sort_unstable();
    tuples.sort_unstable();
    assert_eq!(tuples, theirs, "{output}");
    assert_rows(&output, &netns, &sessions);
    Ok(())
}
