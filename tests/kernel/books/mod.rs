//! The books of every tool: each kind of loss driven on purpose, and every event accounted for all the same.
//!
//! A test knows how many events it makes in a network namespace of its own. With `--netns` everything else on the machine is
//! filtered, so what the tool reported and what it says it lost have to add up to exactly that.

mod rings;
mod storm;
mod tables;

use kernel_tests::cli::{Output, Tool};
use kernel_tests::gate::{Feature, misses_runs, needs};
use kernel_tests::netns::Netns;
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
    let books = assert_balanced(output);
    let rows = output.assert_complete_lines().stdout.lines().count() as u64;
    assert_eq!(rows, books["reported"] - books["unshown"], "a row for each event: {books:?}\n{output}");
    assert_eq!((books["dropped"], books["unreadable"], books["unshown"]), (0, 0, 0), "{books:?}\n{output}");
    let told = books["reported"] + books["lost_ring"] + books["lost_map"];
    if books["lost_map"] > 0 && needs(Feature::OwnMachine).is_err() {
        // Sockets of other namespaces find no room either, and what a filter makes of them is not known at their birth.
        assert!(told >= events, "{told} of {events} events: {books:?}\n{output}");
    } else {
        assert_all_but_missed(told, events, &books, output);
    }
    books
}

/// So many events were counted, but for those for which the kernel did not run the program.
#[track_caller]
fn assert_all_but_missed(counted: u64, events: u64, books: &Account, output: &Output) {
    let least = if misses_runs() { events.saturating_sub(books["missed"]) } else { events };
    assert!((least..=events).contains(&counted), "{counted} of {events} events: {books:?}\n{output}");
    assert!(misses_runs() || books["missed"] == 0, "{books:?}\n{output}");
}
