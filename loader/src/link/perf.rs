//! kprobes and tracepoints through perf events.
//!
//! `PERF_EVENT_IOC_SET_BPF` and not a `bpf_link`, which perf events have had only since 5.15: one way for all kernels.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::errno::Errno;
use crate::sys::perf::{self, Attr};
use crate::tracefs::{self, KprobeEvent};

/// An event with a program on it. Fields are dropped in this order: an event must be closed before its kprobe can go.
#[derive(Debug)]
pub(crate) struct PerfLink {
    _event: OwnedFd,
    _kprobe: Option<KprobeEvent>,
}

/// Where the kprobe PMU has its number (kernel 4.17).
pub(crate) const KPROBE_PMU: &str = "/sys/bus/event_source/devices/kprobe";

impl PerfLink {
    /// A tracepoint by its formatted fields. Closing it takes 60 to 80 ms: the kernel waits for an RCU tasks grace period.
    pub(crate) fn tracepoint(prog: BorrowedFd<'_>, category: &str, name: &str) -> Result<Self, Errno> {
        let root = tracefs::root().ok_or(Errno::NOENT)?;
        Self::open(prog, &Attr::tracepoint(tracefs::event_id(&root, category, name)?), None)
    }

    /// Entry or return of a kernel function.
    pub(crate) fn kprobe(prog: BorrowedFd<'_>, function: &str, on_return: bool) -> Result<Self, Errno> {
        if let Some((pmu, return_bit)) = kprobe_pmu()? {
            let function = CString::new(function).map_err(|_| Errno::INVAL)?;
            let config = if on_return { 1 << return_bit } else { 0 };
            return Self::open(prog, &Attr::kprobe(pmu, config, &function), None);
        }
        let root = tracefs::root().ok_or(Errno::NOENT)?;
        let kprobe = KprobeEvent::new(&root, function, on_return)?;
        let id = kprobe.id()?;
        Self::open(prog, &Attr::tracepoint(id), Some(kprobe))
    }

    fn open(prog: BorrowedFd<'_>, attr: &Attr<'_>, kprobe: Option<KprobeEvent>) -> Result<Self, Errno> {
        // On any CPU: the program runs on all of them.
        let event = perf::open(attr, 0)?;
        perf::set_bpf_and_enable(event.as_fd(), prog)?;
        Ok(Self { _event: event, _kprobe: kprobe })
    }
}

/// The PMU's number, and the bit of `config` that makes a return probe; `None` when there is no such PMU.
pub(crate) fn kprobe_pmu() -> Result<Option<(u32, u32)>, Errno> {
    let dir = Path::new(KPROBE_PMU);
    let pmu = match std::fs::read_to_string(dir.join("type")) {
        Ok(text) => text.trim().parse().map_err(|_| Errno::INVAL)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // "config:0"
    let format = std::fs::read_to_string(dir.join("format/retprobe"))?;
    let bit: u32 =
        format.trim().strip_prefix("config:").and_then(|bit| bit.parse().ok()).ok_or(Errno::INVAL)?;
    if bit < 64 { Ok(Some((pmu, bit))) } else { Err(Errno::INVAL) }
}
