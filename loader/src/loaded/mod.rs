//! An object in the kernel: maps, programs, links.

mod confine;
mod fallback;
mod maps;
mod report;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use bpfasm::{Detach, Object, Refused};
use btf::{Btf, Index};

pub use self::confine::Confined;
use self::fallback::{Active, HookState, prepare};
use self::maps::Maps;
pub use self::report::{HookReport, Note, ProgStats};
use crate::debug::{DebugInfo, ProgramInfo};
use crate::errno::Errno;
use crate::error::LoadError;
use crate::host::Host;
use crate::kernel_btf::is_own;
use crate::link::Link;
use crate::map::{Map, Update};
use crate::prog::load_btf;
use crate::quirks::Quirks;
use crate::relocate::wanted;
use crate::ring::Events;
use crate::sys::bpf;
use crate::sys::info::EnableStats;
use crate::{kernel, privileges};

/// Settings with which objects are loaded; [`Loader::load`] does it.
#[derive(Clone, Debug)]
pub struct Loader<'b> {
    btf: &'b Btf,
    host: Host,
    log_level: u32,
    perf_bytes: usize,
}

/// Bytes of each CPU's perf buffer unless the caller chooses another size.
const PERF_BYTES: usize = 256 << 10;

impl<'b> Loader<'b> {
    /// A loader for the running kernel, whose types are in `btf` ([`crate::kernel_btf`]).
    #[must_use]
    pub fn new(btf: &'b Btf) -> Self {
        Self { btf, host: Host::default(), log_level: 0, perf_bytes: PERF_BYTES }
    }

    /// The kinds of attach points that this host refuses, so that no program needs to be written
    /// for them.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.host.refused()
    }

    /// The verifier's `log_level` for programs that load, see [`Loaded::logs`]: 4 gives statistics,
    /// 2 every instruction. The log of a program that does not load is always in its error.
    #[must_use]
    pub fn verifier_log(mut self, level: u32) -> Self {
        self.log_level = level;
        self
    }

    /// The size in bytes of each CPU's perf buffer, rounded up to a power of two of pages. The
    /// default is 256 KiB. Ring buffers have their size in the object.
    #[must_use]
    pub fn perf_buffer(mut self, bytes: usize) -> Self {
        self.perf_bytes = bytes;
        self
    }

    /// Loads, for each hook that is needed, the first attach option that the kernel accepts, and
    /// creates the maps it uses. Attaches nothing.
    ///
    /// # Errors
    /// If every attach option of a required hook is refused, if a map cannot be created (whether or
    /// not its hook is required), or if the object or the BTF is wrong in itself.
    pub fn load(&self, object: &Object) -> Result<Loaded, LoadError> {
        self.load_indexed(object, &self.btf.index(&wanted(object))?)
    }

    /// As [`Loader::load`], with an index that has at least the names of [`crate::relocate::want`].
    /// It saves a second pass over the BTF if the caller looks up names of its own.
    ///
    /// # Errors
    /// As [`Loader::load`].
    pub fn load_indexed(&self, object: &Object, index: &Index<'_>) -> Result<Loaded, LoadError> {
        let version = kernel::version()?;
        let mut notes = Vec::new();
        let stuck = privileges::charges_memlock(version) && !privileges::lift_memlock();
        if stuck {
            notes.push(Note::Memlock);
        }
        let quirks = Quirks::of(index);
        if quirks.spares_init {
            notes.push(Note::SparesInit);
        }
        let hooks = prepare(object, index, is_own(self.btf), &self.host)?;
        let license = CString::new(&*object.license)
            .map_err(|_| LoadError::Program { program: object.name.to_string(), errno: Errno::INVAL })?;
        let usable: Vec<usize> = hooks.iter().flat_map(HookState::usable).collect();
        let debug = DebugInfo::new(object, |number| usable.contains(&number));
        let debug = debug.map_err(|error| notes.push(Note::DebugInfo(error))).ok();
        let btf = debug
            .as_ref()
            .and_then(|debug| load_btf(&debug.bytes).map_err(|errno| notes.push(Note::Btf(errno))).ok());
        let maps = Maps::new(object, debug.as_ref(), stuck, quirks.grows)?;
        let reports = object.hooks.iter().map(|hook| HookReport {
            hook: hook.name.clone(),
            need: hook.need,
            fallback_for: hook.fallback_for.clone(),
            without: hook.without.clone(),
            unneeded: false,
            taken: None,
            refused: Vec::new(),
        });
        let mut loaded = Loaded {
            name: object.name.to_string(),
            reports: reports.collect(),
            hooks,
            maps,
            btf,
            programs: debug.map(|debug| debug.programs).unwrap_or_default(),
            notes,
            license,
            kern_version: kernel::version_code(version),
            log_level: self.log_level,
            perf_bytes: self.perf_bytes,
            detached_missed: 0,
        };
        for at in 0..loaded.hooks.len() {
            loaded.load_hook(at)?;
        }
        Ok(loaded)
    }
}

/// An object in the kernel. Dropping it detaches and closes everything, except [`Events`] that were
/// opened from it.
#[derive(Debug)]
pub struct Loaded {
    /// The object's name.
    name: String,
    reports: Vec<HookReport>,
    /// In the order of `reports`.
    hooks: Vec<HookState>,
    maps: Maps,
    /// The object's BTF, for attach options that are loaded later.
    btf: Option<OwnedFd>,
    programs: Vec<ProgramInfo>,
    notes: Vec<Note>,
    license: CString,
    kern_version: u32,
    log_level: u32,
    perf_bytes: usize,
    /// The counts of links that are detached now.
    detached_missed: u64,
}

impl Loaded {
    /// A map by its name in the object.
    ///
    /// # Errors
    /// [`LoadError::NoMap`] if the object does not define it, [`LoadError::UnusedMap`] if no
    /// program loaded so far uses it, so that it was not created.
    pub fn map(&self, name: &str) -> Result<&Map, LoadError> {
        self.maps.get(name)
    }

    /// Whether the object defines the map and a loaded program uses it.
    #[must_use]
    pub fn has_map(&self, name: &str) -> bool {
        self.maps.get(name).is_ok()
    }

    /// The maps that were created, in the object's order. Pinned maps are not among them.
    pub fn maps(&self) -> impl Iterator<Item = &Map> {
        self.maps.created()
    }

    /// Opens the reader of an event buffer, which is a ring buffer or a perf event array.
    ///
    /// A ring buffer keeps events that were sent before it was opened. A perf event array has no
    /// memory of its own: opening allocates a buffer for each CPU that is online now. So open it
    /// before [`Loaded::attach`], or the first events are lost. On a CPU that comes online later,
    /// programs find no buffer, and their events are lost.
    ///
    /// # Errors
    /// If the map does not exist or is of another kind, or if the kernel refuses the memory.
    pub fn events(&self, map: &str) -> Result<Events, LoadError> {
        Events::open(self.map(map)?, self.perf_bytes)
    }

    /// Attaches every hook that is needed, in the object's order. If the kernel refuses, the hook's
    /// next attach option is loaded and attached. Then creates the inner maps of arrays of maps.
    ///
    /// # Errors
    /// If every attach option of a required hook is refused, or a map cannot be created. Hooks that
    /// were attached before stay attached until `self` is dropped.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        for at in 0..self.hooks.len() {
            self.attach_hook(at)?;
        }
        self.hooks.iter_mut().for_each(HookState::defer_close);
        self.maps.create_inner(self.btf.as_ref().map(AsFd::as_fd), &mut self.notes)
    }

    /// A report on each hook, in the object's order.
    #[must_use]
    pub fn hooks(&self) -> &[HookReport] {
        &self.reports
    }

    /// What did not work but was not a reason to stop.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Each program's name and verifier log; the logs are empty unless [`Loader::verifier_log`]
    /// asked for them.
    pub fn logs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.active().map(|(_, active)| (active.prog.name.as_str(), active.prog.log.as_str()))
    }

    fn active(&self) -> impl Iterator<Item = (&HookReport, &Active)> {
        self.reports
            .iter()
            .zip(&self.hooks)
            .filter_map(|(report, hook)| hook.active.as_ref().map(|active| (report, active)))
    }

    fn active_of(&self, hook: &str) -> Option<&Active> {
        self.active().find(|(report, _)| report.hook == hook).map(|(_, active)| active)
    }

    /// Runs an iterator to its end and returns what its program wrote. `None` if the hook is not
    /// attached: it is optional and was refused, or it is unneeded. Call it after
    /// [`Loaded::attach`].
    ///
    /// # Errors
    /// If the object has no such hook, or it is not an iterator, or the kernel stops it.
    pub fn run_iter(&self, hook: &str) -> Result<Option<Vec<u8>>, LoadError> {
        let known = self.reports.iter().any(|report| report.hook == hook);
        let link = self.active_of(hook).and_then(|active| active.link.as_ref());
        match link.map(Link::run_iter) {
            Some(Some(Ok(bytes))) => Ok(Some(bytes)),
            Some(Some(Err(errno))) => Err(LoadError::Iter { hook: hook.to_owned(), errno }),
            None if known => Ok(None),
            Some(None) | None => Err(LoadError::NoHook { hook: hook.to_owned() }),
        }
    }

    /// The kernel's statistics of each program.
    ///
    /// # Errors
    /// If the kernel refuses to describe a program.
    pub fn stats(&self) -> Result<Vec<ProgStats>, LoadError> {
        self.active()
            .map(|(report, active)| {
                let info = active.prog.info()?;
                Ok(ProgStats {
                    hook: report.hook.clone(),
                    name: active.prog.name.clone(),
                    id: info.id,
                    run_count: info.run_cnt,
                    run_time_ns: info.run_time_ns,
                    missed: info.recursion_misses,
                    slots: info.xlated_prog_len / 8,
                    jited_bytes: info.jited_prog_len,
                    verified: info.verified_insns,
                })
            })
            .collect()
    }

    /// The number of runs that the kernel skipped, of all programs together. `None` before 5.12,
    /// which does not count them. Those of kprobes and of system call tracepoints are included
    /// since 6.7. Runs skipped while a kprobe is being detached may be missing.
    ///
    /// # Errors
    /// If the kernel refuses to describe a program.
    pub fn missed(&self) -> Result<Option<u64>, LoadError> {
        /// The first kernel with `recursion_misses` in `struct bpf_prog_info`, as
        /// `LINUX_VERSION_CODE`.
        const COUNTED_SINCE: u32 = 5 << 16 | 12 << 8;
        if self.kern_version < COUNTED_SINCE {
            return Ok(None);
        }
        let programs = self.stats()?.iter().map(|stats| stats.missed).sum::<u64>();
        Ok(Some(programs + self.detached_missed + self.links_missed()))
    }

    fn links_missed(&self) -> u64 {
        self.active().filter_map(|(_, active)| active.link.as_ref()).map(Link::missed).sum()
    }

    /// Runs the program of a raw tracepoint hook once with these arguments (kernel 5.10), on `cpu`
    /// if one is given, and returns its return value. For tests, which need an event at a certain
    /// moment.
    ///
    /// # Errors
    /// If no such hook is loaded, or the kernel cannot run it.
    #[doc(alias = "BPF_PROG_TEST_RUN")]
    pub fn test_run(&self, hook: &str, args: &[u64], cpu: Option<u32>) -> Result<u32, LoadError> {
        let active = self.active_of(hook).ok_or_else(|| LoadError::NoHook { hook: hook.to_owned() })?;
        active.prog.test_run(args, cpu)
    }

    /// Detaches every hook, as its [`Detach`] says: some may run for a moment longer, but send no
    /// more events. Maps and programs stay, so counters can still be read.
    ///
    /// A run ends in this order: detach, drain the events once more, read maps and counters. What
    /// programs sent before they were detached is in the event buffer, and nothing can be added to
    /// it, so that drain is complete. Reading counters before it would count events that no drain
    /// returned.
    pub fn detach(&mut self) {
        // Closing a link loses its count.
        self.detached_missed += self.links_missed();
        for hook in &mut self.hooks {
            let Some(active) = &mut hook.active else { continue };
            if let Detach::StoppedBy(map) = &hook.detach
                && let Ok(map) = self.maps.get(map)
            {
                // Index 0 of an array always exists, so this cannot fail for the kind of map that
                // `StoppedBy` names.
                let _ = map.update(&[0; 4], &STOPPED.to_ne_bytes(), Update::Any);
            }
            active.link = None;
        }
    }
}

/// The value that stops programs, see [`Detach::StoppedBy`].
const STOPPED: u32 = 1;

/// The kernel counts runs and run times of all programs until this is dropped.
#[derive(Debug)]
pub struct StatsGuard {
    _fd: OwnedFd,
}

/// Makes the kernel count runs and run times of all programs (kernel 5.8). That costs some ten
/// nanoseconds per run.
///
/// # Errors
/// If the kernel does not support it or the process lacks CAP_SYS_ADMIN.
#[doc(alias = "BPF_ENABLE_STATS")]
pub fn enable_stats() -> Result<StatsGuard, Errno> {
    bpf(&mut EnableStats { stats_type: 0 }).map(|fd| StatsGuard { _fd: fd })
}
