//! A description of the kernel that programs are assembled for, as plain data.

use std::fmt;

use crate::object::Attach;

/// A kernel's version, as `LINUX_VERSION_CODE` counts it. Versions compare in their order of
/// release.
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

/// The machine that programs run on. Programs depend on it only for facts that BTF does not
/// contain, such as system call numbers and the registers of `struct pt_regs`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Arch {
    X86_64,
    Aarch64,
}

/// How a program reads kernel memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// By loads. In `tp_btf`, `fentry` and `iter` programs the verifier knows the type of a
    /// pointer, so reading a field takes one instruction (since Linux 5.5).
    Typed,
    /// By calls of `bpf_probe_read_kernel`, one for each field. In `raw_tp` and `kprobe` programs
    /// an address is a plain number.
    Probed,
}

/// How programs send events to user space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ring {
    /// Through one `BPF_MAP_TYPE_RINGBUF` for all CPUs (since Linux 5.8).
    RingBuf,
    /// Through a `BPF_MAP_TYPE_PERF_EVENT_ARRAY`, with one buffer for each CPU.
    PerfEventArray,
}

/// What programs can rely on. A loader fills it in for the running kernel; to assemble programs for
/// another kernel, write it by hand.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// The kernel's version, for display and for what BTF cannot tell. Whether a struct, member or
    /// function exists is decided by the kernel's BTF, not by its version.
    pub version: KernelVersion,
    /// The machine that the kernel runs on.
    pub arch: Arch,
    /// How programs at tracepoints read kernel memory.
    pub access: Access,
    /// How programs send events.
    pub ring: Ring,
    /// Whether `fentry` and `fexit` programs can be attached; they need a BPF trampoline.
    pub trampolines: bool,
    /// Whether `kprobe` and `kretprobe` programs can be attached.
    pub kprobes: bool,
    /// Kinds of attach points that this host refuses although its kernel has them.
    pub refused: Refused,
}

/// Kinds of attach points that a host refuses whatever the program is, for example because of its
/// lockdown or because tracefs is not mounted. Hooks list their attach options of these kinds
/// nevertheless, with an empty program, so that a loader can say why they are not used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Refused {
    /// `fentry` and `fexit` are refused.
    pub trampolines: bool,
    /// `kprobe` and `kretprobe` are refused.
    pub kprobes: bool,
    /// Tracepoints through perf are refused.
    pub tracepoints: bool,
}

impl Refused {
    /// Whether the host refuses this attach point.
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
