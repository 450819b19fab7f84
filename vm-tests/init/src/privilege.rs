//! Runs tcptools as an ordinary user with a few capabilities.
//!
//! The tests have to be root, because they make namespaces. In variants with few privileges
//! `/bin/tcptools` is this program, which drops its privileges and executes `/bin/tcptools.real`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_keepcaps;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// The file with the names of the capabilities to keep, one on each line.
const CAPABILITIES: &str = "/etc/capabilities";

/// The program to execute.
const TOOL: &str = "/bin/tcptools.real";

/// An ordinary user and group: on Debian those without files of their own.
const UNPRIVILEGED: u32 = 65534;

/// Executes the tool with the same arguments and the same `argv[0]`, which selects the tool.
pub fn exec_unprivileged() -> ExitCode {
    // A test may already have dropped all privileges.
    let dropped = if Uid::effective().is_root() { drop_privileges() } else { Ok(()) };
    if let Err(message) = dropped {
        eprintln!("vm-init: {message}");
        return ExitCode::FAILURE;
    }
    let mut words = std::env::args_os();
    let mut command = Command::new(TOOL);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    let error = command.args(words).exec();
    eprintln!("vm-init: {TOOL}: {error}");
    ExitCode::FAILURE
}

fn drop_privileges() -> Result<(), String> {
    let text = fs::read_to_string(CAPABILITIES).map_err(|e| format!("{CAPABILITIES}: {e}"))?;
    let mut kept = CapsHashSet::new();
    for name in text.lines() {
        kept.insert(name.parse::<Capability>().map_err(|e| format!("{name}: {e}"))?);
    }
    for capability in caps::runtime::thread_all_supported() {
        if !kept.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|e| format!("bounding set: {e}"))?;
        }
    }
    // Without this, changing the user drops all capabilities.
    set_keepcaps(true).map_err(|errno| format!("PR_SET_KEEPCAPS: {errno}"))?;
    let (uid, gid) = (Uid::from_raw(UNPRIVILEGED), Gid::from_raw(UNPRIVILEGED));
    setgroups(&[]).map_err(|errno| format!("setgroups: {errno}"))?;
    setresgid(gid, gid, gid).map_err(|errno| format!("setresgid: {errno}"))?;
    setresuid(uid, uid, uid).map_err(|errno| format!("setresuid: {errno}"))?;
    // Only ambient capabilities survive exec, and they have to be permitted and inheritable. The
    // effective set comes first, because after the permitted set shrinks it could not be set any
    // more.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, &kept).map_err(|e| format!("{set:?} capabilities: {e}"))?;
    }
    Ok(())
}
