//! What a run gives up once everything is attached: whoever gets hold of the process later finds nothing to use it for.

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
    /// The only capability that is left: the one without which this kernel shows no counters.
    pub kept: Option<Capability>,
    /// What could not be given up, and what the kernel said.
    pub failed: Vec<(&'static str, Errno)>,
}

impl Loaded {
    /// Gives up, for good and for the whole process, which must have one thread: every capability, the gain of any by starting
    /// a program, and all system calls but those by which events and maps are read, rows written and links closed.
    ///
    /// To be called when all is attached, seeded and open. What is refused from then on fails with EPERM.
    ///
    /// One capability stays where the kernel asks for it at each `bpf(2)`: before 5.19 where the sysctl
    /// `kernel.unprivileged_bpf_disabled` is not 0. The kernel is asked, not its version. So on such a kernel the sysctl must not
    /// be turned on while a tool runs.
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

    /// Whether the process may still read what a run reads: maps, and what the kernel counts about programs.
    fn is_readable(&self) -> bool {
        let programs = !matches!(self.stats(), Err(LoadError::Program { errno: Errno::PERM, .. }));
        programs
            && self
                .maps
                .created()
                .all(|map| map.next_key(None).err().is_none_or(|error| error.errno != Errno::PERM))
    }
}

/// Drops all capabilities but the first of those that `is_enough` accepts; which one that is.
fn drop_capabilities(is_enough: impl Fn() -> bool) -> Result<Option<Capability>, Errno> {
    // Who has no CAP_SETPCAP cannot do this, and needs it least: no capability comes back without an exec.
    let mut numbers = 0..u64::BITS;
    while numbers.next().is_some_and(|number| rights::drop_bounding(number).is_ok()) {}
    // Likewise: before 4.3 there are no such.
    let _ = rights::clear_ambient();
    let permitted = rights::capabilities()?.permitted;
    for kept in [None, Some(Capability::Bpf), Some(Capability::SysAdmin)] {
        let set = kept.map_or(0, |capability| 1 << (capability as u32));
        if permitted & set != set {
            continue;
        }
        // What is permitted can be taken up again, if this is too little.
        rights::set_capabilities(CapSets { effective: set, permitted, inheritable: 0 })?;
        if is_enough() {
            rights::set_capabilities(CapSets { effective: set, permitted: set, inheritable: 0 })?;
            return Ok(kept);
        }
    }
    rights::set_capabilities(CapSets { effective: permitted, permitted, inheritable: 0 })?;
    Err(Errno::PERM)
}
