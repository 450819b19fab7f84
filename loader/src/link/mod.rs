//! Attaching programs. Dropping a [`Link`] detaches.

pub(crate) mod perf;

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bpfasm::Attach;

use crate::errno::Errno;
use crate::error::LoadError;
use crate::hint::Hint;
use crate::sys::bpf;
use crate::sys::deferred_close::defer_close;
use crate::sys::link::{IterCreate, LinkCreate, RawTracepointOpen};

/// An attached program.
#[derive(Debug)]
pub(crate) enum Link {
    /// `raw_tp`, `tp_btf`.
    Tracing(#[expect(dead_code, reason = "kept open: closing it detaches")] OwnedFd),
    /// `fentry`, `fexit`: the link, or the io_uring instance that closes it ([`defer_close`]).
    Function(OwnedFd),
    /// An iterator. It runs when a file made from the link is read.
    Iter(OwnedFd),
    /// A kprobe or tracepoints, through perf events.
    Perf(perf::PerfLink),
}

/// What dropping a link does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Close {
    /// It returns when the program is detached.
    Waits,
    /// If possible it returns at once, and the kernel detaches the program some moments later.
    Returns,
}

impl Link {
    /// Attaches `prog`, which was loaded for `attach`. `owner` names the group of a kprobe that has
    /// to be created in tracefs.
    pub(crate) fn new(prog: BorrowedFd<'_>, attach: &Attach, owner: &str) -> Result<Self, LoadError> {
        let link = match attach {
            Attach::RawTp(name) => raw_tracepoint(prog, Some(name)).map(Self::Tracing),
            // The program was loaded with the BTF id of its attach point.
            Attach::TpBtf(_) => raw_tracepoint(prog, None).map(Self::Tracing),
            Attach::Fentry(_) | Attach::Fexit(_) => raw_tracepoint(prog, None).map(Self::Function),
            Attach::Iter(_) => bpf(&mut LinkCreate::iter(prog)).map(Self::Iter),
            Attach::Kprobe(function) => perf::PerfLink::kprobe(prog, owner, function, false).map(Self::Perf),
            Attach::Kretprobe(function) => {
                perf::PerfLink::kprobe(prog, owner, function, true).map(Self::Perf)
            }
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

    /// Makes the drop of this link behave as `close` says, as far as the kernel can defer it
    /// ([`defer_close`]). Setting that up takes longer than attaching, so it is done when
    /// everything is attached.
    pub(crate) fn defer_close(&mut self, close: Close) {
        match self {
            // Detaching waits for a grace period of RCU tasks (`unregister_ftrace_direct`).
            Self::Function(link) if close == Close::Returns => {
                if let Ok(deferred) = defer_close(&[link.as_fd()]) {
                    *link = deferred;
                }
            }
            Self::Perf(link) => link.defer_close(close),
            Self::Tracing(_) | Self::Function(_) | Self::Iter(_) => {}
        }
    }

    /// The number of times a kprobe was hit but its program was not even called (6.7, else 0). Runs
    /// that the program itself missed are counted with the program.
    pub(crate) fn missed(&self) -> u64 {
        match self {
            Self::Perf(link) => link.missed(),
            Self::Tracing(_) | Self::Function(_) | Self::Iter(_) => 0,
        }
    }

    /// Runs an iterator to its end and returns what its program wrote. `None` for any other link.
    pub(crate) fn run_iter(&self) -> Option<Result<Vec<u8>, Errno>> {
        let Self::Iter(link) = self else { return None };
        Some(bpf(&mut IterCreate::new(link.as_fd())).and_then(|iter| read_iter(iter.into())))
    }
}

/// Reads until a read returns nothing.
fn read_iter(mut iter: File) -> Result<Vec<u8>, Errno> {
    /// Bytes that one read returns at most (`bpf_seq_read`: eight pages).
    const CHUNK: usize = 8 * 4096;
    let mut bytes = Vec::new();
    loop {
        let start = bytes.len();
        bytes.resize(start + CHUNK, 0);
        let chunk = bytes.get_mut(start..).unwrap_or_default();
        let result = iter.read(chunk).map_err(Errno::from);
        bytes.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => return Ok(bytes),
            // EAGAIN: the program wrote nothing for a million objects. The next read continues
            // after them.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `BPF_RAW_TRACEPOINT_OPEN`; without a name for programs that were loaded with a BTF id.
fn raw_tracepoint(prog: BorrowedFd<'_>, name: Option<&str>) -> Result<OwnedFd, Errno> {
    let name = name.map(CString::new).transpose().map_err(|_| Errno::INVAL)?;
    bpf(&mut RawTracepointOpen::new(prog, name.as_deref()))
}
