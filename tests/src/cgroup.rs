//! Cgroups (version 2) that a test makes and that end with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where cgroup2 is mounted; `None` if it is not.
pub(crate) fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        // Device, directory, type, options.
        let mut words = line.split(' ').skip(1);
        let (directory, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(directory))
    })
}

/// A new cgroup, deleted on drop. Processes that are still in it move to the root.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes a cgroup below the root.
    ///
    /// # Panics
    /// If cgroup2 is not mounted (see [`crate::requirements::Feature::Cgroup2`]) or the kernel
    /// refuses.
    #[must_use]
    #[track_caller]
    #[allow(clippy::new_without_default)] // a default that touches the host would surprise
    pub fn new() -> Self {
        Self::make(&mount().expect("cgroup2 is mounted"))
    }

    /// Makes a cgroup in this one. Drop it first.
    ///
    /// # Panics
    /// If the kernel refuses.
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

    /// The directory of the cgroup.
    ///
    /// # Panics
    /// If the path of the mount is not text.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.to_str().expect("a path of ASCII")
    }

    /// Moves a process into the cgroup. Sockets that the process has already made stay in their
    /// cgroup.
    ///
    /// # Panics
    /// If the kernel refuses.
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
                // Fails only if the process has ended.
                let _ = move_to(&root, pid);
            }
        }
        if let Err(e) = fs::remove_dir(&self.0) {
            eprintln!("rmdir {}: {e}", self.0.display());
        }
    }
}
