//! The privileges of a process, from `/proc/PID/status`.

use std::fs;
use std::sync::OnceLock;

use crate::cli::Tool;

/// A capability of `capabilities(7)`, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Capability {
    Setpcap = 8,
    SysPtrace = 19,
    SysAdmin = 21,
    SysResource = 24,
    Syslog = 34,
    Perfmon = 38,
    Bpf = 39,
}

impl Capability {
    /// The set of this capability alone.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// The privileges of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub no_new_privileges: bool,
    /// 2 if the process has a filter of system calls, otherwise 0.
    pub seccomp: u64,
}

impl Rights {
    /// The present privileges of a process.
    ///
    /// # Panics
    /// If there is no such process.
    #[must_use]
    #[track_caller]
    pub fn of(pid: u32) -> Self {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("no {name} in {path}")).trim()
        };
        let set = |name| u64::from_str_radix(field(name), 16).expect("a set");
        Self {
            effective: set("CapEff"),
            permitted: set("CapPrm"),
            inheritable: set("CapInh"),
            bounding: set("CapBnd"),
            ambient: set("CapAmb"),
            no_new_privileges: field("NoNewPrivs") == "1",
            seccomp: field("Seccomp").parse().expect("a number"),
        }
    }

    /// The privileges with which the tool under test starts.
    #[must_use]
    #[track_caller]
    pub fn of_tool() -> Self {
        static RIGHTS: OnceLock<Rights> = OnceLock::new();
        *RIGHTS.get_or_init(|| Self::of(Tool::start("tcplife", &["--no-sandbox"]).pid()))
    }

    /// Whether the capability is effective.
    #[must_use]
    pub const fn has(&self, capability: Capability) -> bool {
        self.effective & capability.bit() != 0
    }
}
