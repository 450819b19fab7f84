//! Faults around a tool: it is stopped or killed, other instances run beside it, the watched
//! namespace or process ends, the machine changes. Its rows must be right, every loss reported, and
//! nothing left behind.

mod instances;
mod machine;
mod many_sockets;
mod soak;
mod subjects;

use kernel_tests::runner::Test;

pub const TESTS: &[&[Test]] =
    &[many_sockets::TESTS, instances::TESTS, machine::TESTS, soak::TESTS, subjects::TESTS];
