//! The account of every tool: each kind of loss is provoked, and every event must still be
//! accounted for.
//!
//! A test knows how many events it makes in its own network namespace. With `--netns` all other
//! events of the machine are filtered, so reported and lost events must add up to exactly that
//! number.

pub mod rings;
pub mod storm;
mod tables;

use kernel_tests::cli::{Output, Tool};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, misses_runs, needs};
use kernel_tests::runner::Test;

use crate::cli::{Account, assert_balanced};

pub const TESTS: &[&[Test]] = &[rings::TESTS, tables::TESTS, storm::TESTS];

/// Starts a tool on the events of this namespace.
#[track_caller]
pub fn start(tool: &str, args: &[&str], netns: &Netns) -> Tool {
    let inode = netns.inode().to_string();
    Tool::start(tool, &[&["--json", "--stats", "--netns", &inode], args].concat())
}

/// Checks the account of a tool: this many events happened, each of which it has printed as a row
/// or counted as lost.
///
/// Kernels that can preempt a program at a tracepoint (7.x) skip the program for some events, and
/// count the skips of all programs.
#[track_caller]
pub fn assert_accounted(output: &Output, events: u64) -> Account {
    let account = assert_balanced(output);
    let rows = output.assert_complete_lines().stdout.lines().count() as u64;
    assert_eq!(rows, account["reported"] - account["unshown"], "a row for each event: {account:?}\n{output}");
    assert_eq!(
        (account["dropped"], account["unreadable"], account["unshown"]),
        (0, 0, 0),
        "{account:?}\n{output}"
    );
    let accounted = account["reported"] + account["lost_ring"] + account["lost_map"];
    if account["lost_map"] > 0 && needs(Feature::OwnMachine).is_err() {
        // Sockets of other namespaces do not fit into the table either. Whether a filter excludes
        // them is not known when they are created.
        assert!(accounted >= events, "{accounted} of {events} events: {account:?}\n{output}");
    } else {
        assert_all_but_missed(accounted, events, &account, output);
    }
    account
}

/// Checks that this many events were counted, except those for which the kernel skipped the
/// program.
#[track_caller]
fn assert_all_but_missed(counted: u64, events: u64, account: &Account, output: &Output) {
    let minimal_capabilities = if misses_runs() { events.saturating_sub(account["missed"]) } else { events };
    assert!(
        (minimal_capabilities..=events).contains(&counted),
        "{counted} of {events} events: {account:?}\n{output}"
    );
    assert!(misses_runs() || account["missed"] == 0, "{account:?}\n{output}");
}
