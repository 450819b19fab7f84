//! tcpstates: a row for each state change of each socket, in order, with its owner if that is
//! known.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kernel_tests::actor::Actor;
use kernel_tests::cli::{Output, Tool};
use kernel_tests::deadline::patient;
use kernel_tests::netns::Netns;
use kernel_tests::peer;
use kernel_tests::requirements::{Feature, needs, needs_owners, running_version};
use kernel_tests::rows::StateRow;
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::stage::{End, Role, Stage, Via};
use kernel_tests::traffic::{self, Scenario};

pub const TESTS: &[Test] = &[
    test("tcpstates::client_closes_first", || plays(traffic::client_closes_first)),
    test("tcpstates::server_closes_first", || plays(traffic::server_closes_first)),
    test("tcpstates::half_close", || plays(traffic::half_close)),
    test("tcpstates::client_resets", || plays(traffic::client_resets)),
    test("tcpstates::server_resets", || plays(traffic::server_resets)),
    test("tcpstates::server_closes_unread", || plays(traffic::server_closes_unread)),
    test("tcpstates::client_killed", || plays(traffic::client_killed)),
    test("tcpstates::handed_to_child", || plays(traffic::handed_to_child)),
    test("tcpstates::shared_with_child", || plays(traffic::shared_with_child)),
    test("tcpstates::never_accepted", || plays(traffic::never_accepted)),
    test("tcpstates::refused", || plays(traffic::refused)),
    test("tcpstates::timed_out", || fails(traffic::timed_out)).alone(Alone::Timers),
    test("tcpstates::aborted", || fails(traffic::aborted)),
    test("tcpstates::ipv6", ipv6),
    test("tcpstates::mapped", mapped),
    test("tcpstates::open_before_the_tool", || open_before_the_tool(&[])),
    test("tcpstates::open_before_the_tool_by_sock_diag_and_proc", || open_before_the_tool(&["--no-iter"])),
    test("tcpstates::each_of_2000_exactly_once", each_of_2000_exactly_once),
    test("tcpstates::local_port_of_server", local_port_of_server),
    test("tcpstates::local_port_of_client", local_port_of_client),
    test("tcpstates::remote_port", remote_port),
    test("tcpstates::family", family),
    test("tcpstates::access_modes_agree", access_modes_agree),
    test("tcpstates::agrees_with_libbpf_tools", agrees_with_libbpf_tools).alone(Alone::OtherTools),
];

/// The first kernel that sets a connection's tuple before its first change, LISTEN to SYN_RECV;
/// older kernels set it later.
pub const FIRST_CHANGE_HAS_PEER: (u32, u32) = (6, 18);

/// A span is the difference between the times of two rows, with the error of their conversion to
/// wall-clock time.
const SPAN_TOLERANCE: Duration = Duration::from_millis(1);

/// A time of a row may differ from this process's clock by the error of the conversion.
const TIME_TOLERANCE: Duration = Duration::from_millis(100);

/// Plays a scenario while the tool runs; the listener has rows too.
#[track_caller]
fn plays(scenario: Scenario) -> Outcome {
    watched(Via::V4, scenario);
    Ok(())
}

#[track_caller]
fn watched(via: Via, scenario: Scenario) {
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let begin = SystemTime::now() - patient(TIME_TOLERANCE);
    let mut stage = Stage::new(via);
    let mut ends = scenario(&mut stage).ends;
    ends.push(stage.listener_end());
    stage.server.unlisten();
    let output = finish(tool, &netns, changes(&ends));
    assert_rows(&output, &netns, &ends);
    let end = SystemTime::now() + patient(TIME_TOLERANCE);
    for row in output.rows::<StateRow>(netns.inode()) {
        let at = UNIX_EPOCH + Duration::from_nanos(row.ts);
        assert!(begin <= at && at <= end, "{at:?} is not between {begin:?} and {end:?}: {row:?}\n{output}");
    }
}

#[track_caller]
fn start(args: &[&str]) -> Tool {
    Tool::start("tcpstates", &[&["--json"], args].concat())
}

#[track_caller]
fn finish(tool: Tool, netns: &Netns, rows: usize) -> Output {
    tool.stop_after(netns.inode(), rows)
}

/// How many state changes these ends have.
fn changes(ends: &[End]) -> usize {
    ends.iter().map(|end| end.path.split(' ').count() - 1).sum()
}

/// The rows of one socket until it is in CLOSE again.
type Life = Vec<StateRow>;

/// Groups the rows by socket. The kernel gives the address of a closed socket to the next socket.
fn lives(output: &Output, netns: &Netns) -> Vec<Life> {
    let mut open: BTreeMap<u64, Life> = BTreeMap::new();
    let mut lives = Vec::new();
    for row in output.rows::<StateRow>(netns.inode()) {
        let (skaddr, closed) = (row.skaddr, row.newstate == "CLOSE");
        open.entry(skaddr).or_default().push(row);
        if closed {
            lives.extend(open.remove(&skaddr));
        }
    }
    lives.extend(open.into_values());
    lives
}

fn path(life: &Life) -> String {
    let first = life.first().map(|row| row.oldstate.as_str());
    first.into_iter().chain(life.iter().map(|row| row.newstate.as_str())).collect::<Vec<_>>().join(" ")
}

/// The sockets of a namespace must be these ends and no others, each with its states in order.
#[track_caller]
fn assert_rows(output: &Output, netns: &Netns, ends: &[End]) {
    assert_rows_but(output, netns, ends, 0);
}

/// The same with at most this many faults.
#[track_caller]
fn assert_rows_but(output: &Output, netns: &Netns, ends: &[End], allowed: usize) {
    let mut lives = lives(output, netns);
    let mut faults = Vec::new();
    for end in ends {
        // The last row always has the port, the first ones may lack it.
        let is_end = |life: &Life| {
            life.last().is_some_and(|row| {
                (row.laddr, row.lport) == (Some(end.local.ip()), Some(end.local.port()))
                    && (row.raddr, row.rport.unwrap_or(0)) == (peer_ip(end), end.remote.port())
            })
        };
        let Some(at) = lives.iter().position(is_end) else {
            faults.push(format!("no rows for {end:?}"));
            continue;
        };
        let life = lives.swap_remove(at);
        let differences = differences(&life, end);
        if !differences.is_empty() {
            faults.push(format!("{}\n  in {life:#?}\n  of {end:?}", differences.join("; ")));
        }
    }
    faults.extend(lives.iter().map(|life| format!("rows of no socket: {life:#?}")));
    assert!(faults.len() <= allowed, "{}\n{output}", faults.join("\n"));
}

/// What is wrong in the rows of a socket.
fn differences(life: &Life, end: &End) -> Vec<String> {
    let mut faults = Vec::new();
    if path(life) != end.path {
        faults.push(format!("path {} instead of {}", path(life), end.path));
    }
    let mut last: Option<&StateRow> = None;
    for row in life {
        let change = format!("{} -> {}", row.oldstate, row.newstate);
        let mut check = |what: &str, right: bool| {
            if !right {
                faults.push(format!("wrong {what} at {change}"));
            }
        };
        check("ip", row.ip == if end.local.is_ipv4() { 4 } else { 6 });
        if is_not_filled_in(row) {
            check("laddr", row.laddr.is_none_or(|ip| ip == end.local.ip()));
            check("raddr", row.raddr.is_none());
        } else {
            check("laddr", row.laddr == Some(end.local.ip()));
            check("raddr", row.raddr == peer_ip(end));
            check("rport", row.rport == Some(end.remote.port()).filter(|&port| port != 0));
        }
        // The kernel chooses a port after the change to SYN_SENT. An unknown port is not shown as
        // 0.
        let chosen = row.newstate != "SYN_SENT";
        check("lport", row.lport == chosen.then_some(end.local.port()));
        check("owner", owner_is_right(row, end));
        check("span_ns", span_is_right(row, last));
        check("order", last.is_none_or(|last| last.ts <= row.ts));
        last = Some(row);
    }
    faults
}

/// The peer's address. A listener has no peer, which is not shown as 0.0.0.0.
fn peer_ip(end: &End) -> Option<IpAddr> {
    Some(end.remote.ip()).filter(|ip| !ip.is_unspecified())
}

/// Whether a row is the first one of an accepted connection, on a kernel that sets its tuple only
/// later.
fn is_not_filled_in(row: &StateRow) -> bool {
    let first = (row.oldstate.as_str(), row.newstate.as_str()) == ("LISTEN", "SYN_RECV");
    first && row.rport.is_none() && running_version() < FIRST_CHANGE_HAS_PEER
}

/// A row names one of the processes that had the socket open, or no process. It must name one if a
/// system call caused the change and for every change of a connecting socket.
fn owner_is_right(row: &StateRow, end: &End) -> bool {
    match (row.pid, row.comm.as_deref()) {
        (Some(pid), Some(comm)) => end.owners.iter().any(|who| (who.pid, who.comm.as_str()) == (pid, comm)),
        (None, None) => {
            let acted = ["SYN_SENT", "LISTEN", "FIN_WAIT1", "LAST_ACK"].contains(&row.newstate.as_str());
            end.owners.is_empty() || !(acted || end.role == Role::Active)
        }
        _ => false,
    }
}

/// The span is the time since the row before. An accepted connection leaves LISTEN when it is
/// created. The time before the first change of another socket is unknown.
fn span_is_right(row: &StateRow, last: Option<&StateRow>) -> bool {
    match (row.span_ns, last) {
        (None, None) => row.oldstate == "CLOSE",
        (Some(0), None) => row.oldstate == "LISTEN",
        (Some(span), Some(last)) => {
            u128::from(row.ts.saturating_sub(last.ts).abs_diff(span)) <= patient(SPAN_TOLERANCE).as_nanos()
        }
        _ => false,
    }
}

#[track_caller]
fn fails(scenario: Scenario) -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = traffic::with_full_backlog();
    let tool = start(&[]);
    let ends = scenario(&mut stage).ends;
    assert_rows(&finish(tool, &netns, changes(&ends)), &netns, &ends);
    Ok(())
}

fn ipv6() -> Outcome {
    needs(Feature::Ipv6)?;
    watched(Via::V6, traffic::server_closes_first);
    Ok(())
}

fn mapped() -> Outcome {
    needs(Feature::Ipv6)?;
    for via in [Via::MappedClient, Via::DualStackServer] {
        watched(via, traffic::client_closes_first);
    }
    Ok(())
}

/// The first change of a socket from before the tool: the time in the state is unknown, not 0.
fn open_before_the_tool(args: &[&str]) -> Outcome {
    needs_owners(args)?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let pair = traffic::begun(&mut stage);
    let tool = start(args);
    let session = traffic::finish(&mut stage, pair);
    // Both ends were established: three changes each are left.
    let output = finish(tool, &netns, 6);
    let lives = lives(&output, &netns);
    assert_eq!(lives.len(), 2, "{output}");
    for end in &session.ends {
        let life = lives.iter().find(|life| life[0].lport == Some(end.local.port()));
        let life = life.unwrap_or_else(|| panic!("no rows for {end:?}\n{output}"));
        let (_, rest) = end.path.split_once("ESTABLISHED").expect("an established end");
        assert_eq!(path(life), format!("ESTABLISHED{rest}"), "{output}");
        assert_eq!(life[0].span_ns, None, "{output}");
        for (row, last) in life.iter().zip(std::iter::once(None).chain(life.iter().map(Some))) {
            assert!(last.is_none() || span_is_right(row, last), "{row:?}\n{output}");
            assert!(owner_is_right(row, end), "{row:?}\n{output}");
        }
    }
    Ok(())
}

fn each_of_2000_exactly_once() -> Outcome {
    const COUNT: u32 = 2000;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    // The ring is large enough for all events, so that the test does not depend on how fast the
    // machine reads.
    let mut tool = start(&["--stats", "--ring-size", "8M"]);
    traffic::start_storm(&mut stage, COUNT);
    let sessions = tool.read_during(|| traffic::end_storm(&mut stage, COUNT));
    let ends: Vec<End> = sessions.into_iter().flat_map(|s| s.ends).collect();
    let output = finish(tool, &netns, 0);
    // A skipped change is missing from one socket's rows. If it is the last change, they are
    // grouped with those of the next socket at the same address.
    let missed = crate::cli::assert_only_missed(&output);
    assert_rows_but(&output, &netns, &ends, 3 * missed);
    Ok(())
}

/// `-L` of the listener's port: the listener and its accepted connections.
fn local_port_of_server() -> Outcome {
    let netns = Netns::enter_new();
    let mut stages = [Stage::new(Via::V4), Stage::new(Via::V4)];
    let tool = start(&["-L", &stages[0].listener.port().to_string()]);
    let [wanted, _] = stages.each_mut().map(|stage| traffic::client_closes_first(stage).ends);
    assert_rows(&finish(tool, &netns, 5), &netns, &wanted[1..]);
    Ok(())
}

/// `-L` of a client's own port: all its changes are reported. At the change to SYN_SENT it has a
/// port only because it was bound.
fn local_port_of_client() -> Outcome {
    const PORT: u16 = 40_404;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let tool = start(&["-L", &PORT.to_string()]);
    let from: SocketAddr = (Ipv4Addr::LOCALHOST, PORT).into();
    let pair = stage.open_from(Some(from));
    let session = traffic::close(&mut stage, pair, (0, 0));
    traffic::client_closes_first(&mut stage);
    let output = finish(tool, &netns, 5);
    let lives = lives(&output, &netns);
    assert_eq!(lives.iter().map(path).collect::<Vec<_>>(), [session.ends[0].path], "{output}");
    assert!(lives[0].iter().all(|row| row.lport == Some(PORT)), "{output}");
    Ok(())
}

/// `-D` of the listener's port: the clients, from their first change on.
fn remote_port() -> Outcome {
    let netns = Netns::enter_new();
    let mut stages = [Stage::new(Via::V4), Stage::new(Via::V4)];
    let tool = start(&["-D", &stages[1].listener.port().to_string()]);
    let [_, wanted] = stages.each_mut().map(|stage| traffic::server_closes_first(stage).ends);
    assert_rows(&finish(tool, &netns, 5), &netns, &wanted[..1]);
    Ok(())
}

/// By the addresses on the wire, as in tcplife.
fn family() -> Outcome {
    needs(Feature::Ipv6)?;
    for (option, wanted) in [("-4", [true, true, false]), ("-6", [false, false, true])] {
        let netns = Netns::enter_new();
        // Listeners are not watched: one on `::` is of both families.
        let mut stages = [Via::V4, Via::MappedClient, Via::V6].map(Stage::new);
        let tool = start(&[option]);
        let mut ends = Vec::new();
        for (stage, wanted) in stages.iter_mut().zip(wanted) {
            let session = traffic::client_closes_first(stage);
            if wanted {
                ends.extend(session.ends);
            }
        }
        assert_rows(&finish(tool, &netns, changes(&ends)), &netns, &ends);
    }
    Ok(())
}

fn access_modes_agree() -> Outcome {
    needs(Feature::KernelBtf)?;
    needs(Feature::ProbeReads)?;
    let netns = Netns::enter_new();
    let tools = ["typed", "probed"].map(|access| start(&["--access", access]));
    let mut stage = Stage::new(Via::V4);
    let mut ends = vec![stage.listener_end()];
    for scenario in
        [traffic::client_closes_first, traffic::half_close, traffic::server_resets, traffic::refused]
    {
        ends.extend(scenario(&mut stage).ends);
    }
    for tool in tools {
        assert_rows(&finish(tool, &netns, changes(&ends)), &netns, &ends);
    }
    Ok(())
}

/// Each socket has the same changes and tuples as in libbpf-tools, if they are installed.
fn agrees_with_libbpf_tools() -> Outcome {
    let netns = Netns::enter_new();
    let mut peer = peer::start("tcpstates")?;
    let tool = start(&[]);
    let address = peer::unique_address();
    let mut stage =
        Stage::between(Actor::start("kt-client"), Actor::start("kt-server"), address, address, 16);
    let mut ends = vec![stage.listener_end()];
    for scenario in [traffic::client_closes_first, traffic::server_closes_unread, traffic::refused] {
        ends.extend(scenario(&mut stage).ends);
    }
    let rows = changes(&ends);
    peer.wait_for("the rows of libbpf-tools", |seen| of_address(peer::changes(seen), address).len() >= rows);
    let theirs = of_address(peer::changes(&peer.stop()), address);
    let output = finish(tool, &netns, rows);
    let ours = output.rows::<StateRow>(netns.inode()).into_iter().map(|row| {
        // libbpf-tools show 0 for unknown values.
        const NONE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (laddr, raddr) = (row.laddr.unwrap_or(NONE), row.raddr.unwrap_or(NONE));
        let tuple = (laddr, row.lport.unwrap_or(0), raddr, row.rport.unwrap_or(0));
        (row.skaddr, tuple, row.oldstate, row.newstate)
    });
    assert_eq!(of_address(ours.collect(), address), theirs, "{output}");
    assert_rows(&output, &netns, &ends);
    Ok(())
}

/// The changes of sockets with this address, in an order that does not depend on how CPUs were
/// drained.
fn of_address(mut changes: Vec<peer::Change>, address: IpAddr) -> Vec<peer::Change> {
    changes.retain(|(_, tuple, ..)| tuple.0 == address || tuple.2 == address);
    changes.sort();
    changes
}
