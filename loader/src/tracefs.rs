//! tracefs: numbers of tracepoints, and kprobes for kernels without their PMU (before 4.17).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::errno::Errno;
use crate::kernel::read_small;

/// Where it is, if it is mounted.
#[must_use]
pub fn root() -> Option<PathBuf> {
    // The second one mounts itself when looked at, where debugfs is.
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.join("events").is_dir())
        .map(Path::to_owned)
}

/// Whether kprobes can be made there.
pub(crate) fn has_kprobe_events(root: &Path) -> bool {
    root.join(KPROBE_EVENTS).exists()
}

/// The file that makes them.
const KPROBE_EVENTS: &str = "kprobe_events";

/// The number perf knows a tracepoint by.
pub(crate) fn event_id(root: &Path, category: &str, name: &str) -> Result<u64, Errno> {
    let text = read_small(&root.join("events").join(category).join(name).join("id"))?;
    text.trim().parse().map_err(|_| Errno::INVAL)
}

/// A kprobe made by name, removed on drop.
#[derive(Debug)]
pub(crate) struct KprobeEvent {
    root: PathBuf,
    name: String,
    /// `kprobe_events`, kept open: at the end the process may open nothing.
    commands: File,
}

/// The category of our kprobes.
const GROUP: &str = "tcptools";
/// Makes names unique within the process; the process's number does the rest.
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl KprobeEvent {
    /// `p:group/name function`, or `r:` for a return probe. For it to go, the perf event on it must be closed first.
    pub(crate) fn new(root: &Path, function: &str, on_return: bool) -> Result<Self, Errno> {
        if !function.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
            return Err(Errno::INVAL);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("p{}_{number}", std::process::id());
        let kind = if on_return { 'r' } else { 'p' };
        let mut commands = OpenOptions::new().append(true).open(root.join(KPROBE_EVENTS))?;
        // One write is one command.
        commands.write_all(format!("{kind}:{GROUP}/{name} {function}").as_bytes())?;
        Ok(Self { root: root.to_owned(), name, commands })
    }

    pub(crate) fn id(&self) -> Result<u64, Errno> {
        event_id(&self.root, GROUP, &self.name)
    }
}

impl Drop for KprobeEvent {
    fn drop(&mut self) {
        // Nobody is left to tell; the probe would only be idle.
        let _ = self.commands.write_all(format!("-:{GROUP}/{}", self.name).as_bytes());
    }
}
