//! Filters by container: sets of cgroups or mount namespaces in BPF hash maps that another program
//! has pinned, as in BCC. The sets may change while a tool runs.
//!
//! The current task is tested, so these filters only work for events in process context.

use std::path::PathBuf;

use bpfasm::object::{MapDef, MapKind};
use bpfasm::{Fragment, bpf};

use crate::map;
use crate::stack_layout::SCRATCH;

/// The name of the map of cgroups in our programs.
const CGROUPS: &str = "cgroups";
/// The name of the map of mount namespaces in our programs.
const MOUNT_NAMESPACES: &str = "mount_ns";

/// Bytes of a key of both maps: the inode of a cgroup's directory, or of a mount namespace.
pub const KEY_SIZE: u32 = 8;
/// Bytes of a value of a map of cgroups. Its content does not matter.
pub const CGROUP_VALUE_SIZE: u32 = 8;
/// Bytes of a value of a map of mount namespaces.
pub const MOUNT_NAMESPACE_VALUE_SIZE: u32 = 4;

/// The paths of the maps in a BPF file system.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Containers {
    /// Only tasks in one of these cgroups (version 2) itself, not in a cgroup below it.
    pub cgroups: Option<PathBuf>,
    /// Only tasks in one of these mount namespaces.
    pub mount_namespaces: Option<PathBuf>,
}

impl Containers {
    /// Whether no filter is set, so that every task passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The maps that the object needs.
    #[must_use]
    pub fn maps(&self) -> Vec<MapDef> {
        let map = |name, path: &Option<PathBuf>, value_size| {
            path.clone().map(|path| MapDef {
                pinned: Some(path),
                // Its owner decides on the number of entries, so this one does not matter.
                ..MapDef::new(name, MapKind::Hash, KEY_SIZE, value_size, 1)
            })
        };
        [
            map(CGROUPS, &self.cgroups, CGROUP_VALUE_SIZE),
            map(MOUNT_NAMESPACES, &self.mount_namespaces, MOUNT_NAMESPACE_VALUE_SIZE),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Jumps to `reject` unless the current task is in one of the containers. If its mount
    /// namespace is unknown, the task passes: it has left its namespaces because it is about to
    /// end. Clobbers `r0` to `r5`.
    pub fn current(&self, reject: &'static str) -> Fragment {
        let cgroup = self.cgroups.as_ref().map(|_| {
            bpf! {
                call bpf_get_current_cgroup_id;
                *(u64 *)(r10 + {SCRATCH}) = r0;
                ..member_of(CGROUPS, reject);
            }
        });
        let mount_namespace = self.mount_namespaces.as_ref().map(|_| {
            bpf! {
                call bpf_get_current_task;
                r3 = r0;
                r3 += task_struct.nsproxy;
                ..read("task_struct.nsproxy", "unknown");
                r3 = *(u64 *)(r10 + {SCRATCH});
                r3 += nsproxy.mnt_ns;
                ..read("nsproxy.mnt_ns", "unknown");
                r3 = *(u64 *)(r10 + {SCRATCH});
                *(u64 *)(r10 + {SCRATCH}) = 0;          // the inode has four bytes, the key eight
                r3 += mnt_namespace.ns.inum;
                ..read("mnt_namespace.ns.inum", "unknown");
                ..member_of(MOUNT_NAMESPACES, reject);
            unknown:
            }
        });
        bpf! {
            ..cgroup;
            ..mount_namespace;
        }
    }
}

/// Copies a field at `r3` to the stack, or jumps to `failed`.
fn read(path: &'static str, failed: &'static str) -> Fragment {
    bpf! {
        r1 = r10;
        r1 += {SCRATCH};
        w2 = sizeof({path});
        call bpf_probe_read_kernel;
        if r0 != 0 goto {failed};
    }
}

/// Jumps to `reject` unless the key on the stack is in the map.
fn member_of(set: &'static str, reject: &'static str) -> Fragment {
    bpf! {
        ..map::lookup(set, SCRATCH);
        if r0 == 0 goto {reject};
    }
}
