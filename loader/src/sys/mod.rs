//! The kernel's side of the crate: the only place that makes raw system calls or touches mapped memory.
//!
//! Every function here is safe to call. What the kernel reads or writes is borrowed for as long as it may ([`ptr::UserPtr`]),
//! lengths travel with their slices, and file descriptors are owned ([`OwnedFd`]) or borrowed ([`UserFd`]).

pub(crate) mod bpf;
pub(crate) mod deferred_close;
pub(crate) mod map;
pub(crate) mod mmap;
pub(crate) mod perf;
pub(crate) mod ptr;
pub(crate) mod rights;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc::{self, c_long};

use crate::errno::Errno;

/// One command of `bpf(2)`: the part of `union bpf_attr` it uses.
///
/// # Safety
///
/// `Self` is `repr(C)`, laid out as the kernel's `union bpf_attr` is for `CMD`, without padding. Each address in it is valid
/// for what the command reads or writes there, for as long as `Self` lives. `Out` is what the command's return value means.
pub(crate) unsafe trait Command {
    /// Its number, `enum bpf_cmd`.
    const CMD: u32;
    /// What it returns.
    type Out: FromRet;
}

/// A return value that is not an error.
pub(crate) trait FromRet: Sized {
    /// # Safety
    ///
    /// `ret` is what a successful call returned; where `Self` owns a file descriptor, it is a new one that nobody else owns.
    unsafe fn from_ret(ret: c_long) -> Result<Self, Errno>;
}

impl FromRet for () {
    unsafe fn from_ret(_ret: c_long) -> Result<Self, Errno> {
        Ok(())
    }
}

impl FromRet for OwnedFd {
    /// Descriptor 0 is moved: many fields of `bpf_attr` read 0 as "none given".
    unsafe fn from_ret(ret: c_long) -> Result<Self, Errno> {
        let raw = i32::try_from(ret).map_err(|_| Errno::INVAL)?;
        // SAFETY: the caller promises a new descriptor that nobody else owns.
        let fd = unsafe { Self::from_raw_fd(raw) };
        if fd.as_raw_fd() == 0 {
            return nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))
                // SAFETY: fcntl has just made this descriptor.
                .map(|raw| unsafe { Self::from_raw_fd(raw) })
                .map_err(Errno::from);
        }
        Ok(fd)
    }
}

/// `BPF_PROG_LOAD` answers EAGAIN while a signal is pending; so often it is asked again.
const AGAIN: u32 = 8;

/// `int bpf(int cmd, union bpf_attr *attr, unsigned int size)`
///
/// Fields that a kernel does not know must be zero, or it answers E2BIG; shorter structs than it knows are always taken.
pub(crate) fn bpf<C: Command>(attr: &mut C) -> Result<C::Out, Errno> {
    let mut again = 0;
    loop {
        // SAFETY: `Command` promises the layout and that every address inside is valid for the call.
        let ret = unsafe {
            libc::syscall(libc::SYS_bpf, c_long::from(C::CMD), std::ptr::from_mut(attr), size_of::<C>())
        };
        if ret >= 0 {
            // SAFETY: the call succeeded, and `Command::Out` is what its return value means.
            return unsafe { C::Out::from_ret(ret) };
        }
        let errno = Errno::last();
        again += 1;
        if errno != Errno::AGAIN || again > AGAIN {
            return Err(errno);
        }
    }
}

/// Checks a struct against `include/uapi/linux/*.h`, where the numbers come from.
macro_rules! layout {
    ($name:ty, size $size:literal, $($field:ident at $offset:literal),+) => {
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(std::mem::offset_of!($name, $field) == $offset);)+
        };
    };
}
pub(crate) use layout;
