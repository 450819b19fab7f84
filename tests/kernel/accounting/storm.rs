//! All tools in one storm of connections: nothing is lost, and their figures add up.

use std::fs::{self, File};

use kernel_tests::cli::{Output, Tool, tcptools};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, misses_runs, needs};
use kernel_tests::rights::Capability;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::scratch::Scratch;
use kernel_tests::stage::{Session, Stage, Via};
use kernel_tests::traffic;

use super::assert_all_but_missed;
use super::tables::sent_to;
use crate::cli::assert_balanced_or_idle;
use crate::tcptop::needs_send_hook;

pub const TESTS: &[Test] = &[test("accounting::storm_in_all_tools", storm_in_all_tools)];

/// A tool, its options, and how many rows or bytes it must show.
struct Watcher {
    tool: &'static str,
    args: &'static [&'static str],
    shown: fn(&str) -> u64,
    /// `None` if that cannot be known beforehand.
    expected: fn(&[Session]) -> Option<u64>,
    /// How many rows or bytes are missing at most for each event that the kernel skipped.
    each: u64,
}

const WATCHERS: &[Watcher] = &[
    Watcher { tool: "tcpconnlat", args: &[], shown: rows, expected: |all| rows_each(all, 1), each: 1 },
    Watcher { tool: "tcpdrop", args: &[], shown: rows, expected: |_| None, each: 0 },
    Watcher { tool: "tcplife", args: &[], shown: rows, expected: |all| rows_each(all, 2), each: 1 },
    Watcher {
        tool: "tcpretrans",
        args: &["-c"],
        shown: |text| sum(text, "retransmits"),
        expected: |_| None,
        each: 0,
    },
    Watcher { tool: "tcpstates", args: &[], shown: changes, expected: |all| rows_each(all, 10), each: 1 },
    Watcher {
        tool: "tcpsubnet",
        args: &["127.0.0.0/8"],
        shown: |text| text.lines().map(|line| sent_to(line, "127.0.0.0/8")).sum(),
        expected: bytes,
        each: LONGEST_ANSWER,
    },
    Watcher {
        tool: "tcptop",
        args: &[],
        shown: |text| sum(text, "tx_bytes"),
        expected: bytes,
        each: LONGEST_ANSWER,
    },
    Watcher { tool: "tcptracer", args: &[], shown: rows, expected: |all| rows_each(all, 4), each: 2 },
];

/// The tools in the storm.
pub fn watched() -> impl Iterator<Item = &'static str> {
    WATCHERS.iter().map(|watcher| watcher.tool)
}

/// The longest answer of a storm, in bytes.
const LONGEST_ANSWER: u64 = 200;

fn rows(text: &str) -> u64 {
    text.lines().count() as u64
}

/// State changes, without the two changes of a socket that the kernel gave up at once. If two
/// packets complete the same handshake on two CPUs, each creates a socket, and only the first one
/// is used (`inet_ehash_nolisten`).
fn changes(text: &str) -> u64 {
    let given_up = text
        .lines()
        .map(object)
        .filter(|row| (&row["oldstate"], &row["newstate"]) == (&"SYN_RECV".into(), &"CLOSE".into()));
    rows(text) - 2 * given_up.count() as u64
}

fn rows_each(sessions: &[Session], rows: u64) -> Option<u64> {
    Some(sessions.len() as u64 * rows)
}

fn bytes(sessions: &[Session]) -> Option<u64> {
    Some(sessions.iter().flat_map(|session| &session.ends).map(|end| end.tx).sum())
}

fn object(line: &str) -> serde_json::Value {
    serde_json::from_str(line).expect("an object")
}

/// The sum of a key over all rows.
fn sum(text: &str, key: &str) -> u64 {
    text.lines().map(|line| object(line)[key].as_u64().expect("a number")).sum()
}

fn storm_in_all_tools() -> Outcome {
    const STORM: u32 = 1000;
    needs_send_hook()?;
    needs(Feature::ProbeReads)?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let scratch = Scratch::new();
    let running: Vec<Tool> = WATCHERS.iter().map(|watcher| watch(watcher, &scratch, &netns)).collect();
    traffic::start_storm(&mut stage, STORM);
    let sessions = traffic::end_storm(&mut stage, STORM);
    for (watcher, tool) in WATCHERS.iter().zip(running) {
        let output = tool.stop();
        let text = fs::read_to_string(scratch.path(watcher.tool)).expect("what the tool wrote");
        check(watcher, output.assert_code(0), &text, &sessions);
    }
    Ok(())
}

/// Starts a tool that writes to a file, so that the test need not read meanwhile.
#[track_caller]
fn watch(Watcher { tool, args, .. }: &Watcher, scratch: &Scratch, netns: &Netns) -> Tool {
    let inode = netns.inode().to_string();
    // Large enough for all events: this test is not about how fast eight readers are on a busy
    // machine.
    let ring_size = ["--ring-size", "8M"];
    let command =
        tcptools([&[*tool, "--json", "--stats", "-v", "--netns", &inode][..], &ring_size, args].concat());
    let file = File::create(scratch.path(tool)).expect("a file");
    let mut running = Tool::spawn_to(command, file.into());
    running.wait_attached(tool);
    running
}

#[track_caller]
fn check(watcher: &Watcher, output: &Output, text: &str, sessions: &[Session]) {
    let account = assert_balanced_or_idle(output);
    for key in ["lost_ring", "lost_map", "dropped", "unread", "unreadable", "unshown"] {
        assert_eq!(account[key], 0, "{key} in {account:?}\n{output}");
    }
    let names = needs(Feature::ToolHas(Capability::Syslog)).is_ok();
    assert!(!names || account["unnamed"] == 0, "{account:?}\n{output}");
    if account["reported"] > 0 {
        assert_eq!(rows(text), account["reported"], "{account:?}\n{output}");
    }
    let shown = (watcher.shown)(text);
    let Some(expected) = (watcher.expected)(sessions) else {
        return assert_eq!(shown, account["reported"] + account["aggregated"], "{account:?}\n{output}");
    };
    if misses_runs() {
        let minimal_capabilities = expected.saturating_sub(watcher.each * account["missed"]);
        assert!(
            (minimal_capabilities..=expected).contains(&shown),
            "{shown} of {expected}: {account:?}\n{output}"
        );
    } else {
        assert_all_but_missed(shown, expected, &account, output);
    }
}
