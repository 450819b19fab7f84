//! The system-call layer: the only module that makes raw system calls or accesses mapped memory.
//!
//! Its functions are safe to call. Memory that the kernel reads or writes is borrowed for as long
//! as it does that ([`ptr::UserPtr`]), lengths are taken from slices, and file descriptors are
//! owned ([`OwnedFd`]) or borrowed ([`ptr::UserFd`]).

pub(crate) mod deferred_close;
pub(crate) mod info;
pub(crate) mod link;
pub(crate) mod map;
pub(crate) mod mmap;
mod name;
pub(crate) mod open;
pub(crate) mod perf;
pub(crate) mod prog;
pub(crate) mod ptr;
pub(crate) mod rights;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc::{self, c_long};

use crate::errno::Errno;

/// One command of `bpf(2)`: the part of `union bpf_attr` it uses.
///
/// # Safety
///
/// `Self` is `repr(C)` without padding, and its layout is that of the kernel's `union bpf_attr` for
/// `CMD`. Each address in it is valid for the reads and writes of the command as long as `Self`
/// exists. `Out` is the meaning of the command's return value.
pub(crate) unsafe trait Command {
    /// The command's number in `enum bpf_cmd`.
    const CMD: u32;
    /// The meaning of the return value: a descriptor, or nothing.
    type Out: FromRet;
}

/// The result of a successful system call.
pub(crate) trait FromRet: Sized {
    /// # Safety
    ///
    /// `ret` is the return value of a successful call. If `Self` owns a file descriptor, `ret` is a
    /// new one that has no other owner.
    unsafe fn from_ret(ret: c_long) -> Result<Self, Errno>;
}

impl FromRet for () {
    unsafe fn from_ret(_ret: c_long) -> Result<Self, Errno> {
        Ok(())
    }
}

impl FromRet for OwnedFd {
    /// Moves descriptor 0 to a higher number, because many fields of `bpf_attr` read 0 as "none".
    unsafe fn from_ret(ret: c_long) -> Result<Self, Errno> {
        let raw = i32::try_from(ret).map_err(|_| Errno::INVAL)?;
        // SAFETY: the caller promises a new descriptor without another owner.
        let fd = unsafe { Self::from_raw_fd(raw) };
        if fd.as_raw_fd() == 0 {
            return nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))
                // SAFETY: fcntl has just created this descriptor.
                .map(|raw| unsafe { Self::from_raw_fd(raw) })
                .map_err(Errno::from);
        }
        Ok(fd)
    }
}

/// How often a command is repeated after EAGAIN, which `BPF_PROG_LOAD` returns while a signal is
/// pending.
const MAX_REPEATS: u32 = 8;

/// `int bpf(int cmd, union bpf_attr *attr, unsigned int size)`
///
/// A kernel refuses a struct with E2BIG if fields that it does not know are not zero. It accepts
/// shorter structs than it knows.
pub(crate) fn bpf<C: Command>(attr: &mut C) -> Result<C::Out, Errno> {
    let mut repeats = 0;
    loop {
        // SAFETY: `Command` promises the layout, and that every address in it is valid for the
        // call.
        let ret = unsafe {
            libc::syscall(libc::SYS_bpf, c_long::from(C::CMD), std::ptr::from_mut(attr), size_of::<C>())
        };
        if ret >= 0 {
            // SAFETY: the call succeeded, and `Command` promises that `Out` is the meaning of its
            // result.
            return unsafe { C::Out::from_ret(ret) };
        }
        let errno = Errno::last();
        repeats += 1;
        if errno != Errno::AGAIN || repeats > MAX_REPEATS {
            return Err(errno);
        }
    }
}

/// The size of `T` as a `__u32`. A type of 256 bytes or more does not compile.
pub(crate) const fn record_size<T>() -> u32 {
    assert!(size_of::<T>() < 256);
    // The assertion above makes this exact.
    #[allow(clippy::cast_possible_truncation)]
    let size = size_of::<T>() as u32;
    size
}

/// Checks the size of a struct and the offsets of its fields against `include/uapi/linux/*.h`, from
/// which the numbers are taken.
macro_rules! layout {
    ($name:ty, size $size:literal, $($field:ident at $offset:literal),+) => {
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(std::mem::offset_of!($name, $field) == $offset);)+
        };
    };
}
pub(crate) use layout;
