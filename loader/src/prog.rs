//! Loading one program: first without a log, and again with one if the kernel refuses.
//!
//! The log is not requested at once, because the verifier then takes much longer. If the refusal
//! concerns the source lines and function names, the program is loaded without them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bpfasm::{Attach, Callee, Insn, Program};
use btf::{Index, Lookup, TypeId};

use crate::debug::ProgramInfo;
use crate::errno::Errno;
use crate::error::LoadError;
use crate::hint::Hint;
use crate::kernel;
use crate::relocate::iter_func;
use crate::sys::bpf;
use crate::sys::info::{ObjInfo, ProgInfo};
use crate::sys::prog::{AttachType, BtfLoad, ProgLoad, ProgType, TestRun};
use crate::verifier::VerifierLog;

/// A program with everything resolved except the descriptors of its maps.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) program: Program,
    prog_type: ProgType,
    attach_type: AttachType,
    attach_btf_id: u32,
}

impl Prepared {
    /// Chooses the program type for an attach point, and looks up its BTF id if it needs one.
    ///
    /// `own` says that the index is of the running kernel's BTF. In another BTF the same id may
    /// belong to another tracepoint or function.
    pub(crate) fn new(
        name: &str,
        attach: &Attach,
        program: Program,
        index: &Index<'_>,
        own: bool,
    ) -> Result<Self, LoadError> {
        let tracing = |attach_type, target: Lookup<TypeId>| (ProgType::Tracing, attach_type, Some(target));
        let (prog_type, attach_type, target) = match attach {
            Attach::TpBtf(name) => {
                tracing(AttachType::TraceRawTp, index.tracepoint(name)?.map(|found| found.type_id))
            }
            Attach::Fentry(name) => {
                tracing(AttachType::TraceFentry, index.func(name)?.map(|found| found.type_id))
            }
            Attach::Fexit(name) => {
                tracing(AttachType::TraceFexit, index.func(name)?.map(|found| found.type_id))
            }
            Attach::Iter(target) => {
                tracing(AttachType::TraceIter, index.func(&iter_func(target))?.map(|found| found.type_id))
            }
            Attach::Kprobe(_) | Attach::Kretprobe(_) => (ProgType::Kprobe, AttachType::None, None),
            Attach::Tracepoints(..) => (ProgType::Tracepoint, AttachType::None, None),
            // `Attach::RawTp`. A kind added later is refused by the kernel.
            _ => (ProgType::RawTracepoint, AttachType::None, None),
        };
        let attach_btf_id = match target {
            None => 0,
            Some(Lookup::Found(_)) if !own => return Err(LoadError::ForeignBtf { attach: attach.clone() }),
            Some(Lookup::Found(id)) => id.0,
            Some(Lookup::Absent(why)) => return Err(LoadError::NoTarget { attach: attach.clone(), why }),
        };
        Ok(Self { name: name.to_owned(), program, prog_type, attach_type, attach_btf_id })
    }
}

/// The settings that all programs of an object share, and the debug information of one.
pub(crate) struct LoadOptions<'a> {
    pub(crate) license: &'a CStr,
    /// `LINUX_VERSION_CODE`
    pub(crate) kern_version: u32,
    /// The object's BTF, and the functions and lines of this program.
    pub(crate) debug: Option<(BorrowedFd<'a>, &'a ProgramInfo)>,
    /// `log_level` for programs that load; 0 requests no log.
    pub(crate) log_level: u32,
}

/// A program in the kernel; closed on drop.
#[derive(Debug)]
pub(crate) struct Prog {
    fd: OwnedFd,
    pub(crate) name: String,
    /// The verifier's log; empty unless [`LoadOptions::log_level`] asked for it.
    pub(crate) log: String,
    /// The reason why the kernel refused the source lines, if it did.
    pub(crate) without_lines: Option<Errno>,
}

/// Bytes of the log buffer at first.
const FIRST_LOG: usize = 64 << 10;
/// Bytes of the log buffer at most: old kernels refuse larger ones (`kernel/bpf/log.c`).
const MAX_LOG: usize = (16 << 20) - 1;
/// `BPF_LOG_LEVEL1`: the instructions up to the error.
const LEVEL1: u32 = 1;
/// `BPF_LOG_STATS` (kernel 5.2): the error without the instructions before it.
const STATS: u32 = 4;
/// How the last line of a complete log starts.
const LAST_LINE: &str = "\nprocessed ";

/// Whether a program reads kernel memory by address.
fn reads_by_address(program: &Program) -> bool {
    const BPF_PROBE_READ_KERNEL: u32 = 113; // include/uapi/linux/bpf.h
    program.insns.contains(&Insn::Call(Callee::Helper(BPF_PROBE_READ_KERNEL)))
}

impl Prog {
    /// Loads a program whose maps are resolved.
    pub(crate) fn load(
        prepared: &Prepared,
        program: &Program,
        options: &LoadOptions<'_>,
    ) -> Result<Self, LoadError> {
        let name = &prepared.name;
        let asm = |error| LoadError::Asm { program: name.clone(), error: Box::new(error) };
        let slots = program.slots().map_err(asm)?;
        let loader = Attempt { prepared, slots: &slots, options };
        let loaded = |fd, log, without_lines| Ok(Self { fd, name: name.clone(), log, without_lines });
        let failed = |errno, log: &str, hint| {
            let log = Box::new(VerifierLog::new(log, program));
            LoadError::Load { program: name.clone(), errno, log, hint }
        };
        let refused = match options.log_level {
            0 => match loader.quiet(options.debug) {
                Ok(fd) => return loaded(fd, String::new(), None),
                Err(errno) => match Hint::for_errno(errno) {
                    // A policy refused it, not the verifier, which does not return EPERM to a
                    // process with all capabilities. A second attempt would only be refused again.
                    Some(Hint::Forbidden) => return Err(failed(errno, "", Some(Hint::Forbidden))),
                    _ => Some(errno),
                },
            },
            _ => None,
        };
        let level = if options.log_level == 0 { LEVEL1 } else { options.log_level };
        let (errno, log) = match loader.logged(options.debug, level) {
            (Ok(fd), log) => return loaded(fd, log, None),
            // The log did not fit the largest buffer, which is not the reason of the refusal.
            // Kernels before 6.4 keep the beginning of the log, and the reason stands at its end.
            (Err(Errno::NOSPC), log) => {
                let log = if log.contains(LAST_LINE) { log } else { loader.logged(options.debug, STATS).1 };
                (refused.unwrap_or(Errno::NOSPC), log)
            }
            (Err(errno), log) => (errno, log),
        };
        // Source lines are optional: a program that fails because of them is loaded without.
        // Kernels before 5.0 refuse them with E2BIG and no log; later ones name them in the log.
        // EPERM is never about them.
        let debug_at_fault = (log.is_empty() && errno != Errno::PERM)
            || log.contains("line_info")
            || log.contains("func_info");
        if options.debug.is_some()
            && debug_at_fault
            && let (Ok(fd), log) = loader.logged(None, level)
        {
            return loaded(fd, log, Some(errno));
        }
        let hint = match Hint::for_errno(errno) {
            // Under this lockdown the helper does not exist. How the verifier says that depends on
            // the kernel.
            None if reads_by_address(program) && kernel::is_confidential() => Some(Hint::Confidential),
            // The verifier's reason is more precise.
            Some(Hint::Forbidden) if !log.is_empty() => None,
            other => other,
        };
        Err(failed(errno, &log, hint))
    }

    fn failed(&self) -> impl Fn(Errno) -> LoadError {
        |errno| LoadError::Program { program: self.name.clone(), errno }
    }

    /// The kernel's counts and sizes of this program.
    pub(crate) fn info(&self) -> Result<ProgInfo, LoadError> {
        let mut info = ProgInfo::default();
        bpf(&mut ObjInfo::prog(self.fd.as_fd(), &mut info)).map_err(self.failed())?;
        Ok(info)
    }

    /// Runs the program once with these arguments and returns its return value.
    pub(crate) fn test_run(&self, args: &[u64], cpu: Option<u32>) -> Result<u32, LoadError> {
        let run = TestRun::new(self.fd.as_fd(), args, cpu);
        let mut run = run.ok_or(Errno::BIG).map_err(self.failed())?;
        bpf(&mut run).map_err(self.failed())?;
        Ok(run.retval())
    }
}

impl AsFd for Prog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One program, to be loaded with or without a log and debug information.
struct Attempt<'a> {
    prepared: &'a Prepared,
    slots: &'a [u64],
    options: &'a LoadOptions<'a>,
}

impl<'a> Attempt<'a> {
    fn command(&self, debug: Option<(BorrowedFd<'a>, &'a ProgramInfo)>) -> Result<ProgLoad<'a>, Errno> {
        let Prepared { name, prog_type, attach_type, attach_btf_id, .. } = self.prepared;
        let command = ProgLoad::new(*prog_type, name, self.slots, self.options.license).ok_or(Errno::BIG)?;
        let command = command.attach(*attach_type, *attach_btf_id).kern_version(self.options.kern_version);
        Ok(match debug {
            Some((btf, info)) => command.debug_info(btf, &info.funcs, &info.lines),
            None => command,
        })
    }

    fn quiet(&self, debug: Option<(BorrowedFd<'a>, &'a ProgramInfo)>) -> Result<OwnedFd, Errno> {
        bpf(&mut self.command(debug)?)
    }

    /// Loads with a log, in a buffer that grows until the whole log fits.
    fn logged(
        &self,
        debug: Option<(BorrowedFd<'a>, &'a ProgramInfo)>,
        level: u32,
    ) -> (Result<OwnedFd, Errno>, String) {
        let mut size = FIRST_LOG;
        loop {
            let mut buffer = vec![0_u8; size];
            let (result, needed) = match self.command(debug) {
                Ok(command) => {
                    let mut command = command.log(level, &mut buffer);
                    (bpf(&mut command), command.log_true_size())
                }
                Err(errno) => (Err(errno), 0),
            };
            if matches!(result, Err(Errno::NOSPC)) && size < MAX_LOG {
                let needed = usize::try_from(needed).unwrap_or(0);
                size = needed.max(size * 4).min(MAX_LOG);
                continue;
            }
            let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
            buffer.truncate(end);
            // The log may be cut in the middle of a character.
            return (result, String::from_utf8_lossy(&buffer).into_owned());
        }
    }
}

/// Loads an object's BTF and returns its descriptor.
pub(crate) fn load_btf(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let mut command = BtfLoad::new(bytes, &mut []).ok_or(Errno::BIG)?;
    bpf(&mut command)
}
