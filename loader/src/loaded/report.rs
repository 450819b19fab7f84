//! Reports on a loaded object: notes, hooks, statistics.

use std::fmt;

use bpfasm::{Attach, Need, Text};
use btf::BuildError;

use crate::errno::Errno;
use crate::error::LoadError;

/// Something that did not work but was not a reason to stop.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Note {
    /// The limit on locked memory could not be raised, but the maps fit.
    Memlock,
    /// This kernel runs no BPF programs in process 1 ([`crate::spares_init`]).
    SparesInit,
    /// The object's BTF could not be built, so the kernel has no function names, source lines and
    /// map members.
    DebugInfo(BuildError),
    /// The kernel refused the object's BTF; the same things are missing.
    Btf(Errno),
    /// A map was created without the types of its members.
    MapTypes {
        /// The map's name.
        map: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A program was loaded without source lines.
    SourceLines {
        /// The program's name.
        program: String,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SparesInit => f.write_str(
                "this kernel does not run BPF programs in PID 1, or in interrupts taken while PID 1 runs, and does not \
                 count the skips",
            ),
            Self::Memlock => f.write_str("the locked-memory limit could not be raised, but all maps fit"),
            Self::DebugInfo(error) => write!(f, "no source lines in the kernel: {error}"),
            Self::Btf(errno) => write!(f, "no source lines in the kernel: load BTF: {errno}"),
            Self::MapTypes { map, errno } => {
                write!(f, "map `{map}` has no member names in the kernel: {errno}")
            }
            Self::SourceLines { program, errno } => {
                write!(f, "program `{program}` has no source lines in the kernel: {errno}")
            }
        }
    }
}

/// Which attach option a hook uses, and why not a better one.
#[derive(Debug)]
pub struct HookReport {
    /// The hook's name.
    pub hook: Text,
    /// Whether loading fails without it.
    pub need: Need,
    /// The name of the hook that this one is a fallback for.
    pub fallback_for: Option<Text>,
    /// What is missing if no attach option is accepted, as a phrase that follows "without".
    pub without: Option<Text>,
    /// Whether this hook is not tried, because the hook it is a fallback for, or an earlier one in
    /// the chain, is used. It may become false until [`Loaded::attach`](crate::Loaded::attach) has
    /// returned.
    pub unneeded: bool,
    /// The attach point in use. `None` before [`Loaded::attach`](crate::Loaded::attach), and if the
    /// hook is unneeded or every option was refused.
    pub taken: Option<Attach>,
    /// The better attach options, each with the reason for its refusal.
    pub refused: Vec<(Attach, LoadError)>,
}

/// What the kernel counts about a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgStats {
    /// The name of the hook that the program belongs to.
    pub hook: Text,
    /// The program's name.
    pub name: String,
    /// The program's id in the kernel (`bpftool prog show id`).
    pub id: u32,
    /// The number of runs while statistics were on ([`enable_stats`](crate::enable_stats)).
    pub run_count: u64,
    /// The duration of these runs together, in nanoseconds.
    pub run_time_ns: u64,
    /// How often the kernel skipped the program because it, or a map operation, was already running
    /// on that CPU (kernel 5.12, else 0).
    pub missed: u64,
    /// Instruction slots of eight bytes after the verifier's rewriting.
    pub slots: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Instructions that the verifier processed (kernel 5.16, else 0).
    pub verified: u32,
}
