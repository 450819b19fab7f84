//! A private mount namespace, for tests that mount file systems or replace well-known files.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Moves this process into a mount namespace of its own. Its mounts are not seen outside.
#[track_caller]
pub fn enter_new() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make mounts private");
}

/// Mounts tracefs where libbpf looks for it. tcptools does not need it there, libbpf-tools do.
#[track_caller]
pub fn mount_tracefs() {
    const TRACEFS: &str = "/sys/kernel/tracing";
    if !Path::new(TRACEFS).join("events").exists() {
        match mount(Some("nodev"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>) {
            // It is mounted already, and empty because of a lockdown.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => panic!("mount tracefs: {errno}"),
        }
    }
}

/// Mounts an empty file system on a directory.
#[track_caller]
pub fn mount_empty(directory: &str) {
    mount_over(directory, "tmpfs");
}

/// Mounts an empty BPF file system on a directory.
#[track_caller]
pub fn mount_bpf(directory: &str) {
    mount_over(directory, "bpf");
}

/// Mounts a file on another file, which then reads like the first.
#[track_caller]
pub fn mount_file(file: &Path, over: &str) {
    mount(Some(file), over, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap_or_else(|e| panic!("mount {} on {over}: {e}", file.display()));
}

#[track_caller]
fn mount_over(directory: &str, kind: &str) {
    mount(Some("nodev"), directory, Some(kind), MsFlags::empty(), None::<&str>)
        .unwrap_or_else(|e| panic!("mount a {kind} on {directory}: {e}"));
}
