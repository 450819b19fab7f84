//! What this host offers and allows.

use std::fs;
use std::path::Path;

use bpfasm::target::KernelVersion;
use btf::Btf;
use loader::features::Report;
use loader::{Capability, LoadError, kernel};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::utsname::uname;

use crate::host::attach_points::ATTACH_POINTS;
use crate::host::kallsyms;

/// The settings in `/proc/sys/kernel` that decide who may trace.
const SETTINGS: [&str; 3] = ["perf_event_paranoid", "unprivileged_bpf_disabled", "kptr_restrict"];

/// The findings on the host.
pub(super) struct Host {
    /// `uname -r`
    pub(super) release: String,
    /// The kernel's version. A distribution's release can name another one.
    pub(super) version: Option<String>,
    /// `uname -m`
    pub(super) arch: String,
    pub(super) lockdown: Option<String>,
    /// Those of the capabilities that tcptools uses which this process has; `None` if that is
    /// unknown.
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) memlock: Memlock,
    /// `None` if the kernel does not have the setting, or does not show it.
    pub(super) settings: [(&'static str, Option<i64>); 3],
    pub(super) types: Result<Types, LoadError>,
    /// Whether this kernel runs no BPF programs in PID 1 ([`loader::spares_init`]).
    pub(super) spares_init: Option<bool>,
    pub(super) tracefs: Option<String>,
    /// Why kernel functions have no names here.
    pub(super) nameless: Option<String>,
    pub(super) features: Result<Vec<Report>, LoadError>,
}

/// Where the kernel's types are read from.
pub(super) struct Types {
    pub(super) path: String,
    pub(super) bytes: usize,
}

/// The limit on locked memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memlock {
    /// Maps are not charged (since 5.11).
    Uncharged,
    /// Maps are charged, without a limit.
    Unlimited,
    /// Maps are charged, up to this many bytes. CAP_SYS_RESOURCE lifts the limit.
    Bytes(u64),
}

impl Host {
    pub(super) fn examine(btf: Option<&Path>) -> Self {
        let version = kernel::version().ok();
        // Read first, because loading a program lifts it.
        let memlock = memlock(version);
        let kernel_btf = loader::kernel_btf(btf);
        let uname = uname().ok();
        let shown = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let (types, spares_init, features) = match kernel_btf {
            Ok(btf) => (Ok(Types::of(&btf)), loader::spares_init(&btf), loader::doctor(&btf, &ATTACH_POINTS)),
            Err(error) => (Err(error), None, Ok(Vec::new())),
        };
        Self {
            release: shown(uname.as_ref().map(nix::sys::utsname::UtsName::release)),
            arch: shown(uname.as_ref().map(nix::sys::utsname::UtsName::machine)),
            version: version.map(|KernelVersion { major, minor, patch }| format!("{major}.{minor}.{patch}")),
            lockdown: kernel::lockdown(),
            capabilities: Capability::effective().map(|held| held.iter().map(ToString::to_string).collect()),
            memlock,
            settings: SETTINGS.map(|name| (name, setting(name))),
            types,
            spares_init,
            tracefs: loader::tracefs().map(|path| path.display().to_string()),
            nameless: kallsyms::check().err().map(|why| why.to_string()),
            features,
        }
    }
}

impl Types {
    fn of(btf: &Btf) -> Self {
        let path = btf.path().map_or_else(String::new, |path| path.display().to_string());
        Self { path, bytes: btf.data().len() }
    }
}

fn memlock(version: Option<KernelVersion>) -> Memlock {
    if !version.is_some_and(loader::charges_memlock) {
        return Memlock::Uncharged;
    }
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft != RLIM_INFINITY => Memlock::Bytes(soft),
        _ => Memlock::Unlimited,
    }
}

fn setting(name: &str) -> Option<i64> {
    fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?.trim().parse().ok()
}
