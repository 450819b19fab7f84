//! File systems and modules. Not the network: every test brings up the loopback device of a namespace of its own.

use std::ffi::CStr;
use std::fs::{self, File};

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

use crate::config::Config;

/// Type and place of what every machine has.
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

/// What a host has that lets its users trace, and a container often lacks.
const TRACING: &[(&str, &str)] = &[("tracefs", "/sys/kernel/tracing"), ("debugfs", "/sys/kernel/debug")];

/// Mounts what the variant asks for.
pub fn mounts(config: &Config) -> Result<(), String> {
    let tracing = if config.tracefs { TRACING } else { &[] };
    for (kind, place) in MOUNTS.iter().chain(tracing) {
        fs::create_dir_all(place).map_err(|e| format!("mkdir {place}: {e}"))?;
        mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), None::<&str>)
            .map_err(|errno| format!("mount {kind} on {place}: {errno}"))?;
    }
    Ok(())
}

/// `finit_module(2)` of a file in `/modules`; the kernel unpacks it if it is compressed.
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
