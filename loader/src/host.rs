//! What the host at hand does not allow, whatever the program is.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use bpfasm::object::ProgramDef;
use bpfasm::target::Barred;
use bpfasm::{Attach, Insn, Operand, Reg, Width, encode};

use crate::errno::Errno;
use crate::error::{Hint, LoadError};
use crate::link::perf;
use crate::sys::bpf;
use crate::sys::bpf::{AttachType, ProgLoad, ProgType};
use crate::tracefs;
use crate::verifier::VerifierLog;

/// The host at hand. Each question is asked when its answer is first needed, and once.
#[derive(Debug, Default)]
pub struct Host {
    kprobes: OnceCell<bool>,
    /// Where it is.
    tracefs: OnceCell<Option<PathBuf>>,
    /// Whether trampolines are forbidden.
    trampolines: OnceCell<bool>,
}

impl Host {
    /// Asks nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What programs need not be written for here. What cannot be told is not barred.
    #[must_use]
    pub fn barred(&self) -> Barred {
        Barred {
            trampolines: self.forbids_trampolines(),
            kprobes: !self.kprobes(),
            tracepoints: self.tracefs().is_none(),
        }
    }

    /// The loader's refusal of a rung that this host bars.
    pub(crate) fn check(&self, def: &ProgramDef) -> Result<(), LoadError> {
        let attach = |hint| {
            Err(LoadError::Attach { attach: def.attach.clone(), errno: Errno::NOENT, hint: Some(hint) })
        };
        match &def.attach {
            Attach::Kprobe(_) | Attach::Kretprobe(_) if !self.kprobes() => attach(Hint::NoKprobes),
            Attach::Tracepoints(..) if self.tracefs().is_none() => attach(Hint::Tracefs),
            Attach::Fentry(_) | Attach::Fexit(_) if self.forbids_trampolines() => Err(LoadError::Load {
                program: def.name.to_string(),
                errno: Errno::PERM,
                log: Box::new(VerifierLog::new("", &def.program)),
                hint: Some(Hint::Forbidden),
            }),
            _ => Ok(()),
        }
    }

    fn kprobes(&self) -> bool {
        *self.kprobes.get_or_init(|| perf::has_kprobes(self.tracefs()).unwrap_or(true))
    }

    fn tracefs(&self) -> Option<&Path> {
        self.tracefs.get_or_init(tracefs::root).as_deref()
    }

    /// Only a host that has no kprobes is asked: who is as strict as that may forbid trampolines, too.
    fn forbids_trampolines(&self) -> bool {
        *self.trampolines.get_or_init(|| !self.kprobes() && forbids_trampolines().unwrap_or(false))
    }
}

/// Whether programs with trampolines are forbidden, by a policy that looks no further. Else the kernel goes on to miss the
/// function that it should attach to.
fn forbids_trampolines() -> Option<bool> {
    let nothing = [Insn::Mov { width: Width::W64, dst: Reg::R0, src: Operand::Imm(0) }, Insn::Exit];
    let mut slots = Vec::with_capacity(nothing.len());
    for insn in &nothing {
        slots.extend_from_slice(&encode(insn).ok()?);
    }
    let command = ProgLoad::new(ProgType::Tracing, "probe", &slots, c"GPL")?;
    let refused = bpf(&mut command.attach(AttachType::TraceFentry, 0)).err()?;
    Some(refused == Errno::PERM && Hint::for_errno(refused) == Some(Hint::Forbidden))
}
