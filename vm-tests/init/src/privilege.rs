//! tcptools as a user with few capabilities.
//!
//! In the variants that ask for it, `/bin/tcptools` is this program and the tool is `/bin/tcptools.real`: the tests run as root,
//! since they make namespaces and processes, and start tcptools as they always do.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_keepcaps;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// The capabilities to keep, by name, one on each line.
const CAPABILITIES: &str = "/etc/capabilities";

/// What is started in the place of this program.
const TOOL: &str = "/bin/tcptools.real";

/// `nobody` and `nogroup` of Debian.
const NOBODY: u32 = 65534;

/// Becomes the tool, with the same arguments and the same name, which it looks at.
pub fn exec_unprivileged() -> ExitCode {
    // A test may have dropped them already, and all the rest with them.
    let dropped = if Uid::effective().is_root() { drop_privileges() } else { Ok(()) };
    if let Err(fault) = dropped {
        eprintln!("vm-init: {fault}");
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
    // Changing the user would take all capabilities away.
    set_keepcaps(true).map_err(|errno| format!("PR_SET_KEEPCAPS: {errno}"))?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[]).map_err(|errno| format!("setgroups: {errno}"))?;
    setresgid(gid, gid, gid).map_err(|errno| format!("setresgid: {errno}"))?;
    setresuid(uid, uid, uid).map_err(|errno| format!("setresuid: {errno}"))?;
    // Ambient capabilities are those that outlive exec; they have to be permitted and inheritable. Effective first: the rest
    // is set while the process still may.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, &kept).map_err(|e| format!("{set:?} capabilities: {e}"))?;
    }
    Ok(())
}
