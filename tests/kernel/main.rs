//! The tests against the running kernel. See `kernel_tests::runner` for how they run, and `--help`.

mod cli;
mod harness;
mod journal;
mod loader;
mod tcpdrop;
mod tcplife;
mod tcpstates;
mod tcptracer;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut tests =
        [harness::TESTS, tcpdrop::TESTS, tcplife::TESTS, tcpstates::TESTS, journal::TESTS].concat();
    tests.extend([tcptracer::TESTS, cli::TESTS, loader::TESTS].concat().concat());
    kernel_tests::runner::main(&tests)
}
