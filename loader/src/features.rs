//! What the running kernel has, found out by trying.
//!
//! [`probe`] only loads, because detaching a tracepoint makes the next attach wait for an RCU grace period (4 to 15 ms); the
//! real attach decides, and the loader goes on to the next attach option. [`doctor`] attaches.
//!
//! "Yes" and "no" come only from answers that mean it. Anything else is an error, and no feature is lost to it.

use std::borrow::Cow;
use std::ffi::CStr;
use std::os::fd::AsFd;

use bpfasm::{
    Access, Attach, Insn, KernelVersion, MapDef, MapKind, Operand, Program, Refused, Reg, Ring, Target, Width,
};
use btf::{Btf, Index, Wanted};

use crate::errno::Errno;
use crate::error::{Hint, LoadError};
use crate::kernel_btf::is_own;
use crate::link::perf::has_kprobes;
use crate::link::{Close, Link};
use crate::map::Map;
use crate::prog::{LoadOptions, Prepared, Prog};
use crate::relocate::iter_func;
use crate::sys::mmap::page_size;
use crate::{kernel, privileges, tracefs};

/// A probe: what it is called, the first kernel that could say yes, how to ask.
struct Feature {
    name: &'static str,
    since: KernelVersion,
    ask: Ask,
}

/// How to ask.
enum Ask {
    /// Whether such a map is created.
    Map(MapKind),
    /// Whether an empty program for this is loaded, and, by [`doctor`], attached.
    Program(Attach),
    /// Whether there is a way to kprobes, and, by [`doctor`], whether one is attached.
    Kprobe,
}

const fn v(major: u16, minor: u16) -> KernelVersion {
    KernelVersion { major, minor, patch: 0 }
}

/// A tracepoint that every kernel with TCP has (since 4.16).
const TRACEPOINT: &str = "inet_sock_set_state";
/// A function that no kernel inlines everywhere.
const FUNCTION: &str = "tcp_set_state";

const RINGBUF: Feature = Feature { name: "ring buffer", since: v(5, 8), ask: Ask::Map(MapKind::RingBuf) };
const TP_BTF: Feature =
    Feature { name: "tp_btf", since: v(5, 5), ask: Ask::Program(Attach::TpBtf(Cow::Borrowed(TRACEPOINT))) };
const FEXIT: Feature = Feature {
    name: "fentry/fexit (trampolines)",
    since: v(5, 5),
    ask: Ask::Program(Attach::Fexit(Cow::Borrowed(FUNCTION))),
};
const KPROBE: Feature = Feature { name: "kprobe", since: v(4, 1), ask: Ask::Kprobe };

/// Everything [`doctor`] asks, in the order in which it is told.
const FEATURES: [Feature; 8] = [
    TP_BTF,
    Feature { name: "raw_tp", since: v(4, 17), ask: Ask::Program(Attach::RawTp(Cow::Borrowed(TRACEPOINT))) },
    FEXIT,
    KPROBE,
    Feature {
        name: "iter/task_file",
        since: v(5, 8),
        ask: Ask::Program(Attach::Iter(Cow::Borrowed("task_file"))),
    },
    Feature { name: "iter/tcp", since: v(5, 9), ask: Ask::Program(Attach::Iter(Cow::Borrowed("tcp"))) },
    RINGBUF,
    Feature { name: "perf event array", since: v(4, 3), ask: Ask::Map(MapKind::PerfEventArray) },
];

/// One line of [`doctor`].
#[derive(Debug)]
pub struct Report {
    /// The feature.
    pub name: &'static str,
    /// The first kernel that could have it.
    pub since: KernelVersion,
    /// Whether this one has it; why that could not be told.
    pub result: Result<bool, LoadError>,
}

/// What programs may count on here: version, machine, ring, access, trampolines, kprobes.
///
/// `kprobes` and `trampolines` say that the kernel has them; lockdown may still forbid to attach.
pub fn probe(btf: &Btf) -> Result<Target, LoadError> {
    let index = btf.index(&wanted())?;
    let prober = Prober::new(btf, &index, false)?;
    Ok(Target {
        version: prober.version,
        arch: kernel::arch()?,
        access: if prober.has(&TP_BTF)? { Access::Typed } else { Access::Probed },
        ring: if prober.has(&RINGBUF)? { Ring::RingBuf } else { Ring::PerfEventArray },
        trampolines: prober.has(&FEXIT)?,
        kprobes: prober.has(&KPROBE)?,
        refused: Refused::default(),
    })
}

/// Tries everything for real: programs are attached, iterators run. Takes some tens of milliseconds.
pub fn doctor(btf: &Btf) -> Result<Vec<Report>, LoadError> {
    let index = btf.index(&wanted())?;
    let prober = Prober::new(btf, &index, true)?;
    Ok(FEATURES
        .iter()
        .map(|feature| Report { name: feature.name, since: feature.since, result: prober.has(feature) })
        .collect())
}

/// The names that the probes need of BTF.
fn wanted() -> Wanted {
    let wanted = Wanted::new().tracepoint(TRACEPOINT).func(FUNCTION);
    ["task_file", "tcp"].iter().fold(wanted, |wanted, target| wanted.func(&iter_func(target)))
}

struct Prober<'a> {
    index: &'a Index<'a>,
    /// The index is of the running kernel's BTF.
    own: bool,
    version: KernelVersion,
    attach: bool,
    /// The memory limit is in force and could not be lifted.
    memlock: bool,
}

const GPL: &CStr = c"GPL";

impl<'a> Prober<'a> {
    fn new(btf: &Btf, index: &'a Index<'a>, attach: bool) -> Result<Self, LoadError> {
        let version = kernel::version()?;
        let memlock = privileges::charges_memlock(version) && !privileges::lift_memlock();
        Ok(Self { index, own: is_own(btf), version, attach, memlock })
    }

    fn has(&self, feature: &Feature) -> Result<bool, LoadError> {
        let outcome = match &feature.ask {
            Ask::Map(kind) => self.map(*kind),
            Ask::Program(attach) => self.program(attach)?,
            Ask::Kprobe if self.attach => self.program(&Attach::Kprobe(FUNCTION.into()))?,
            Ask::Kprobe => has_kprobes(tracefs::root),
        };
        outcome.or_else(|errno| {
            let hint = Hint::for_errno(errno);
            let missing = matches!(hint, Some(Hint::Capabilities(_)));
            match (errno, &feature.ask) {
                // Known to the kernel as a number that is too high, or as a thing it is built without.
                (Errno::INVAL | Errno::NOTSUPP | Errno::OPNOTSUPP | Errno::NOENT | Errno::NODEV, _) => {
                    Ok(false)
                }
                // With all capabilities EPERM is the kernel's policy: as good as not there. A map it may also be the
                // memory limit for, which is no property of the kernel.
                (Errno::PERM, Ask::Program(_) | Ask::Kprobe) if !missing => Ok(false),
                (Errno::ACCES, Ask::Kprobe) if !missing => Ok(false),
                _ => {
                    let hint = if self.memlock && errno == Errno::PERM && !missing {
                        Some(Hint::Memlock)
                    } else {
                        hint
                    };
                    Err(LoadError::Probe { feature: feature.name, errno, hint })
                }
            }
        })
    }

    fn map(&self, kind: MapKind) -> Result<bool, Errno> {
        let ring = kind == MapKind::RingBuf;
        let (size, max_entries) =
            if ring { (0, u32::try_from(page_size()).map_err(|_| Errno::INVAL)?) } else { (4, 1) };
        let def = MapDef::new("probe", kind, size, size, max_entries);
        Map::create(&def, None, None, kernel::possible_cpus()?).map(|_| true)
    }

    /// The inner error is the kernel's answer, the outer one is about the question.
    fn program(&self, attach: &Attach) -> Result<Result<bool, Errno>, LoadError> {
        let prepared = match Prepared::new("probe", attach, nothing(), self.index, self.own) {
            Ok(prepared) => prepared,
            Err(LoadError::NoTarget { .. } | LoadError::ForeignBtf { .. }) => return Ok(Ok(false)),
            Err(error) => return Err(error),
        };
        let options = LoadOptions {
            license: GPL,
            kern_version: kernel::version_code(self.version),
            debug: None,
            log_level: 0,
        };
        let loaded = Prog::load(&prepared, &prepared.program, &options);
        let tried = loaded.and_then(|prog| {
            if !self.attach {
                return Ok(());
            }
            let mut link = Link::new(prog.as_fd(), attach)?;
            link.park(Close::Waits);
            match link.run_iter() {
                Some(Err(errno)) => Err(LoadError::Attach { attach: attach.clone(), errno, hint: None }),
                _ => Ok(()),
            }
        });
        match tried {
            Ok(()) => Ok(Ok(true)),
            Err(LoadError::Load { errno, .. } | LoadError::Attach { errno, .. }) => Ok(Err(errno)),
            Err(error) => Err(error),
        }
    }
}

/// `r0 = 0; exit;`
pub(crate) fn nothing() -> Program {
    Program {
        insns: vec![Insn::Mov { width: Width::W64, dst: Reg::R0, src: Operand::Imm(0) }, Insn::Exit],
        source: vec![None, None],
        functions: vec![(0, "probe".into())],
        ..Program::default()
    }
}
