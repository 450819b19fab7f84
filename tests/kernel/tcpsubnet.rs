//! tcpsubnet: every sent byte is counted once, in the row of the first subnet that contains the
//! peer's address.

use std::collections::BTreeMap;

use kernel_tests::actor::Actor;
use kernel_tests::bytes::{RecvBy, SendBy};
use kernel_tests::cli::{self, Output, Tool};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::stage::{Pair, Stage, Via};

use crate::tcptop::needs_send_hook;

pub const TESTS: &[Test] = &[
    test("tcpsubnet::all_calls_that_send", all_calls_that_send),
    test("tcpsubnet::first_matching_subnet", first_matching_subnet),
    test("tcpsubnet::ten_thousand", ten_thousand),
    test("tcpsubnet::nothing_is_lost_between_intervals", nothing_is_lost_between_intervals),
    test("tcpsubnet::open_before_the_tool", open_before_the_tool),
    test("tcpsubnet::filters", filters),
    test("tcpsubnet::units", units),
    test("tcpsubnet::table_and_csv", table_and_csv),
    test("tcpsubnet::usage", usage),
];

/// Starts the tool on the traffic of this namespace.
#[track_caller]
fn start(netns: &Netns, args: &[&str]) -> Tool {
    Tool::start("tcpsubnet", &[&["--netns", &netns.inode().to_string()], args].concat())
}

#[track_caller]
fn finish(tool: Tool) -> Output {
    let output = tool.stop();
    output.assert_code(0).assert_complete_lines();
    assert_eq!(output.stderr_since_attached(), [""; 0], "{output}");
    output
}

/// The sums of all intervals in `--json`.
#[track_caller]
fn sums(output: &Output) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in output.stdout.lines() {
        let object: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}\n{output}"));
        let keys: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["date", "entries", "interval_ns", "time", "ts"], "{output}");
        for (subnet, bytes) in object["entries"].as_object().expect("an object") {
            *sums.entry(subnet.clone()).or_default() += bytes.as_u64().expect("bytes");
        }
    }
    sums
}

fn expect(entries: &[(&str, u64)]) -> BTreeMap<String, u64> {
    entries.iter().map(|(subnet, bytes)| ((*subnet).to_owned(), *bytes)).collect()
}

fn all_calls_that_send() -> Outcome {
    needs_send_hook()?;
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let tools = ["typed", "probed"].map(|access| {
        let args = ["127.0.0.1/32,::1/128,0.0.0.0/0", "--json", "--access", access];
        (access == "typed" || needs(Feature::ProbeReads).is_ok()).then(|| start(&netns, &args))
    });
    let mut sent = [0, 0];
    for via in [Via::V4, Via::V6, Via::MappedClient, Via::DualStackServer] {
        let mut stage = Stage::new(via);
        let pair = stage.open();
        let mut bytes = 1;
        for call in SendBy::ALL {
            bytes = bytes * 11 % 30_011;
            stage.client.start_send_by(call, pair.client, bytes);
            stage.server.recv_by(RecvBy::Read, pair.server, bytes);
            stage.client.finish();
            sent[usize::from(via == Via::V6)] += bytes;
        }
        stage.server.send(pair.server, 3);
        sent[usize::from(via == Via::V6)] += 3;
    }
    for tool in tools.into_iter().flatten() {
        assert_eq!(sums(&finish(tool)), expect(&[("127.0.0.1/32", sent[0]), ("::1/128", sent[1])]));
    }
    Ok(())
}

/// The first matching subnet of the command line counts; a mapped subnet is an IPv4 subnet.
fn first_matching_subnet() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let lists = [
        ("127.0.0.0/8,127.0.0.1/32", "127.0.0.0/8"),
        ("127.0.0.1/32,127.0.0.0/8", "127.0.0.1/32"),
        ("10.0.0.0/8,0.0.0.0/0,127.0.0.1/32", "0.0.0.0/0"),
        ("::/0,::ffff:127.0.0.1/104", "::ffff:127.0.0.1/104"),
        ("127.0.0.2/32,128.0.0.0/1", ""),
    ];
    let tools = lists.map(|(list, _)| start(&netns, &[list, "-J"]));
    let mut stage = Stage::new(Via::MappedClient);
    let pair = stage.open();
    stage.exchange(pair, 1000, 500);
    for (tool, (list, expected)) in tools.into_iter().zip(lists) {
        let expected = if expected.is_empty() { expect(&[]) } else { expect(&[(expected, 1500)]) };
        assert_eq!(sums(&finish(tool)), expected, "{list}");
    }
    Ok(())
}

/// The greatest number of subnets, which are looked up in a trie; the first one still counts.
fn ten_thousand() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let others = |from: u32, to: u32| {
        (from..to).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect::<Vec<_>>().join(",")
    };
    let (first, second) = (others(0, 5000), others(5000, 9996));
    for (middle, six, four) in [
        ("2001:db8::/32,::/0,127.0.0.0/8,127.0.0.1/32", "::/0", "127.0.0.0/8"),
        ("::1/128,::/0,127.0.0.1/32,127.0.0.0/8", "::1/128", "127.0.0.1/32"),
    ] {
        let tool = start(&netns, &[&first, middle, &second, "--json"]);
        for via in [Via::V6, Via::V4] {
            let mut stage = Stage::new(via);
            let pair = stage.open();
            stage.exchange(pair, 10, 20);
        }
        assert_eq!(sums(&finish(tool)), expect(&[(six, 30), (four, 30)]));
    }
    let output = cli::run(["tcpsubnet", &first, &second, &others(9996, 10_001)]);
    assert!(output.assert_code(2).one_line().contains("10000"), "{output}");
    Ok(())
}

fn nothing_is_lost_between_intervals() -> Outcome {
    const CHUNK: u64 = 4 << 20;
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let mut tool = start(&netns, &["127.0.0.1/32", "--json"]);
    let mut stage = Stage::new(Via::V4);
    let pair = stage.open();
    let mut sent = 0;
    while tool.seen().stdout.lines().count() < 4 {
        tool.read_during(|| {
            stage.client.start_send(pair.client, CHUNK);
            stage.server.recv(pair.server, CHUNK);
            stage.client.finish();
        });
        sent += CHUNK;
    }
    assert_eq!(sums(&finish(tool)), expect(&[("127.0.0.1/32", sent)]));
    Ok(())
}

fn open_before_the_tool() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let pair = stage.open();
    stage.exchange(pair, 300_000, 1234);
    let tool = start(&netns, &["--json"]);
    stage.exchange(pair, 100, 23);
    assert_eq!(sums(&finish(tool)), expect(&[("127.0.0.1/32", 123)]));
    Ok(())
}

fn filters() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let pid = stage.client.who().pid.to_string();
    let port = stage.listener.port().to_string();
    let tools = [
        (start(&netns, &["--json", "-p", &pid]), 1000),
        (start(&netns, &["--json", "--localport", &port]), 500),
        (start(&netns, &["--json", "-6"]), 0),
        (Tool::start("tcpsubnet", &["--json", "--netns", "1"]), 0),
    ];
    let pair = stage.open();
    stage.exchange(pair, 1000, 500);
    for (tool, bytes) in tools {
        let expected = if bytes == 0 { expect(&[]) } else { expect(&[("127.0.0.1/32", bytes)]) };
        assert_eq!(sums(&finish(tool)), expected);
    }
    Ok(())
}

/// Two servers on addresses of their own, and a connection to each.
fn two_addresses() -> [(Stage, Pair); 2] {
    ["127.0.0.9", "127.0.0.200"].map(|address| {
        let address = address.parse().expect("an address");
        let actors = (Actor::start("kt-client"), Actor::start("kt-server"));
        let mut stage = Stage::between(actors.0, actors.1, address, address, 1);
        let pair = stage.open();
        (stage, pair)
    })
}

const TWO_SUBNETS: &str = "127.0.0.0/28,127.0.0.200/32";

/// The table shows whole units, JSON shows fractions.
fn units() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let units = [
        ("b", ["19999992", "16"], ["19999992", "16"]),
        ("k", ["19531", "0"], ["19531.2421875", "0.015625"]),
        ("m", ["19", "0"], ["19.07347869873046875", "0.0000152587890625"]),
        ("B", ["2499999", "2"], ["2499999", "2"]),
        ("K", ["2441", "0"], ["2441.4052734375", "0.001953125"]),
        ("M", ["2", "0"], ["2.38418483734130859375", "0.0000019073486328125"]),
    ];
    let start = |args: &[&str]| start(&netns, &[&[TWO_SUBNETS, "-i", "100"], args].concat());
    let tools = units.map(|(unit, ..)| (start(&["-f", unit]), start(&["--format", unit, "--json"])));
    let [(mut first, a), (mut second, b)] = two_addresses();
    first.exchange(a, 2_499_999, 0);
    second.exchange(b, 2, 0);
    for ((unit, table, json), tools) in units.into_iter().zip(tools) {
        let (shown, object) = (finish(tools.0).stdout, finish(tools.1).stdout);
        let rows: Vec<_> =
            shown.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().last()).collect();
        assert_eq!(rows, table, "-f {unit}");
        let entries = format!("{{\"127.0.0.0/28\":{},\"127.0.0.200/32\":{}}}", json[0], json[1]);
        assert!(object.contains(&entries), "-f {unit}: {entries} in {object}");
    }
    Ok(())
}

fn table_and_csv() -> Outcome {
    needs_send_hook()?;
    let netns = Netns::enter_new();
    let start = |args: &[&str]| start(&netns, &[&[TWO_SUBNETS], args].concat());
    let (mut plain, sorted, csv) =
        (start(&[]), start(&["-i", "100", "--sort"]), start(&["-i", "100", "--csv"]));
    let [(mut first, a), (mut second, b)] = two_addresses();
    first.exchange(a, 856, 0);
    second.exchange(b, 1_234_567, 0);
    // The next interval has no traffic.
    plain.wait_for("two intervals, the last one without traffic", |seen| {
        let lines: Vec<_> = seen.stdout.lines().collect();
        lines.len() >= 4 && lines.iter().rev().take(2).all(|line| line.starts_with('['))
    });
    let output = finish(plain);
    let (dates, rows): (Vec<_>, Vec<_>) = output.stdout.lines().partition(|line| line.starts_with('['));
    for date in dates {
        let digits: String =
            date.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
        assert_eq!(digits, "[00/00/00 00:00:00]", "{output}");
    }
    assert_eq!(rows, ["127.0.0.0/28             856", "127.0.0.200/32        1234567"]);
    let sorted = finish(sorted).stdout;
    let first_words: Vec<_> = sorted.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(first_words, ["127.0.0.200/32", "127.0.0.0/28"]);
    let csv = finish(csv).stdout;
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["TS", "SUBNET", "BYTES"]);
    assert_eq!(
        (&rows[1][1..], &rows[2][1..]),
        (&["127.0.0.0/28", "856"][..], &["127.0.0.200/32", "1234567"][..])
    );
    // The example of the manual.
    let manual = Tool::start("tcpsubnet", &["192.0.2.0/24,198.51.100.0/24,0.0.0.0/0"]);
    manual.stop().assert_code(0);
    Ok(())
}

fn usage() -> Outcome {
    for (wrong, named) in [
        (&["1.2.3.4/33"][..], "1.2.3.4/33"),
        (&["::1/129"], "::1/129"),
        (&["10.0.0.0"], "10.0.0.0"),
        (&[""], "SUBNETS"),
        (&["10.0.0.0/8,"], "10.0.0.0/8,"),
        (&["10.0.0.0/8,10.0.0.0/8"], "twice"),
        (&["10.0.0.0/8", "10.1.2.3/8"], "10.1.2.3/8"),
        (&["-i", "0"], "--interval"),
        (&["-i", "-1"], "-1"),
        (&["-i", "x"], "x"),
        (&["-f", "G"], "G"),
        (&["-J", "--csv"], "--csv"),
    ] {
        cli::run([&["tcpsubnet"], wrong].concat()).assert_wrong_usage(named);
    }
    Ok(())
}
