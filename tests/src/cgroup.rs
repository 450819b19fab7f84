//! Cgroups of a test's own, in the hierarchy of version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where cgroup2 is mounted, if it is.
pub(crate) fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        // Device, directory, type, options.
        let mut words = line.split(' ').skip(1);
        let (directory, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(directory))
    })
}

/// A new cgroup, gone when dropped: processes that are still in it go to the root.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one directly below the root.
    ///
    /// # Panics
    /// When cgroup2 is not mounted (see [`crate::gate::Feature::Cgroup2`]) or the kernel refuses.
    #[must_use]
    #[track_caller]
    #[allow(clippy::new_without_default)] // a default that touches the host would surprise
    pub fn new() -> Self {
        Self::make(&mount().expect("cgroup2 is mounted"))
    }

    /// Makes one in this one, to be dropped before it.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    #[track_caller]
    pub fn inner(&self) -> Self {
        Self::make(&self.0)
    }

    #[track_caller]
    fn make(parent: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kernel-tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        Self(path)
    }

    /// Its directory.
    ///
    /// # Panics
    /// When the path of the mount is not text.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.to_str().expect("a path of ASCII")
    }

    /// Moves a process into it. Sockets that the process has already stay where they were made.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn take(&self, pid: u32) {
        move_to(&self.0, &pid.to_string()).unwrap_or_else(|e| panic!("{pid} into {}: {e}", self.0.display()));
    }
}

fn move_to(cgroup: &Path, pid: &str) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), pid)
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let (Some(root), Ok(left)) = (mount(), fs::read_to_string(self.0.join("cgroup.procs"))) {
            for pid in left.lines() {
                // Fails only when the process is gone by now.
                let _ = move_to(&root, pid);
            }
        }
        if let Err(e) = fs::remove_dir(&self.0) {
            eprintln!("rmdir {}: {e}", self.0.display());
        }
    }
}
