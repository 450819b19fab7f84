//! Mounts file systems and loads modules. The network needs no setup, because every test makes its
//! own namespace.

use std::ffi::CStr;
use std::fs::{self, File};

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

use crate::config::Config;

/// Types and mount points of the file systems that every machine has.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("securityfs", "/sys/kernel/security"),
];

/// The tracing file systems, which a container often lacks.
const TRACING: &[(&str, &str)] = &[("tracefs", "/sys/kernel/tracing"), ("debugfs", "/sys/kernel/debug")];

/// Mounts the file systems of the variant.
pub fn mounts(config: &Config) -> Result<(), String> {
    let tracing = if config.tracefs { TRACING } else { &[] };
    for (kind, place) in MOUNTS.iter().chain(tracing) {
        fs::create_dir_all(place).map_err(|e| format!("mkdir {place}: {e}"))?;
        mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), None::<&str>)
            .map_err(|errno| format!("mount {kind} on {place}: {errno}"))?;
    }
    Ok(())
}

/// Loads a module from `/modules` with `finit_module(2)`. The kernel decompresses it if necessary.
pub fn load_module(name: &str) -> Result<(), String> {
    // MODULE_INIT_COMPRESSED_FILE, include/uapi/linux/module.h (Linux 5.17).
    const COMPRESSED_FILE: u32 = 4;
    const NO_PARAMETERS: &CStr = c"";
    let path = format!("/modules/{name}");
    let file = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
    let flags = if name.ends_with(".ko") {
        ModuleInitFlags::empty()
    } else {
        ModuleInitFlags::from_bits_retain(COMPRESSED_FILE)
    };
    finit_module(&file, NO_PARAMETERS, flags).map_err(|errno| format!("finit_module {name}: {errno}"))
}
