//! What holds for every tool: exit codes, messages, output to pipes and full disks, the account, and nothing left behind.

mod accounting;
mod links;
mod loss;
mod names;
mod run;
mod table;
mod usage;

use kernel_tests::gate::{Feature, needs};
use kernel_tests::runner::{Outcome, Test};

use crate::tcptop::sees_what_is_sent;

pub use accounting::{
    Account, assert_balanced, assert_balanced_or_idle, assert_nothing_lost, assert_only_missed,
};
pub use table::assert_number;
pub use usage::as_nobody;

pub const TESTS: &[&[Test]] =
    &[usage::TESTS, links::TESTS, names::TESTS, loss::TESTS, table::TESTS, run::TESTS, accounting::TESTS];

/// Every tool, in the order of their names.
pub const TOOLS: [&str; 8] =
    ["tcpconnlat", "tcpdrop", "tcplife", "tcpretrans", "tcpstates", "tcpsubnet", "tcptop", "tcptracer"];

/// Those that this kernel lets run.
pub fn runnable() -> impl Iterator<Item = &'static str> {
    TOOLS.into_iter().filter(|tool| match *tool {
        "tcpdrop" => needs(Feature::ProbeReads).is_ok(),
        "tcpsubnet" | "tcptop" => sees_what_is_sent().is_ok(),
        _ => true,
    })
}

/// What `--perf` asks for: perf buffers, and the probe reads of those old kernels that have nothing else.
pub fn needs_perf_buffers() -> Outcome {
    needs(Feature::ProbeReads)?;
    needs(Feature::PerfEvents)
}

/// Those that have rows for every connection as soon as something happens to it, and how many for one that nothing goes wrong
/// with.
pub const EVENT_TOOLS: [(&str, usize); 4] =
    [("tcpconnlat", 1), ("tcplife", 2), ("tcpstates", 10), ("tcptracer", 4)];

/// Those that keep every socket in a table for as long as it lives.
pub const TABLE_TOOLS: [&str; 3] = ["tcplife", "tcpstates", "tcptracer"];
