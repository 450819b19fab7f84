//! What a process may do, as the kernel tells it in `/proc/PID/status`.

use std::fs;
use std::sync::OnceLock;

use crate::cli::Tool;

/// A capability of `capabilities(7)`, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the kernel's names
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
    /// The set that has this one only.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// The rights of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the file's names
pub struct Rights {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub no_new_privileges: bool,
    /// 0: no filter of system calls, 2: there is one.
    pub seccomp: u64,
}

impl Rights {
    /// Those of a process now.
    ///
    /// # Panics
    /// When there is no such process.
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

    /// Those that the tool under test is started with, here.
    #[must_use]
    #[track_caller]
    pub fn of_tool() -> Self {
        static RIGHTS: OnceLock<Rights> = OnceLock::new();
        *RIGHTS.get_or_init(|| Self::of(Tool::start("tcplife", &["--no-sandbox"]).pid()))
    }

    /// Whether it has the capability.
    #[must_use]
    pub const fn has(&self, capability: Capability) -> bool {
        self.effective & capability.bit() != 0
    }
}
