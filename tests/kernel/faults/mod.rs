//! What goes wrong around a tool: it is stopped or killed, others do the same beside it, its subject goes away, the machine
//! changes under it. It says what is true, loses nothing without a word, and leaves nothing behind.

mod instances;
mod machine;
mod many_sockets;
mod soak;
mod subjects;

use kernel_tests::runner::Test;

pub const TESTS: &[&[Test]] =
    &[many_sockets::TESTS, instances::TESTS, machine::TESTS, soak::TESTS, subjects::TESTS];
