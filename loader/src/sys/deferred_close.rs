//! Closing files without waiting: the kernel closes them in the background.
//!
//! The last close of some files waits for grace periods of RCU, whether the process closes the file
//! or exits:
//!
//! | file | wait | since | where in the kernel |
//! |---|---|---|---|
//! | perf event on a tracepoint, kprobe | 60 to 80 ms each | always | `perf_trace_event_unreg` |
//! | link to such an event | 20 to 40 ms each | 6.13 | `perf_event_detach_bpf_prog` |
//! | link to a function (`fentry`, `fexit`) | about 100 ms | always | `unregister_ftrace_direct` |
//!
//! Closing several perf events takes the sum, because the kernel waits under `event_mutex`.
//!
//! An io_uring instance can hold files in its table of registered files. When the instance is
//! closed, a kernel worker closes these files, and the process does not wait for it.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::libc;

use super::FromRet;
use crate::errno::Errno;

/// `struct io_uring_params` in `include/uapi/linux/io_uring.h`, 120 bytes. All zero requests no
/// optional feature.
#[repr(C)]
struct Params([u32; 30]);
const _: () = assert!(size_of::<Params>() == 120);

/// `IORING_REGISTER_FILES`
const REGISTER_FILES: libc::c_long = 2;

/// Registers files with a new io_uring instance. The caller closes its own descriptors and keeps
/// the returned one: the files stay open until that is closed, and that close does not wait.
///
/// # Errors
/// If the kernel has no io_uring (before 5.1), or forbids it (sysctl `kernel.io_uring_disabled`,
/// containers).
pub(crate) fn defer_close(files: &[BorrowedFd<'_>]) -> Result<OwnedFd, Errno> {
    let mut params = Params([0; 30]);
    let entries: libc::c_long = 1;
    // SAFETY: the kernel reads and writes the parameters, which have the size of its struct.
    let ret = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut params) };
    if ret < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the call succeeded and returned a new descriptor.
    let ring = unsafe { OwnedFd::from_ret(ret) }?;
    let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let count = libc::c_long::try_from(files.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads `count` descriptors from `files`, which has that many.
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
