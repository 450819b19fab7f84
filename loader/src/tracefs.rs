//! tracefs: ids of tracepoints, and kprobes for kernels that have no kprobe PMU (before 4.17).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::errno::Errno;
use crate::kernel::read_small;

/// The directory where tracefs is mounted, if it is.
#[must_use]
pub fn root() -> Option<PathBuf> {
    // If debugfs is mounted, looking at the second directory mounts tracefs there.
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.join("events").is_dir())
        .map(Path::to_owned)
}

/// Whether kprobes can be created in this tracefs.
pub(crate) fn has_kprobe_events(root: &Path) -> bool {
    root.join(KPROBE_EVENTS).exists()
}

/// A line written to this file creates or removes a kprobe.
const KPROBE_EVENTS: &str = "kprobe_events";

/// The id of a tracepoint, which `perf_event_open(2)` takes.
pub(crate) fn event_id(root: &Path, category: &str, name: &str) -> Result<u64, Errno> {
    let text = read_small(&root.join("events").join(category).join(name).join("id"))?;
    text.trim().parse().map_err(|_| Errno::INVAL)
}

/// A kprobe created in tracefs, removed on drop.
#[derive(Debug)]
pub(crate) struct KprobeEvent {
    root: PathBuf,
    group: String,
    name: String,
    /// `kprobe_events`, kept open: a confined process cannot open it to remove the kprobe.
    commands: File,
}

/// Makes names unique within the process; the process id makes them unique on the host.
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl KprobeEvent {
    /// Creates `group/pPID_N` at the entry of a function, or at its return. `owner` names the
    /// group, so that an administrator sees whose kprobe it is; characters that tracefs refuses
    /// become `_`.
    ///
    /// The perf event on the kprobe must be closed before it can be removed.
    pub(crate) fn new(root: &Path, owner: &str, function: &str, on_return: bool) -> Result<Self, Errno> {
        if !function.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
            return Err(Errno::INVAL);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = group(owner);
        let name = format!("p{}_{number}", std::process::id());
        let kind = if on_return { 'r' } else { 'p' };
        let mut commands = OpenOptions::new().append(true).open(root.join(KPROBE_EVENTS))?;
        // tracefs reads one command per write.
        commands.write_all(format!("{kind}:{group}/{name} {function}").as_bytes())?;
        Ok(Self { root: root.to_owned(), group, name, commands })
    }

    /// The id for `perf_event_open(2)`.
    pub(crate) fn id(&self) -> Result<u64, Errno> {
        event_id(&self.root, &self.group, &self.name)
    }
}

impl Drop for KprobeEvent {
    fn drop(&mut self) {
        // A drop cannot report an error. A kprobe that stays is idle.
        let _ = self.commands.write_all(format!("-:{}/{}", self.group, self.name).as_bytes());
    }
}

/// A name that tracefs accepts for a group: a C identifier of at most 63 characters.
fn group(owner: &str) -> String {
    let mut group: String =
        owner.chars().take(62).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !group.starts_with(|c: char| c.is_ascii_alphabetic()) {
        group.insert(0, '_');
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_c_identifiers() {
        for (owner, expected) in [("tcplife", "tcplife"), ("a-b c/é", "a_b_c__"), ("7up", "_7up"), ("", "_")]
        {
            assert_eq!(group(owner), expected);
        }
        assert_eq!(group(&"x".repeat(100)).len(), 62);
    }
}
