//! A private mount namespace, for what a test has to mount or to put in a well-known place.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Moves this process into a mount namespace of its own, from which nothing comes back.
#[track_caller]
pub fn enter_new() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make mounts private");
}

/// Mounts tracefs where libbpf looks for it. Our own tools do without; those of others do not.
#[track_caller]
pub fn mount_tracefs() {
    const TRACEFS: &str = "/sys/kernel/tracing";
    if !Path::new(TRACEFS).join("events").exists() {
        match mount(Some("nodev"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>) {
            // It is there, and a lockdown has left it empty.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => panic!("mount tracefs: {errno}"),
        }
    }
}

/// Puts an empty file system over a directory that exists.
#[track_caller]
pub fn mount_empty(directory: &str) {
    mount_over(directory, "tmpfs");
}

/// Puts a BPF file system, with nothing pinned in it, over a directory that exists.
#[track_caller]
pub fn mount_bpf(directory: &str) {
    mount_over(directory, "bpf");
}

/// Puts a file over another that exists, for whoever opens that one.
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
