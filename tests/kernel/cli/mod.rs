//! What holds for every tool: exit codes, messages, output to pipes and full disks, the account, and nothing left behind.

mod accounting;
mod links;
mod loss;
mod names;
mod run;
mod table;
mod usage;

use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test};

pub use accounting::{
    Account, assert_balanced, assert_balanced_or_idle, assert_nothing_lost, assert_only_missed,
};
pub use table::assert_number;
pub use usage::as_nobody;

pub const TESTS: &[&[Test]] =
    &[usage::TESTS, links::TESTS, names::TESTS, loss::TESTS, table::TESTS, run::TESTS, accounting::TESTS];

/// What `--perf` asks for: perf buffers, and the probe reads of those old kernels that have nothing else.
pub fn needs_perf_buffers() -> Outcome {
    needs(Feature::ProbeReads)?;
    needs(Feature::PerfEvents)
}
