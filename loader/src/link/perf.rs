//! kprobes and tracepoints through perf events.
//!
//! A program is attached to an event by a `bpf_link` (5.15). Closing the link detaches the program,
//! and the link counts how often a kprobe was missed. Closing the event takes long, so that is left
//! to the kernel, and so is closing the link if its owner does not need to wait for it.
//!
//! Before 5.15 a program is attached by `PERF_EVENT_IOC_SET_BPF` and stays until the event is
//! closed.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bpfasm::Text;

use super::Close;
use crate::errno::Errno;
use crate::kernel::read_small;
use crate::sys::bpf;
use crate::sys::deferred_close::defer_close;
use crate::sys::info::{ObjInfo, PerfLinkInfo};
use crate::sys::link::LinkCreate;
use crate::sys::perf::{self, Attr};
use crate::tracefs::{self, KprobeEvent};

/// Perf events with a program attached. The order of the fields matters, because they are dropped
/// in it: an event must be closed before its kprobe can be removed.
#[derive(Debug)]
pub(crate) struct PerfLink {
    links: Vec<OwnedFd>,
    /// The events, or the io_uring instance that closes them ([`defer_close`]).
    events: Vec<OwnedFd>,
    kprobe: Option<KprobeEvent>,
}

/// The directory that describes the kprobe PMU (kernel 4.17).
const KPROBE_PMU: &str = "/sys/bus/event_source/devices/kprobe";

impl PerfLink {
    /// Attaches to tracepoints, whose fields the program reads in their formatted layout.
    ///
    /// Closing takes 60 to 80 ms for each tracepoint if it cannot be deferred ([`defer_close`]), 20
    /// to 40 ms if only the event is deferred, and no time if the link is deferred too.
    pub(crate) fn tracepoints(prog: BorrowedFd<'_>, category: &str, names: &[Text]) -> Result<Self, Errno> {
        if names.is_empty() {
            return Err(Errno::INVAL);
        }
        let root = tracefs::root().ok_or(Errno::NOENT)?;
        let event = |name: &Text| {
            let id = tracefs::event_id(&root, category, name)?;
            perf::open(&Attr::tracepoint(id), ANY)
        };
        Self::open(prog, None, names.iter().map(event).collect::<Result<_, _>>()?)
    }

    /// Attaches to the entry or the return of a kernel function. `owner` names the group of a
    /// kprobe that has to be created in tracefs.
    pub(crate) fn kprobe(
        prog: BorrowedFd<'_>,
        owner: &str,
        function: &str,
        on_return: bool,
    ) -> Result<Self, Errno> {
        if let Some((pmu, return_bit)) = kprobe_pmu()? {
            let function = CString::new(function).map_err(|_| Errno::INVAL)?;
            let config = if on_return { 1 << return_bit } else { 0 };
            let event = perf::open(&Attr::kprobe(pmu, config, &function), ANY)?;
            return Self::open(prog, None, vec![event]);
        }
        let root = tracefs::root().ok_or(Errno::NOENT)?;
        let kprobe = KprobeEvent::new(&root, owner, function, on_return)?;
        let id = kprobe.id()?;
        Self::open(prog, Some(kprobe), vec![perf::open(&Attr::tracepoint(id), ANY)?])
    }

    // On failure parameters are dropped in reverse order: the events before their kprobe.
    fn open(prog: BorrowedFd<'_>, kprobe: Option<KprobeEvent>, events: Vec<OwnedFd>) -> Result<Self, Errno> {
        let mut links = Vec::with_capacity(events.len());
        for event in &events {
            match bpf(&mut LinkCreate::perf_event(prog, event.as_fd())) {
                Ok(link) => links.push(link),
                // The kernel has no such link, or the next call fails for the same reason.
                Err(_) => perf::set_bpf(event.as_fd(), prog)?,
            }
            perf::enable(event.as_fd())?;
        }
        Ok(Self { links, events, kprobe })
    }

    /// See [`super::Link::defer_close`].
    pub(crate) fn defer_close(&mut self, close: Close) {
        // Without a link, closing the event detaches the program, which must not be deferred. The
        // same goes for the event on a kprobe of tracefs, which can only be removed afterwards.
        if self.links.len() < self.events.len() || self.kprobe.is_some() {
            return;
        }
        let links: &[OwnedFd] = if close == Close::Returns { &self.links } else { &[] };
        let files: Vec<BorrowedFd<'_>> = self.events.iter().chain(links).map(AsFd::as_fd).collect();
        if let Ok(deferred) = defer_close(&files) {
            self.events = vec![deferred];
        }
    }

    /// See [`super::Link::missed`].
    pub(crate) fn missed(&self) -> u64 {
        let missed = |link: &OwnedFd| {
            let mut info = PerfLinkInfo::default();
            let asked = bpf(&mut ObjInfo::perf_link(link.as_fd(), &mut info));
            asked.ok().and_then(|()| info.missed()).unwrap_or(0)
        };
        self.links.iter().map(missed).sum()
    }
}

/// The CPU of an event. It does not matter: the program runs on all of them.
const ANY: u32 = 0;

/// Whether kprobes can be created, by the PMU or in tracefs. `root` returns where tracefs is
/// mounted; it is only called if there is no PMU. Loading an empty kprobe program would not answer
/// the question: that also succeeds on a kernel without kprobes.
pub(crate) fn has_kprobes<P: AsRef<Path>>(root: impl FnOnce() -> Option<P>) -> Result<bool, Errno> {
    Ok(Path::new(KPROBE_PMU).try_exists()?
        || root().is_some_and(|root| tracefs::has_kprobe_events(root.as_ref())))
}

/// The type number of the kprobe PMU, and the bit of `config` that makes a return probe. `None` if
/// there is no such PMU.
pub(crate) fn kprobe_pmu() -> Result<Option<(u32, u32)>, Errno> {
    let dir = Path::new(KPROBE_PMU);
    let pmu = match read_small(&dir.join("type")) {
        Ok(text) => text.trim().parse().map_err(|_| Errno::INVAL)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // "config:0"
    let format = read_small(&dir.join("format/retprobe"))?;
    let bit: u32 =
        format.trim().strip_prefix("config:").and_then(|bit| bit.parse().ok()).ok_or(Errno::INVAL)?;
    if bit < 64 { Ok(Some((pmu, bit))) } else { Err(Errno::INVAL) }
}
