//! Links: `BPF_RAW_TRACEPOINT_OPEN`, `BPF_LINK_CREATE`, and the iterators that run through one.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::prog::AttachType;
use super::ptr::{UserFd, UserPtr};
use super::{Command, layout};

/// `BPF_RAW_TRACEPOINT_OPEN`: attaches to a raw tracepoint by name. Programs for `tp_btf`, `fentry`
/// and `fexit` were loaded with the BTF id of their target, so they need no name.
#[repr(C)]
pub(crate) struct RawTracepointOpen<'a> {
    name: UserPtr<'a>,
    prog_fd: UserFd<'a>,
    pad: u32,
}
layout!(RawTracepointOpen<'_>, size 16, prog_fd at 8);

// SAFETY: the layout is checked above, and the name is a borrowed C string.
unsafe impl Command for RawTracepointOpen<'_> {
    const CMD: u32 = 17;
    type Out = OwnedFd;
}

impl<'a> RawTracepointOpen<'a> {
    pub(crate) fn new(prog: BorrowedFd<'a>, name: Option<&'a CStr>) -> Self {
        Self { name: name.map_or(UserPtr::NULL, UserPtr::c_str), prog_fd: UserFd::new(prog), pad: 0 }
    }
}

/// `BPF_LINK_CREATE`, for iterators and perf events.
#[repr(C)]
pub(crate) struct LinkCreate<'a> {
    prog_fd: UserFd<'a>,
    target_fd: UserFd<'a>,
    attach_type: u32,
    flags: u32,
}
layout!(LinkCreate<'_>, size 16, attach_type at 8);

// SAFETY: the layout is checked above, and it has no address.
unsafe impl Command for LinkCreate<'_> {
    const CMD: u32 = 28;
    type Out = OwnedFd;
}

impl<'a> LinkCreate<'a> {
    /// A link to an iterator, which needs no target.
    pub(crate) fn iter(prog: BorrowedFd<'a>) -> Self {
        Self {
            prog_fd: UserFd::new(prog),
            target_fd: UserFd::NONE,
            attach_type: AttachType::TraceIter as u32,
            flags: 0,
        }
    }

    /// A link to a perf event (kernel 5.15).
    pub(crate) fn perf_event(prog: BorrowedFd<'a>, event: BorrowedFd<'a>) -> Self {
        Self { target_fd: UserFd::new(event), attach_type: AttachType::PerfEvent as u32, ..Self::iter(prog) }
    }
}

/// `BPF_ITER_CREATE`: a file that runs an iterator when it is read.
#[repr(C)]
pub(crate) struct IterCreate<'a> {
    link_fd: UserFd<'a>,
    flags: u32,
}
layout!(IterCreate<'_>, size 8, flags at 4);

// SAFETY: the layout is checked above, and it has no address.
unsafe impl Command for IterCreate<'_> {
    const CMD: u32 = 33;
    type Out = OwnedFd;
}

impl<'a> IterCreate<'a> {
    pub(crate) fn new(link: BorrowedFd<'a>) -> Self {
        Self { link_fd: UserFd::new(link), flags: 0 }
    }
}
