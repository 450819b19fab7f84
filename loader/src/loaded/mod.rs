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
use crate::sys::bpf::EnableStats;
use crate::{kernel, privileges};

/// Loads objects. Plain settings; the work is in [`Loader::load`].
#[derive(Clone, Debug)]
pub struct Loader<'b> {
    btf: &'b Btf,
    host: Host,
    log_level: u32,
    perf_bytes: usize,
}

/// What every ring of ours is, unless the tool says otherwise: 256 KiB for each CPU.
const PERF_BYTES: usize = 256 << 10;

impl<'b> Loader<'b> {
    /// With the types of the kernel that runs, from [`crate::kernel_btf`].
    #[must_use]
    pub fn new(btf: &'b Btf) -> Self {
        Self { btf, host: Host::default(), log_level: 0, perf_bytes: PERF_BYTES }
    }

    /// What no program need be written for on this host.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.host.refused()
    }

    /// The verifier's `log_level` for programs that load; see [`Loaded::logs`]. 4 gives statistics, 2 every instruction.
    /// A program that does not load is always logged.
    #[must_use]
    pub fn verifier_log(mut self, level: u32) -> Self {
        self.log_level = level;
        self
    }

    /// Bytes of each CPU's buffer, where events travel in perf buffers; rounded up to a power of two of pages.
    #[must_use]
    pub fn perf_buffer(mut self, bytes: usize) -> Self {
        self.perf_bytes = bytes;
        self
    }

    /// Loads, for each hook that is needed, the first attach option that the kernel takes, with the maps it uses. Attaches nothing.
    ///
    /// A map is created when the first program that uses it is about to be loaded. That this fails is an error whether or
    /// not the hook is required.
    pub fn load(&self, object: &Object) -> Result<Loaded, LoadError> {
        self.load_indexed(object, &self.btf.index(&wanted(object))?)
    }

    /// As [`Loader::load`], with an index of at least the names of [`crate::relocate::want`].
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
        let open: Vec<usize> = hooks.iter().flat_map(HookState::open).collect();
        let debug = DebugInfo::new(object, |number| open.contains(&number));
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

/// An object in the kernel. Dropping it detaches and closes everything, except [`Events`] that were opened from it.
#[derive(Debug)]
pub struct Loaded {
    reports: Vec<HookReport>,
    /// As `reports`.
    hooks: Vec<HookState>,
    maps: Maps,
    /// The object's BTF, needed when another attach option is loaded.
    btf: Option<OwnedFd>,
    programs: Vec<ProgramInfo>,
    notes: Vec<Note>,
    license: CString,
    kern_version: u32,
    log_level: u32,
    perf_bytes: usize,
    /// What links counted that are detached now.
    detached_missed: u64,
}

impl Loaded {
    /// A map by its name in the object.
    ///
    /// # Errors
    /// [`LoadError::UnusedMap`] for a map that no program loaded so far uses, which was therefore not created.
    pub fn map(&self, name: &str) -> Result<&Map, LoadError> {
        self.maps.get(name)
    }

    /// Whether the object has the map, and a program that was loaded uses it.
    #[must_use]
    pub fn has_map(&self, name: &str) -> bool {
        self.maps.get(name).is_ok()
    }

    /// The maps that were created, in the object's order.
    pub fn maps(&self) -> impl Iterator<Item = &Map> {
        self.maps.created()
    }

    /// Opens the ring of a map, whichever kind it is.
    ///
    /// A ring buffer keeps what comes before. A perf event array has no memory of its own: it gets a buffer for each CPU that is
    /// online now, which has to be done before [`Loaded::attach`], or the first events are lost. On a CPU that comes later,
    /// programs find no buffer, and count that as lost.
    pub fn events(&self, map: &str) -> Result<Events, LoadError> {
        Events::open(self.map(map)?, self.perf_bytes)
    }

    /// Attaches every hook that is needed, in order, going down its attach options where the kernel refuses. Then creates what may be put
    /// into arrays of maps.
    ///
    /// # Errors
    /// When no attach option of a required hook that is needed holds. What was attached stays so until `self` is dropped.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        for at in 0..self.hooks.len() {
            self.attach_hook(at)?;
        }
        self.hooks.iter_mut().for_each(HookState::park);
        self.maps.create_inner(self.btf.as_ref().map(AsFd::as_fd), &mut self.notes)
    }

    /// Which way each hook took, in the object's order.
    #[must_use]
    pub fn hooks(&self) -> &[HookReport] {
        &self.reports
    }

    /// What did not work and was no reason to stop.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The verifier's logs by program, where [`Loader::verifier_log`] asked for them.
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

    /// Runs an iterator to its end; what its program wrote. `None` when the hook is optional and the kernel has no way to it,
    /// and when it is not needed. To be called after [`Loaded::attach`].
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

    /// What the kernel counts about each program.
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

    /// Runs that the kernel skipped, of all programs; `None` before 5.12, which does not count them. Those of kprobes and of system
    /// calls' tracepoints are among them from 6.7 on. What is skipped while a kprobe is being detached may not be.
    pub fn missed(&self) -> Result<Option<u64>, LoadError> {
        /// `recursion_misses` in `struct bpf_prog_info`, as `LINUX_VERSION_CODE`.
        const COUNTED: u32 = 5 << 16 | 12 << 8;
        if self.kern_version < COUNTED {
            return Ok(None);
        }
        let programs = self.stats()?.iter().map(|stats| stats.missed).sum::<u64>();
        Ok(Some(programs + self.detached_missed + self.links_missed()))
    }

    fn links_missed(&self) -> u64 {
        self.active().filter_map(|(_, active)| active.link.as_ref()).map(Link::missed).sum()
    }

    /// Runs the program of a raw tracepoint hook once with these arguments (kernel 5.10), on `cpu` if one is given; what it
    /// returned. For tests: events come exactly when asked for.
    #[doc(alias = "BPF_PROG_TEST_RUN")]
    pub fn test_run(&self, hook: &str, args: &[u64], cpu: Option<u32>) -> Result<u32, LoadError> {
        let active = self.active_of(hook).ok_or_else(|| LoadError::NoHook { hook: hook.to_owned() })?;
        active.prog.test_run(args, cpu)
    }

    /// Detaches every hook, or makes sure that nothing comes from it any more ([`Detach`]); maps and programs stay. A drain after
    /// this is the last one that can find anything.
    pub fn detach(&mut self) {
        // A link's own count goes with it.
        self.detached_missed += self.links_missed();
        for hook in &mut self.hooks {
            let Some(active) = &mut hook.active else { continue };
            if let Detach::StoppedBy(map) = &hook.detach
                && let Ok(map) = self.maps.get(map)
            {
                // An array takes any value at 0. A map of another kind is not one that its programs look into.
                let _ = map.update(&[0; 4], &STOPPED.to_ne_bytes(), Update::Any);
            }
            active.link = None;
        }
    }
}

/// See [`Detach::StoppedBy`].
const STOPPED: u32 = 1;

/// Counting of runs and run times, for as long as it is held.
#[derive(Debug)]
pub struct StatsGuard {
    _fd: OwnedFd,
}

/// Makes the kernel count runs and run times of all programs (kernel 5.8), which costs each run some ten nanoseconds.
#[doc(alias = "BPF_ENABLE_STATS")]
pub fn enable_stats() -> Result<StatsGuard, Errno> {
    bpf(&mut EnableStats { stats_type: 0 }).map(|fd| StatsGuard { _fd: fd })
}
