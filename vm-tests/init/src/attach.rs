//! Attaches every tool with every set of options, and reports what `-vv` prints about hooks and
//! programs.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::OptionSet;
use crate::payload::command;
use crate::results::Results;

/// `tcptools links` makes a link for each tool in this folder. The names of the links are the names
/// of the tools.
const LINKS: &str = "/tmp/links";

/// The word for a start without `--access`.
const DEFAULT_ACCESS: &str = "default";

/// The values of `--access`.
const ACCESS_MODES: [&str; 2] = ["typed", "probed"];

/// Reports `tool TOOL ACCESS OPTIONS LINE` for each line that a tool prints until it is attached,
/// and `tool TOOL ACCESS OPTIONS ended` if it ends before that. OPTIONS are joined by `+`, or are
/// `+` alone if there are none.
pub fn report(option_sets: &[OptionSet], results: &mut Results) -> Result<(), String> {
    for tool in tools()? {
        let own: Vec<&OptionSet> = option_sets.iter().filter(|set| set.tool == tool).collect();
        attach(results, &tool, DEFAULT_ACCESS, &[])?;
        for access in ACCESS_MODES {
            attach(results, &tool, access, &[])?;
            for set in &own {
                attach(results, &tool, access, &set.options)?;
            }
        }
    }
    Ok(())
}

fn attach(results: &mut Results, tool: &str, access: &str, options: &[String]) -> Result<(), String> {
    let joined = if options.is_empty() { "+".to_owned() } else { options.join("+") };
    for line in attach_and_stop(tool, access, options)? {
        results.report("tool", &format!("{tool} {access} {joined} {line}"))?;
    }
    Ok(())
}

fn tools() -> Result<Vec<String>, String> {
    fs::create_dir_all(LINKS).map_err(|e| format!("mkdir {LINKS}: {e}"))?;
    // tcptools may run as an ordinary user, which has to be able to write there.
    fs::set_permissions(LINKS, Permissions::from_mode(0o777)).map_err(|e| format!("chmod {LINKS}: {e}"))?;
    let output = command("/bin/tcptools").args(["links", LINKS]).output();
    let output = output.map_err(|e| format!("tcptools links: {e}"))?;
    if !output.status.success() {
        return Err(format!("tcptools links: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let entries = fs::read_dir(LINKS).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|e| format!("{LINKS}: {e}"))?;
    let mut names: Vec<String> =
        entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The lines of a tool's standard error until it is attached or has ended.
fn attach_and_stop(tool: &str, access: &str, options: &[String]) -> Result<Vec<String>, String> {
    let fail = |e: io::Error| format!("{tool}: {e}");
    let mut command = command("/bin/tcptools");
    command.args([tool, "-vv"]).args(options);
    if access != DEFAULT_ACCESS {
        command.args(["--access", access]);
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(fail)?;
    let Some(stderr) = child.stderr.take() else { return Err(format!("{tool}: no standard error")) };
    let mut lines = BufReader::new(stderr).lines();
    let mut seen = Vec::new();
    let mut attached = false;
    while !attached && let Some(line) = lines.next() {
        let line = line.map_err(fail)?;
        attached = line.ends_with(": attached");
        seen.push(line);
    }
    if attached {
        interrupt(&child)?;
    } else {
        seen.push("ended".into());
    }
    // Read to the end, so that the tool does not block on a full pipe.
    for line in lines {
        line.map_err(fail)?;
    }
    child.wait().map_err(fail)?;
    Ok(seen)
}

fn interrupt(child: &Child) -> Result<(), String> {
    let pid = i32::try_from(child.id()).map_err(|e| e.to_string())?;
    kill(Pid::from_raw(pid), Signal::SIGINT).map_err(|errno| format!("SIGINT: {errno}"))
}
