//! tcpretrans: a row for each retransmission that the kernel counts, with kind, addresses, state,
//! sequence number and owner.

mod filters;
mod formats;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use kernel_tests::cli::{Output, Tool, run};
use kernel_tests::loss::{Counters, Lost, Pair, drop_received, stop_dropping};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Availability, Feature, needs, requires};
use kernel_tests::rows::{FlowRow, RetransRow};
use kernel_tests::runner::{Outcome, Test, test};
use socket2::SockRef;

pub const TESTS: &[&[Test]] = &[OWN, filters::TESTS, formats::TESTS];

const OWN: &[Test] = &[
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
];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The tool with each kind of access to this kernel, and with `--count`.
struct Watch {
    netns: Netns,
    rows: Vec<Tool>,
    flows: Tool,
    before: Counters,
}

/// The rows, which are the same with each kind of access.
struct Seen {
    rows: Vec<RetransRow>,
    counters: Counters,
    output: Output,
}

impl Watch {
    #[track_caller]
    fn start(args: &[&str]) -> Self {
        let netns = Netns::enter_new();
        let mut modes = vec!["typed"];
        modes.extend(needs(Feature::ProbeReads).is_ok().then_some("probed"));
        let rows = modes.iter().map(|mode| start(&[args, &["--access", mode]].concat())).collect();
        Self { netns, rows, flows: start(&["--count"]), before: Counters::now() }
    }

    /// Stops the tools and checks that they have as many rows as the kernel has counted.
    #[track_caller]
    fn finish(self) -> Seen {
        self.finish_but(0)
    }

    /// The same if at most this many loss probes carried new data.
    #[track_caller]
    fn finish_but(self, new_data_probes: u64) -> Seen {
        let counters = Counters::now().since(self.before);
        let inode = self.netns.inode();
        let outputs: Vec<Output> = self.rows.into_iter().map(stop).collect();
        let mut all: Vec<Vec<RetransRow>> = outputs.iter().map(|output| output.rows(inode)).collect();
        for (rows, output) in all.iter().zip(&outputs) {
            assert_counted(rows, new_data_probes, counters, output);
        }
        let flows = stop(self.flows);
        assert_eq!(tallies(&flows.rows(inode)), tallies_of(&all[0]), "{flows}\n{}", outputs[0]);
        // The packets are the same. The time is not, because each program reads the clock.
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

/// Checks that the rows have all segments, SYNs and loss probes of the kernel's counters, in order,
/// and none failed.
#[track_caller]
fn assert_counted(rows: &[RetransRow], new_data_probes: u64, counters: Counters, output: &Output) {
    let count = |is: &dyn Fn(&RetransRow) -> bool| rows.iter().filter(|row| is(row)).count() as u64;
    let seen = (
        rows.iter().map(|row| row.segments).sum::<u64>(),
        count(&|row| row.kind == "S" || row.state == "SYN_SENT"),
    );
    assert_eq!(seen, (counters.segments, counters.syns), "{counters:?}\n{output}");
    let new_data = counters.loss_probes.checked_sub(count(&|row| row.kind == "L"));
    assert!(new_data.is_some_and(|new_data| new_data <= new_data_probes), "{counters:?}\n{output}");
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

/// The same from the tool's counts, which must be sorted: IPv4 before IPv6, smallest first, each
/// flow once.
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

/// Both addresses of the client's socket.
fn of_client(pair: &Pair) -> Endpoints {
    (pair.client.local_addr().expect("bound"), pair.client.peer_addr().expect("connected"))
}

fn of_server(pair: &Pair) -> Endpoints {
    (pair.server.local_addr().expect("bound"), pair.server.peer_addr().expect("connected"))
}

impl Seen {
    /// Checks that all rows have this flow and state, and returns their kinds in order.
    #[track_caller]
    fn kinds(&self, flow: Endpoints, state: &str) -> String {
        for row in &self.rows {
            let version = if flow.0.is_ipv4() { 4 } else { 6 };
            assert_eq!((ends(row), row.ip, &*row.state), (flow, version, state), "{}", self.output);
        }
        self.rows.iter().map(|row| &*row.kind).collect()
    }
}

/// The last packet is lost, and a loss probe retransmits it before the timer does.
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

/// Without the option the same probe is shown once, like other retransmissions.
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

/// Without loss probes the timer retransmits.
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
            "a timer has no process\n{}",
            seen.output
        );
    }
    Ok(())
}

/// Packets after the lost one show that it is lost. The timer of a loss probe is running then, but
/// this is not a loss probe.
fn fast_retransmission() -> Outcome {
    let watch = Watch::start(&["-l"]);
    let mut pair = Pair::new(V4);
    pair.lose(b"hello", &[b"again".as_slice(); 4]);
    let seen = watch.finish();
    let kinds = seen.kinds(of_client(&pair), "ESTABLISHED");
    assert!(kinds.contains('R') && seen.counters.fast > 0, "{kinds}: {:?} {}", seen.counters, seen.output);
    Ok(())
}

/// A connection with small segments.
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

/// A loss probe with new data is not a retransmission. The first data fills the congestion window,
/// so later data waits for the probe.
fn probe_with_new_data() -> Outcome {
    // On a slow machine the probe may be sent before there is new data.
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

/// A SYN-ACK is retransmitted before there is a socket; its row has the addresses of the request.
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
        // The client gets no answer, and may retransmit its SYN.
        for row in syns {
            assert_eq!((ends(row), &*row.state, &*row.kind), (of_client(&pair), "SYN_SENT", "R"));
        }
    }
    Ok(())
}

/// A retransmission has the same sequence number as before: data begins one after the SYN, and each
/// byte counts one.
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
    // The client retransmits its SYN only if it is faster than the server's answer.
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

/// An IPv6 socket that uses IPv4 has mapped addresses.
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

/// Failed retransmissions are shown only with the option, with the error. On kernels without the
/// error, a message says so.
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
