//! The capabilities of this process, and the memory limit that kernels before 5.11 charge maps to.

use bpfasm::target::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::sys::rights::capabilities;

/// A capability of `include/uapi/linux/capability.h` that matters for BPF. The value is its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// Includes CAP_BPF and CAP_PERFMON; before 5.8 the only capability for BPF.
    SysAdmin = 21,
    /// Allows to raise the memory limit that maps are charged to before 5.11.
    SysResource = 24,
    /// Shows the addresses in `/proc/kallsyms`.
    Syslog = 34,
    /// Allows tracing programs and perf events (5.8).
    Perfmon = 38,
    /// Allows `bpf(2)` (5.8).
    Bpf = 39,
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        })
    }
}

/// The capabilities for BPF that `effective` lacks. `CAP_SYS_ADMIN` includes both others; before
/// 5.8 they did not exist.
pub(crate) fn missing_from(effective: u64, version: Option<KernelVersion>) -> Vec<Capability> {
    let has = |capability| has(effective, capability);
    if has(Capability::SysAdmin) {
        return Vec::new();
    }
    if version.is_some_and(|version| (version.major, version.minor) < (5, 8)) {
        return vec![Capability::SysAdmin];
    }
    [Capability::Bpf, Capability::Perfmon].into_iter().filter(|&capability| !has(capability)).collect()
}

fn has(effective: u64, capability: Capability) -> bool {
    effective & (1 << (capability as u32)) != 0
}

impl Capability {
    /// Every capability listed here.
    pub const ALL: [Self; 5] = [Self::Bpf, Self::Perfmon, Self::SysAdmin, Self::Syslog, Self::SysResource];

    /// The effective capabilities of this process, as far as they are listed here. `None` if
    /// `capget(2)` fails.
    #[must_use]
    pub fn effective() -> Option<Vec<Self>> {
        let effective = capabilities().ok()?.effective;
        Some(Self::ALL.into_iter().filter(|capability| has(effective, *capability)).collect())
    }
}

/// The capabilities for BPF that this process lacks; empty also if `capget(2)` fails.
pub(crate) fn missing() -> Vec<Capability> {
    capabilities().map(|sets| missing_from(sets.effective, crate::kernel::version().ok())).unwrap_or_default()
}

/// Whether maps count as locked memory of the user (before 5.11). The default limit (64 KiB) is too
/// low for an event buffer.
#[must_use]
pub fn charges_memlock(version: KernelVersion) -> bool {
    (version.major, version.minor) < (5, 11)
}

/// Removes the limit on locked memory. False if the process may not do that, which only matters if
/// the next map does not fit.
pub(crate) fn lift_memlock() -> bool {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_depend_on_the_kernel() {
        let old = Some(KernelVersion { major: 5, minor: 4, patch: 0 });
        let new = Some(KernelVersion { major: 6, minor: 1, patch: 0 });
        assert_eq!(missing_from(1 << 21, old), []);
        assert_eq!(missing_from(1 << 21, None), []);
        assert_eq!(missing_from(0, new), [Capability::Bpf, Capability::Perfmon]);
        assert_eq!(missing_from(1 << 39, new), [Capability::Perfmon]);
        assert_eq!(missing_from(1 << 39 | 1 << 38, new), []);
        assert_eq!(missing_from(1 << 39 | 1 << 38, old), [Capability::SysAdmin]);
    }
}
