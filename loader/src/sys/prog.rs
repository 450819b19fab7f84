//! Programs: `BPF_PROG_LOAD`, the BTF that goes with them (`BPF_BTF_LOAD`), test runs.
//!
//! The structs are parts of `union bpf_attr` in `include/uapi/linux/bpf.h`. Later kernels append
//! fields. A struct here ends with the last field we use. A kernel that knows fewer fields accepts
//! the longer struct as long as the fields it does not know are zero.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::name::{OBJ_NAME_LEN, object_name};
use super::ptr::{UserFd, UserPtr};
use super::{Command, layout, record_size};

/// The program types in use, from `enum bpf_prog_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum ProgType {
    Kprobe = 2,
    Tracepoint = 5,
    RawTracepoint = 17,
    Tracing = 26,
}

/// The attach types in use, from `enum bpf_attach_type`; zero if the program type has none.
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

/// `struct bpf_func_info`
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FuncInfo {
    /// The first instruction of the function, in slots.
    pub(crate) insn_off: u32,
    pub(crate) type_id: u32,
}

/// `struct bpf_line_info`
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LineInfo {
    /// The first instruction of the line, in slots.
    pub(crate) insn_off: u32,
    pub(crate) file_name_off: u32,
    pub(crate) line_off: u32,
    /// The line number in the upper 22 bits, the column in the lower 10.
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

// SAFETY: the layout is checked above. Its addresses are borrowed slices, and `new`, `debug_info`
// and `log` take the lengths from the slices.
unsafe impl Command for ProgLoad<'_> {
    const CMD: u32 = 5;
    type Out = OwnedFd;
}

impl<'a> ProgLoad<'a> {
    /// A program without log or debug information. `None` if its number of slots does not fit in a
    /// `__u32`.
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

    /// Sets the attach point. `btf_id` is 0 if the attach type has no BTF id.
    pub(crate) fn attach(mut self, attach_type: AttachType, btf_id: u32) -> Self {
        self.expected_attach_type = attach_type as u32;
        self.attach_btf_id = btf_id;
        self
    }

    /// Sets `LINUX_VERSION_CODE`, which kprobe programs must carry before 5.0.
    pub(crate) fn kern_version(mut self, code: u32) -> Self {
        self.kern_version = code;
        self
    }

    /// Sets functions and source lines. Leaves them out if their number does not fit in a `__u32`.
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

    /// Sets the buffer for the verifier's log. Only its first 4 GiB are used.
    pub(crate) fn log(mut self, level: u32, buffer: &'a mut [u8]) -> Self {
        self.log_level = level;
        self.log_size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        self.log_buf = UserPtr::write(buffer);
        self
    }

    /// The size of the whole log in bytes (kernel 6.4), 0 if the kernel does not report it.
    pub(crate) fn log_true_size(&self) -> u32 {
        self.log_true_size
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

// SAFETY: the layout is checked above. Both buffers are borrowed slices, and `new` takes the
// lengths from them.
unsafe impl Command for BtfLoad<'_> {
    const CMD: u32 = 18;
    type Out = OwnedFd;
}

impl<'a> BtfLoad<'a> {
    /// `None` if a length does not fit in a `__u32`. An empty `log` requests no log.
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

// SAFETY: the layout is checked above. The context is a borrowed slice, `new` takes the length from
// it, and there is no other buffer.
unsafe impl Command for TestRun<'_> {
    const CMD: u32 = 10;
    type Out = ();
}

/// `BPF_F_TEST_RUN_ON_CPU`
const TEST_RUN_ON_CPU: u32 = 1;

impl<'a> TestRun<'a> {
    /// A run on `cpu`, or on any CPU. `None` if the context's length does not fit in a `__u32`.
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

    /// The program's return value.
    pub(crate) fn retval(&self) -> u32 {
        self.retval
    }
}
