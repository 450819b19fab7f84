//! Dropping privileges for good: capabilities (`capset(2)`), gaining privileges by `execve(2)`
//! (`prctl(2)`), system calls (`seccomp(2)`). All of them concern the calling thread only.

use nix::libc::{self, c_int, c_ulong};

use super::layout;
use crate::errno::Errno;

/// The sets of `capabilities(7)`, with a bit for each capability.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct CapSets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

/// `struct __user_cap_header_struct` in `include/uapi/linux/capability.h`
#[repr(C)]
struct CapHeader {
    version: u32,
    /// 0 is the caller.
    pid: c_int,
}
layout!(CapHeader, size 8, pid at 4);

/// `struct __user_cap_data_struct`: one struct for capabilities 0 to 31, one for 32 to 63.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}
layout!(CapData, size 12, permitted at 4, inheritable at 8);

/// `_LINUX_CAPABILITY_VERSION_3`
const CAP_VERSION: u32 = 0x2008_0522;

/// The capability sets of the calling thread.
pub(crate) fn capabilities() -> Result<CapSets, Errno> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: the layout of both structs is checked above, and version 3 fills two of the latter.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let set = |part: fn(&CapData) -> u32| u64::from(part(&data[0])) | u64::from(part(&data[1])) << 32;
    Ok(CapSets {
        effective: set(|data| data.effective),
        permitted: set(|data| data.permitted),
        inheritable: set(|data| data.inheritable),
    })
}

/// Sets the capability sets of the calling thread. The permitted set can only become smaller.
pub(crate) fn set_capabilities(sets: CapSets) -> Result<(), Errno> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    #[allow(clippy::cast_possible_truncation, reason = "each struct takes one half")]
    let data = [0, 32].map(|shift| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    });
    // SAFETY: the layout of both structs is checked above, and version 3 reads two of the latter.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })
}

/// Removes a capability from the bounding set: no program started by `execve(2)` can have it.
/// EINVAL if the kernel has no capability of that number.
pub(crate) fn drop_bounding(capability: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, capability.into())
}

/// Clears the ambient set: no program started by `execve(2)` inherits a capability from it.
pub(crate) fn clear_ambient() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into())
}

/// No program started by `execve(2)` gains privileges, for example by a set-user-ID bit.
pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// The requests above take one number. The kernel requires the other arguments to be zero.
fn prctl(request: c_int, arg: c_ulong) -> Result<(), Errno> {
    let zero: c_ulong = 0;
    // SAFETY: the arguments are numbers, not addresses.
    check(unsafe { libc::prctl(request, arg, zero, zero, zero) }.into())
}

/// `struct sock_filter`: an instruction of classic BPF.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Insn {
    pub(crate) code: u16,
    /// The number of instructions to skip if a comparison is true.
    pub(crate) jt: u8,
    /// The number of instructions to skip if it is false.
    pub(crate) jf: u8,
    pub(crate) k: u32,
}
layout!(Insn, size 8, jt at 2, jf at 3, k at 4);

/// From now on the kernel runs this program before each system call. Refused calls are written to
/// the audit log, if there is one.
///
/// `SPEC_ALLOW`: kernels before 5.16 would otherwise turn off speculative execution for this
/// process, which makes it slower and only helps against untrusted code.
pub(crate) fn filter_system_calls(program: &[Insn]) -> Result<(), Errno> {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::BIG)?,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: `filter` has `len` instructions, whose layout is checked above. The kernel copies
    // them and does not write there.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) })
}

fn check(ret: libc::c_long) -> Result<(), Errno> {
    if ret < 0 { Err(Errno::last()) } else { Ok(()) }
}
