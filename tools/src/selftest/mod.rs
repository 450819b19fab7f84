//! `tcptools selftest`: makes connections in a network namespace of its own, runs the tools on them
//! as a user would, and compares every row with what its sockets know.

pub mod check;
pub mod expect;
mod process;
mod scenario;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rows::Column;
use rows::time::Clock;

use self::check::{Check, Scenario};
use self::expect::{Row, compare};
use self::process::Process;
use self::scenario::TestNet;
use crate::cli::args;
use crate::cli::command::{of_tool, usage_error};
use crate::cli::settings::{LoadOptions, RunOptions, Settings, host_args};
use crate::failure::Failure;
use crate::tool::Tool;
use crate::tools::TOOLS;

/// The name of the subcommand.
pub const NAME: &str = "selftest";

/// A tool ends by itself after this many seconds, if this process is killed before it can end the
/// tool.
const MAX_RUN_SECONDS: &str = "120";

/// The longest time that a single wait may take. A healthy machine needs a tiny part of it.
const MAX_WAIT_MS: u16 = 60_000;

/// The subcommand.
pub fn command() -> Command {
    let names = TOOLS.iter().map(|tool| tool.name);
    Command::new(NAME)
        .about("Run tools on test connections and check every row")
        .arg(
            Arg::new("tools")
                .value_name("TOOL")
                .num_args(0..)
                .value_parser(PossibleValuesParser::new(names))
                .help("Tools to check [default: all]"),
        )
        .arg(
            Arg::new("options")
                .value_name("OPTIONS")
                .num_args(0..)
                .last(true)
                .value_parser(clap::value_parser!(OsString))
                .help("More options for each tool, such as --ring-size 64K"),
        )
        .arg(args::switch("peer", "Be the peer process").hide(true))
}

/// Checks the named tools, or all.
///
/// # Errors
/// If a tool prints wrong rows, or cannot be checked.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    if matches.get_flag("peer") {
        match scenario::peer()? {}
    }
    let names: Vec<&String> = matches.get_many("tools").into_iter().flatten().collect();
    let options: Vec<OsString> = matches.get_many("options").into_iter().flatten().cloned().collect();
    let chosen = TOOLS.iter().filter(|tool| names.is_empty() || names.iter().any(|name| *name == tool.name));
    let test_net = TestNet::new()?;
    let mut failed = Vec::new();
    for tool in chosen {
        let verdict = check(tool, &options, &test_net)?;
        writeln!(io::stdout(), "{:12}{}", tool.name, verdict.as_ref().err().map_or("ok", String::as_str))
            .map_err(|error| Failure::output(&error))?;
        failed.extend(verdict.is_err().then_some(tool.name));
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("failed for {}", failed.join(", ")))) }
}

/// `--selftest`: checks one tool in a process of its own, with the options that decide how a run
/// works on this host.
///
/// # Errors
/// What is wrong, in one line.
pub fn before_run(
    tool: &Tool,
    settings: &Settings,
    load: &LoadOptions,
    run: &RunOptions,
) -> Result<(), Failure> {
    let mut args: Vec<OsString> = [NAME, tool.name, "--"].map(OsString::from).into();
    args.extend(host_args(settings, load, run));
    let mut process = Process::start(args)?;
    let (lines, why) = process.finish()?;
    if process.succeeded()? {
        return Ok(());
    }
    // Its verdict, or why it has none.
    let said = if lines.is_empty() { why } else { lines };
    Err(Failure::Failed(format!("not started: the selftest failed: {}", said.trim_end())))
}

/// Runs a tool and compares. The inner error is what is wrong with the tool.
fn check(tool: &Tool, options: &[OsString], test_net: &TestNet) -> io::Result<Result<(), String>> {
    let Check { args, scenario } = (tool.selftest)();
    let begin = now()?;
    let netns = test_net.netns.to_string();
    let common = [tool.name, "--json", "-v", "--duration", MAX_RUN_SECONDS, "--netns", &netns];
    let mut words: Vec<OsString> = common.iter().chain(args).map(OsString::from).collect();
    words.extend_from_slice(options);
    let keys = match json_keys(tool, &words) {
        Ok(keys) => keys,
        Err(why) => return Ok(Err(format!("cannot: {why}"))),
    };
    let mut running = Running(Process::start(words)?);
    if let Err(why) = running.wait_attached()? {
        return Ok(Err(format!("cannot: {why}")));
    }
    let expected = match scenario {
        Scenario::Conversation(rows) => rows(&test_net.converse()?),
        Scenario::UnansweredConnect(rows) => rows(&test_net.connect_unanswered()?),
    };
    let Printed { rows, last_message } = match running.stop()? {
        Ok(printed) => printed,
        Err(why) => return Ok(Err(format!("cannot: {why}"))),
    };
    let end = now()?;
    let common = Row::default().between("ts", begin, end).is("netns", test_net.netns);
    // If the tool has lost something, its last message says so.
    Ok(compare(&expected, &common, &keys, &rows).map_err(|difference| match last_message {
        Some(message) => format!("{difference} ({message})"),
        None => difference,
    }))
}

/// The keys that each of the tool's rows has to have.
fn json_keys(tool: &Tool, words: &[OsString]) -> Result<Vec<&'static str>, Failure> {
    let matches = of_tool(tool).try_get_matches_from(words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Failure::Usage("the options ask for help or the version".to_owned())
        }
        _ => usage_error(&error),
    })?;
    let plan = (tool.plan)(&matches, &Settings::read(&matches))?;
    Ok(plan.session.headings().iter().filter_map(Column::json_key).collect())
}

/// Nanoseconds since 1970.
fn now() -> io::Result<u64> {
    Clock::wall_now().map(|ns| u64::try_from(ns).unwrap_or(0)).map_err(Into::into)
}

/// A running tool.
struct Running(Process);

impl Running {
    /// Waits until everything is attached. The inner error is why that does not happen.
    fn wait_attached(&mut self) -> io::Result<Result<(), String>> {
        let stderr = &mut self.0.stderr;
        let mut text = Vec::new();
        loop {
            let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(MAX_WAIT_MS)) {
                Ok(0) => return Ok(Err("it does not attach".to_owned())),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut chunk = [0; 4096];
            let length = stderr.read(&mut chunk)?;
            text.extend(chunk.iter().take(length));
            let said = String::from_utf8_lossy(&text);
            if said.contains(": attached\n") {
                return Ok(Ok(()));
            }
            if length == 0 {
                let why = last_message(&said);
                return Ok(Err(why.unwrap_or_else(|| "it ended before it attached".to_owned())));
            }
        }
    }

    /// Ends it as Ctrl-C does, and returns what it has printed. The inner error is how it failed.
    fn stop(mut self) -> io::Result<Result<Printed, String>> {
        self.0.terminate()?;
        let (rows, messages) = self.0.finish()?;
        let last_message = last_message(&messages);
        let succeeded = self.0.succeeded()?;
        Ok(if succeeded { Ok(Printed { rows, last_message }) } else { Err(last_message.unwrap_or_default()) })
    }
}

/// What a tool has printed.
struct Printed {
    rows: String,
    /// The last message since it was attached.
    last_message: Option<String>,
}

/// The last message, without the names before it and the indented lines of the verifier after it.
fn last_message(text: &str) -> Option<String> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("tcptools: "))?;
    Some(line.split_once(": ").map_or(line, |(_, words)| words).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_is_one_line() {
        let said = "tcptools: tcplife: first\ntcptools: tcplife: no way to see `x`: load `y`: invalid argument\n  x.rs:1: r0 = 0\n  \
                    R1 !read_ok\n";
        assert_eq!(last_message(said).as_deref(), Some("no way to see `x`: load `y`: invalid argument"));
        assert_eq!(last_message(""), None);
    }
}
