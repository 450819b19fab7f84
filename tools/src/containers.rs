//! Which containers a command line asks for, by maps that somebody else has pinned.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, value_parser};
use programs::containers::{CGROUP_VALUE_SIZE, Containers, KEY_SIZE, MOUNT_NAMESPACE_VALUE_SIZE};

use crate::failure::Failure;

/// `--cgroupmap` and `--mntnsmap`, for tools whose events happen in process context.
pub fn args() -> [Arg; 2] {
    let path =
        |id, help| Arg::new(id).long(id).value_name("PATH").value_parser(value_parser!(PathBuf)).help(help);
    [
        path("cgroupmap", "Only processes whose cgroup is in this pinned BPF map"),
        path("mntnsmap", "Only processes whose mount namespace is in this pinned BPF map"),
    ]
}

/// What of that is asked for.
pub fn read(matches: &ArgMatches) -> Containers {
    Containers {
        cgroups: matches.get_one("cgroupmap").cloned(),
        mount_namespaces: matches.get_one("mntnsmap").cloned(),
    }
}

/// Whether the maps are there, and are such maps; to be asked before anything is attached.
///
/// # Errors
///
/// One line on what stands there instead.
pub fn check(containers: &Containers) -> Result<(), Failure> {
    let check = |option, path: Option<&PathBuf>, value_size| {
        let Some(path) = path else { return Ok(()) };
        match loader::check_pinned(path, KEY_SIZE, &[value_size]) {
            Ok(_) => Ok(()),
            Err(error) if error.is_unprivileged() => Err(Failure::failed(error)),
            Err(error) => Err(Failure::Usage(format!("--{option} {error}"))),
        }
    };
    check("cgroupmap", containers.cgroups.as_ref(), CGROUP_VALUE_SIZE)?;
    check("mntnsmap", containers.mount_namespaces.as_ref(), MOUNT_NAMESPACE_VALUE_SIZE)
}
