//! The tests against the running kernel. See `kernel_tests::runner` for how they run, and `--help`.

mod accounting;
mod cli;
mod doctor;
mod faults;
mod filters;
mod harness;
mod journal;
mod known_tools;
mod loader;
mod open_sockets;
mod privileges;
mod selftest;
mod tcpconnlat;
mod tcpdrop;
mod tcplife;
mod tcpretrans;
mod tcpstates;
mod tcpsubnet;
mod tcptop;
mod tcptracer;

use std::process::ExitCode;

use kernel_tests::runner::{self, Test};

/// The tests of this program.
fn all_tests() -> Vec<Test> {
    let mut tests = [
        harness::TESTS,
        filters::TESTS,
        tcpconnlat::TESTS,
        tcplife::TESTS,
        tcpstates::TESTS,
        tcpsubnet::TESTS,
        tcptop::TESTS,
        open_sockets::TESTS,
        journal::TESTS,
        privileges::TESTS,
        doctor::TESTS,
        selftest::TESTS,
        known_tools::TESTS,
    ]
    .concat();
    tests.extend(
        [
            tcpdrop::TESTS,
            tcpretrans::TESTS,
            tcptracer::TESTS,
            accounting::TESTS,
            cli::TESTS,
            faults::TESTS,
            loader::TESTS,
        ]
        .concat()
        .concat(),
    );
    tests
}

fn main() -> ExitCode {
    runner::main(&all_tests())
}
