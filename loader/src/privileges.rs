//! What this process may do, and the limit that old kernels charge maps to.

use bpfasm::target::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::sys::rights::capabilities;

/// A capability of `capability.h` that this work has a use for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Capability {
    SysAdmin = 21,
    /// Lifts the memory limit that maps are charged to before 5.11.
    SysResource = 24,
    /// Sees the addresses in `/proc/kallsyms`.
    Syslog = 34,
    Perfmon = 38,
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

/// The capabilities that are missing, given the effective set. `CAP_SYS_ADMIN` stands for both others, and before 5.8,
/// which brought them, it is the only one there is.
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
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Bpf, Self::Perfmon, Self::SysAdmin, Self::Syslog, Self::SysResource];

    /// Those that are in force for this process; `None` when that cannot be found out.
    #[must_use]
    pub fn held() -> Option<Vec<Self>> {
        let effective = capabilities().ok()?.effective;
        Some(Self::ALL.into_iter().filter(|capability| has(effective, *capability)).collect())
    }
}

/// The capabilities this process would need and has not; empty also when that cannot be found out.
pub(crate) fn missing() -> Vec<Capability> {
    capabilities().map(|sets| missing_from(sets.effective, crate::kernel::version().ok())).unwrap_or_default()
}

/// Before 5.11 maps count as locked memory of the user, and the default limit is too low for any ring.
#[must_use]
pub fn charges_memlock(version: KernelVersion) -> bool {
    (version.major, version.minor) < (5, 11)
}

/// Lifts the limit; false when it may not. That need not matter: whether it does, the next map shows.
pub(crate) fn lift_memlock() -> bool {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_missing() {
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
