//! The registry: every tool, in the order of `--help`. Subcommands, links, `--ebpf`, `doctor` and
//! `selftest` go by it.
//!
//! A new tool is a module and a row here.

#[cfg(test)]
mod row_tests;
mod tcpconnlat;
mod tcpdrop;
mod tcplife;
mod tcpretrans;
mod tcpstates;
mod tcpsubnet;
mod tcptop;
mod tcptracer;
mod timed;
mod values;

use crate::tool::Tool;

/// Every tool.
pub const TOOLS: &[&Tool] = &[
    &tcpconnlat::TOOL,
    &tcpdrop::TOOL,
    &tcplife::TOOL,
    &tcpretrans::TOOL,
    &tcpstates::TOOL,
    &tcpsubnet::TOOL,
    &tcptop::TOOL,
    &tcptracer::TOOL,
];

/// The tool of this name.
pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().copied().find(|tool| tool.name == name)
}
