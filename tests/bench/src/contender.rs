//! The programs that are compared, which of them there are on this machine, and why the others are left out.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::fault::{During, Result};
use crate::process::Running;

/// Who made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Maker {
    /// This project.
    Tcptools,
    /// libbpf-tools.
    Libbpf,
    /// A script of our own, run by bpftrace.
    Bpftrace,
    /// The Python tools.
    Bcc,
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcptools => "tcptools",
            Self::Libbpf => "libbpf-tools",
            Self::Bpftrace => "bpftrace",
            Self::Bcc => "BCC",
        })
    }
}

/// A tool of a maker, ready to be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contender {
    /// Who made it.
    pub maker: Maker,
    /// The tool's name, which makers share.
    pub tool: &'static str,
    program: PathBuf,
    args: Vec<OsString>,
}

/// What is not measured, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// The maker and the tool.
    pub name: String,
    /// In one line.
    pub why: String,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.maker, self.tool)
    }
}

/// All tools of tcptools, in the order of the registry.
pub fn tools() -> Vec<&'static str> {
    tools::tool_names().collect()
}

/// The tools that libbpf-tools has as well.
pub const LIBBPF: [&str; 5] = ["tcpconnlat", "tcplife", "tcpstates", "tcptop", "tcptracer"];

/// Scripts for bpftrace. They print what the tools print, by the same tracepoints, so that they run without kprobes too.
const SCRIPTS: [(&str, &str); 3] = [
    ("tcplife", include_str!("../scripts/tcplife.bt")),
    ("tcpretrans", include_str!("../scripts/tcpretrans.bt")),
    ("tcpstates", include_str!("../scripts/tcpstates.bt")),
];

/// Where tcptools is.
static OURS: OnceLock<PathBuf> = OnceLock::new();

/// Says where tcptools is. The first word counts.
pub fn set_ours(path: PathBuf) {
    // It is told once, at the beginning.
    let _ = OURS.set(path);
}

fn ours() -> &'static Path {
    OURS.get().map_or(Path::new("tcptools"), PathBuf::as_path)
}

/// What a tool is run with, of whichever maker.
fn arguments(tool: &str) -> &'static [&'static str] {
    // Otherwise it clears a screen each second, and a peer starts a program for that.
    if tool == "tcptop" { &["-C"] } else { &[] }
}

/// A peer that is not attached by then is left out: the slowest takes some 3 s.
const TRIAL: Duration = Duration::from_secs(15);

impl Contender {
    /// One of ours, with these arguments.
    pub fn ours(tool: &'static str, args: &[&str]) -> Self {
        let args = std::iter::once(tool).chain(args.iter().copied()).map(OsString::from).collect();
        Self { maker: Maker::Tcptools, tool, program: ours().to_owned(), args }
    }

    /// One of ours, as it is compared with its peers.
    pub fn as_peers(tool: &'static str) -> Self {
        Self::ours(tool, arguments(tool))
    }

    /// The command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // bpftrace compiles against the kernel's BTF; without this it looks for headers first.
        command.args(&self.args).env("BPFTRACE_STRLEN", "64");
        command
    }

    /// Bytes of the program's own file; of scripts, of what runs them.
    pub fn file_bytes(&self) -> Option<u64> {
        std::fs::metadata(&self.program).ok().map(|meta| meta.len())
    }

    /// Runs it once, to see whether it can be.
    fn trial(self) -> Result<Self> {
        let mut running = Running::start(self.command())?;
        running.wait_attached(TRIAL)?;
        running.stop()?;
        Ok(self)
    }
}

/// The peers of these tools that run here, and those that do not. `scratch` is where scripts are put.
pub fn peers(tools: &[&str], scratch: &Path) -> Result<(Vec<Contender>, Vec<LeftOut>)> {
    let mut peers = Vec::new();
    let mut left_out = Vec::new();
    let mut judge = |maker, tool: &'static str, program: Option<PathBuf>, args: Vec<OsString>| {
        let Some(program) = program else {
            left_out.push((maker, tool, "not installed".to_owned()));
            return;
        };
        match (Contender { maker, tool, program, args }).trial() {
            Ok(peer) => peers.push(peer),
            Err(why) => left_out.push((maker, tool, why.to_string())),
        }
    };
    for tool in LIBBPF.into_iter().filter(|tool| tools.contains(tool)) {
        // Without it, bytes and names of IPv6 connections are cut off in some of them.
        judge(Maker::Libbpf, tool, installed(tool), arguments(tool).iter().map(OsString::from).collect());
    }
    for (tool, script) in SCRIPTS.into_iter().filter(|(tool, _)| tools.contains(tool)) {
        let path = scratch.join(format!("{tool}.bt"));
        std::fs::write(&path, script).during(format_args!("write {}", path.display()))?;
        judge(Maker::Bpftrace, tool, installed("bpftrace"), vec![path.into()]);
    }
    for tool in self::tools().into_iter().filter(|tool| tools.contains(tool)) {
        let debian = installed(&format!("{tool}-bpfcc"));
        let program = debian.or_else(|| is_file(Path::new("/usr/share/bcc/tools").join(tool)));
        judge(Maker::Bcc, tool, program, Vec::new());
    }
    Ok((peers, together(left_out)))
}

/// Tools of a maker that are left out for one reason, in one line.
fn together(left_out: Vec<(Maker, &'static str, String)>) -> Vec<LeftOut> {
    let mut groups: Vec<(Maker, String, Vec<&str>)> = Vec::new();
    for (maker, tool, why) in left_out {
        match groups.iter_mut().find(|(known, reason, _)| *known == maker && *reason == why) {
            Some((.., tools)) => tools.push(tool),
            None => groups.push((maker, why, vec![tool])),
        }
    }
    let group = |(maker, why, tools): (Maker, String, Vec<&str>)| LeftOut {
        name: format!("{maker} {}", tools.join(", ")),
        why,
    };
    groups.into_iter().map(group).collect()
}

/// Where a program is, in `PATH` or where administrators' programs are.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    // A link of our own by that name is no peer.
    let ours = std::fs::canonicalize(ours()).ok();
    dirs.filter_map(|dir| is_file(dir.join(name))).find(|found| std::fs::canonicalize(found).ok() != ours)
}

fn is_file(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_compared_with_tools_of_the_registry() {
        for (tool, script) in SCRIPTS {
            assert!(tools().contains(&tool) && script.contains("tracepoint:"), "{tool}");
        }
        assert!(LIBBPF.iter().all(|tool| tools().contains(tool)));
    }
}
