//! What the kernel says about a map, a program or a link (`BPF_OBJ_GET_INFO_BY_FD`), and the switch
//! that makes it count run times.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::name::OBJ_NAME_LEN;
use super::ptr::{Plain, UserFd, UserPtr};
use super::{Command, layout, record_size};

/// `BPF_OBJ_GET_INFO_BY_FD`
#[repr(C)]
pub(crate) struct ObjInfo<'a> {
    bpf_fd: UserFd<'a>,
    info_len: u32,
    info: UserPtr<'a>,
}
layout!(ObjInfo<'_>, size 16, info_len at 4, info at 8);

// SAFETY: the layout is checked above. The constructors borrow the struct that the kernel fills,
// and take the length from it.
unsafe impl Command for ObjInfo<'_> {
    const CMD: u32 = 15;
    type Out = ();
}

impl<'a> ObjInfo<'a> {
    /// Requests information about a map.
    pub(crate) fn map(fd: BorrowedFd<'a>, info: &'a mut MapInfo) -> Self {
        let info_len = const { record_size::<MapInfo>() };
        Self { bpf_fd: UserFd::new(fd), info_len, info: UserPtr::write(std::slice::from_mut(info)) }
    }

    /// Requests information about a link to a perf event.
    pub(crate) fn perf_link(fd: BorrowedFd<'a>, info: &'a mut PerfLinkInfo) -> Self {
        let info_len = const { record_size::<PerfLinkInfo>() };
        Self { bpf_fd: UserFd::new(fd), info_len, info: UserPtr::write(std::slice::from_mut(info)) }
    }

    /// Requests information about a program. An old kernel leaves the fields it does not know
    /// unchanged.
    pub(crate) fn prog(fd: BorrowedFd<'a>, info: &'a mut ProgInfo) -> Self {
        let info_len = const { record_size::<ProgInfo>() };
        Self { bpf_fd: UserFd::new(fd), info_len, info: UserPtr::write(std::slice::from_mut(info)) }
    }
}

/// The first part of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MapInfo {
    /// `enum bpf_map_type`
    pub(crate) map_type: u32,
    id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
}
layout!(MapInfo, size 24, key_size at 8, map_flags at 20);

// SAFETY: it has only integers, and the layout above leaves no padding.
unsafe impl Plain for MapInfo {}

/// `struct bpf_prog_info`. The addresses in it are buffers for lists that are not requested: all
/// zero.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ProgInfo {
    pub(crate) prog_type: u32,
    pub(crate) id: u32,
    pub(crate) tag: [u8; 8],
    pub(crate) jited_prog_len: u32,
    pub(crate) xlated_prog_len: u32,
    lists: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; OBJ_NAME_LEN],
    ifindex: u32,
    gpl_compatible: u32,
    netns: [u64; 2],
    nr_jited: [u32; 2],
    jited: [u64; 2],
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: [u64; 2],
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    nr_prog_tags: u32,
    prog_tags: u64,
    pub(crate) run_time_ns: u64,
    pub(crate) run_cnt: u64,
    /// Kernel 5.12.
    pub(crate) recursion_misses: u64,
    /// Kernel 5.16.
    pub(crate) verified_insns: u32,
    attach_btf_obj_id: u32,
    attach_btf_id: u32,
    pad: u32,
}
layout!(
    ProgInfo, size 232,
    tag at 8, jited_prog_len at 16, load_time at 40, map_ids at 56, name at 64, netns at 88, jited at 112, btf_id at 128,
    func_info at 136, line_info at 152, nr_jited_line_info at 168, prog_tags at 184, run_time_ns at 192, run_cnt at 200,
    recursion_misses at 208, verified_insns at 216
);

// SAFETY: it has only integers and arrays of them, whose sizes add up to its size: no padding.
unsafe impl Plain for ProgInfo {}

/// `struct bpf_link_info` of a perf event that is a kprobe (kernel 6.6). The function's name is not
/// requested: its address and length are zero.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct PerfLinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    /// `enum bpf_perf_event_type`
    event_type: u32,
    pad2: u32,
    func_name: u64,
    name_len: u32,
    offset: u32,
    addr: u64,
    /// Kernel 6.7.
    missed: u64,
}
layout!(PerfLinkInfo, size 56, event_type at 16, func_name at 24, name_len at 32, addr at 40, missed at 48);

// SAFETY: it has only integers, and the layout above leaves no padding.
unsafe impl Plain for PerfLinkInfo {}

impl PerfLinkInfo {
    /// How often the kprobe was hit without calling its program. `None` if the event is not a
    /// kprobe.
    pub(crate) fn missed(&self) -> Option<u64> {
        /// `BPF_PERF_EVENT_KPROBE`, `BPF_PERF_EVENT_KRETPROBE`
        const KPROBES: [u32; 2] = [3, 4];
        KPROBES.contains(&self.event_type).then_some(self.missed)
    }
}

/// `BPF_ENABLE_STATS`. The kernel counts run times while the returned descriptor is open.
#[repr(C)]
pub(crate) struct EnableStats {
    /// `BPF_STATS_RUN_TIME` is 0.
    pub(crate) stats_type: u32,
}

// SAFETY: it has one integer and no address.
unsafe impl Command for EnableStats {
    const CMD: u32 = 32;
    type Out = OwnedFd;
}
