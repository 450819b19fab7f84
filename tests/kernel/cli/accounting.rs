//! The account: every event is in exactly one counter, and losses are reported.

use std::collections::BTreeMap;

use kernel_tests::cli::{Output, Tool};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{misses_runs, running_version};
use kernel_tests::rows::LifeRow;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::stage::{Stage, Via};
use kernel_tests::traffic;

use crate::known_tools::with_rows;

pub const TESTS: &[Test] = &[
    test("cli::stats_in_words", stats_in_words),
    test("cli::strict_passes_if_nothing_is_lost", strict_passes_if_nothing_is_lost),
    test("cli::a_small_ring_fails_only_with_strict", a_small_ring_fails_only_with_strict),
    test("cli::a_small_table_fails_a_strict_run", a_small_table_fails_a_strict_run),
];

/// The counters of `--stats`, by name.
pub type Account = BTreeMap<String, u64>;

/// The account that `--stats` prints: a JSON object with `--json`, otherwise a line of words.
#[track_caller]
fn account(output: &Output) -> Account {
    let json = output.stderr.lines().find_map(|line| {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
        Some(object.into_iter().filter_map(|(key, value)| Some((key, value.as_u64()?))).collect())
    });
    let words = || {
        let line = output.stderr.lines().find(|line| line.contains(": seen "))?;
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let pairs = words.windows(2).filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?)));
        Some(pairs.collect())
    };
    let mut account: Account =
        json.or_else(words).unwrap_or_else(|| panic!("no --stats on standard error\n{output}"));
    // Older kernels do not count skipped events.
    assert_eq!(account.contains_key("missed"), running_version() >= (5, 12), "{account:?}\n{output}");
    account.entry("missed".to_owned()).or_insert(0);
    account
}

/// Every event is in exactly one counter, and there were events.
#[track_caller]
pub fn assert_balanced(output: &Output) -> Account {
    let account = assert_balanced_or_idle(output);
    assert!(account["seen"] > 0, "no event was seen: {account:?}\n{output}");
    account
}

/// The same for a tool that may have seen no events.
#[track_caller]
pub fn assert_balanced_or_idle(output: &Output) -> Account {
    let account = account(output);
    let of = |key: &str| *account.get(key).unwrap_or_else(|| panic!("no {key} in {account:?}\n{output}"));
    let counted = ["filtered", "reported", "aggregated", "lost_ring", "lost_map"].map(of);
    assert_eq!(
        of("seen"),
        counted.iter().sum::<u64>(),
        "the account does not balance: {account:?}\n{output}"
    );
    for key in ["missed", "dropped", "unread", "unreadable", "untracked", "unshown", "unnamed"] {
        of(key);
    }
    account
}

/// The account balances and nothing was lost.
#[track_caller]
pub fn assert_nothing_lost(output: &Output) {
    let account = assert_balanced(output);
    for key in ["lost_ring", "lost_map", "missed", "dropped", "unread", "unreadable"] {
        assert_eq!(account[key], 0, "{key} in {account:?}\n{output}");
    }
}

/// The same, except that the kernel may have skipped a program ([`misses_runs`]); returns how
/// often.
#[track_caller]
pub fn assert_only_missed(output: &Output) -> usize {
    let missed = assert_balanced(output)["missed"];
    if missed == 0 || !misses_runs() {
        assert_nothing_lost(output);
        return 0;
    }
    let account = account(output);
    for key in ["lost_ring", "lost_map", "dropped", "unread", "unreadable"] {
        assert_eq!(account[key], 0, "{key} in {account:?}\n{output}");
    }
    usize::try_from(missed).expect("a small number")
}

/// Each event that was sent is a row, besides this many lines of headings.
#[track_caller]
fn assert_reported_are_rows(output: &Output, account: &Account, headings: u64) {
    let lines = u64::try_from(output.assert_complete_lines().stdout.lines().count()).unwrap_or(u64::MAX);
    assert_eq!(
        lines,
        account["reported"] + headings,
        "a row for each event that was sent: {account:?}\n{output}"
    );
}

fn stats_in_words() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    for (tool, _) in with_rows() {
        let running = Tool::start(tool, &["--stats"]);
        traffic::client_closes_first(&mut stage);
        let output = running.stop();
        let account = assert_balanced(output.assert_code(0));
        assert_reported_are_rows(&output, &account, 1);
    }
    Ok(())
}

fn strict_passes_if_nothing_is_lost() -> Outcome {
    let netns = Netns::enter_new().inode().to_string();
    let mut stage = Stage::new(Via::V4);
    for (tool, _) in with_rows() {
        let running = Tool::start(tool, &["--json", "--stats", "--strict", "--netns", &netns]);
        traffic::client_closes_first(&mut stage);
        let output = running.stop();
        assert_nothing_lost(output.assert_code(0));
    }
    Ok(())
}

/// A storm that does not fit into the smallest ring, while the tool's output is not read.
fn a_small_ring_fails_only_with_strict() -> Outcome {
    const STORM: u32 = 500;
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let tool = Tool::start("tcpstates", &["--json", "--stats", "--ring-size", "4096"]);
    traffic::start_storm(&mut stage, STORM);
    traffic::end_storm(&mut stage, STORM);
    let output = tool.stop();
    let account = assert_balanced(output.assert_code(0));
    assert!(account["lost_ring"] > 0, "the ring did not overflow: {account:?}\n{output}");
    assert_reported_are_rows(&output, &account, 0);
    Ok(())
}

fn is_warning(line: &str) -> bool {
    line.starts_with("tcptools: ")
        && line.contains("table of sockets is full")
        && line.contains("--max-sockets")
}

/// A missing row is a loss; the last lines say what helps.
fn a_small_table_fails_a_strict_run() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let mut tool = Tool::start("tcplife", &["--json", "--max-sockets", "1", "--strict"]);
    // Ten connections, twenty ends, and a table of one entry.
    let pairs: Vec<_> = (0..10).map(|_| stage.open()).collect();
    // There is one warning, at the time of the loss.
    tool.wait_for("a warning", |seen| seen.stderr_since_attached().iter().any(|line| is_warning(line)));
    for pair in pairs {
        traffic::close(&mut stage, pair, (0, 0));
    }
    let output = tool.stop();
    let rows = output.assert_code(1).rows::<LifeRow>(Netns::current().inode());
    assert!(rows.len() < 20, "twenty ends do not fit a table of one\n{output}");
    let said = output.stderr_since_attached();
    let [warning, summary @ .., strict] = &said[..] else { panic!("a warning and an end\n{output}") };
    assert!(is_warning(warning) && strict.contains("--strict"), "{output}");
    assert!(!summary.is_empty() && summary.iter().all(|line| line.contains("--max-sockets")), "{output}");
    Ok(())
}
