//! `tcptools selftest`: connections made on purpose in a network namespace of its own, and what each tool says of them. The tools
//! run as users run them; what their rows have to say is known from the sockets.

mod process;
mod scene;
mod truth;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rows::time::Clock;

use self::process::Process;
use self::scene::Scene;
pub use self::scene::{Loss, Talk};
pub use self::truth::Row;
use self::truth::compare;
use crate::args::{self, Shared};
use crate::failure::Failure;
use crate::tool::{TOOLS, Tool};

/// The name of the subcommand.
pub const NAME: &str = "selftest";

/// A tool ends by itself after so many seconds, if nobody is left to end it.
const LONGEST: &str = "120";

/// What a single wait may take. On a sound machine nothing comes near it.
const LIMIT_MS: u16 = 60_000;

/// The subcommand.
pub fn command() -> Command {
    let names = TOOLS.iter().map(|tool| tool.name());
    Command::new(NAME)
        .about("Check that tools tell the truth about connections made on purpose")
        .arg(
            Arg::new("tools")
                .value_name("TOOL")
                .num_args(0..)
                .value_parser(PossibleValuesParser::new(names))
                .help("These tools, not all"),
        )
        .arg(
            Arg::new("options")
                .value_name("OPTIONS")
                .num_args(0..)
                .last(true)
                .value_parser(clap::value_parser!(OsString))
                .help("More options for each of them, such as --ring-size 64K"),
        )
        .arg(args::switch("peer", "Be the process at the other end").hide(true))
}

/// Checks the tools that are named, or all.
///
/// # Errors
/// When one does not tell the truth, or cannot be checked.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    if matches.get_flag("peer") {
        match scene::peer()? {}
    }
    let names: Vec<&String> = matches.get_many("tools").into_iter().flatten().collect();
    let options: Vec<OsString> = matches.get_many("options").into_iter().flatten().cloned().collect();
    let chosen =
        TOOLS.iter().filter(|tool| names.is_empty() || names.iter().any(|name| *name == tool.name()));
    let scene = Scene::new()?;
    let mut failed = Vec::new();
    for tool in chosen {
        let verdict = check(*tool, &options, &scene)?;
        writeln!(io::stdout(), "{:12}{}", tool.name(), verdict.as_ref().err().map_or("ok", String::as_str))
            .map_err(|error| Failure::output(&error))?;
        failed.extend(verdict.is_err().then_some(tool.name()));
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("failed for {}", failed.join(", ")))) }
}

/// `--selftest`: the same for one tool, with the options that make a run what it is on this host, in a process of its own.
///
/// # Errors
/// What is wrong, in one line.
pub fn before(tool: &dyn Tool, shared: &Shared) -> Result<(), Failure> {
    let mut args: Vec<OsString> = [NAME, tool.name(), "--"].map(OsString::from).into();
    args.extend(args::of_host(shared));
    let mut process = Process::start(args)?;
    let (lines, why) = process.finish()?;
    if process.succeeded()? {
        return Ok(());
    }
    // Its line, or why there is none.
    let said = if lines.is_empty() { why } else { lines };
    Err(Failure::Failed(format!("not started, selftest: {}", said.trim_end())))
}

/// What a tool is run with, and what it has to say then.
pub struct Check {
    /// Options of its own.
    pub args: &'static [&'static str],
    /// What happens, and the rows that there have to be, no more and no less, in any order.
    pub rows: Rows,
}

/// What happens while a tool is checked.
pub enum Rows {
    /// A connection that carries bytes both ways, and a connect that is refused.
    OfTalk(fn(&Talk) -> Vec<Row>),
    /// A SYN that is not answered and sent again.
    OfLoss(fn(&Loss) -> Vec<Row>),
}

/// Runs a tool and compares; the inner error is what is wrong with the tool.
fn check(tool: &dyn Tool, options: &[OsString], scene: &Scene) -> io::Result<Result<(), String>> {
    let Check { args, rows } = tool.selftest();
    let begin = now()?;
    let netns = scene.netns.to_string();
    let common = [tool.name(), "--json", "-v", "--duration", LONGEST, "--netns", &netns];
    let mut words: Vec<OsString> = common.iter().chain(args).map(OsString::from).collect();
    words.extend_from_slice(options);
    let mut running = Running(Process::start(words)?);
    if let Err(why) = running.wait_attached()? {
        return Ok(Err(format!("cannot: {why}")));
    }
    let wanted = match rows {
        Rows::OfTalk(rows) => rows(&scene.talk()?),
        Rows::OfLoss(rows) => rows(&scene.lose()?),
    };
    let Said { rows, words } = match running.stop()? {
        Ok(said) => said,
        Err(why) => return Ok(Err(format!("cannot: {why}"))),
    };
    let end = now()?;
    let common = Row::default().between("ts", begin, end).is("netns", scene.netns);
    // What it has lost it says itself.
    Ok(compare(&wanted, &common, &rows).map_err(|difference| match words {
        Some(words) => format!("{difference} ({words})"),
        None => difference,
    }))
}

/// Nanoseconds since 1970.
fn now() -> io::Result<u64> {
    Clock::wall_now().map(|ns| u64::try_from(ns).unwrap_or(0)).map_err(Into::into)
}

/// A tool that runs.
struct Running(Process);

impl Running {
    /// Waits until everything is attached; the inner error is why that does not happen.
    fn wait_attached(&mut self) -> io::Result<Result<(), String>> {
        let stderr = &mut self.0.stderr;
        let mut text = Vec::new();
        loop {
            let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(LIMIT_MS)) {
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
                return Ok(Err(last_line(&said).unwrap_or_default()));
            }
        }
    }

    /// Ends it as Ctrl-C does: its rows, and the last it said on standard error. The inner error is how it failed.
    fn stop(mut self) -> io::Result<Result<Said, String>> {
        self.0.terminate()?;
        let (rows, words) = self.0.finish()?;
        let words = last_line(&words);
        let succeeded = self.0.succeeded()?;
        Ok(if succeeded { Ok(Said { rows, words }) } else { Err(words.unwrap_or_default()) })
    }
}

/// What a tool has said.
struct Said {
    rows: String,
    /// The last line on standard error since it was attached.
    words: Option<String>,
}

/// The last line of a tool's own, without the name that it begins with; the indented ones behind it are the verifier's.
fn last_line(text: &str) -> Option<String> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("tcptools: "))?;
    Some(line.split_once(": ").map_or(line, |(_, words)| words).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_tool_s_own() {
        let said = "tcptools: tcplife: first\ntcptools: tcplife: no way to see `x`: load `y`: invalid argument\n  x.rs:1: r0 = 0\n  \
                    R1 !read_ok\n";
        assert_eq!(last_line(said).as_deref(), Some("no way to see `x`: load `y`: invalid argument"));
        assert_eq!(last_line(""), None);
    }
}
