//! What is the same for all tools: exit codes, messages, output to pipes and full disks, the
//! account, and no leaks.

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
pub use usage::as_unprivileged_user;

pub const TESTS: &[&[Test]] =
    &[usage::TESTS, links::TESTS, names::TESTS, loss::TESTS, table::TESTS, run::TESTS, accounting::TESTS];

/// Checks that `--perf` works: it needs perf events, and probe reads on old kernels.
pub fn needs_perf_buffers() -> Outcome {
    needs(Feature::ProbeReads)?;
    needs(Feature::PerfEvents)
}
