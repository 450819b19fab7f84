//! The commands of `bpf(2)`, a struct each: `union bpf_attr` in `include/uapi/linux/bpf.h`.
//!
//! Later kernels append fields. A struct here ends with the last field we use, and one that would be too long for an old
//! kernel is taken by it as long as what it does not know is zero.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::ptr::{Plain, UserFd, UserPtr};
use super::{Command, layout};

/// `BPF_OBJ_NAME_LEN`, the final zero included.
pub(crate) const OBJ_NAME_LEN: usize = 16;

/// `enum bpf_prog_type`, those we load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum ProgType {
    Kprobe = 2,
    Tracepoint = 5,
    RawTracepoint = 17,
    Tracing = 26,
}

/// `enum bpf_attach_type`, those we use; zero where the kernel expects none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum AttachType {
    None = 0,
    TraceRawTp = 23,
    TraceFentry = 24,
    TraceFexit = 25,
    TraceIter = 28,
    PerfEvent = 41,
}

/// An object's name: what the kernel allows of it (letters, digits, `_` and `.`), cut to 15 bytes.
pub(crate) fn object_name(name: &str) -> [u8; OBJ_NAME_LEN] {
    let mut out = [0; OBJ_NAME_LEN];
    let allowed =
        name.bytes().map(|byte| if byte.is_ascii_alphanumeric() || byte == b'.' { byte } else { b'_' });
    // The last byte stays the terminator.
    for (to, from) in out.iter_mut().take(OBJ_NAME_LEN - 1).zip(allowed) {
        *to = from;
    }
    out
}

/// `BPF_MAP_CREATE`
#[repr(C)]
pub(super) struct MapCreate<'a> {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: UserFd<'a>,
    pub(super) numa_node: u32,
    pub(super) map_name: [u8; OBJ_NAME_LEN],
    pub(super) map_ifindex: u32,
    pub(super) btf_fd: UserFd<'a>,
    pub(super) btf_key_type_id: u32,
    pub(super) btf_value_type_id: u32,
    /// `btf_vmlinux_value_type_id`; here it only keeps the struct's size a multiple of eight.
    pub(super) unused: u32,
}
layout!(MapCreate<'_>, size 64, map_name at 28, btf_fd at 48, btf_value_type_id at 56);

// SAFETY: laid out as checked above; it holds no address.
unsafe impl Command for MapCreate<'_> {
    const CMD: u32 = 0;
    type Out = OwnedFd;
}

/// `struct bpf_func_info`
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FuncInfo {
    /// In slots.
    pub(crate) insn_off: u32,
    pub(crate) type_id: u32,
}

/// `struct bpf_line_info`
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LineInfo {
    /// In slots.
    pub(crate) insn_off: u32,
    pub(crate) file_name_off: u32,
    pub(crate) line_off: u32,
    /// Line in the upper 22 bits, column in the lower 10.
    pub(crate) line_col: u32,
}
layout!(FuncInfo, size 8, type_id at 4);
layout!(LineInfo, size 16, line_col at 12);

/// `BPF_PROG_LOAD`
#[repr(C)]
pub(crate) struct ProgLoad<'a> {
    prog_type: u32,
    insn_cnt: u32,
    insns: UserPtr<'a>,
    license: UserPtr<'a>,
    log_level: u32,
    log_size: u32,
    log_buf: UserPtr<'a>,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; OBJ_NAME_LEN],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: UserFd<'a>,
    func_info_rec_size: u32,
    func_info: UserPtr<'a>,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: UserPtr<'a>,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: UserFd<'a>,
    core_relo_cnt: u32,
    fd_array: UserPtr<'a>,
    core_relos: UserPtr<'a>,
    core_relo_rec_size: u32,
    log_true_size: u32,
}
layout!(
    ProgLoad<'_>, size 144,
    insns at 8, license at 16, log_buf at 32, prog_name at 48, expected_attach_type at 68, prog_btf_fd at 72,
    func_info at 80, line_info at 96, attach_btf_id at 108, fd_array at 120, core_relo_rec_size at 136, log_true_size at 140
);

// SAFETY: laid out as checked above; its addresses are borrowed slices whose lengths `new`, `debug_info` and `log` take from them.
unsafe impl Command for ProgLoad<'_> {
    const CMD: u32 = 5;
    type Out = OwnedFd;
}

impl<'a> ProgLoad<'a> {
    /// A program without log or debug information. `None` when it has more slots than a `__u32` counts.
    pub(crate) fn new(prog_type: ProgType, name: &str, insns: &'a [u64], license: &'a CStr) -> Option<Self> {
        Some(Self {
            prog_type: prog_type as u32,
            insn_cnt: u32::try_from(insns.len()).ok()?,
            insns: UserPtr::read(insns),
            license: UserPtr::c_str(license),
            log_level: 0,
            log_size: 0,
            log_buf: UserPtr::NULL,
            kern_version: 0,
            prog_flags: 0,
            prog_name: object_name(name),
            prog_ifindex: 0,
            expected_attach_type: AttachType::None as u32,
            prog_btf_fd: UserFd::NONE,
            func_info_rec_size: 0,
            func_info: UserPtr::NULL,
            func_info_cnt: 0,
            line_info_rec_size: 0,
            line_info: UserPtr::NULL,
            line_info_cnt: 0,
            attach_btf_id: 0,
            attach_prog_fd: UserFd::NONE,
            core_relo_cnt: 0,
            fd_array: UserPtr::NULL,
            core_relos: UserPtr::NULL,
            core_relo_rec_size: 0,
            log_true_size: 0,
        })
    }

    /// What it will attach to: `btf_id` is 0 where the kernel wants none.
    pub(crate) fn attach(mut self, attach_type: AttachType, btf_id: u32) -> Self {
        self.expected_attach_type = attach_type as u32;
        self.attach_btf_id = btf_id;
        self
    }

    /// `LINUX_VERSION_CODE`, which kprobe programs must carry before 5.0.
    pub(crate) fn kern_version(mut self, code: u32) -> Self {
        self.kern_version = code;
        self
    }

    /// Functions and source lines. Left out when there are more of them than a `__u32` counts.
    pub(crate) fn debug_info(
        mut self,
        btf: BorrowedFd<'a>,
        funcs: &'a [FuncInfo],
        lines: &'a [LineInfo],
    ) -> Self {
        let (Ok(func_cnt), Ok(line_cnt)) = (u32::try_from(funcs.len()), u32::try_from(lines.len())) else {
            return self;
        };
        self.prog_btf_fd = UserFd::new(btf);
        self.func_info_rec_size = const { record_size::<FuncInfo>() };
        self.func_info = UserPtr::read(funcs);
        self.func_info_cnt = func_cnt;
        self.line_info_rec_size = const { record_size::<LineInfo>() };
        self.line_info = UserPtr::read(lines);
        self.line_info_cnt = line_cnt;
        self
    }

    /// Where the verifier writes its log. A buffer longer than a `__u32` counts is used in part.
    pub(crate) fn log(mut self, level: u32, buffer: &'a mut [u8]) -> Self {
        self.log_level = level;
        self.log_size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        self.log_buf = UserPtr::write(buffer);
        self
    }

    /// Bytes that the log needed (kernel 6.4), 0 when the kernel does not say.
    pub(crate) fn log_true_size(&self) -> u32 {
        self.log_true_size
    }
}

/// `size_of` as the `__u32` that the kernel wants; too large a record does not compile.
const fn record_size<T>() -> u32 {
    assert!(size_of::<T>() < 256);
    // The assertion above makes this exact.
    #[allow(clippy::cast_possible_truncation)]
    let size = size_of::<T>() as u32;
    size
}

/// `BPF_OBJ_GET_INFO_BY_FD`
#[repr(C)]
pub(crate) struct ObjInfo<'a> {
    bpf_fd: UserFd<'a>,
    info_len: u32,
    info: UserPtr<'a>,
}
layout!(ObjInfo<'_>, size 16, info_len at 4, info at 8);

// SAFETY: laid out as checked above; `prog` borrows what the kernel fills and gives its length.
unsafe impl Command for ObjInfo<'_> {
    const CMD: u32 = 15;
    type Out = ();
}

impl<'a> ObjInfo<'a> {
    /// About a map, likewise.
    pub(crate) fn map(fd: BorrowedFd<'a>, info: &'a mut MapInfo) -> Self {
        let info_len = const { record_size::<MapInfo>() };
        Self { bpf_fd: UserFd::new(fd), info_len, info: UserPtr::write(std::slice::from_mut(info)) }
    }

    /// About a link at a perf event, likewise.
    pub(crate) fn perf_link(fd: BorrowedFd<'a>, info: &'a mut PerfLinkInfo) -> Self {
        let info_len = const { record_size::<PerfLinkInfo>() };
        Self { bpf_fd: UserFd::new(fd), info_len, info: UserPtr::write(std::slice::from_mut(info)) }
    }

    /// About a program. The kernel fills what both sides know and leaves the rest as it is.
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

// SAFETY: integers only, which fill it.
unsafe impl Plain for MapInfo {}

/// `BPF_F_RDONLY`
const RDONLY: u32 = 1 << 3;

/// `BPF_OBJ_GET`: what is pinned at a path.
#[repr(C)]
pub(crate) struct ObjGet<'a> {
    pathname: UserPtr<'a>,
    /// Here it only has to be zero.
    bpf_fd: u32,
    file_flags: u32,
}
layout!(ObjGet<'_>, size 16, file_flags at 12);

// SAFETY: laid out as checked above; the path is a borrowed C string.
unsafe impl Command for ObjGet<'_> {
    const CMD: u32 = 7;
    type Out = OwnedFd;
}

impl<'a> ObjGet<'a> {
    /// For system calls that read.
    pub(crate) fn read_only(path: &'a CStr) -> Self {
        Self { pathname: UserPtr::c_str(path), bpf_fd: 0, file_flags: RDONLY }
    }
}

/// `BPF_MAP_GET_FD_BY_ID`
#[repr(C)]
pub(crate) struct MapById {
    map_id: u32,
    next_id: u32,
    open_flags: u32,
    pad: u32,
}
layout!(MapById, size 16, open_flags at 8);

// SAFETY: laid out as checked above; it holds no address.
unsafe impl Command for MapById {
    const CMD: u32 = 14;
    type Out = OwnedFd;
}

impl MapById {
    /// For system calls that read.
    pub(crate) fn read_only(map_id: u32) -> Self {
        Self { map_id, next_id: 0, open_flags: RDONLY, pad: 0 }
    }
}

/// `struct bpf_prog_info`. The addresses in it are lists nobody asks for: all zero.
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

// SAFETY: integers and arrays of them; the layout above leaves no padding (its fields add up to its size).
unsafe impl Plain for ProgInfo {}

/// `BPF_RAW_TRACEPOINT_OPEN`: raw tracepoints by name; `tp_btf`, `fentry` and `fexit` without one.
#[repr(C)]
pub(crate) struct RawTracepointOpen<'a> {
    name: UserPtr<'a>,
    prog_fd: UserFd<'a>,
    pad: u32,
}
layout!(RawTracepointOpen<'_>, size 16, prog_fd at 8);

// SAFETY: laid out as checked above; the name is a borrowed C string.
unsafe impl Command for RawTracepointOpen<'_> {
    const CMD: u32 = 17;
    type Out = OwnedFd;
}

impl<'a> RawTracepointOpen<'a> {
    pub(crate) fn new(prog: BorrowedFd<'a>, name: Option<&'a CStr>) -> Self {
        Self { name: name.map_or(UserPtr::NULL, UserPtr::c_str), prog_fd: UserFd::new(prog), pad: 0 }
    }
}

/// `BPF_BTF_LOAD`
#[repr(C)]
pub(crate) struct BtfLoad<'a> {
    btf: UserPtr<'a>,
    btf_log_buf: UserPtr<'a>,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    pad: u32,
}
layout!(BtfLoad<'_>, size 32, btf_log_buf at 8, btf_size at 16, btf_log_level at 24);

// SAFETY: laid out as checked above; both buffers are borrowed slices that give their lengths.
unsafe impl Command for BtfLoad<'_> {
    const CMD: u32 = 18;
    type Out = OwnedFd;
}

impl<'a> BtfLoad<'a> {
    /// `None` when it has more bytes than a `__u32` counts. An empty `log` asks for none.
    pub(crate) fn new(btf: &'a [u8], log: &'a mut [u8]) -> Option<Self> {
        Some(Self {
            btf_size: u32::try_from(btf.len()).ok()?,
            btf_log_size: u32::try_from(log.len()).ok()?,
            btf_log_level: u32::from(!log.is_empty()),
            btf: UserPtr::read(btf),
            btf_log_buf: UserPtr::write(log),
            pad: 0,
        })
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

// SAFETY: laid out as checked above; it holds no address.
unsafe impl Command for LinkCreate<'_> {
    const CMD: u32 = 28;
    type Out = OwnedFd;
}

impl<'a> LinkCreate<'a> {
    /// An iterator, which needs no target.
    pub(crate) fn iter(prog: BorrowedFd<'a>) -> Self {
        Self {
            prog_fd: UserFd::new(prog),
            target_fd: UserFd::NONE,
            attach_type: AttachType::TraceIter as u32,
            flags: 0,
        }
    }

    /// At a perf event (kernel 5.15).
    pub(crate) fn perf_event(prog: BorrowedFd<'a>, event: BorrowedFd<'a>) -> Self {
        Self { target_fd: UserFd::new(event), attach_type: AttachType::PerfEvent as u32, ..Self::iter(prog) }
    }
}

/// `struct bpf_link_info` of a perf event that is a kprobe (kernel 6.6). The name of its function is not asked for: all zero.
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

// SAFETY: integers only, which fill it.
unsafe impl Plain for PerfLinkInfo {}

impl PerfLinkInfo {
    /// Times the probe itself was not run; `None` when the event is no kprobe.
    pub(crate) fn missed(&self) -> Option<u64> {
        /// `BPF_PERF_EVENT_KPROBE`, `BPF_PERF_EVENT_KRETPROBE`
        const KPROBES: [u32; 2] = [3, 4];
        KPROBES.contains(&self.event_type).then_some(self.missed)
    }
}

/// `BPF_ITER_CREATE`
#[repr(C)]
pub(crate) struct IterCreate<'a> {
    link_fd: UserFd<'a>,
    flags: u32,
}
layout!(IterCreate<'_>, size 8, flags at 4);

// SAFETY: laid out as checked above; it holds no address.
unsafe impl Command for IterCreate<'_> {
    const CMD: u32 = 33;
    type Out = OwnedFd;
}

impl<'a> IterCreate<'a> {
    pub(crate) fn new(link: BorrowedFd<'a>) -> Self {
        Self { link_fd: UserFd::new(link), flags: 0 }
    }
}

/// `BPF_ENABLE_STATS`; run times are counted while the descriptor is open.
#[repr(C)]
pub(crate) struct EnableStats {
    /// `BPF_STATS_RUN_TIME` is 0.
    pub(crate) stats_type: u32,
}

// SAFETY: one integer, no address.
unsafe impl Command for EnableStats {
    const CMD: u32 = 32;
    type Out = OwnedFd;
}

/// `BPF_PROG_TEST_RUN` of a raw tracepoint program (kernel 5.10).
#[repr(C)]
pub(crate) struct TestRun<'a> {
    prog_fd: UserFd<'a>,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: UserPtr<'a>,
    data_out: UserPtr<'a>,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: UserPtr<'a>,
    ctx_out: UserPtr<'a>,
    flags: u32,
    cpu: u32,
}
layout!(TestRun<'_>, size 72, retval at 4, data_in at 16, repeat at 32, ctx_size_in at 40, ctx_in at 48, cpu at 68);

// SAFETY: laid out as checked above; the context is a borrowed slice that gives its length, and there is no other buffer.
unsafe impl Command for TestRun<'_> {
    const CMD: u32 = 10;
    type Out = ();
}

/// `BPF_F_TEST_RUN_ON_CPU`
const TEST_RUN_ON_CPU: u32 = 1;

impl<'a> TestRun<'a> {
    /// With `cpu`, on that one. `None` when the context is longer than a `__u32` counts.
    pub(crate) fn new(prog: BorrowedFd<'a>, ctx: &'a [u64], cpu: Option<u32>) -> Option<Self> {
        Some(Self {
            prog_fd: UserFd::new(prog),
            retval: 0,
            data_size_in: 0,
            data_size_out: 0,
            data_in: UserPtr::NULL,
            data_out: UserPtr::NULL,
            repeat: 0,
            duration: 0,
            ctx_size_in: u32::try_from(size_of_val(ctx)).ok()?,
            ctx_size_out: 0,
            ctx_in: UserPtr::read(ctx),
            ctx_out: UserPtr::NULL,
            flags: if cpu.is_some() { TEST_RUN_ON_CPU } else { 0 },
            cpu: cpu.unwrap_or(0),
        })
    }

    /// What the program returned.
    pub(crate) fn retval(&self) -> u32 {
        self.retval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_are_what_the_kernel_allows() {
        assert_eq!(&object_name("stats"), b"stats\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&object_name("inet_sock_set_state"), b"inet_sock_set_s\0");
        assert_eq!(&object_name("a-b c/d.e"), b"a_b_c_d.e\0\0\0\0\0\0\0");
        assert_eq!(&object_name(""), &[0; 16]);
    }
}
