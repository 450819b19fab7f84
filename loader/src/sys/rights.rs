//! What a process can give up for good: capabilities (`capset(2)`), rights that come with a program (`prctl(2)`), system calls
//! (`seccomp(2)`). All of this is of the calling thread, and the tools have only one.

use nix::libc::{self, c_int, c_ulong};

use super::layout;
use crate::errno::Errno;

/// The sets of `capabilities(7)`, a bit for each capability.
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

/// `struct __user_cap_data_struct`: one for capabilities 0 to 31, one for those after them.
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

/// The caller's sets.
pub(crate) fn capabilities() -> Result<CapSets, Errno> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: both are laid out as checked above, and version 3 fills two of the latter.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let set = |part: fn(&CapData) -> u32| u64::from(part(&data[0])) | u64::from(part(&data[1])) << 32;
    Ok(CapSets {
        effective: set(|data| data.effective),
        permitted: set(|data| data.permitted),
        inheritable: set(|data| data.inheritable),
    })
}

/// Sets the caller's sets, which can only become smaller.
pub(crate) fn set_capabilities(sets: CapSets) -> Result<(), Errno> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    #[allow(clippy::cast_possible_truncation, reason = "the upper half is shifted down, or is in the other")]
    let data = [0, 32].map(|shift| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    });
    // SAFETY: both are laid out as checked above, and version 3 reads two of the latter.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })
}

/// No program that this process might start can have the capability. EINVAL when the kernel has no capability of that number.
pub(crate) fn drop_bounding(capability: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, capability.into())
}

/// No program that this process might start keeps a capability it has not itself.
pub(crate) fn clear_ambient() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into())
}

/// No program that this process might start has more rights than this process.
pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// The requests above take one number, and want zeroes behind it.
fn prctl(request: c_int, arg: c_ulong) -> Result<(), Errno> {
    let zero: c_ulong = 0;
    // SAFETY: numbers only, no address.
    check(unsafe { libc::prctl(request, arg, zero, zero, zero) }.into())
}

/// `struct sock_filter`: an instruction of classic BPF.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Insn {
    pub(crate) code: u16,
    /// Instructions to skip where a comparison holds.
    pub(crate) jt: u8,
    /// And where it does not.
    pub(crate) jf: u8,
    pub(crate) k: u32,
}
layout!(Insn, size 8, jt at 2, jf at 3, k at 4);

/// From now on each system call is first put to this program. What it refuses goes to the audit log, where there is one.
///
/// For code that is not trusted, kernels before 5.16 would also turn speculation off, which makes this process slower; ours is.
pub(crate) fn filter_system_calls(program: &[Insn]) -> Result<(), Errno> {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::BIG)?,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: `filter` has `len` instructions laid out as checked above; the kernel copies them and writes nothing.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) })
}

fn check(ret: libc::c_long) -> Result<(), Errno> {
    if ret < 0 { Err(Errno::last()) } else { Ok(()) }
}
