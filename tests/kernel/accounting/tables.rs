//! Tables that fill: one warning, every event accounted for, and new sockets get entries again once
//! others are closed.

use std::collections::BTreeMap;
use std::io::Write;

use kernel_tests::bulk::{self, Endpoints, Listener};
use kernel_tests::cli::{Output, Tool};
use kernel_tests::loss::{Counters, Lost, Pair, drop_received};
use kernel_tests::requirements::{Feature, needs, running_version, tables_grow};
use kernel_tests::rows::{ConnRow, FlowRow, LifeRow, StateRow, TopRow, TraceRow};
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::segment::Segment;

use super::{assert_accounted, assert_all_but_missed, start};
use crate::cli::{Account, assert_balanced};
use crate::tcptop::needs_send_hook;

pub const TESTS: &[Test] = &[
    test("accounting::full_table_tcpconnlat", full_table_tcpconnlat).alone(Alone::Sockets),
    test("accounting::full_table_tcpdrop", || full_table_of_owners("tcpdrop")).alone(Alone::Sockets),
    test("accounting::full_table_tcplife", full_table_tcplife).alone(Alone::Sockets),
    test("accounting::full_table_tcpretrans", || full_table_of_owners("tcpretrans")).alone(Alone::Sockets),
    test("accounting::full_table_tcpretrans_counts", full_table_of_counts),
    test("accounting::full_table_tcpstates", full_table_tcpstates).alone(Alone::Sockets),
    test("accounting::full_table_tcpsubnet", full_table_tcpsubnet),
    test("accounting::full_table_tcptop", full_table_tcptop).alone(Alone::Sockets),
    test("accounting::full_table_tcptracer", full_table_tcptracer).alone(Alone::Sockets),
    test("accounting::memory_is_reported", memory_is_reported),
];

/// How many connections fill a table. Other programs may have a few at the same time.
const CONNECTIONS: usize = 200;

/// A table size for fewer connections than that, besides the sockets that are open already.
#[track_caller]
fn table_size() -> String {
    (bulk::open_sockets() + 32).to_string()
}

/// Waits for the warning that a table is full.
#[track_caller]
fn wait_warned(tool: &mut Tool, says: &str) {
    let warned = |line: &&str| line.contains(says) && line.contains("--max-sockets");
    tool.wait_for("a warning", |seen| seen.stderr_since_attached().iter().any(warned));
}

const SOCKETS: &str = "the table of sockets is full";
const COUNTS: &str = "the table of counts is full";

#[track_caller]
fn assert_warned_once(output: &Output, says: &str) {
    // No warning about another table.
    let lines = output.stderr_since_attached();
    let full: Vec<_> = lines.iter().filter(|line| line.contains(" is full")).collect();
    assert!(matches!(full[..], [line] if line.contains(says)), "{output}");
}

/// Fills the table with connections, closes them, and opens one more.
#[track_caller]
fn fill_and_free(tool: &mut Tool, listener: &Listener) {
    let many: Vec<Endpoints> = (0..CONNECTIONS).map(|_| listener.connect()).collect();
    wait_warned(tool, SOCKETS);
    many.into_iter().for_each(Endpoints::close);
    listener.connect().close();
    listener.wait_closed();
}

/// A connect without a table entry has no row, and is counted as lost.
fn full_table_tcpconnlat() -> Outcome {
    let netns = bulk::new_netns();
    let listener = Listener::open();
    let mut tool = start("tcpconnlat", &["--max-sockets", &table_size(), "--failed"], &netns);
    let many = bulk::unanswered(CONNECTIONS, &listener);
    wait_warned(&mut tool, SOCKETS);
    drop(many);
    listener.connect().close();
    let output = tool.stop();
    // Connects without a table entry are counted when they start. Their outcome is not counted
    // again.
    let account = assert_accounted(output.assert_code(0), CONNECTIONS as u64 + 1);
    assert!(account["lost_map"] > 0, "{account:?}\n{output}");
    let rows = output.rows::<ConnRow>(netns.inode());
    let (last, many) = rows.split_last().expect("rows");
    assert_eq!(last.outcome.as_deref(), Some("established"), "{output}");
    assert!(!many.is_empty() && many.iter().all(|row| row.outcome.as_deref() == Some("aborted")), "{output}");
    assert_warned_once(&output, SOCKETS);
    Ok(())
}

/// A connection without a table entry has no row.
fn full_table_tcplife() -> Outcome {
    let netns = bulk::new_netns();
    let listener = Listener::open();
    let mut tool = start("tcplife", &["--max-sockets", &table_size()], &netns);
    fill_and_free(&mut tool, &listener);
    let output = tool.stop();
    let account = assert_accounted(output.assert_code(0), 2 * (CONNECTIONS as u64 + 1));
    assert!(account["lost_map"] > 0, "{account:?}\n{output}");
    let rows = output.rows::<LifeRow>(netns.inode());
    let (many, last) = rows.split_at(rows.len() - 2);
    assert!(!many.is_empty(), "the first connections have entries\n{output}");
    assert_eq!(
        (last[0].lport, last[0].rport),
        (last[1].rport, last[1].lport),
        "both ends of the last\n{output}"
    );
    assert_warned_once(&output, SOCKETS);
    Ok(())
}

/// A state change of a socket without an entry still has a row, but not the time in the state
/// before.
fn full_table_tcpstates() -> Outcome {
    let netns = bulk::new_netns();
    let listener = Listener::open();
    let mut tool = start("tcpstates", &["--max-sockets", &table_size()], &netns);
    fill_and_free(&mut tool, &listener);
    let output = tool.stop();
    let account = assert_accounted(output.assert_code(0), 10 * (CONNECTIONS as u64 + 1));
    assert!(account["lost_map"] == 0 && account["untracked"] > 0, "{account:?}\n{output}");
    let rows = output.rows::<StateRow>(netns.inode());
    let unknown = |rows: &[StateRow]| rows.iter().filter(|row| row.span_ns.is_none()).count();
    let (many, last) = rows.split_at(rows.len() - 10);
    assert!(unknown(many) > 4 * CONNECTIONS, "{output}");
    // The time in the first state is unknown for both ends of a new connection.
    assert!(unknown(last) <= 2, "{output}");
    assert_warned_once(&output, SOCKETS);
    Ok(())
}

/// A connect without an entry has a row without a process, or no row; its close has no row, so that
/// it is never reported twice.
fn full_table_tcptracer() -> Outcome {
    let netns = bulk::new_netns();
    let listener = Listener::open();
    let mut tool = start("tcptracer", &["--max-sockets", &table_size()], &netns);
    fill_and_free(&mut tool, &listener);
    let output = tool.stop();
    let account = assert_balanced(output.assert_code(0));
    assert!(account["lost_map"] > 0, "{account:?}\n{output}");
    let rows = output.rows::<TraceRow>(netns.inode());
    assert_eq!(rows.len() as u64, account["reported"], "{account:?}\n{output}");
    let kinds: Vec<_> = rows.iter().rev().take(4).map(|row| (row.kind.as_str(), row.pid)).collect();
    let us = Some(std::process::id());
    assert_eq!(kinds, [("close", us), ("close", us), ("accept", us), ("connect", us)], "{output}");
    assert_warned_once(&output, SOCKETS);
    Ok(())
}

/// The owner of a socket without an entry is unknown; its rows are still printed.
fn full_table_of_owners(tool: &'static str) -> Outcome {
    if tool == "tcpdrop" {
        needs(Feature::ProbeReads)?;
    }
    let netns = bulk::new_netns();
    let listener = Listener::open();
    let mut running = start(tool, &["--max-sockets", &table_size(), "--owner"], &netns);
    let before = Counters::now();
    let mut many: Vec<Endpoints> = (0..CONNECTIONS).map(|_| listener.connect()).collect();
    wait_warned(&mut running, SOCKETS);
    let mut events = 1;
    if tool == "tcpdrop" {
        let [from, to] = [4321, 81].map(|port| ([127, 0, 0, 1], port).into());
        Segment { intact: false, ..Segment::syn(from, to) }.send();
    } else {
        // The last one has no entry.
        let mut last = many.pop().expect("a connection");
        drop_received(&last.server);
        last.client.write_all(b"x").expect("send");
        running.wait_rows(netns.inode(), 1);
        socket2::SockRef::from(&last.client).set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
        drop(last);
        events = Counters::now().since(before).segments;
    }
    let output = running.stop();
    // Not earlier: a FIN may be retransmitted.
    drop(many);
    let account = assert_balanced(output.assert_code(0));
    assert!(account["untracked"] > 0 && account["lost_map"] == 0, "{account:?}\n{output}");
    assert_all_but_missed(account["reported"], events, &account, &output);
    assert_warned_once(&output, SOCKETS);
    Ok(())
}

/// A flow without an entry is not counted.
fn full_table_of_counts() -> Outcome {
    let netns = bulk::new_netns();
    let mut tool = start("tcpretrans", &["-c", "--max-sockets", "1"], &netns);
    let before = Counters::now();
    for _ in 0..4 {
        Pair::with_loss("127.0.0.1".parse().expect("an address"), Lost::Nothing).lose(b"hello", &[]);
    }
    wait_warned(&mut tool, COUNTS);
    let events = Counters::now().since(before).segments;
    let output = tool.stop();
    let account = assert_balanced(output.assert_code(0));
    let rows = output.rows::<FlowRow>(netns.inode());
    assert_eq!(rows.len(), 1, "{output}");
    assert_eq!(rows[0].retransmits, account["aggregated"], "{account:?}\n{output}");
    assert_all_but_missed(account["aggregated"] + account["lost_map"], events, &account, &output);
    assert!(account["lost_map"] > 0, "{account:?}\n{output}");
    assert_warned_once(&output, COUNTS);
    Ok(())
}

/// `-v` prints the size of each map, and how much of the maps the reader has mapped.
fn memory_is_reported() -> Outcome {
    // `-`: unknown.
    let sizes = |tool: &str, options: &[&str]| -> BTreeMap<String, Option<u64>> {
        let output = Tool::start(tool, options).stop();
        let line = output.stderr.lines().find_map(|line| line.split_once("bytes of memory: "));
        let (_, maps) = line.unwrap_or_else(|| panic!("no line on memory\n{output}"));
        let read = |map: &str| {
            let (name, bytes) = map.rsplit_once(' ')?;
            let bytes = if bytes == "-" { None } else { Some(bytes.parse().ok()?) };
            Some((name.to_owned(), bytes))
        };
        maps.split(", ").map(|map| read(map).unwrap_or_else(|| panic!("{map:?}\n{output}"))).collect()
    };
    const MAPPED: &str = "mapped by the reader";
    for tool in ["tcpconnlat", "tcplife", "tcpstates", "tcptracer"] {
        let [small, large] =
            ["1000", "100000"].map(|sockets| sizes(tool, &["--max-sockets", sockets, "--ring-size", "64K"]));
        // Only some kernels need the map `stopped`.
        let maps: Vec<_> = small.keys().map(String::as_str).filter(|map| *map != "stopped").collect();
        assert_eq!(maps, ["events", MAPPED, "sockets", "stats"], "{tool}");
        // A key of 8 bytes and a value of at least 24.
        let fits = |sizes: &BTreeMap<_, _>, sockets: u64| sizes["sockets"] >= Some(32 * sockets);
        assert!(fits(&small, 1000) && fits(&large, 100_000), "{small:?} {large:?}");
        assert_eq!((small["events"], small[MAPPED]), (large["events"], large[MAPPED]));
        assert!(small[MAPPED] >= Some(64 << 10), "{small:?}");
        // These kernels report entries times the size of an entry, which is 0 for a ring.
        let unknown = ((5, 11)..(6, 4)).contains(&running_version());
        assert!(
            if unknown { small["events"].is_none() } else { small["events"] >= Some(64 << 10) },
            "{small:?}"
        );
    }
    let top = sizes("tcptop", &["--max-sockets", "100000"]);
    // More than a hundred bytes for each entry; a table that grows has only a bucket of 16 bytes.
    // Kernels before 6.4 report the same for both.
    let grown = tables_grow() && running_version() >= (6, 4);
    assert_eq!(top["flows0"] < Some(64 * 100_000), grown, "{top:?}");
    let maps: Vec<_> = top.keys().map(String::as_str).collect();
    assert_eq!(maps, ["flows", "flows0", "flows1", MAPPED, "sockets", "stats"]);
    assert_eq!(top[MAPPED], Some(0), "no ring");
    Ok(())
}

/// What is sent over each connection.
const SENT: [u8; 1000] = [b's'; 1000];

#[track_caller]
fn send_over(many: &mut [Endpoints]) {
    for ends in many {
        ends.client.write_all(&SENT).expect("send");
    }
}

/// A flow without an entry is not counted in that interval; in the next interval the table is empty
/// again.
fn full_table_tcptop() -> Outcome {
    const TABLE_SIZE: usize = 4;
    needs(Feature::SocketLengths)?;
    let netns = bulk::new_netns();
    let listener = Listener::open();
    let table_size = TABLE_SIZE.to_string();
    let mut tool = start("tcptop", &["--max-sockets", &table_size], &netns);
    let mut many: Vec<Endpoints> = (0..CONNECTIONS).map(|_| listener.connect()).collect();
    let mut sends = 0;
    tool.wait_for("a report with as many rows as the table has entries", |seen| {
        send_over(&mut many);
        sends += CONNECTIONS as u64;
        seen.rows::<TopRow>(netns.inode()).len() >= TABLE_SIZE
    });
    // Both tables are full, and there is a warning for each.
    wait_warned(&mut tool, SOCKETS);
    wait_warned(&mut tool, COUNTS);
    // A single flow fits.
    let last = many.pop().expect("a connection");
    drop(many);
    let flow = last.client.local_addr().expect("an address").port();
    let (mut last, mut seen_alone) = ([last], false);
    tool.wait_for("a report of the last flow", |seen| {
        send_over(&mut last);
        sends += 1;
        let rows = seen.rows::<TopRow>(netns.inode());
        let newest = rows.last().map(|row| row.ts);
        let newest: Vec<_> = rows.iter().filter(|row| Some(row.ts) == newest).collect();
        seen_alone = newest.len() == 1 && newest[0].lport == flow;
        seen_alone
    });
    let output = tool.stop();
    let account = assert_balanced(output.assert_code(0));
    assert!(account["lost_map"] > 0, "{account:?}\n{output}");
    assert_all_but_missed(account["aggregated"] + account["lost_map"], sends, &account, &output);
    let shown: u64 = output.rows::<TopRow>(netns.inode()).iter().map(|row| row.tx_bytes).sum();
    assert_eq!(shown, SENT.len() as u64 * account["aggregated"], "{account:?}\n{output}");
    Ok(())
}

/// tcpsubnet has a counter for each subnet from the start. It has a table of sockets only before
/// 6.3.
fn full_table_tcpsubnet() -> Outcome {
    needs_send_hook()?;
    let netns = bulk::new_netns();
    let listener = Listener::open();
    let mut tool = start("tcpsubnet", &["127.0.0.0/8", "--max-sockets", "2"], &netns);
    let mut many: Vec<Endpoints> = (0..CONNECTIONS).map(|_| listener.connect()).collect();
    let by_table = needs(Feature::SocketLengths).is_err();
    if by_table {
        wait_warned(&mut tool, SOCKETS);
    }
    send_over(&mut many);
    many.into_iter().for_each(drop);
    let mut again = [listener.connect()];
    send_over(&mut again);
    let output = tool.stop();
    let account: Account = assert_balanced(output.assert_code(0));
    let bytes: u64 = output.stdout.lines().map(|line| sent_to(line, "127.0.0.0/8")).sum();
    assert_eq!(bytes, SENT.len() as u64 * account["aggregated"], "{account:?}\n{output}");
    if by_table {
        assert!(account["untracked"] > 0 && account["aggregated"] >= 2, "{account:?}\n{output}");
    } else {
        assert_all_but_missed(account["aggregated"], CONNECTIONS as u64 + 1, &account, &output);
    }
    Ok(())
}

/// The bytes of a subnet in one of tcpsubnet's objects.
pub(super) fn sent_to(line: &str, subnet: &str) -> u64 {
    let object: serde_json::Value = serde_json::from_str(line).expect("an object");
    object["entries"].get(subnet).map_or(0, |bytes| bytes.as_u64().expect("bytes"))
}
