//! `tcptools doctor`: what this host offers, and which tools work on it. It loads and attaches
//! every tool as a run would, and detaches it at once.

mod host;
mod json;
mod text;

use std::io::{self, Write};

use bpfasm::object::Need;
use clap::{ArgMatches, Command};
use loader::{AttachName, HookReport};

use self::host::Host;
use crate::advice::cure;
use crate::cli::args;
use crate::cli::command::of_tool;
use crate::cli::settings::{LoadOptions, Settings};
use crate::failure::Failure;
use crate::messages::Messages;
use crate::run::Run;
use crate::run::start::start;
use crate::tool::{Limitation, Tool};
use crate::tools::TOOLS;

/// The name of the subcommand.
pub const NAME: &str = "doctor";

/// The subcommand.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Show what this host offers, and which tools work on it")
        .arg(args::switch("json", "Print one JSON object"))
        .arg(args::btf())
}

/// Examines the host and every tool, and prints the findings.
///
/// # Errors
/// If a tool cannot run here.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let btf = matches.get_one("btf").cloned();
    let host = Host::examine(btf.as_deref());
    let tools: Vec<_> = TOOLS
        .iter()
        .map(|tool| {
            let defaults = of_tool(tool).get_matches_from([tool.name]);
            let load = LoadOptions { btf: btf.clone(), ..LoadOptions::read(&defaults) };
            Examined { name: tool.name, verdict: examine(tool, &defaults, &load) }
        })
        .collect();
    let text =
        if matches.get_flag("json") { json::all(&host, &tools) + "\n" } else { text::all(&host, &tools) };
    io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))?;
    let cannot: Vec<_> = tools.iter().filter(|tool| tool.verdict.is_err()).map(|tool| tool.name).collect();
    if cannot.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{} of {} tools cannot run here: {}",
        cannot.len(),
        TOOLS.len(),
        cannot.join(", ")
    )))
}

/// A tool and the findings on it.
struct Examined {
    name: &'static str,
    verdict: Result<Findings, Failure>,
}

/// The findings on a tool that works.
struct Findings {
    hooks: Vec<HookState>,
    without: Vec<Limitation>,
}

/// A hook and how it is attached.
struct HookState {
    name: String,
    required: bool,
    /// The hook that this one is a fallback for is attached.
    unneeded: bool,
    attach: Option<String>,
    /// The better attach options, and why they did not work.
    refused: Vec<(String, String)>,
}

/// Does what a run does, up to the first event.
fn examine(tool: &Tool, matches: &ArgMatches, load: &LoadOptions) -> Result<Findings, Failure> {
    let plan = (tool.plan)(matches, &Settings::for_this_host(matches))?;
    let messages = Messages { name: tool.name, verbose: false };
    let mut run = Run::prepare(plan, messages)?;
    let (loaded, _events) = start(&mut run.plan, load, &messages)?;
    let mut without: Vec<Limitation> = Vec::new();
    for limitation in loaded.hooks().iter().filter_map(limitation).chain(run.limitations()) {
        // Two hooks may serve the same purpose.
        if !without.iter().any(|known| known.what == limitation.what) {
            without.push(limitation);
        }
    }
    let hooks = loaded.hooks().iter().map(HookState::of).collect();
    Ok(Findings { hooks, without })
}

/// What is missing without a hook that could not be attached.
fn limitation(hook: &HookReport) -> Option<Limitation> {
    if hook.unneeded || hook.taken.is_some() {
        return None;
    }
    let what = hook.without.as_ref().map_or_else(|| format!("`{}`", hook.hook), ToString::to_string);
    Some(Limitation { what, help: hook.refused.iter().find_map(|(_, error)| cure(error)) })
}

impl HookState {
    fn of(hook: &HookReport) -> Self {
        Self {
            name: hook.hook.to_string(),
            required: hook.need == Need::Required,
            unneeded: hook.unneeded,
            attach: hook.taken.as_ref().map(|attach| AttachName(attach).to_string()),
            refused: hook
                .refused
                .iter()
                .map(|(attach, error)| (AttachName(attach).to_string(), error.to_string()))
                .collect(),
        }
    }
}

impl Examined {
    /// The verdict in one or two words.
    fn word(&self) -> &'static str {
        match &self.verdict {
            Ok(findings) if findings.without.is_empty() => "works",
            Ok(_) => "works without",
            Err(_) => "cannot",
        }
    }

    /// What helps if the tool cannot run.
    fn help(&self) -> Option<&'static str> {
        match &self.verdict {
            Err(Failure::Refused(error)) => cure(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::target::parse_target;

    /// `doctor` can say of every optional hook what is missing without it.
    #[test]
    fn optional_hooks_have_words() {
        let targets = ["6.18-x86_64-typed-fexit-kprobe", "5.10-aarch64-probed-perf-kprobe"]
            .map(|words| parse_target(words).expect("a target"));
        for (tool, target) in TOOLS.iter().flat_map(|tool| targets.iter().map(move |target| (tool, target))) {
            let defaults = of_tool(tool).get_matches_from([tool.name]);
            let plan = (tool.plan)(&defaults, &Settings::read(&defaults)).expect("a plan");
            let object = (plan.object)(target).expect("programs");
            for hook in object.hooks.iter().filter(|hook| hook.need == Need::Optional) {
                assert!(hook.without.is_some(), "{}: {}", tool.name, hook.name);
            }
        }
    }
}
