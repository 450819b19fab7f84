//! Files that take long to close, left to the kernel to close.
//!
//! The last close of a perf event on a tracepoint or kprobe waits for grace periods of RCU, 60 to 80 ms for each, one after the
//! other, whether the process closes it or ends (`perf_trace_event_unreg` under `event_mutex`). From 6.13 on that of a link on
//! one waits as well, 20 to 40 ms (`perf_event_detach_bpf_prog`); that of a link on a function some 100 ms, on every kernel
//! (`unregister_ftrace_direct`). What an io_uring instance holds in its table of files is closed by a worker of the kernel once
//! the instance is closed, and nobody waits for it.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::libc;

use super::FromRet;
use crate::errno::Errno;

/// `struct io_uring_params` in `include/uapi/linux/io_uring.h`, 120 bytes: all zero asks for nothing in particular.
#[repr(C)]
struct Params([u32; 30]);
const _: () = assert!(size_of::<Params>() == 120);

/// `IORING_REGISTER_FILES`
const REGISTER_FILES: libc::c_long = 2;

/// Puts files into an io_uring instance of their own, which is returned: as long as that is open, so are they. An error where
/// there is no io_uring (before 5.1), or where it is forbidden (sysctl `kernel.io_uring_disabled`, containers).
pub(crate) fn park(files: &[BorrowedFd<'_>]) -> Result<OwnedFd, Errno> {
    let mut params = Params([0; 30]);
    let entries: libc::c_long = 1;
    // SAFETY: the kernel reads and fills the parameters, which are as long as it wants them.
    let ret = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut params) };
    if ret < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the call succeeded and returned a new descriptor.
    let ring = unsafe { OwnedFd::from_ret(ret) }?;
    let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let count = libc::c_long::try_from(files.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads as many descriptors as there are.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            libc::c_long::from(ring.as_raw_fd()),
            REGISTER_FILES,
            files.as_ptr(),
            count,
        )
    };
    if ret < 0 { Err(Errno::last()) } else { Ok(ring) }
}
