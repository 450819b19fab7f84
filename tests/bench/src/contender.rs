//! The programs that are compared, which of them run on this machine, and why others are not
//! measured.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::fault::{During, Result};
use crate::process::Running;

/// The project that a tool comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Maker {
    Tcptools,
    /// libbpf-tools of the BCC project.
    Libbpf,
    /// A script from `tests/bench/scripts`, run by bpftrace.
    Bpftrace,
    /// The Python tools of the BCC project.
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

/// A tool of a maker, with the command that runs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contender {
    pub maker: Maker,
    /// The tool's name, the same for all makers.
    pub tool: &'static str,
    program: PathBuf,
    args: Vec<OsString>,
}

/// Tools that are not measured, and the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// The maker and its tools.
    pub name: String,
    /// One line.
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

/// Scripts for bpftrace. They print the columns of the tools and use the same tracepoints, so that
/// they run without kprobes.
const SCRIPTS: [(&str, &str); 3] = [
    ("tcplife", include_str!("../scripts/tcplife.bt")),
    ("tcpretrans", include_str!("../scripts/tcpretrans.bt")),
    ("tcpstates", include_str!("../scripts/tcpstates.bt")),
];

/// The path of tcptools.
static OURS: OnceLock<PathBuf> = OnceLock::new();

/// Sets the path of tcptools. Later calls have no effect.
pub fn set_ours(path: PathBuf) {
    // main calls this once.
    let _ = OURS.set(path);
}

fn ours() -> &'static Path {
    OURS.get().map_or(Path::new("tcptools"), PathBuf::as_path)
}

/// The arguments of a tool, the same for all makers.
fn arguments(tool: &str) -> &'static [&'static str] {
    // Without -C it clears the screen every second, and a peer starts a program to do so.
    if tool == "tcptop" { &["-C"] } else { &[] }
}

/// A peer that is not attached after this time is not measured: the slowest takes about 3 s.
const TRIAL_LIMIT: Duration = Duration::from_secs(15);

impl Contender {
    /// A tool of tcptools with these arguments.
    pub fn ours(tool: &'static str, args: &[&str]) -> Self {
        let args = std::iter::once(tool).chain(args.iter().copied()).map(OsString::from).collect();
        Self { maker: Maker::Tcptools, tool, program: ours().to_owned(), args }
    }

    /// A tool of tcptools with the arguments that its peers get.
    pub fn as_peers(tool: &'static str) -> Self {
        Self::ours(tool, arguments(tool))
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // bpftrace compiles against the kernel's BTF; without this it looks for headers first.
        command.args(&self.args).env("BPFTRACE_STRLEN", "64");
        command
    }

    /// The size of the program's file, without libraries; for scripts, the size of bpftrace.
    pub fn file_bytes(&self) -> Option<u64> {
        std::fs::metadata(&self.program).ok().map(|meta| meta.len())
    }

    /// Runs it once to find out whether it can be measured.
    fn trial(self) -> Result<Self> {
        let mut running = Running::start(self.command())?;
        running.wait_attached(TRIAL_LIMIT)?;
        running.stop()?;
        Ok(self)
    }
}

/// The peers of these tools that run here, and those that do not. Scripts are written into
/// `scratch`.
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
    Ok((peers, grouped(left_out)))
}

/// One entry for all tools of a maker that have the same reason.
fn grouped(left_out: Vec<(Maker, &'static str, String)>) -> Vec<LeftOut> {
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

/// The path of a program in `PATH`, `/usr/sbin` or `/sbin`.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    // A link to tcptools with that name is not a peer.
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
