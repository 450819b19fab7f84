//! `tcptools doctor`: what this host has, and which tools work on it. Found out by doing it: every tool is loaded and attached as
//! in a run, and detached at once.

mod host;
mod json;
mod text;

use std::io::{self, Write};

use bpfasm::object::Need;
use clap::{ArgMatches, Command};
use loader::{AttachName, HookReport};

use self::host::Host;
use crate::advice::cure;
use crate::args::{self, Shared};
use crate::failure::Failure;
use crate::room;
use crate::start::{Say, seed, start};
use crate::tool::{Lack, TOOLS, Tool};

/// The name of the subcommand.
pub const NAME: &str = "doctor";

/// The subcommand.
pub fn command() -> Command {
    Command::new(NAME)
        .about("What this host has, and which tools work on it")
        .arg(args::switch("json", "One JSON object"))
        .arg(args::btf())
}

/// Examines the host and every tool, and says what was found.
///
/// # Errors
/// When a tool cannot run here.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let btf = matches.get_one("btf").cloned();
    let host = Host::examine(btf.as_deref());
    let patients: Vec<_> = TOOLS
        .iter()
        .map(|tool| {
            let defaults = crate::tool_command(*tool).get_matches_from([tool.name()]);
            let shared = Shared {
                btf: btf.clone(),
                max_sockets: room::for_open_sockets(),
                ..args::read_shared(&defaults)
            };
            Patient { name: tool.name(), verdict: examine(*tool, &defaults, &shared) }
        })
        .collect();
    let text = if matches.get_flag("json") {
        json::all(&host, &patients) + "\n"
    } else {
        text::all(&host, &patients)
    };
    io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))?;
    let cannot: Vec<_> = patients.iter().filter(|tool| tool.verdict.is_err()).map(|tool| tool.name).collect();
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

/// A tool and what was found.
struct Patient {
    name: &'static str,
    verdict: Result<Findings, Failure>,
}

/// What was found of a tool that works.
struct Findings {
    hooks: Vec<HookState>,
    without: Vec<Lack>,
}

/// A hook and the way it took.
struct HookState {
    name: String,
    required: bool,
    /// Another is seen, in whose stead it would be.
    unneeded: bool,
    attach: Option<String>,
    /// The better ways, and why not.
    refused: Vec<(String, String)>,
}

/// Does what a run does, up to the first event.
fn examine(tool: &dyn Tool, matches: &ArgMatches, shared: &Shared) -> Result<Findings, Failure> {
    let mut session = tool.session(matches, shared);
    session.prepare()?;
    let say = Say { name: tool.name(), verbose: false, verified: false };
    let (loaded, _events) = start(session.as_mut(), shared, &say)?;
    seed(session.as_mut(), &loaded, shared, &say)?;
    let mut without: Vec<Lack> = Vec::new();
    for lack in loaded.hooks().iter().filter_map(lack).chain(session.lacks()) {
        // Two hooks may serve the same end.
        if !without.iter().any(|known| known.what == lack.what) {
            without.push(lack);
        }
    }
    let hooks = loaded.hooks().iter().map(HookState::of).collect();
    Ok(Findings { hooks, without })
}

/// What is missing with a hook that nothing sees.
fn lack(attach_option: &HookReport) -> Option<Lack> {
    if attach_option.unneeded || attach_option.taken.is_some() {
        return None;
    }
    let what = attach_option
        .without
        .as_ref()
        .map_or_else(|| format!("`{}`", attach_option.hook), ToString::to_string);
    Some(Lack { what, help: attach_option.refused.iter().find_map(|(_, error)| cure(error)) })
}

impl HookState {
    fn of(attach_option: &HookReport) -> Self {
        Self {
            name: attach_option.hook.to_string(),
            required: attach_option.need == Need::Required,
            unneeded: attach_option.unneeded,
            attach: attach_option.taken.as_ref().map(|attach| AttachName(attach).to_string()),
            refused: attach_option
                .refused
                .iter()
                .map(|(attach, error)| (AttachName(attach).to_string(), error.to_string()))
                .collect(),
        }
    }
}

impl Patient {
    /// In one word or two.
    fn word(&self) -> &'static str {
        match &self.verdict {
            Ok(findings) if findings.without.is_empty() => "works",
            Ok(_) => "works without",
            Err(_) => "cannot",
        }
    }

    /// What would help the tool as a whole.
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
    use crate::target::parse_target;

    /// A hook that may be missing says what is missing then, in every tool.
    #[test]
    fn optional_hooks_have_words() {
        let targets = ["6.18-x86_64-typed-fexit-kprobe", "5.10-aarch64-probed-perf-kprobe"]
            .map(|words| parse_target(words).expect("a target"));
        for (tool, target) in TOOLS.iter().flat_map(|tool| targets.iter().map(move |target| (tool, target))) {
            let defaults = crate::tool_command(*tool).get_matches_from([tool.name()]);
            let object =
                tool.session(&defaults, &args::read_shared(&defaults)).object(target).expect("programs");
            for hook in object.hooks.iter().filter(|hook| hook.need == Need::Optional) {
                assert!(hook.without.is_some(), "{}: {}", tool.name(), hook.name);
            }
        }
    }
}
