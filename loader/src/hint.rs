//! Known causes of a refusal, and what an administrator can do about each.

use std::fmt;

use crate::errno::Errno;
use crate::privileges::{self, Capability};

/// The probable cause of a refusal. [`Hint::cure`] says what helps.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Hint {
    /// The process lacks these capabilities.
    Capabilities(Vec<Capability>),
    /// The kernel charges maps to `RLIMIT_MEMLOCK` (before 5.11), and the process may not raise
    /// that limit.
    Memlock,
    /// The kernel charges perf buffers to `kernel.perf_event_mlock_kb`, and they exceed it.
    PerfMlock,
    /// tracefs is not mounted. It has the ids of tracepoints.
    Tracefs,
    /// The kernel is built without kprobes.
    NoKprobes,
    /// The process has all capabilities, so a policy of the host forbids the operation.
    Forbidden,
    /// The kernel is locked down for confidentiality, and the program reads kernel memory by
    /// address.
    Confidential,
}

impl Hint {
    /// The cause of an EPERM in this process: missing capabilities, or a policy if none is missing.
    /// `None` for any other error.
    pub(crate) fn for_errno(errno: Errno) -> Option<Self> {
        if errno != Errno::PERM {
            return None;
        }
        let missing = privileges::missing();
        Some(if missing.is_empty() { Self::Forbidden } else { Self::Capabilities(missing) })
    }

    /// What to do about it: a command or a setting. `None` if nothing is known to help.
    #[must_use]
    pub fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Capabilities(missing) if missing.contains(&Capability::SysAdmin) => {
                Some("run as root, or setcap cap_sys_admin+ep FILE")
            }
            Self::Capabilities(_) => Some("run as root, or setcap cap_bpf,cap_perfmon+ep FILE"),
            Self::Memlock => Some("ulimit -l unlimited"),
            Self::PerfMlock => Some("smaller buffers, or a larger sysctl kernel.perf_event_mlock_kb"),
            Self::Tracefs => Some("mount -t tracefs tracefs /sys/kernel/tracing"),
            Self::Confidential => Some("boot the kernel with lockdown=integrity, or none"),
            Self::NoKprobes | Self::Forbidden => None,
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities(missing) => {
                f.write_str("run as root, or give ")?;
                for (i, capability) in missing.iter().enumerate() {
                    write!(f, "{}{capability}", if i == 0 { "" } else { " and " })?;
                }
                Ok(())
            }
            Self::Memlock => f.write_str("the locked-memory limit is too low (ulimit -l unlimited)"),
            Self::PerfMlock => f.write_str("the buffers are too large for kernel.perf_event_mlock_kb"),
            Self::Tracefs => {
                f.write_str("no events in /sys/kernel/tracing (mount -t tracefs tracefs /sys/kernel/tracing)")
            }
            Self::NoKprobes => f.write_str("the kernel is built without kprobes (CONFIG_KPROBE_EVENTS)"),
            Self::Forbidden => {
                f.write_str("forbidden by the kernel's lockdown or by a container (seccomp, user namespace)")
            }
            Self::Confidential => f.write_str(
                "under lockdown=confidentiality no program may read the kernel's memory by address \
                 (bpf_probe_read_kernel)",
            ),
        }
    }
}

/// `: <hint>`, or nothing if there is no hint: the end of a message.
pub(crate) struct Suffix<'a>(pub(crate) &'a Option<Hint>);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |hint| write!(f, ": {hint}"))
    }
}
