//! What holds for every tool: exit codes, messages, output to pipes and full disks, the books, and nothing left behind.

mod books;
mod links;
mod run;
mod table;
mod usage;

use kernel_tests::runner::Test;

pub use books::{assert_nothing_lost, assert_only_missed};
pub use table::assert_number;

pub const TESTS: &[&[Test]] = &[usage::TESTS, links::TESTS, table::TESTS, run::TESTS, books::TESTS];

const TOOLS: [&str; 3] = ["tcplife", "tcpstates", "tcptracer"];
