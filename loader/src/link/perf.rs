//! kprobes and tracepoints through perf events.
//!
//! By a `bpf_link`, whose close takes the program off and which says how often a kprobe was missed; the event itself, which takes
//! long to close, is left to the kernel, and so is the link where nobody has to wait for it. Before 5.15 by
//! `PERF_EVENT_IOC_SET_BPF`, and the program goes with the event.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bpfasm::Text;

use super::Close;
use crate::errno::Errno;
use crate::kernel::read_small;
use crate::sys::bpf;
use crate::sys::bpf::{LinkCreate, ObjInfo, PerfLinkInfo};
use crate::sys::deferred_close::park;
use crate::sys::perf::{self, Attr};
use crate::tracefs::{self, KprobeEvent};

/// Events with a program on them. Fields are dropped in this order: an event must be closed before its kprobe can go.
#[derive(Debug)]
pub(crate) struct PerfLink {
    links: Vec<OwnedFd>,
    /// Or what they are deferred in.
    events: Vec<OwnedFd>,
    kprobe: Option<KprobeEvent>,
}

/// Where the kprobe PMU has its number (kernel 4.17).
const KPROBE_PMU: &str = "/sys/bus/event_source/devices/kprobe";

impl PerfLink {
    /// Tracepoints by their formatted fields. Closing takes 60 to 80 ms for each where they cannot be deferred ([`park`]), 20 to 40 ms
    /// where they can, and no time where they may be detached later.
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

    /// Entry or return of a kernel function.
    pub(crate) fn kprobe(prog: BorrowedFd<'_>, function: &str, on_return: bool) -> Result<Self, Errno> {
        if let Some((pmu, return_bit)) = kprobe_pmu()? {
            let function = CString::new(function).map_err(|_| Errno::INVAL)?;
            let config = if on_return { 1 << return_bit } else { 0 };
            let event = perf::open(&Attr::kprobe(pmu, config, &function), ANY)?;
            return Self::open(prog, None, vec![event]);
        }
        let root = tracefs::root().ok_or(Errno::NOENT)?;
        let kprobe = KprobeEvent::new(&root, function, on_return)?;
        let id = kprobe.id()?;
        Self::open(prog, Some(kprobe), vec![perf::open(&Attr::tracepoint(id), ANY)?])
    }

    // Where it fails, what came last is dropped first: the events before their kprobe.
    fn open(prog: BorrowedFd<'_>, kprobe: Option<KprobeEvent>, events: Vec<OwnedFd>) -> Result<Self, Errno> {
        let mut links = Vec::with_capacity(events.len());
        for event in &events {
            match bpf(&mut LinkCreate::perf_event(prog, event.as_fd())) {
                Ok(link) => links.push(link),
                // No such link; or whatever is wrong will be wrong again.
                Err(_) => perf::set_bpf(event.as_fd(), prog)?,
            }
            perf::enable(event.as_fd())?;
        }
        Ok(Self { links, events, kprobe })
    }

    /// See [`super::Link::park`].
    pub(crate) fn park(&mut self, close: Close) {
        // Without a link the program goes with the event, and a kprobe of tracefs only after it: then it is closed here.
        if self.links.len() < self.events.len() || self.kprobe.is_some() {
            return;
        }
        let links: &[OwnedFd] = if close == Close::Returns { &self.links } else { &[] };
        let files: Vec<BorrowedFd<'_>> = self.events.iter().chain(links).map(AsFd::as_fd).collect();
        if let Ok(deferred) = park(&files) {
            self.events = vec![deferred];
        }
    }

    /// Times the kprobe was hit and not run, as far as the kernel says (6.7); what became of the program then is counted with
    /// the program.
    pub(crate) fn missed(&self) -> u64 {
        let missed = |link: &OwnedFd| {
            let mut info = PerfLinkInfo::default();
            let asked = bpf(&mut ObjInfo::perf_link(link.as_fd(), &mut info));
            asked.ok().and_then(|()| info.missed()).unwrap_or(0)
        };
        self.links.iter().map(missed).sum()
    }
}

/// The CPU of an event: the program runs on all of them.
const ANY: u32 = 0;

/// Whether there is a way to kprobes; `root` says where tracefs is, if it comes to that. An empty kprobe program loads even where
/// nothing can be attached, so it says nothing.
pub(crate) fn has_kprobes<P: AsRef<Path>>(root: impl FnOnce() -> Option<P>) -> Result<bool, Errno> {
    Ok(Path::new(KPROBE_PMU).try_exists()?
        || root().is_some_and(|root| tracefs::has_kprobe_events(root.as_ref())))
}

/// The PMU's number, and the bit of `config` that makes a return probe; `None` when there is no such PMU.
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
