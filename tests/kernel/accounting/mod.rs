//! The account of every tool: each kind of loss driven on purpose, and every event accounted for all the same.
//!
//! A test knows how many events it makes in a network namespace of its own. With `--netns` everything else on the machine is
//! filtered, so what the tool reported and what it says it lost have to add up to exactly that.

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

/// The account of a tool that has seen so many events of ours and reported some, which are rows, and lost others, which it says.
///
/// Kernels that can preempt a program at a tracepoint (7.x) do not run it for some events, and count those of all programs.
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
    let told = account["reported"] + account["lost_ring"] + account["lost_map"];
    if account["lost_map"] > 0 && needs(Feature::OwnMachine).is_err() {
        // Sockets of other namespaces find no room either, and what a filter makes of them is not known at their birth.
        assert!(told >= events, "{told} of {events} events: {account:?}\n{output}");
    } else {
        assert_all_but_missed(told, events, &account, output);
    }
    account
}

/// So many events were counted, but for those for which the kernel did not run the program.
#[track_caller]
fn assert_all_but_missed(counted: u64, events: u64, account: &Account, output: &Output) {
    let minimal_capabilities = if misses_runs() { events.saturating_sub(account["missed"]) } else { events };
    assert!(
        (minimal_capabilities..=events).contains(&counted),
        "{counted} of {events} events: {account:?}\n{output}"
    );
    assert!(misses_runs() || account["missed"] == 0, "{account:?}\n{output}");
}
