//! The kernel a program is written for, as plain data.

use std::fmt;

use crate::object::Attach;

/// A kernel's version, as `uname` and `LINUX_VERSION_CODE` count it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KernelVersion {
    /// 6 of 6.12.107.
    pub major: u16,
    /// 12 of 6.12.107.
    pub minor: u16,
    /// 107 of 6.12.107.
    pub patch: u16,
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A machine the programs run on. Programs differ by it only in what BTF cannot say (system call numbers, registers).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Arch {
    X86_64,
    Aarch64,
}

/// How a program reads kernel memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// `tp_btf`, `fentry`, `iter`: the verifier knows the pointer's type, a field is one load (kernel 5.5).
    Typed,
    /// `raw_tp`, `kprobe`: addresses are numbers, a field is a `bpf_probe_read_kernel`.
    Probed,
}

/// How events travel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ring {
    /// One `BPF_MAP_TYPE_RINGBUF` for all CPUs (kernel 5.8).
    RingBuf,
    /// A `BPF_MAP_TYPE_PERF_EVENT_ARRAY`, a buffer for each CPU.
    PerfEventArray,
}

/// What a program may count on. `loader` fills it from the running kernel; a test or `--target` writes it by hand.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// For duties of old kernels and for display; what a kernel has is asked of its BTF, not of its number.
    pub version: KernelVersion,
    /// The machine.
    pub arch: Arch,
    /// How fields are read at the main hooks.
    pub access: Access,
    /// How events are sent.
    pub ring: Ring,
    /// `fentry`/`fexit` attach here (they need a BPF trampoline).
    pub trampolines: bool,
    /// `kprobe`/`kretprobe` attach here.
    pub kprobes: bool,
    /// What is known to be refused here, although a kernel like this has it.
    pub refused: Refused,
}

/// Kinds of attach points that the host at hand refuses, whatever the program is. Hooks name their attach options there nevertheless, so
/// that the loader can say why they do not hold, but write no program for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Refused {
    /// `fentry` and `fexit`.
    pub trampolines: bool,
    /// `kprobe` and `kretprobe`.
    pub kprobes: bool,
    /// Tracepoints through perf.
    pub tracepoints: bool,
}

impl Refused {
    /// Whether it is refused to attach there.
    #[must_use]
    pub fn refuses(self, attach: &Attach) -> bool {
        match attach {
            Attach::Fentry(_) | Attach::Fexit(_) => self.trampolines,
            Attach::Kprobe(_) | Attach::Kretprobe(_) => self.kprobes,
            Attach::Tracepoints(..) => self.tracepoints,
            Attach::TpBtf(_) | Attach::RawTp(_) | Attach::Iter(_) => false,
        }
    }
}
