//! Features of the running kernel, found out by trying.
//!
//! [`probe`] only loads programs, because detaching one from a tracepoint makes the next attach
//! wait for an RCU grace period (4 to 15 ms). Whether a program attaches is decided when the loader
//! attaches it: then it can still choose the next attach option. [`doctor`] attaches.
//!
//! Only answers that mean "yes" or "no" count as such. Any other error is returned, so that for
//! example a missing capability is not mistaken for a missing feature.

use std::ffi::CStr;
use std::os::fd::AsFd;

use bpfasm::{Access, Attach, KernelVersion, MapDef, MapKind, Refused, Ring, Target};
use btf::{Btf, Index, Wanted};

use crate::empty_program::empty_program;
use crate::errno::Errno;
use crate::error::LoadError;
use crate::hint::Hint;
use crate::kernel_btf::is_own;
use crate::link::perf::has_kprobes;
use crate::link::{Close, Link};
use crate::map::Map;
use crate::prog::{LoadOptions, Prepared, Prog};
use crate::relocate::iter_func;
use crate::sys::mmap::page_size;
use crate::{kernel, privileges, tracefs};

/// Attach points of the running kernel to probe with. The caller chooses them, because whether a
/// kernel has them depends on its configuration, not on its BPF features.
#[derive(Clone, Copy, Debug)]
pub struct AttachPoints<'a> {
    /// A tracepoint that every kernel in question has, for `tp_btf` and `raw_tp`.
    pub tracepoint: &'a str,
    /// A function that every kernel in question has and does not inline, for `fexit` and kprobes.
    pub function: &'a str,
    /// Iterators for [`doctor`] to check.
    pub iterators: &'a [IteratorProbe<'a>],
}

/// An iterator to check.
#[derive(Clone, Copy, Debug)]
pub struct IteratorProbe<'a> {
    /// The name in the report: `iter/task_file`.
    pub name: &'static str,
    /// The kernel's name of it: `task_file`.
    pub target: &'a str,
    /// The first kernel that has it.
    pub since: KernelVersion,
}

/// A feature to check.
struct Feature {
    name: &'static str,
    /// The first kernel that can have it.
    since: KernelVersion,
    test: Test,
}

/// How a feature is checked.
enum Test {
    /// A map of this kind can be created.
    Map(MapKind),
    /// An empty program for this attach point can be loaded and, by [`doctor`], attached.
    Program(Attach),
    /// Kprobes exist, and, by [`doctor`], one can be attached to this function.
    Kprobe(String),
}

const fn v(major: u16, minor: u16) -> KernelVersion {
    KernelVersion { major, minor, patch: 0 }
}

fn ring_buffer() -> Feature {
    Feature { name: "ring buffer", since: v(5, 8), test: Test::Map(MapKind::RingBuf) }
}

impl AttachPoints<'_> {
    fn tp_btf(&self) -> Feature {
        let test = Test::Program(Attach::TpBtf(self.tracepoint.to_owned().into()));
        Feature { name: "tp_btf", since: v(5, 5), test }
    }

    fn raw_tp(&self) -> Feature {
        let test = Test::Program(Attach::RawTp(self.tracepoint.to_owned().into()));
        Feature { name: "raw_tp", since: v(4, 17), test }
    }

    fn fexit(&self) -> Feature {
        let test = Test::Program(Attach::Fexit(self.function.to_owned().into()));
        Feature { name: "fentry/fexit (trampolines)", since: v(5, 5), test }
    }

    fn kprobe(&self) -> Feature {
        Feature { name: "kprobe", since: v(4, 1), test: Test::Kprobe(self.function.to_owned()) }
    }

    /// All that [`doctor`] checks, in the order of its report.
    fn features(&self) -> Vec<Feature> {
        let mut features = vec![self.tp_btf(), self.raw_tp(), self.fexit(), self.kprobe()];
        features.extend(self.iterators.iter().map(|iterator| Feature {
            name: iterator.name,
            since: iterator.since,
            test: Test::Program(Attach::Iter(iterator.target.to_owned().into())),
        }));
        features.push(ring_buffer());
        let perf = Test::Map(MapKind::PerfEventArray);
        features.push(Feature { name: "perf event array", since: v(4, 3), test: perf });
        features
    }

    /// The names that the probes look up in BTF.
    fn wanted(&self) -> Wanted {
        let wanted = Wanted::new().tracepoint(self.tracepoint).func(self.function);
        self.iterators.iter().fold(wanted, |wanted, iterator| wanted.func(&iter_func(iterator.target)))
    }
}

/// The result of one of [`doctor`]'s checks.
#[derive(Debug)]
pub struct Report {
    /// The feature, as messages name it.
    pub name: &'static str,
    /// The first kernel that can have it.
    pub since: KernelVersion,
    /// Whether this kernel has it, or why that is unknown.
    pub result: Result<bool, LoadError>,
}

/// Describes the running kernel to those who write programs for it: version, machine, event buffer,
/// memory access, trampolines, kprobes.
///
/// `kprobes` and `trampolines` say that the kernel has them. Lockdown may still forbid to attach.
///
/// # Errors
/// If a name in `points` is ambiguous in `btf`, or if the kernel's answer is neither yes nor no,
/// for example because of missing capabilities.
pub fn probe(btf: &Btf, points: &AttachPoints<'_>) -> Result<Target, LoadError> {
    let index = btf.index(&points.wanted())?;
    let prober = Prober::new(btf, &index, false)?;
    Ok(Target {
        version: prober.version,
        arch: kernel::arch()?,
        access: if prober.has(&points.tp_btf())? { Access::Typed } else { Access::Probed },
        ring: if prober.has(&ring_buffer())? { Ring::RingBuf } else { Ring::PerfEventArray },
        trampolines: prober.has(&points.fexit())?,
        kprobes: prober.has(&points.kprobe())?,
        refused: Refused::default(),
    })
}

/// Checks every feature by using it: programs are attached, iterators run. Takes some tens of
/// milliseconds.
///
/// # Errors
/// If the kernel cannot be identified or `btf` cannot be read. A feature that cannot be checked has
/// its error in its [`Report`].
pub fn doctor(btf: &Btf, points: &AttachPoints<'_>) -> Result<Vec<Report>, LoadError> {
    let index = btf.index(&points.wanted())?;
    let prober = Prober::new(btf, &index, true)?;
    Ok(points
        .features()
        .iter()
        .map(|feature| Report { name: feature.name, since: feature.since, result: prober.has(feature) })
        .collect())
}

struct Prober<'a> {
    index: &'a Index<'a>,
    /// Whether the index is of the running kernel's own BTF.
    own: bool,
    version: KernelVersion,
    /// Whether to attach what was loaded.
    attach: bool,
    /// Maps are charged to a limit that the process could not raise.
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
        let outcome = match &feature.test {
            Test::Map(kind) => self.map(*kind),
            Test::Program(attach) => self.program(attach)?,
            Test::Kprobe(function) if self.attach => {
                self.program(&Attach::Kprobe(function.clone().into()))?
            }
            Test::Kprobe(_) => has_kprobes(tracefs::root),
        };
        outcome.or_else(|errno| {
            let hint = Hint::for_errno(errno);
            let missing = matches!(hint, Some(Hint::Capabilities(_)));
            match (errno, &feature.test) {
                // The kernel does not know the number, or is built without the feature.
                (Errno::INVAL | Errno::NOTSUPP | Errno::OPNOTSUPP | Errno::NOENT | Errno::NODEV, _) => {
                    Ok(false)
                }
                // If no capability is missing, EPERM is a policy, and the feature cannot be used.
                // But for a map the cause may also be the memory limit, which says nothing about
                // the kernel.
                (Errno::PERM, Test::Program(_) | Test::Kprobe(_)) if !missing => Ok(false),
                (Errno::ACCES, Test::Kprobe(_)) if !missing => Ok(false),
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

    /// Loads an empty program, and attaches it if this prober does that. The inner error is the
    /// kernel's answer, the outer one a failure of the check itself.
    fn program(&self, attach: &Attach) -> Result<Result<bool, Errno>, LoadError> {
        let prepared = match Prepared::new("probe", attach, empty_program("probe"), self.index, self.own) {
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
            let mut link = Link::new(prog.as_fd(), attach, "probe")?;
            link.defer_close(Close::Waits);
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
