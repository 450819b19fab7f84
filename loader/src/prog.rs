//! Loading one program: without a log, and again with one when the kernel refuses.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bpfasm::{Attach, Callee, Insn, Program};
use btf::{Index, Lookup, TypeId};

use crate::debug::ProgramInfo;
use crate::errno::Errno;
use crate::error::{Hint, LoadError};
use crate::kernel;
use crate::relocate::iter_func;
use crate::sys::bpf;
use crate::sys::bpf::{AttachType, BtfLoad, ObjInfo, ProgInfo, ProgLoad, ProgType, TestRun};
use crate::verifier::VerifierLog;

/// A program as the kernel will get it, but for the descriptors of its maps.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) program: Program,
    prog_type: ProgType,
    attach_type: AttachType,
    attach_btf_id: u32,
}

impl Prepared {
    /// Decides what kind of program an attach point wants; those that go by BTF must be in it.
    ///
    /// `own` says that the BTF is the running kernel's: in another one the same number may be another tracepoint's.
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
            // `Attach::RawTp`, and whatever comes: the kernel will say.
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

/// What goes with every program of an object.
pub(crate) struct LoadOptions<'a> {
    pub(crate) license: &'a CStr,
    /// `LINUX_VERSION_CODE`
    pub(crate) kern_version: u32,
    /// The object's BTF and what of it is this program's.
    pub(crate) debug: Option<(BorrowedFd<'a>, &'a ProgramInfo)>,
    /// `log_level` of loads that succeed; 0 for none.
    pub(crate) log_level: u32,
}

/// A program in the kernel; closed on drop.
#[derive(Debug)]
pub(crate) struct Prog {
    fd: OwnedFd,
    pub(crate) name: String,
    /// The verifier's log, if one was asked for.
    pub(crate) log: String,
    /// Why it has no source lines in the kernel, if they were refused.
    pub(crate) plain: Option<Errno>,
}

/// The verifier's log at first, and at most (`kernel/bpf/log.c` of old kernels takes no more).
const FIRST_LOG: usize = 64 << 10;
const MOST_LOG: usize = (16 << 20) - 1;
/// `BPF_LOG_LEVEL1`: the instructions on the way to the error.
const LEVEL1: u32 = 1;
/// `BPF_LOG_STATS` (kernel 5.2): the error without the way to it.
const STATS: u32 = 4;
/// What the last line of a whole log starts with.
const LAST_LINE: &str = "\nprocessed ";

/// Whether a program reads the kernel's memory by address.
fn probes(program: &Program) -> bool {
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
        let loaded = |fd, log, plain| Ok(Self { fd, name: name.clone(), log, plain });
        let failed = |errno, log: &str, hint| {
            let log = Box::new(VerifierLog::new(log, program));
            LoadError::Load { program: name.clone(), errno, log, hint }
        };
        let refused = match options.log_level {
            0 => match loader.quiet(options.debug) {
                Ok(fd) => return loaded(fd, String::new(), None),
                Err(errno) => match Hint::for_errno(errno) {
                    // Not by the verifier: of a process with all capabilities it asks for no more.
                    Some(Hint::Forbidden) => return Err(failed(errno, "", Some(Hint::Forbidden))),
                    _ => Some(errno),
                },
            },
            _ => None,
        };
        let level = if options.log_level == 0 { LEVEL1 } else { options.log_level };
        let (errno, log) = match loader.logged(options.debug, level) {
            (Ok(fd), log) => return loaded(fd, log, None),
            // The log outgrew every buffer; that is not why the program was refused. Old kernels have kept its beginning
            // (since 6.4 they keep the end), which does not say why.
            (Err(Errno::NOSPC), log) => {
                let log = if log.contains(LAST_LINE) { log } else { loader.logged(options.debug, STATS).1 };
                (refused.unwrap_or(Errno::NOSPC), log)
            }
            (Err(errno), log) => (errno, log),
        };
        // Source lines are a courtesy. Kernels before 5.0 know none (E2BIG); a log that names them means they are at fault. What
        // is forbidden is not forbidden for them.
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
            // The helper is not there then, which the verifier says in other words on every kernel.
            None if probes(program) && kernel::is_confidential() => Some(Hint::Confidential),
            // The verifier's reason is a better one.
            Some(Hint::Forbidden) if !log.is_empty() => None,
            other => other,
        };
        Err(failed(errno, &log, hint))
    }

    fn failed(&self) -> impl Fn(Errno) -> LoadError {
        |errno| LoadError::Program { program: self.name.clone(), errno }
    }

    /// What the kernel says about it.
    pub(crate) fn info(&self) -> Result<ProgInfo, LoadError> {
        let mut info = ProgInfo::default();
        bpf(&mut ObjInfo::prog(self.fd.as_fd(), &mut info)).map_err(self.failed())?;
        Ok(info)
    }

    /// Runs it once with these arguments; what it returned.
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

/// One program, ready to be given to the kernel in several ways.
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

    /// The log grows until the kernel has said all it has to say.
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
            if matches!(result, Err(Errno::NOSPC)) && size < MOST_LOG {
                let needed = usize::try_from(needed).unwrap_or(0);
                size = needed.max(size * 4).min(MOST_LOG);
                continue;
            }
            let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
            buffer.truncate(end);
            // Kernel text; if it is cut in the middle of a character, the rest is still of use.
            return (result, String::from_utf8_lossy(&buffer).into_owned());
        }
    }
}

/// Loads an object's BTF.
pub(crate) fn load_btf(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let mut command = BtfLoad::new(bytes, &mut []).ok_or(Errno::BIG)?;
    bpf(&mut command)
}
