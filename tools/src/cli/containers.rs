//! `--cgroupmap` and `--mntnsmap`: BPF hash maps pinned by another program, whose keys are the
//! cgroups or mount namespaces to show.

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

/// The maps that these options name.
pub fn read(matches: &ArgMatches) -> Containers {
    Containers {
        cgroups: matches.get_one("cgroupmap").cloned(),
        mount_namespaces: matches.get_one("mntnsmap").cloned(),
    }
}

/// Checks, before anything is attached, that the maps exist and have keys and values of the right
/// size.
///
/// # Errors
///
/// One line on what is wrong with them.
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
