//! Table, CSV and usage errors of tcpdrop.

use std::net::{IpAddr, SocketAddr, TcpStream};

use kernel_tests::cli::{Output, Tool, run};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs, running_version};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::segment::Segment;

use super::{CLOSED_PORT, LOCALHOST_V4, LOCALHOST_V6, SOURCE_PORT, function, reason, with_symbols};

pub const TESTS: &[Test] = &[
    test("tcpdrop::table", || with_symbols(table)),
    test("tcpdrop::table_without_stacks", || with_symbols(table_without_stacks)),
    test("tcpdrop::csv", || with_symbols(csv)),
    test("tcpdrop::the_last_row_has_its_stack", || with_symbols(the_last_row_has_its_stack)),
    test("tcpdrop::wrong_usage", wrong_usage),
];

/// Runs the tool on one drop, of a segment with a wrong checksum, in a namespace of its own, and
/// returns what it printed.
#[track_caller]
fn printed(options: &[&str], address: IpAddr, last: &str) -> Output {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let mut tool = Tool::start("tcpdrop", &[&["--netns", &inode], options].concat());
    let (from, to) = (SocketAddr::new(address, SOURCE_PORT), SocketAddr::new(address, CLOSED_PORT));
    Segment { intact: false, ..Segment::syn(from, to) }.send();
    tool.wait_for(last, |seen| seen.stdout.contains(last));
    let output = tool.stop();
    output.assert_code(0).assert_complete_lines();
    output
}

/// Checks that a line begins with a time of day, and returns the rest.
#[track_caller]
fn after_time<'a>(line: &'a str, output: &Output) -> &'a str {
    let (time, rest) = line.split_at_checked(8).unwrap_or_else(|| panic!("{output}"));
    let right = time
        .bytes()
        .enumerate()
        .all(|(at, byte)| if at % 3 == 2 { byte == b':' } else { byte.is_ascii_digit() });
    assert!(right, "no time: {line}\n{output}");
    rest
}

/// A reason as the table shows it.
fn shown(names: &[&str]) -> String {
    match reason(names) {
        (Some(name), Some(number)) => format!("{name} ({number})"),
        _ => "-".to_owned(),
    }
}

/// Columns and widths, a line for each frame, an empty line.
fn table() -> Outcome {
    let output = printed(&[], LOCALHOST_V4, "\n\n");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "TIME     PID     IP SADDR:SPORT          > DADDR:DPORT          STATE (FLAGS)        REASON (CODE)",
        "{output}"
    );
    let expected = format!(" -       4  127.0.0.1:4321       > 127.0.0.1:81         {:<20} ", "- (SYN)");
    assert_eq!(after_time(lines[1], &output), expected + &shown(&["TCP_CSUM"]), "{output}");
    let (frames, end) = lines[2..].split_at(lines.len() - 3);
    assert!(
        frames.len() > 3 && frames.iter().all(|frame| frame.starts_with('\t') && frame.contains("+0x")),
        "{output}"
    );
    assert!(frames[0].starts_with("\ttcp_v4_rcv+0x"), "{output}");
    assert_eq!(end, [""], "{output}");

    needs(Feature::Ipv6)?;
    let output = printed(&[], LOCALHOST_V6, "\n\n");
    let row = output.stdout.lines().nth(1).expect("a row");
    let begin = " -       6  [::1]:4321           > [::1]:81             - (SYN)              ";
    assert!(after_time(row, &output).starts_with(begin), "{output}");
    Ok(())
}

fn table_without_stacks() -> Outcome {
    // This kernel gives a location in the function that frees packets; only a stack shows its
    // caller.
    let itself = cfg!(target_arch = "aarch64") && running_version() < (5, 17);
    let place = if itself { "kfree_skb" } else { "tcp_v4_rcv" };
    let output = printed(&["--no-stack"], LOCALHOST_V4, place);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [head, row] = lines[..] else { panic!("{output}") };
    assert!(head.ends_with("STATE (FLAGS)        REASON (CODE)            LOCATION"), "{output}");
    let (before, location) = row.rsplit_once(' ').expect("columns");
    assert_eq!(function(location), place, "{output}");
    assert!(before.trim_end().ends_with(&shown(&["TCP_CSUM"])), "{output}");
    Ok(())
}

fn csv() -> Outcome {
    let output = printed(&["--csv"], LOCALHOST_V4, "tcp_v4_rcv");
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [head, row] = lines[..] else { panic!("{output}") };
    assert_eq!(
        head, "TIME,PID,COMM,IP,SADDR,SPORT,DADDR,DPORT,STATE,FLAGS,REASON,CODE,LOCATION,STACK",
        "{output}"
    );
    let (name, number) = reason(&["TCP_CSUM"]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let expected = format!(
        ",-,-,4,127.0.0.1,4321,127.0.0.1,81,-,SYN,{},{},tcp_v4_rcv+0x",
        or_dash(name),
        or_dash(number.map(|number| number.to_string()))
    );
    assert!(after_time(row, &output).starts_with(&expected), "{output}");
    assert_eq!(row.split(',').count(), 14, "{output}");
    Ok(())
}

/// `--count 1` ends after a row and its stack.
fn the_last_row_has_its_stack() -> Outcome {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let tool = Tool::start("tcpdrop", &["--netns", &inode, "--count", "1"]);
    for port in [81, 82] {
        assert!(TcpStream::connect((LOCALHOST_V4, port)).is_err());
    }
    let output = tool.finish();
    output.assert_code(0).assert_complete_lines();
    assert!(output.stdout.ends_with("\n\n"), "{output}");
    assert!(
        output.stdout.lines().filter(|line| line.contains(" > ")).count() == 2,
        "heading and row\n{output}"
    );
    assert!(output.stdout.contains("\ttcp_v4_rcv+0x"), "{output}");
    Ok(())
}

/// Exit code 2 and one line that names the wrong argument, before anything is loaded.
fn wrong_usage() -> Outcome {
    const WRONG: &[(&[&str], &str)] = &[
        (&["--reason", ""], "--reason"),
        (&["--reason", "NO SOCKET"], "NO SOCKET"),
        (&["--reason", "NO_SOCKET,"], "NO_SOCKET,"),
        (&["--netns-id", "0"], "0"),
        (&["--netns-id", "eth0"], "eth0"),
        (&["--pid-netns", "0"], "0"),
        (&["--pid-netns", "4194305"], "4194305"),
        (&["--netns-id", "1", "--pid-netns", "1"], "--pid-netns"),
        (&["--netns", "1", "--pid-netns", "1"], "--pid-netns"),
        (&["-4", "-6"], "--ipv6"),
    ];
    for (args, named) in WRONG {
        run([&["tcpdrop"], *args].concat()).assert_wrong_usage(named);
    }
    Ok(())
}
