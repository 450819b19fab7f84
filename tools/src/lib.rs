//! tcptools: what TCP does on a Linux host, in one static file.
//!
//! `tcptools TOOL …`, or a link named like the tool. The binary is `bin/tcptools.rs`; all of it is here, where fuzz targets reach
//! it as well.

#![forbid(unsafe_code)]

mod account;
mod address;
mod args;
#[cfg(test)]
mod catalogue;
mod containers;
mod doctor;
mod ebpf;
mod failure;
mod filters;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod journal;
mod kallsyms;
mod links;
pub mod open_sockets;
mod room;
mod run;
mod selftest;
mod start;
mod stderr;
mod target;
mod tcpconnlat;
mod tcpdrop;
mod tcplife;
mod tcpretrans;
mod tcpstates;
mod tcpsubnet;
mod tcptop;
mod tcptracer;
mod tool;
mod verified;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, Command, value_parser};

use crate::failure::Failure;
use crate::tool::{TOOLS, Tool};

const NAME: &str = "tcptools";

/// The names of all tools, in order.
pub fn tool_names() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().map(|tool| tool.name())
}

/// The program: reads the command line, runs what it names, and gives the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let called_as = args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    let (name, result) = match called_as.and_then(tool::find) {
        Some(tool) => (tool.name().to_owned(), as_tool(tool, args)),
        None => as_tcptools(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&name),
    }
}

/// Called by the name of a tool.
fn as_tool(tool: &dyn Tool, args: Vec<OsString>) -> Result<(), Failure> {
    let matches = match tool_command(tool).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return said_by_clap(&error),
    };
    run::tool(tool, &matches)
}

/// Called as `tcptools`. Also gives the name that messages begin with.
fn as_tcptools(args: Vec<OsString>) -> (String, Result<(), Failure>) {
    // Only the command of the tool that is named is made: the flags of all of them take a third of a millisecond.
    if let Some(tool) = args.get(1).and_then(|name| name.to_str()).and_then(tool::find) {
        let command = tool_command(tool).bin_name(format!("{NAME} {}", tool.name()));
        return match command.try_get_matches_from(args.into_iter().skip(1)) {
            Ok(matches) => (format!("{NAME}: {}", tool.name()), run::tool(tool, &matches)),
            Err(error) => (NAME.to_owned(), said_by_clap(&error)),
        };
    }
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return (NAME.to_owned(), said_by_clap(&error)),
    };
    match matches.subcommand() {
        Some(("links", matches)) => {
            let directory: &PathBuf = matches.get_one("directory").expect("it is required");
            (NAME.to_owned(), links::make(directory))
        }
        Some((doctor::NAME, matches)) => (format!("{NAME}: {}", doctor::NAME), doctor::run(matches)),
        Some((selftest::NAME, matches)) => (format!("{NAME}: {}", selftest::NAME), selftest::run(matches)),
        Some((name, matches)) => {
            let tool = tool::find(name).expect("clap knows no other subcommand");
            (format!("{NAME}: {name}"), run::tool(tool, matches))
        }
        None => (NAME.to_owned(), ebpf::all_tools(&matches)),
    }
}

fn command() -> Command {
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("What TCP does on this host, and whose process it is")
        .after_help("A link named like a tool runs that tool.")
        .arg_required_else_help(true)
        .subcommand_value_name("TOOL")
        .subcommand_help_heading("Tools")
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .args(args::ebpf_args())
        .subcommands(TOOLS.iter().map(|tool| tool_command(*tool)))
        .subcommand(doctor::command())
        .subcommand(selftest::command())
        .subcommand(
            Command::new("links").about("Make links in a directory, one named like each tool").arg(
                Arg::new("directory").value_name("DIR").required(true).value_parser(value_parser!(PathBuf)),
            ),
        )
}

fn tool_command(tool: &dyn Tool) -> Command {
    let command = Command::new(tool.name())
        .display_name(tool.name())
        .version(env!("CARGO_PKG_VERSION"))
        .about(tool.about());
    let command = args::add_missing(args::shared(tool.flags(command)), [args::json(), args::csv()]);
    filters::add(command)
}

/// Help and version go to stdout; what is wrong becomes one line that says what would be right.
fn said_by_clap(error: &clap::Error) -> Result<(), Failure> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::Usage(format!("no tool named; {}", names())))
        }
        ErrorKind::InvalidSubcommand => {
            Err(Failure::Usage(format!("{}; {}", first_paragraph(&text), names())))
        }
        _ => Err(Failure::Usage(format!("{} (--help shows the options)", first_paragraph(&text)))),
    }
}

/// What clap says first, without its advice and the usage, on one line.
fn first_paragraph(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").map_or(line.clone(), str::to_owned)
}

fn names() -> String {
    let names: Vec<_> = TOOLS.iter().map(|tool| tool.name()).collect();
    format!("there are {}, doctor, selftest and links", names.join(", "))
}
