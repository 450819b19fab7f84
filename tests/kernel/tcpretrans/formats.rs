//! Tables, CSV, counts and usage errors of tcpretrans.

use std::process;

use kernel_tests::cli::{Tool, run, tcptools};
use kernel_tests::loss::{Counters, Pair};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::rows::{FlowRow, RetransRow};
use kernel_tests::runner::{Outcome, Test, test};

use super::filters::own_name;
use super::{V4, V6, of_client, start, stop};

pub const TESTS: &[Test] = &[
    test("tcpretrans::full_count", full_count),
    test("tcpretrans::table", table),
    test("tcpretrans::table_of_counts", table_of_counts),
    test("tcpretrans::csv", csv),
    test("tcpretrans::rows", rows),
    test("tcpretrans::wrong_usage", wrong_usage),
];

/// Flows that do not fit into the table are counted as lost.
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

/// Starts the tool with a table or CSV, in UTC.
#[track_caller]
fn start_table(args: &[&str], netns: &Netns) -> Tool {
    let inode = netns.inode().to_string();
    let mut command = tcptools([&["tcpretrans", "-v", "--netns", &inode][..], args].concat());
    command.env("TZ", "UTC");
    let mut tool = Tool::spawn(command);
    tool.wait_attached("tcpretrans");
    tool
}

/// Headings and rows, character by character.
fn table() -> Outcome {
    let netns = Netns::enter_new();
    netns.set_sysctl("net/ipv4/tcp_early_retrans", "0");
    let tools = [&[][..], &["-s"], &["--owner"]].map(|args| start_table(args, &netns));
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
    let tool = start_table(&["-c"], &netns);
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
    let (rows, flows) = (start_table(&["--csv"], &netns), start_table(&["--csv", "-c"], &netns));
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

/// `--count` means something else in this tool, so the number of rows after which it stops has
/// another name.
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
