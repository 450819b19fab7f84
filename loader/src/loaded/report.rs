//! What is told about an object in the kernel.

use std::fmt;

use bpfasm::{Attach, Need, Text};
use btf::BuildError;

use crate::errno::Errno;
use crate::error::LoadError;

/// Something that did not work and was no reason to stop, for `-v`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Note {
    /// The memory limit was not lifted; maps were created nonetheless.
    Memlock,
    /// What the kernel's first process does is not seen, nor what interrupts it ([`crate::spares_init`]).
    SparesInit,
    /// The object's BTF could not be built: no function names, source lines or map members in the kernel.
    DebugInfo(BuildError),
    /// The kernel did not take the object's BTF; the same is missing.
    Btf(Errno),
    /// A map was created without the types of its members.
    MapTypes {
        /// The map.
        map: String,
        /// What the kernel said to them.
        errno: Errno,
    },
    /// A program was loaded without source lines.
    SourceLines {
        /// The program.
        program: String,
        /// What the kernel said to them.
        errno: Errno,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SparesInit => f.write_str(
                "this kernel leaves out what happens in process 1 and in what interrupts it, and counts none of it as missed",
            ),
            Self::Memlock => f.write_str("the locked-memory limit was not lifted, and was not needed"),
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

/// Which way a hook took.
#[derive(Debug)]
pub struct HookReport {
    /// The hook's name.
    pub hook: Text,
    /// Whether the tool needs it.
    pub need: Need,
    /// The hook in whose stead it is.
    pub fallback_for: Option<Text>,
    /// What a user does without where no way holds.
    pub without: Option<Text>,
    /// Whether that one, or one further up, is seen, so that this one is not tried. It may become false as long as
    /// [`Loaded::attach`](crate::Loaded::attach) has not returned.
    pub unneeded: bool,
    /// Where it is attached; `None` before [`Loaded::attach`](crate::Loaded::attach), and where it is not needed or no way held.
    pub taken: Option<Attach>,
    /// The better ways that the kernel refused.
    pub refused: Vec<(Attach, LoadError)>,
}

/// What the kernel counts about a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgStats {
    /// The hook it stands for.
    pub hook: Text,
    /// Its name.
    pub name: String,
    /// Its number in the kernel (`bpftool prog show id`).
    pub id: u32,
    /// Runs, while [`enable_stats`](crate::enable_stats) is held.
    pub run_count: u64,
    /// Nanoseconds in them.
    pub run_time_ns: u64,
    /// Times it was not run because it, or a map operation, was already running on that CPU (kernel 5.12).
    pub missed: u64,
    /// Slots after the verifier's rewriting.
    pub slots: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Instructions the verifier looked at (kernel 5.16).
    pub verified: u32,
}
