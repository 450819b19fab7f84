//! tcptop: every byte that a process sends or receives is counted once, in the row of the process,
//! for all system calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use kernel_tests::actor::{Actor, Conn, Who};
use kernel_tests::bytes::{RecvBy, SendBy};
use kernel_tests::cli::{self, Output, Tool};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, Skip, misses_runs, needs, running_version};
use kernel_tests::rows::TopRow;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::stage::{Pair, Stage, Via};
use kernel_tests::traffic;

use crate::cli::assert_balanced;

pub const TESTS: &[Test] = &[
    test("tcptop::all_calls_that_move_bytes", || all_calls_that_move_bytes("typed")),
    test("tcptop::all_calls_that_move_bytes_probed", || all_calls_that_move_bytes("probed")),
    test("tcptop::open_before_the_tool", open_before_the_tool),
    test("tcptop::opened_and_closed_in_an_interval", opened_and_closed_in_an_interval),
    test("tcptop::nothing_is_lost_between_intervals", nothing_is_lost_between_intervals),
    test("tcptop::processes_that_share_a_connection", processes_that_share_a_connection),
    test("tcptop::not_accepted_before_the_tool", not_accepted_before_the_tool),
    test("tcptop::filters", filters),
    test("tcptop::sorted_and_cut", sorted_and_cut),
    test("tcptop::table_and_csv", table_and_csv),
    test("tcptop::reports", reports),
    test("tcptop::usage", usage),
];

/// Checks that sent bytes can be seen: by a tracepoint, or on older kernels by a kprobe.
pub fn needs_send_hook() -> Result<(), Skip> {
    needs(Feature::SocketLengths).or_else(|_| needs(Feature::Kprobes))
}

/// The kernel that has the tracepoint `sock_send_length`.
const SEND_LENGTH: (u32, u32) = (6, 3);

/// Starts the tool on the sockets of this namespace.
#[track_caller]
fn start(netns: &Netns, args: &[&str]) -> Tool {
    Tool::start("tcptop", &[&["--json", "--netns", &netns.inode().to_string()], args].concat())
}

/// One end of a connection, with the process that uses it.
type Flow = (Option<u32>, Option<String>, SocketAddr, SocketAddr);

fn flow(who: &Who, conn: Conn) -> Flow {
    (Some(who.pid), Some(who.comm.clone()), conn.local, conn.remote)
}

/// Received and sent bytes of each flow, in all intervals.
type Sums = BTreeMap<Flow, (u64, u64)>;

#[track_caller]
fn sums(output: &Output, netns: &Netns) -> Sums {
    let mut sums = Sums::new();
    for row in output.rows::<TopRow>(netns.inode()) {
        assert_eq!(row.ip == 4, row.laddr.is_ipv4(), "{row:?}");
        let (local, remote) = ((row.laddr, row.lport).into(), (row.raddr, row.rport).into());
        let sum = sums.entry((row.pid, row.comm, local, remote)).or_default();
        *sum = (sum.0 + row.rx_bytes, sum.1 + row.tx_bytes);
    }
    sums
}

/// The flows of a connection over which `up` bytes went to the server and `down` back.
fn both(stage: &Stage, pair: Pair, up: u64, down: u64) -> [(Flow, (u64, u64)); 2] {
    [
        (flow(&stage.client.who(), pair.client), (down, up)),
        (flow(&stage.server.who(), pair.server), (up, down)),
    ]
}

#[track_caller]
fn finish(tool: Tool) -> Output {
    assert_quiet(tool.stop())
}

/// Checks that the tool ended without an error and without a message.
#[track_caller]
fn assert_quiet(output: Output) -> Output {
    output.assert_code(0).assert_complete_lines();
    assert_no_messages(output.stderr_since_attached(), &output);
    output
}

/// Checks that there are no messages, except that sockets are missing in the table: the tool says so
/// about sockets of all namespaces. If sockets of the test were missing, its sums would be wrong.
#[track_caller]
fn assert_no_messages(mut messages: Vec<&str>, output: &Output) {
    messages.retain(|line| !line.contains("--max-sockets"));
    assert_eq!(messages, [""; 0], "{output}");
}

fn all_calls_that_move_bytes(access: &str) -> Outcome {
    needs_send_hook()?;
    if access == "probed" {
        needs(Feature::ProbeReads)?;
    }
    let netns = Netns::enter_new();
    for via in [Via::V4, Via::V6, Via::MappedClient, Via::DualStackServer] {
        sums_are(&netns, &["--access", access], || move_bytes(via));
    }
    Ok(())
}

/// The tool's sums must be those of `act`. If the kernel has skipped a program, the test repeats
/// `act`: some kernels do so now and then, mostly on a single CPU.
#[track_caller]
fn sums_are(netns: &Netns, options: &[&str], act: impl Fn() -> Sums) {
    let mut left = if misses_runs() { 8 } else { 1 };
    loop {
        left -= 1;
        let tool = start(netns, options);
        let expected = act();
        let output = tool.stop();
        if left == 0 || !output.stderr.contains(MISSED) {
            assert_eq!(sums(&assert_quiet(output), netns), expected);
            return;
        }
    }
}

/// The message of a tool if the kernel has skipped programs.
const MISSED: &str = " missed by the kernel";

/// Sends and receives by all calls over one connection.
#[track_caller]
fn move_bytes(via: Via) -> Sums {
    let mut stage = Stage::new(via);
    let pair = stage.open();
    let (mut up, mut bytes) = (0, 1);
    for send in SendBy::ALL {
        for recv in RecvBy::ALL {
            bytes = bytes * 7 % 40_009;
            stage.client.start_send_by(send, pair.client, bytes);
            stage.server.recv_by(recv, pair.server, bytes);
            stage.client.finish();
            up += bytes;
        }
    }
    stage.server.send(pair.server, 5);
    stage.server.close(pair.server);
    stage.client.recv_eof(pair.client, 5);
    stage.client.close(pair.client);
    both(&stage, pair, up, 5).into()
}

/// Bytes from before the tool do not count. Bytes that wait in the receive queue count when they
/// are read.
fn open_before_the_tool() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V6);
    let pair = stage.open();
    stage.exchange(pair, 300_000, 1234);
    stage.client.send(pair.client, 77);
    let tool = start(&netns, &[]);
    stage.server.recv(pair.server, 77);
    stage.exchange(pair, 100, 200_000);
    let mut expected = Sums::from(both(&stage, pair, 100, 200_000));
    expected.entry(flow(&stage.server.who(), pair.server)).and_modify(|(rx, _)| *rx += 77);
    assert_eq!(sums(&finish(tool), &netns), expected);
    Ok(())
}

fn opened_and_closed_in_an_interval() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    // Some kernels skip about one event in 2,000, and a connection has about 20. With few
    // connections, most tries are complete.
    let connections = if misses_runs() { 40 } else { 200 };
    sums_are(&netns, &["100"], || {
        let mut stage = Stage::new(Via::V4);
        traffic::start_storm(&mut stage, connections);
        let sessions = traffic::end_storm(&mut stage, connections);
        let ends = sessions.into_iter().flat_map(|session| session.ends);
        ends.map(|end| {
            let who = &end.owners[0];
            ((Some(who.pid), Some(who.comm.clone()), end.local, end.remote), (end.rx, end.tx))
        })
        .collect()
    });
    Ok(())
}

fn nothing_is_lost_between_intervals() -> Outcome {
    const CHUNK: u64 = 4 << 20;
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let mut tool = start(&netns, &[]);
    let mut stage = Stage::new(Via::V4);
    let pair = stage.open();
    let (mut up, mut intervals) = (0, BTreeSet::new());
    while intervals.len() < 4 {
        tool.read_during(|| {
            stage.client.start_send(pair.client, CHUNK);
            stage.server.recv_by(RecvBy::Read, pair.server, CHUNK);
            stage.client.finish();
        });
        up += CHUNK;
        let seen = tool.seen();
        let lines = seen.stdout.lines().filter_map(|line| line.split_once("\"interval_ns\""));
        intervals = lines.map(|(ts, _)| ts.to_owned()).collect();
    }
    assert_eq!(sums(&finish(tool), &netns), Sums::from(both(&stage, pair, up, 0)));
    Ok(())
}

fn processes_that_share_a_connection() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let tool = start(&netns, &[]);
    let mut stage = Stage::new(Via::V4);
    let pair = stage.open();
    let (mut child, inherited) = stage.server.start_child(pair.server, "kt-child");
    stage.exchange(pair, 10, 20);
    stage.client.send(pair.client, 300);
    child.recv(inherited, 300);
    child.send(inherited, 4000);
    stage.client.recv(pair.client, 4000);
    let mut expected = Sums::from(both(&stage, pair, 310, 4020));
    expected.insert(flow(&stage.server.who(), pair.server), (10, 20));
    expected.insert(flow(&child.who(), pair.server), (300, 4000));
    assert_eq!(sums(&finish(tool), &netns), expected);
    Ok(())
}

/// At the start no process has this connection open, so the size of its first receive is unknown.
/// The tool counts the socket as untracked and does not guess.
fn not_accepted_before_the_tool() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let client = stage.client.connect(stage.target);
    stage.client.send(client, 1000);
    let tool = start(&netns, &["--stats"]);
    let server = stage.server.accept();
    stage.server.recv_by(RecvBy::WaitAll, server, 1000);
    stage.client.send(client, 50);
    stage.server.recv_by(RecvBy::WaitAll, server, 50);
    let output = tool.stop();
    output.assert_code(0);
    // Sockets of other namespaces count as well.
    let untracked = assert_balanced(&output)["untracked"];
    let expected = if needs(Feature::OwnMachine).is_ok() { 1..=1 } else { 1..=u64::MAX };
    assert!(expected.contains(&untracked), "{untracked}\n{output}");
    // On older kernels the program runs when a socket's lock is released. The first such event is
    // the accept, so all bytes are counted.
    let before = if running_version() < SEND_LENGTH { 1000 } else { 0 };
    let expected = Sums::from([
        (flow(&stage.server.who(), server), (before + 50, 0)),
        (flow(&stage.client.who(), client), (0, 50)),
    ]);
    assert_eq!(sums(&output, &netns), expected);
    Ok(())
}

fn filters() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let mut four = Stage::new(Via::V4);
    let mut six = Stage::between(
        Actor::start("kt-client6"),
        Actor::start("kt-server6"),
        "::1".parse().expect("an address"),
        "::1".parse().expect("an address"),
        1,
    );
    let (pid, port) = (four.client.who().pid.to_string(), six.listener.port().to_string());
    let tools = [["-4", "-6"], ["-6", "-4"], ["-p", &pid], ["--localport", &port]];
    let tools = tools.map(|args| {
        let args = if args[1].starts_with('-') { &args[..1] } else { &args[..] };
        start(&netns, args)
    });
    let pairs = [four.open(), six.open()];
    four.exchange(pairs[0], 10, 20);
    six.exchange(pairs[1], 30, 40);
    let (four, six) = (both(&four, pairs[0], 10, 20), both(&six, pairs[1], 30, 40));
    let expected: [&[_]; 4] = [&four, &six, &four[..1], &six[1..]];
    for (tool, expected) in tools.into_iter().zip(expected) {
        assert_eq!(sums(&finish(tool), &netns), expected.iter().cloned().collect());
    }
    Ok(())
}

/// The rows of the table, without load average and headings.
fn rows(output: &Output) -> Vec<Vec<&str>> {
    let rows = output.stdout.lines().filter(|line| line.contains("kt-"));
    rows.map(|line| line.split_ascii_whitespace().collect()).collect()
}

/// The greatest values first, by the selected column, and as many rows as selected.
fn sorted_and_cut() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let start = |args: &[&str]| Tool::start("tcptop", &[&["100", "--netns", &inode], args].concat());
    let tools =
        [start(&[]), start(&["-s", "sent"]), start(&["--sort", "received"]), start(&["-r", "2", "-S"])];
    let mut stage = Stage::new(Via::V4);
    let pairs = [stage.open(), stage.open()];
    stage.exchange(pairs[0], 5 << 10, 100 << 10);
    stage.exchange(pairs[1], 70 << 10, 10 << 10);
    let kilobytes = |output: &Output| -> Vec<(u64, u64)> {
        let number = |text: &str| text.parse().expect("a number");
        rows(output).iter().map(|row| (number(row[4]), number(row[5]))).collect()
    };
    let [all, sent, received, two] = tools.map(|tool| kilobytes(&finish(tool)));
    // Two ends each have the same sum; which one is first does not matter.
    assert_eq!(all.iter().map(|(rx, tx)| rx + tx).collect::<Vec<_>>(), [105, 105, 80, 80]);
    assert_eq!(sent, [(5, 100), (10, 70), (70, 10), (100, 5)]);
    assert_eq!(received, [(100, 5), (70, 10), (10, 70), (5, 100)]);
    assert_eq!(two, all[..2]);
    Ok(())
}

fn table_and_csv() -> Outcome {
    needs_send_hook()?;
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let start = |args: &[&str]| Tool::start("tcptop", &[&["100", "--netns", &inode], args].concat());
    let (plain, bare, csv) = (start(&[]), start(&["-C", "-S"]), start(&["--csv"]));
    let mut four = Stage::new(Via::V4);
    let mut six = Stage::new(Via::V6);
    let (a, b) = (four.open(), six.open());
    four.client.send(a.client, 2047);
    six.client.send(b.client, 1 << 20);
    let wide = |end: SocketAddr, width| format!("{:width$}", end.to_string());
    let table = format!(
        "PID     COMM         LADDR                 RADDR                  RX_KB  TX_KB\n\
         {:<7} kt-client    {} {}      0      1\n\
         \n\
         PID     COMM         LADDR6                           RADDR6                            RX_KB  TX_KB\n\
         {:<7} kt-client    {} {}      0   1024\n",
        four.client.who().pid,
        wide(a.client.local, 21),
        wide(a.client.remote, 21),
        six.client.who().pid,
        wide(b.client.local, 32),
        wide(b.client.remote, 32),
    );
    let output = finish(plain);
    let (load, rest) = output.stdout.split_once("\n\n").expect("a load average, and an empty line after it");
    let words: Vec<_> = load.split(' ').collect();
    assert!(matches!(words[..], [time, "loadavg:", _, _, _, _, _] if time.len() == 8), "{output}");
    assert_eq!(rest, table);
    assert_eq!(finish(bare).stdout, format!("\n{table}"));
    let output = finish(csv);
    let rows: Vec<Vec<&str>> = output.stdout.lines().map(|line| line.split(',').collect()).collect();
    let headings = ["PID", "COMM", "IP", "LADDR", "LPORT", "RADDR", "RPORT", "RX_KB", "TX_KB"];
    assert_eq!((rows[0][0], &rows[0][1..], rows.len()), ("TS", &headings[..], 3), "{output}");
    let pid = six.client.who().pid.to_string();
    let (lport, rport) = (b.client.local.port().to_string(), b.client.remote.port().to_string());
    assert_eq!(rows[1][1..], [&pid, "kt-client", "6", "::1", &lport, "::1", &rport, "0", "1024"]);
    Ok(())
}

/// The tool ends after the given number of reports.
fn reports() -> Outcome {
    needs_send_hook()?;
    let _netns = Netns::enter_new();
    let output = cli::run(["tcptop", "1", "2", "--netns", "1"]);
    output.assert_code(0);
    assert_eq!(output.stdout.matches(" loadavg: ").count(), 2, "{output}");
    assert_no_messages(output.complaints(), &output);
    Ok(())
}

fn usage() -> Outcome {
    for (wrong, named) in [
        (&["0"][..], "0"),
        (&["-1"], "-1"),
        (&["1", "0"], "0"),
        (&["x"], "x"),
        (&["1", "2", "3"], "3"),
        (&["-4", "-6"], "--ipv6"),
        (&["-p", "0"], "0"),
        (&["--sort", "size"], "size"),
        (&["-r", "0"], "0"),
        (&["--cgroupmap", "/no/such/map"], "/no/such/map"),
    ] {
        cli::run([&["tcptop"], wrong].concat()).assert_wrong_usage(named);
    }
    Ok(())
}
