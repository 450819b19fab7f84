//! The command line: which tool to run, and with which options.

pub mod args;
pub mod command;
pub mod containers;
pub mod filters;
pub mod form;
pub mod links;
pub mod settings;
pub mod target;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use self::command::{NAME, clap_answer};
use self::settings::{EbpfOptions, Settings};
use crate::failure::Failure;
use crate::tool::Tool;
use crate::tools::TOOLS;
use crate::{doctor, ebpf, run, selftest, tools};

/// The program: reads the command line, runs what it names, and returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let called_as = args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    let (name, result) = match called_as.and_then(tools::find) {
        Some(tool) => (tool.name.to_owned(), as_tool(tool, args)),
        None => as_tcptools(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&name),
    }
}

/// Called by the name of a tool.
fn as_tool(tool: &Tool, args: Vec<OsString>) -> Result<(), Failure> {
    match command::of_tool(tool).try_get_matches_from(args) {
        Ok(matches) => run_tool(tool, &matches),
        Err(error) => clap_answer(&error),
    }
}

/// Called as `tcptools`. Also returns the name that messages begin with.
fn as_tcptools(args: Vec<OsString>) -> (String, Result<(), Failure>) {
    // Only the command of the named tool is built: the options of all tools take a third of a
    // millisecond.
    if let Some(tool) = args.get(1).and_then(|name| name.to_str()).and_then(tools::find) {
        let command = command::of_tool(tool).bin_name(format!("{NAME} {}", tool.name));
        return match command.try_get_matches_from(args.into_iter().skip(1)) {
            Ok(matches) => (format!("{NAME}: {}", tool.name), run_tool(tool, &matches)),
            Err(error) => (NAME.to_owned(), clap_answer(&error)),
        };
    }
    let matches = match tcptools().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return (NAME.to_owned(), clap_answer(&error)),
    };
    match matches.subcommand() {
        Some(("links", matches)) => {
            let directory: &PathBuf = matches.get_one("directory").expect("it is required");
            (NAME.to_owned(), links::make(directory))
        }
        Some((doctor::NAME, matches)) => (format!("{NAME}: {}", doctor::NAME), doctor::run(matches)),
        Some((selftest::NAME, matches)) => (format!("{NAME}: {}", selftest::NAME), selftest::run(matches)),
        Some((name, matches)) => {
            let tool = tools::find(name).expect("clap accepts no other subcommand");
            (format!("{NAME}: {name}"), run_tool(tool, matches))
        }
        None => (NAME.to_owned(), ebpf_of_all(&matches)),
    }
}

/// The command `tcptools`.
pub(crate) fn tcptools() -> Command {
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Shows what TCP does on this host, and which process it is for")
        .after_help("A link with the name of a tool runs that tool.")
        .arg_required_else_help(true)
        .subcommand_value_name("TOOL")
        .subcommand_help_heading("Tools")
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .args(args::ebpf_args())
        .subcommands(TOOLS.iter().map(|tool| command::of_tool(tool)))
        .subcommand(doctor::command())
        .subcommand(selftest::command())
        .subcommand(
            Command::new("links").about("Make a symbolic link to this program for each tool").arg(
                Arg::new("directory")
                    .value_name("DIR")
                    .required(true)
                    .value_parser(value_parser!(PathBuf))
                    .help("The directory to make the links in"),
            ),
        )
}

/// Runs a tool, or prints its programs.
fn run_tool(tool: &Tool, matches: &ArgMatches) -> Result<(), Failure> {
    match EbpfOptions::read(matches) {
        Some(options) => {
            let plan = (tool.plan)(matches, &Settings::read(matches))?;
            ebpf::print_tool(tool, &plan, &options, matches.get_one("access").copied())
        }
        None => run::tool(tool, matches),
    }
}

/// `tcptools --ebpf`: prints the programs of all tools.
pub fn ebpf_of_all(matches: &ArgMatches) -> Result<(), Failure> {
    match EbpfOptions::read(matches) {
        Some(options) => ebpf::print_all(&options),
        None => Err(Failure::Usage(format!("--btf and --target go with --ebpf; {}", command::names()))),
    }
}
