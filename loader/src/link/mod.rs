//! Attaching. Dropping a [`Link`] detaches.

pub(crate) mod perf;

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bpfasm::Attach;

use crate::errno::Errno;
use crate::error::{Hint, LoadError};
use crate::sys::bpf;
use crate::sys::bpf::{IterCreate, LinkCreate, RawTracepointOpen};
use crate::sys::deferred_close::park;

/// A program that runs when its moment comes.
#[derive(Debug)]
pub(crate) enum Link {
    /// `raw_tp`, `tp_btf`.
    Tracing(#[expect(dead_code, reason = "held: closing it detaches")] OwnedFd),
    /// `fentry`, `fexit`; or what that is deferred in.
    Function(OwnedFd),
    /// An iterator, which runs when it is read.
    Iter(OwnedFd),
    /// A kprobe or tracepoints.
    Perf(perf::PerfLink),
}

/// What the drop of a link does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Close {
    /// It waits until the program is detached.
    Waits,
    /// It returns at once where it can, and the kernel detaches some moments later.
    Returns,
}

impl Link {
    /// Attaches `prog`, which was loaded for `attach`.
    pub(crate) fn new(prog: BorrowedFd<'_>, attach: &Attach) -> Result<Self, LoadError> {
        let link = match attach {
            Attach::RawTp(name) => raw_tracepoint(prog, Some(name)).map(Self::Tracing),
            // The program knows where it belongs: by its attach_btf_id.
            Attach::TpBtf(_) => raw_tracepoint(prog, None).map(Self::Tracing),
            Attach::Fentry(_) | Attach::Fexit(_) => raw_tracepoint(prog, None).map(Self::Function),
            Attach::Iter(_) => bpf(&mut LinkCreate::iter(prog)).map(Self::Iter),
            Attach::Kprobe(function) => perf::PerfLink::kprobe(prog, function, false).map(Self::Perf),
            Attach::Kretprobe(function) => perf::PerfLink::kprobe(prog, function, true).map(Self::Perf),
            Attach::Tracepoints(category, names) => {
                perf::PerfLink::tracepoints(prog, category, names).map(Self::Perf)
            }
            _ => Err(Errno::INVAL),
        };
        link.map_err(|errno| {
            let hint = Hint::for_errno(errno);
            LoadError::Attach { attach: attach.clone(), errno, hint }
        })
    }

    /// Makes its drop do what `close` says, as far as it can be deferred ([`park`]). That takes longer than to attach a link, so it is
    /// done when everything is attached.
    pub(crate) fn park(&mut self, close: Close) {
        match self {
            // To take it off waits for a grace period of RCU tasks (`unregister_ftrace_direct`).
            Self::Function(link) if close == Close::Returns => {
                if let Ok(deferred) = park(&[link.as_fd()]) {
                    *link = deferred;
                }
            }
            Self::Perf(link) => link.park(close),
            Self::Tracing(_) | Self::Function(_) | Self::Iter(_) => {}
        }
    }

    /// Times its moment came and the program was not even asked to run, as far as the kernel tells.
    pub(crate) fn missed(&self) -> u64 {
        match self {
            Self::Perf(link) => link.missed(),
            Self::Tracing(_) | Self::Function(_) | Self::Iter(_) => 0,
        }
    }

    /// Runs an iterator to its end; what it wrote. `None` for any other link.
    pub(crate) fn run_iter(&self) -> Option<Result<Vec<u8>, Errno>> {
        let Self::Iter(link) = self else { return None };
        Some(bpf(&mut IterCreate::new(link.as_fd())).and_then(|iter| read_iter(iter.into())))
    }
}

/// Reads to the end, which is an empty read.
fn read_iter(mut iter: File) -> Result<Vec<u8>, Errno> {
    /// What the kernel fills at most at once (`bpf_seq_read`: eight pages).
    const CHUNK: usize = 8 * 4096;
    let mut bytes = Vec::new();
    loop {
        let start = bytes.len();
        bytes.resize(start + CHUNK, 0);
        let room = bytes.get_mut(start..).unwrap_or_default();
        let result = iter.read(room).map_err(Errno::from);
        bytes.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => return Ok(bytes),
            // EAGAIN: a million objects went by without a word; the next read goes on behind them.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `BPF_RAW_TRACEPOINT_OPEN`
fn raw_tracepoint(prog: BorrowedFd<'_>, name: Option<&str>) -> Result<OwnedFd, Errno> {
    let name = name.map(CString::new).transpose().map_err(|_| Errno::INVAL)?;
    bpf(&mut RawTracepointOpen::new(prog, name.as_deref()))
}
