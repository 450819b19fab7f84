//! tcptools: what TCP does on a Linux host, in one static file.
//!
//! `tcptools TOOL …`, or a link with the name of a tool. The binary is `bin/tcptools.rs`. Its code
//! is in this library, so that fuzz targets and tests reach it as well.
//!
//! | module | subject |
//! |---|---|
//! | `cli` | the command line |
//! | `tool` | what a tool is: its plan and its session |
//! | `tools` | the tools, and their registry |
//! | `run` | a run: start, read, report, account |
//! | `host` | what a run asks of the host besides programs and maps |
//! | `ebpf`, `doctor`, `selftest` | what else tcptools does with the tools |

#![forbid(unsafe_code)]

mod address;
mod advice;
mod cli;
mod doctor;
mod ebpf;
mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod host;
#[cfg(test)]
mod message_tests;
mod messages;
mod run;
mod selftest;
mod tool;
mod tools;

pub use self::cli::main;

/// The names of all tools, in the order of `--help`.
pub fn tool_names() -> impl Iterator<Item = &'static str> {
    tools::TOOLS.iter().map(|tool| tool.name)
}
