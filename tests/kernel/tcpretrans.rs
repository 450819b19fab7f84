//! tcpretrans: a row for each retransmission, as many as the kernel itself counts, each with its kind, ends, state, sequence
//! number and owner.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process;

use kernel_tests::cli::{Output, Tool, run, tcptools};
use kernel_tests::loss::{Counters, Lost, Pair, drop_received, stop_dropping};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Availability, Feature, needs, needs_owners, requires};
use kernel_tests::rows::{FlowRow, RetransRow};
use kernel_tests::runner::{Outcome, Test, test};
use socket2::SockRef;

pub const TESTS: &[Test] = &[
    test("tcpretrans::loss_probe", loss_probe),
    test("tcpretrans::loss_probes_are_retransmissions", loss_probes_are_retransmissions),
    test("tcpretrans::timeout", timeout),
    test("tcpretrans::fast_retransmission", fast_retransmission),
    test("tcpretrans::several_segments", several_segments),
    test("tcpretrans::probe_with_new_data", probe_with_new_data),
    test("tcpretrans::syn", syn),
    test("tcpretrans::syn_ack", syn_ack),
    test("tcpretrans::sequence_numbers", sequence_numbers),
    test("tcpretrans::ipv6", ipv6),
    test("tcpretrans::mapped", mapped),
    test("tcpretrans::failed", failed),
    test("tcpretrans::owner", || owner(&[])),
    test("tcpretrans::owner_by_sock_diag_and_proc", || owner(&["--no-iter"])),
    test("tcpretrans::owner_of_a_syn_ack", owner_of_a_syn_ack),
    test("tcpretrans::pid", pid),
    test("tcpretrans::ports_and_family", ports_and_family),
    test("tcpretrans::full_count", full_count),
    test("tcpretrans::table", table),
    test("tcpretrans::table_of_counts", table_of_counts),
    test("tcpretrans::csv", csv),
    test("tcpretrans::rows", rows),
    test("tcpretrans::wrong_usage", wrong_usage),
];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The tool in each way that it can read this kernel, and counting.
struct Watch {
    netns: Netns,
    rows: Vec<Tool>,
    flows: Tool,
    before: Counters,
}

/// What was seen, the same in each way.
struct Seen {
    rows: Vec<RetransRow>,
    counters: Counters,
    output: Output,
}

impl Watch {
    #[track_caller]
    fn start(args: &[&str]) -> Self {
        let netns = Netns::enter_new();
        let mut ways = vec!["typed"];
        ways.extend(needs(Feature::ProbeReads).is_ok().then_some("probed"));
        let rows = ways.iter().map(|way| start(&[args, &["--access", way]].concat())).collect();
        Self { netns, rows, flows: start(&["--count"]), before: Counters::now() }
    }

    /// Stops the tools, whose rows have to be as many as the kernel has counted.
    #[track_caller]
    fn finish(self) -> Seen {
        self.finish_but(0)
    }

    /// The same where up to so many probes carried new data.
    #[track_caller]
    fn finish_but(self, fresh_probes: u64) -> Seen {
        let counters = Counters::now().since(self.before);
        let inode = self.netns.inode();
        let outputs: Vec<Output> = self.rows.into_iter().map(stop).collect();
        let mut all: Vec<Vec<RetransRow>> = outputs.iter().map(|output| output.rows(inode)).collect();
        for (rows, output) in all.iter().zip(&outputs) {
            assert_counted(rows, fresh_probes, counters, output);
        }
        let flows = stop(self.flows);
        assert_eq!(tallies(&flows.rows(inode)), tallies_of(&all[0]), "{flows}\n{}", outputs[0]);
        // The same packets; a clock is read in each program, and who acts is asked in each.
        for other in &all[1..] {
            let facts = |rows: &[RetransRow]| {
                rows.iter().map(|row| RetransRow { ts: 0, ..row.clone() }).collect::<Vec<_>>()
            };
            assert_eq!(facts(other), facts(&all[0]), "{}\n{}", outputs[0], outputs[1]);
        }
        Seen { rows: all.swap_remove(0), counters, output: outputs[0].clone() }
    }
}

#[track_caller]
fn start(args: &[&str]) -> Tool {
    Tool::start("tcpretrans", &[&["--json", "--strict"], args].concat())
}

#[track_caller]
fn stop(tool: Tool) -> Output {
    let output = tool.stop();
    output.assert_code(0).assert_complete_lines();
    output
}

/// All segments are in a row, all SYNs and all probes, and every row is in order and was sent.
#[track_caller]
fn assert_counted(rows: &[RetransRow], fresh_probes: u64, counters: Counters, output: &Output) {
    let count = |is: &dyn Fn(&RetransRow) -> bool| rows.iter().filter(|row| is(row)).count() as u64;
    let seen = (
        rows.iter().map(|row| row.segments).sum::<u64>(),
        count(&|row| row.kind == "S" || row.state == "SYN_SENT"),
    );
    assert_eq!(seen, (counters.segments, counters.syns), "{counters:?}\n{output}");
    let fresh = counters.loss_probes.checked_sub(count(&|row| row.kind == "L"));
    assert!(fresh.is_some_and(|fresh| fresh <= fresh_probes), "{counters:?}\n{output}");
    assert!(rows.is_sorted_by_key(|row| row.ts) && rows.iter().all(|row| row.err == 0), "{output}");
}

type Endpoints = (SocketAddr, SocketAddr);

fn ends(row: &RetransRow) -> Endpoints {
    (SocketAddr::new(row.laddr, row.lport), SocketAddr::new(row.raddr, row.rport))
}

/// Retransmissions and segments of each flow, by counting rows.
fn tallies_of(rows: &[RetransRow]) -> BTreeMap<Endpoints, (u64, u64)> {
    let mut tallies = BTreeMap::new();
    for row in rows {
        let tally: &mut (u64, u64) = tallies.entry(ends(row)).or_default();
        *tally = (tally.0 + 1, tally.1 + row.segments);
    }
    tallies
}

/// The same, as the tool has counted them: least first, IPv4 before IPv6, each flow once.
#[track_caller]
fn tallies(rows: &[FlowRow]) -> BTreeMap<Endpoints, (u64, u64)> {
    assert!(rows.is_sorted_by_key(|row| (row.laddr.is_ipv6(), row.retransmits)), "{rows:?}");
    let tallies: BTreeMap<_, _> = rows
        .iter()
        .map(|row| {
            let ends = (SocketAddr::new(row.laddr, row.lport), SocketAddr::new(row.raddr, row.rport));
            (ends, (row.retransmits, row.segments))
        })
        .collect();
    assert_eq!(tallies.len(), rows.len(), "{rows:?}");
    tallies
}

/// Both ends as the client's socket has them.
fn of_client(pair: &Pair) -> Endpoints {
    (pair.client.local_addr().expect("bound"), pair.client.peer_addr().expect("connected"))
}

fn of_server(pair: &Pair) -> Endpoints {
    (pair.server.local_addr().expect("bound"), pair.server.peer_addr().expect("connected"))
}

impl Seen {
    /// Every row has to be of this flow and in this state; their kinds, in order.
    #[track_caller]
    fn kinds(&self, flow: Endpoints, state: &str) -> String {
        for row in &self.rows {
            let version = if flow.0.is_ipv4() { 4 } else { 6 };
            assert_eq!((ends(row), row.ip, &*row.state), (flow, version, state), "{}", self.output);
        }
        self.rows.iter().map(|row| &*row.kind).collect()
    }
}

/// The last packet is lost, and a probe sends it again before the timer does.
fn loss_probe() -> Outcome {
    let watch = Watch::start(&["-l"]);
    let mut pair = Pair::new(V4);
    pair.lose(b"hello", &[]);
    let seen = watch.finish();
    let kinds = seen.kinds(of_client(&pair), "ESTABLISHED");
    assert!(kinds.starts_with('L'), "{kinds}: {}", seen.output);
    assert!(seen.counters.loss_probes > 0, "{:?}", seen.counters);
    Ok(())
}

/// Without the option the same probe is a retransmission like others, told once.
fn loss_probes_are_retransmissions() -> Outcome {
    let netns = Netns::enter_new();
    let (tool, before) = (start(&[]), Counters::now());
    let mut pair = Pair::new(V4);
    pair.lose(b"hello", &[]);
    let counters = Counters::now().since(before);
    let output = stop(tool);
    let rows: Vec<RetransRow> = output.rows(netns.inode());
    assert!(counters.loss_probes > 0, "{counters:?}");
    assert_eq!(rows.iter().map(|row| row.segments).sum::<u64>(), counters.segments, "{output}");
    for row in &rows {
        assert_eq!((ends(row), &*row.kind), (of_client(&pair), "R"), "{output}");
    }
    Ok(())
}

/// Where there are no probes, the timer sends it.
fn timeout() -> Outcome {
    let watch = Watch::start(&["-l"]);
    watch.netns.set_sysctl("net/ipv4/tcp_early_retrans", "0");
    let mut pair = Pair::new(V4);
    pair.lose(b"hello", &[]);
    let seen = watch.finish();
    let kinds = seen.kinds(of_client(&pair), "ESTABLISHED");
    assert!(kinds.chars().all(|kind| kind == 'R') && !kinds.is_empty(), "{kinds}: {}", seen.output);
    assert!(seen.counters.timeouts > 0, "{:?}", seen.counters);
    for row in &seen.rows {
        assert_eq!(
            (row.pid, &row.comm, row.segments),
            (None, &None, 1),
            "a timer is nobody\n{}",
            seen.output
        );
    }
    Ok(())
}

/// What follows the lost packet tells that it is lost. The timer of a probe runs at that moment, and yet it is none.
fn fast_retransmission() -> Outcome {
    let watch = Watch::start(&["-l"]);
    let mut pair = Pair::new(V4);
    pair.lose(b"hello", &[b"again".as_slice(); 4]);
    let seen = watch.finish();
    let kinds = seen.kinds(of_client(&pair), "ESTABLISHED");
    assert!(kinds.contains('R') && seen.counters.fast > 0, "{kinds}: {:?} {}", seen.counters, seen.output);
    Ok(())
}

/// A connection of small segments.
#[track_caller]
fn of_small_segments() -> Pair {
    let listener = TcpListener::bind((V4, 0)).expect("listen");
    SockRef::from(&listener).set_tcp_mss(1000).expect("TCP_MAXSEG");
    Pair::connect(listener, V4, Lost::Nothing)
}

/// A packet of several segments is one row.
fn several_segments() -> Outcome {
    let watch = Watch::start(&["-l"]);
    let mut pair = of_small_segments();
    pair.lose(&[7; 4900], &[b"again".as_slice(); 5]);
    let seen = watch.finish();
    seen.kinds(of_client(&pair), "ESTABLISHED");
    let largest = seen.rows.iter().map(|row| row.segments).max();
    assert!(largest > Some(1) && seen.counters.segments >= 5, "{:?} {}", seen.counters, seen.output);
    Ok(())
}

/// A probe that carries new data is no retransmission. What was sent first fills the congestion window, so what follows it waits
/// for the probe.
fn probe_with_new_data() -> Outcome {
    // On a slow machine the probe may come before there is new data.
    for _ in 0..8 {
        let watch = Watch::start(&["-l"]);
        let mut pair = of_small_segments();
        pair.lose(&[7; 9800], &[b"again"]);
        let seen = watch.finish_but(1);
        if seen.counters.loss_probes == 1 && !seen.kinds(of_client(&pair), "ESTABLISHED").contains('L') {
            return Ok(());
        }
    }
    panic!("no probe carried new data");
}

fn syn() -> Outcome {
    let watch = Watch::start(&["-l"]);
    let pair = Pair::with_loss(V4, Lost::Syn);
    let seen = watch.finish();
    let kinds = seen.kinds(of_client(&pair), "SYN_SENT");
    assert!(kinds.starts_with('R'), "{kinds}: {}", seen.output);
    Ok(())
}

/// The answer to a SYN is sent again for a connection that is none yet: its ends are the request's.
fn syn_ack() -> Outcome {
    for address in [V4, V6] {
        if address == V6 {
            needs(Feature::Ipv6)?;
        }
        let watch = Watch::start(&["-l"]);
        let pair = Pair::with_loss(address, Lost::SynAck);
        let seen = watch.finish();
        let (syn_acks, syns): (Vec<_>, Vec<_>) = seen.rows.iter().partition(|row| row.kind == "S");
        assert!(!syn_acks.is_empty(), "{}", seen.output);
        for row in syn_acks {
            assert_eq!((ends(row), &*row.state, row.segments), (of_server(&pair), "NEW_SYN_RECV", 1));
            assert_eq!((row.pid, &row.comm), (None, &None), "{}", seen.output);
        }
        // The client hears nothing either, and may ask again.
        for row in syns {
            assert_eq!((ends(row), &*row.state, &*row.kind), (of_client(&pair), "SYN_SENT", "R"));
        }
    }
    Ok(())
}

/// What is sent again has the number it had before: data begins one after the SYN, and each byte counts.
fn sequence_numbers() -> Outcome {
    let watch = Watch::start(&["-l"]);
    let mut pair = Pair::with_loss(V4, Lost::SynAck);
    let mut steps = [b"hello".as_slice(), b"once more"].into_iter();
    pair.lose(steps.next().expect("two"), &[]);
    pair.lose_from_server(b"answer");
    pair.lose(steps.next().expect("two"), &[]);
    pair.lose_from_server(b"answer");
    let (client, server) = (of_client(&pair), of_server(&pair));
    let seen = watch.finish();
    let numbers = |flow: Endpoints| {
        let mut numbers: Vec<u32> = seen
            .rows
            .iter()
            .filter(|row| ends(row) == flow)
            .map(|row| row.seq.unwrap_or_else(|| panic!("no number: {row:?}")))
            .collect();
        numbers.dedup();
        numbers
    };
    let isn = |state: &str| seen.rows.iter().find(|row| row.state == state).and_then(|row| row.seq);
    let after =
        |start: u32, lengths: [u32; 2]| lengths.map(|length| start.wrapping_add(1).wrapping_add(length));
    let server_isn = isn("NEW_SYN_RECV").expect("a SYN-ACK");
    let expected = [&[server_isn][..], &after(server_isn, [0, 6])].concat();
    assert_eq!(numbers(server), expected, "{}", seen.output);
    // The client asks again only where it is quicker than the server's answer.
    let data = numbers(client);
    let data = &data[data.len() - 2..];
    assert_eq!(data[1].wrapping_sub(data[0]), 5, "{}", seen.output);
    if let Some(client_isn) = isn("SYN_SENT") {
        assert_eq!(data, after(client_isn, [0, 5]), "{}", seen.output);
    }
    Ok(())
}

fn ipv6() -> Outcome {
    needs(Feature::Ipv6)?;
    let watch = Watch::start(&["-l"]);
    let mut pair = Pair::new(V6);
    pair.lose(b"hello", &[]);
    let seen = watch.finish();
    assert!(!seen.kinds(of_client(&pair), "ESTABLISHED").is_empty());
    Ok(())
}

/// An IPv6 socket that talks IPv4 has mapped addresses.
fn mapped() -> Outcome {
    needs(Feature::Ipv6)?;
    let watch = Watch::start(&["-l"]);
    let mut pair = Pair::mapped();
    pair.lose_from_server(b"hello");
    let seen = watch.finish();
    let flow = of_server(&pair);
    assert!(flow.0.is_ipv6(), "{flow:?}");
    assert!(!seen.kinds(flow, "ESTABLISHED").is_empty());
    Ok(())
}

/// What could not be sent is told only where it is asked for, with the reason; and where the kernel does not tell, that is said.
fn failed() -> Outcome {
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 87, 9, 1);
    const EHOSTUNREACH: i64 = 113;
    let probe = run(["tcpretrans", "--failed", "--duration", "0.01"]);
    let absent = (probe.status.and_then(|status| status.code()) == Some(1)).then(|| {
        probe.assert_no_stdout();
        assert!(probe.one_line().contains("6.17"), "{probe}");
        probe.one_line().to_owned()
    });
    requires("an error at tcp_retransmit_skb", Availability::Since(6, 17), absent)?;
    let watch = Watch::start(&[]);
    watch.netns.set_sysctl("net/ipv4/tcp_early_retrans", "0");
    let mut tool = start(&["--failed"]);
    Netns::add_to_loopback(ADDRESS);
    let mut pair = Pair::new(ADDRESS.into());
    drop_received(&pair.server);
    pair.client.write_all(b"hello").expect("send");
    Netns::remove_from_loopback(ADDRESS);
    let inode = watch.netns.inode();
    tool.wait_for("a failure", |seen| seen.rows::<RetransRow>(inode).iter().any(|row| row.err != 0));
    Netns::add_to_loopback(ADDRESS);
    stop_dropping(&pair.server);
    pair.server.read_exact(&mut [0; 5]).expect("receive what was lost");
    let seen = watch.finish();
    assert!(!seen.rows.is_empty(), "{}", seen.output);
    let output = stop(tool);
    let (sent, failed): (Vec<RetransRow>, Vec<RetransRow>) =
        output.rows::<RetransRow>(inode).into_iter().partition(|row| row.err == 0);
    assert_eq!(tallies_of(&sent), tallies_of(&seen.rows), "{output}\n{}", seen.output);
    for row in failed {
        assert_eq!(
            (ends(&row), row.err, row.seq),
            (of_client(&pair), -EHOSTUNREACH, sent[0].seq),
            "{output}"
        );
    }
    Ok(())
}

/// The name of this thread, which makes the sockets.
fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/thread-self/comm").expect("procfs");
    name.trim_end().to_owned()
}

/// A timer's retransmission is the owner's, of a connection made before the tool and of one made while it runs. Without the
/// option it is nobody's.
fn owner(args: &[&str]) -> Outcome {
    needs_owners(args)?;
    let netns = Netns::enter_new();
    netns.set_sysctl("net/ipv4/tcp_early_retrans", "0");
    let mut before = Pair::new(V4);
    let (knowing, plain) = (start(&[&["--owner"], args].concat()), start(&[]));
    let mut while_running = Pair::new(V4);
    before.lose(b"hello", &[]);
    while_running.lose(b"hello", &[]);
    let (output, plain) = (stop(knowing), stop(plain));
    let rows: Vec<RetransRow> = output.rows(netns.inode());
    for pair in [&before, &while_running] {
        assert!(rows.iter().any(|row| ends(row) == of_client(pair)), "{output}");
    }
    for row in rows {
        assert_eq!((row.pid, row.comm), (Some(process::id()), Some(own_name())), "{output}");
    }
    for row in plain.rows::<RetransRow>(netns.inode()) {
        assert_eq!((row.pid, row.comm), (None, None), "{plain}");
    }
    Ok(())
}

/// A SYN-ACK is the listener's.
fn owner_of_a_syn_ack() -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&["--owner"]);
    let pair = Pair::with_loss(V4, Lost::SynAck);
    let output = stop(tool);
    let rows: Vec<RetransRow> = output.rows(netns.inode());
    let row = rows.iter().find(|row| row.kind == "S").unwrap_or_else(|| panic!("no SYN-ACK\n{output}"));
    assert_eq!((row.pid, &row.comm), (Some(process::id()), &Some(own_name())), "{output}");
    assert_eq!(ends(row), of_server(&pair), "{output}");
    Ok(())
}

/// Only the sockets of one process, SYN-ACKs of its listeners included.
fn pid() -> Outcome {
    let netns = Netns::enter_new();
    let own = process::id().to_string();
    let (ours, others) = (start(&["-p", &own]), start(&["-p", "1"]));
    let before = Counters::now();
    let mut pair = Pair::with_loss(V4, Lost::SynAck);
    pair.lose(b"hello", &[]);
    let counters = Counters::now().since(before);
    let (ours, others) = (stop(ours), stop(others));
    let segments = ours.rows::<RetransRow>(netns.inode()).iter().map(|row| row.segments).sum::<u64>();
    assert_eq!(segments, counters.segments, "{ours}");
    assert_eq!(others.rows::<RetransRow>(netns.inode()), [], "{others}");
    Ok(())
}

fn ports_and_family() -> Outcome {
    let netns = Netns::enter_new();
    let mut pair = Pair::new(V4);
    let (client, server) = of_client(&pair);
    let options = [
        (vec!["--localport".to_owned(), client.port().to_string()], true),
        (vec!["--remoteport".to_owned(), server.port().to_string()], true),
        (vec!["--localport".to_owned(), server.port().to_string()], false),
        (vec!["-4".to_owned()], true),
        (vec!["-6".to_owned()], false),
        (vec!["--netns".to_owned(), netns.inode().to_string()], true),
        (vec!["--netns".to_owned(), (netns.inode() + 1).to_string()], false),
    ];
    let tools: Vec<_> = options
        .iter()
        .map(|(args, wanted)| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            (start(&args), start(&[&["-c"], args.as_slice()].concat()), *wanted)
        })
        .collect();
    pair.lose(b"hello", &[]);
    for (rows, flows, wanted) in tools {
        let (rows, flows) = (stop(rows), stop(flows));
        assert_eq!(!rows.rows::<RetransRow>(netns.inode()).is_empty(), wanted, "{rows}");
        assert_eq!(!flows.rows::<FlowRow>(netns.inode()).is_empty(), wanted, "{flows}");
    }
    Ok(())
}

/// Flows past the room for them are lost, counted, and said to be.
fn full_count() -> Outcome {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let tool =
        Tool::start("tcpretrans", &["--json", "-c", "--max-sockets", "1", "--netns", &inode, "--stats"]);
    for _ in 0..2 {
        Pair::new(V4).lose(b"hello", &[]);
    }
    let output = stop(tool);
    assert_eq!(output.rows::<FlowRow>(netns.inode()).len(), 1, "{output}");
    let account = output.stderr.lines().last().unwrap_or_default();
    assert!(account.contains("\"lost_map\":") && !account.contains("\"lost_map\":0,"), "{output}");
    Ok(())
}

/// Starts the tool for people, in UTC.
#[track_caller]
fn people(args: &[&str], netns: &Netns) -> Tool {
    let inode = netns.inode().to_string();
    let mut command = tcptools([&["tcpretrans", "-v", "--netns", &inode][..], args].concat());
    command.env("TZ", "UTC");
    let mut tool = Tool::spawn(command);
    tool.wait_attached("tcpretrans");
    tool
}

/// The columns that people know, each row in its place.
fn table() -> Outcome {
    let netns = Netns::enter_new();
    netns.set_sysctl("net/ipv4/tcp_early_retrans", "0");
    let tools = [&[][..], &["-s"], &["--owner"]].map(|args| people(args, &netns));
    let mut pair = Pair::new(V4);
    pair.lose(b"hello", &[]);
    let (local, remote) = of_client(&pair);
    let (pid, comm): (_, String) = (process::id(), own_name().chars().take(10).collect());
    let headings = [
        "TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE",
        "TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE        SEQ",
        "TIME     PID     COMM       IP LADDR:LPORT          T> RADDR:RPORT          STATE",
    ];
    let rows = [
        format!(" -       4  {local:<20} R> {remote:<20} ESTABLISHED"),
        format!(" -       4  {local:<20} R> {remote:<20} ESTABLISHED  "),
        format!(" {pid:<7} {comm:<10} 4  {local:<20} R> {remote:<20} ESTABLISHED"),
    ];
    for ((tool, heading), row) in tools.into_iter().zip(headings).zip(rows) {
        let output = stop(tool);
        let mut lines = output.stdout.lines();
        assert_eq!(lines.next(), Some(heading), "{output}");
        let line = lines.next().unwrap_or_else(|| panic!("no row\n{output}"));
        let (time, rest) = line.split_at(8);
        assert!(time.split(':').all(|part| part.len() == 2 && part.parse::<u8>().is_ok()), "{output}");
        let seq = rest.strip_prefix(&row).unwrap_or_else(|| panic!("not {row}\n{output}"));
        assert_eq!(seq.parse::<u32>().is_ok(), heading.ends_with("SEQ"), "{output}");
        assert!(heading.ends_with("SEQ") || seq.is_empty(), "{output}");
    }
    Ok(())
}

fn table_of_counts() -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    netns.set_sysctl("net/ipv4/tcp_early_retrans", "0");
    let tool = people(&["-c"], &netns);
    let before = Counters::now();
    let mut pairs = [Pair::new(V6), Pair::new(V4)];
    let counts = pairs.each_mut().map(|pair| {
        let before = Counters::now();
        pair.lose(b"hello", &[]);
        Counters::now().since(before).segments
    });
    assert_eq!(counts.iter().sum::<u64>(), Counters::now().since(before).segments);
    let output = stop(tool);
    let mut expected = "LADDR:LPORT               RADDR:RPORT               RETRANSMITS\n".to_owned();
    for (pair, count) in pairs.iter().zip(counts).rev() {
        let (local, remote) = of_client(pair);
        let [local, remote] = [local, remote].map(|end| format!("[{}]#{}", end.ip(), end.port()));
        expected.push_str(&format!("{local:<20} <-> {remote:<20} {count:>10}\n"));
    }
    assert_eq!(output.stdout, expected, "{output}");
    Ok(())
}

fn csv() -> Outcome {
    let netns = Netns::enter_new();
    netns.set_sysctl("net/ipv4/tcp_early_retrans", "0");
    let (rows, flows) = (people(&["--csv"], &netns), people(&["--csv", "-c"], &netns));
    let mut pair = Pair::new(V4);
    pair.lose(b"hello", &[]);
    let (local, remote) = of_client(&pair);
    let (rows, flows) = (stop(rows), stop(flows));
    let mut lines = rows.stdout.lines();
    assert_eq!(lines.next(), Some("TIME,PID,IP,LADDR,LPORT,RADDR,RPORT,T,STATE"), "{rows}");
    let ends = format!("{},{},{},{}", local.ip(), local.port(), remote.ip(), remote.port());
    let row = lines.next().and_then(|line| line.split_once(','));
    assert_eq!(row.map(|(_, row)| row), Some(&*format!("-,4,{ends},R,ESTABLISHED")), "{rows}");
    let count = rows.stdout.lines().count() - 1;
    assert_eq!(flows.stdout, format!("LADDR,LPORT,RADDR,RPORT,RETRANSMITS\n{ends},{count}\n"), "{flows}");
    Ok(())
}

/// `--count` is this tool's own, so the number of rows after which to stop has another name.
fn rows() -> Outcome {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let tool = start(&["--rows", "1", "--netns", &inode]);
    let mut pair = Pair::new(V4);
    pair.lose(b"hello", &[]);
    let output = tool.finish();
    output.assert_code(0);
    assert_eq!(output.rows::<RetransRow>(netns.inode()).len(), 1, "{output}");
    Ok(())
}

fn wrong_usage() -> Outcome {
    for (args, named) in [
        (&["--count", "5"][..], "5"),
        (&["-c", "--failed"], "--failed"),
        (&["-c", "--owner"], "--owner"),
        (&["--rows", "0"], "--rows"),
        (&["--rows", "many"], "many"),
        (&["-p", "0"], "0"),
        (&["-4", "-6"], "-"),
        (&["--localport", "70000"], "70000"),
        (&["surplus"], "surplus"),
    ] {
        run([&["tcpretrans"], args].concat()).assert_wrong_usage(named);
    }
    Ok(())
}
