//! `perf_event_open(2)`: perf buffers, kprobes and tracepoints.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::libc::{self, c_long, c_ulong};

use super::ptr::UserPtr;
use super::{FromRet, layout};
use crate::errno::Errno;

/// `struct perf_event_attr` with the fields of `PERF_ATTR_SIZE_VER1` (kernel 2.6.33). Every later
/// kernel accepts it.
#[repr(C)]
pub(crate) struct Attr<'a> {
    event_type: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    bp_type: u32,
    /// `kprobe_func`: an address, or 0.
    config1: UserPtr<'a>,
    /// `kprobe_addr` or `probe_offset`
    config2: u64,
}
layout!(Attr<'_>, size 72, config at 8, flags at 40, wakeup_watermark at 48, config1 at 56, config2 at 64);

/// `PERF_TYPE_SOFTWARE`
const TYPE_SOFTWARE: u32 = 1;
/// `PERF_TYPE_TRACEPOINT`
const TYPE_TRACEPOINT: u32 = 2;
/// `PERF_COUNT_SW_BPF_OUTPUT`
const SW_BPF_OUTPUT: u64 = 10;
/// `PERF_SAMPLE_RAW`
const SAMPLE_RAW: u64 = 1 << 10;
/// The `watermark` bit: `wakeup_watermark` counts bytes, not events.
const WATERMARK: u64 = 1 << 14;
/// `PERF_FLAG_FD_CLOEXEC`
const FD_CLOEXEC: c_ulong = 1 << 3;

impl<'a> Attr<'a> {
    fn new(event_type: u32, config: u64) -> Self {
        // PERF_ATTR_SIZE_VER1, asserted above.
        Self {
            event_type,
            size: 72,
            config,
            sample_period: 1,
            sample_type: 0,
            read_format: 0,
            flags: 0,
            wakeup_watermark: 0,
            bp_type: 0,
            config1: UserPtr::NULL,
            config2: 0,
        }
    }

    /// The event that `bpf_perf_event_output` writes to. The reader is woken each time `watermark`
    /// bytes have been written.
    pub(crate) fn bpf_output(watermark: u32) -> Self {
        Self {
            sample_type: SAMPLE_RAW,
            flags: WATERMARK,
            wakeup_watermark: watermark,
            ..Self::new(TYPE_SOFTWARE, SW_BPF_OUTPUT)
        }
    }

    /// A tracepoint, by the number in its `id` file in tracefs.
    pub(crate) fn tracepoint(id: u64) -> Self {
        Self::new(TYPE_TRACEPOINT, id)
    }

    /// A kprobe. `pmu` is the type number of the kprobe PMU; a bit of `config` selects a return
    /// probe.
    pub(crate) fn kprobe(pmu: u32, config: u64, function: &'a CStr) -> Self {
        Self { config1: UserPtr::c_str(function), ..Self::new(pmu, config) }
    }
}

/// Opens a perf event for all tasks on one CPU: `int perf_event_open(struct perf_event_attr *attr,
/// pid_t pid, int cpu, int group_fd, unsigned long flags)`.
///
/// The BPF program of a tracepoint or a kprobe runs on every CPU, whichever is given here.
pub(crate) fn open(attr: &Attr<'_>, cpu: u32) -> Result<OwnedFd, Errno> {
    let all_tasks: c_long = -1;
    let no_group: c_long = -1;
    // SAFETY: `attr` has the size in its `size` field. Its only address is NULL or a borrowed C
    // string.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attr),
            all_tasks,
            c_long::from(cpu),
            no_group,
            FD_CLOEXEC,
        )
    };
    if ret < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the call succeeded and returned a new descriptor.
    unsafe { OwnedFd::from_ret(ret) }
}

/// `PERF_EVENT_IOC_ENABLE`
const IOC_ENABLE: c_ulong = 0x2400;
/// `PERF_EVENT_IOC_SET_BPF`
const IOC_SET_BPF: c_ulong = 0x4004_2408;

/// Attaches `prog` to the event until that is closed. For kernels that have no link for perf events
/// (before 5.15).
pub(crate) fn set_bpf(event: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> Result<(), Errno> {
    ioctl(event, IOC_SET_BPF, prog.as_raw_fd())
}

/// Enables an event.
pub(crate) fn enable(event: BorrowedFd<'_>) -> Result<(), Errno> {
    ioctl(event, IOC_ENABLE, 0)
}

fn ioctl(event: BorrowedFd<'_>, request: c_ulong, arg: libc::c_int) -> Result<(), Errno> {
    // SAFETY: both requests take an integer, not an address. (musl declares the request as an int.)
    let ret = unsafe { libc::ioctl(event.as_raw_fd(), request as _, arg) };
    if ret < 0 { Err(Errno::last()) } else { Ok(()) }
}
