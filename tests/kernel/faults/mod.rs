//! What goes wrong around a tool: it is stopped or killed, others do the same beside it, its subject goes away, the machine
//! changes under it. It says what is true, loses nothing without a word, and leaves nothing behind.

mod crowds;
mod instances;
mod machine;
mod soak;
mod subjects;

use kernel_tests::runner::Test;

pub const TESTS: &[&[Test]] =
    &[crowds::TESTS, instances::TESTS, machine::TESTS, soak::TESTS, subjects::TESTS];
