//! Dropping privileges once everything is attached, so that an attacker who takes over the process
//! later can do little with it.

use super::Loaded;
use crate::errno::Errno;
use crate::error::LoadError;
use crate::privileges::Capability;
use crate::sys::rights::{self, CapSets};
use crate::syscalls;

/// What [`Loaded::confine`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Confined {
    /// The capability that the process keeps, because this kernel does not let it read maps
    /// without.
    pub kept: Option<Capability>,
    /// The privileges that could not be dropped, each with the kernel's answer.
    pub failed: Vec<(&'static str, Errno)>,
}

impl Loaded {
    /// Drops, for the rest of the process, every capability, the possibility to gain any by
    /// `execve(2)`, and all system calls except those that read events and maps, write output and
    /// close links. Refused system calls fail with EPERM.
    ///
    /// The process must have one thread only, because all this applies to the calling thread. Call
    /// it when everything is attached and every file is open.
    ///
    /// One capability is kept if the kernel requires it for each `bpf(2)`: before 5.19 if the
    /// sysctl `kernel.unprivileged_bpf_disabled` is not 0. This is found out by trying. So on such
    /// a kernel the sysctl must not be switched on while the process runs.
    pub fn confine(&self) -> Confined {
        let mut failed = Vec::new();
        let kept = drop_capabilities(|| self.is_readable()).unwrap_or_else(|errno| {
            failed.push(("capabilities", errno));
            None
        });
        let mut give_up =
            |what, result: Result<(), Errno>| failed.extend(result.err().map(|errno| (what, errno)));
        give_up("new privileges", rights::no_new_privileges());
        give_up("system calls", syscalls::confine());
        Confined { kept, failed }
    }

    /// Whether the process may still read maps and the kernel's counts of its programs.
    fn is_readable(&self) -> bool {
        let programs = !matches!(self.stats(), Err(LoadError::Program { errno: Errno::PERM, .. }));
        programs
            && self
                .maps
                .created()
                .all(|map| map.next_key(None).err().is_none_or(|error| error.errno != Errno::PERM))
    }
}

/// Drops all capabilities if `is_enough` then still returns true, else all but one. Returns the one
/// that is kept.
fn drop_capabilities(is_enough: impl Fn() -> bool) -> Result<Option<Capability>, Errno> {
    // Without CAP_SETPCAP this fails, which is harmless: the bounding set only matters for an
    // execve.
    let mut numbers = 0..u64::BITS;
    while numbers.next().is_some_and(|number| rights::drop_bounding(number).is_ok()) {}
    // Fails before 4.3, where there are no ambient capabilities.
    let _ = rights::clear_ambient();
    let permitted = rights::capabilities()?.permitted;
    for kept in [None, Some(Capability::Bpf), Some(Capability::SysAdmin)] {
        let set = kept.map_or(0, |capability| 1 << (capability as u32));
        if permitted & set != set {
            continue;
        }
        // Permitted capabilities stay, so that the effective ones can be raised again if these do
        // not suffice.
        rights::set_capabilities(CapSets { effective: set, permitted, inheritable: 0 })?;
        if is_enough() {
            rights::set_capabilities(CapSets { effective: set, permitted: set, inheritable: 0 })?;
            return Ok(kept);
        }
    }
    rights::set_capabilities(CapSets { effective: permitted, permitted, inheritable: 0 })?;
    Err(Errno::PERM)
}
