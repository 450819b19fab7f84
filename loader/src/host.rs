//! Attach points that this host refuses, whatever the program does.
//!
//! Objects are cheaper to build and load if such attach options are skipped before their programs
//! are written. So only questions are asked here that are answered by a file or by one system call.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bpfasm::Attach;
use bpfasm::object::ProgramDef;
use bpfasm::target::Refused;

use crate::empty_program::empty_program;
use crate::errno::Errno;
use crate::error::LoadError;
use crate::hint::Hint;
use crate::link::perf::has_kprobes;
use crate::sys::bpf;
use crate::sys::prog::{AttachType, ProgLoad, ProgType};
use crate::verifier::VerifierLog;
use crate::{kernel, privileges, tracefs};

/// This host. Each question is asked once, when its answer is first needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    kprobes: OnceLock<bool>,
    /// The directory where tracefs is mounted.
    tracefs: OnceLock<Option<PathBuf>>,
    forbids_trampolines: OnceLock<bool>,
}

impl Host {
    /// The attach points that no program needs to be written for. One that could not be checked is
    /// not among them.
    ///
    /// On a host with kprobes nothing else is checked: functions can be traced there, by
    /// trampolines or by kprobes, and the tracepoints by perf events are only a fallback for those.
    pub(crate) fn refused(&self) -> Refused {
        if self.kprobes() {
            return Refused::default();
        }
        Refused {
            trampolines: self.refuses_trampolines(),
            kprobes: true,
            tracepoints: self.tracefs().is_none(),
        }
    }

    /// # Errors
    /// If this host would refuse the attach option. That includes everything in [`Host::refused`].
    pub(crate) fn check(&self, def: &ProgramDef) -> Result<(), LoadError> {
        let attach = |hint| {
            Err(LoadError::Attach { attach: def.attach.clone(), errno: Errno::NOENT, hint: Some(hint) })
        };
        match &def.attach {
            Attach::Kprobe(_) | Attach::Kretprobe(_) if !self.kprobes() => attach(Hint::NoKprobes),
            Attach::Tracepoints(..) if self.tracefs().is_none() => attach(Hint::Tracefs),
            Attach::Fentry(_) | Attach::Fexit(_) if self.refuses_trampolines() => Err(LoadError::Load {
                program: def.name.to_string(),
                errno: Errno::PERM,
                log: Box::new(VerifierLog::new("", &def.program)),
                hint: Some(Hint::Forbidden),
            }),
            _ => Ok(()),
        }
    }

    fn kprobes(&self) -> bool {
        *self.kprobes.get_or_init(|| has_kprobes(|| self.tracefs()).unwrap_or(true))
    }

    fn tracefs(&self) -> Option<&Path> {
        self.tracefs.get_or_init(tracefs::root).as_deref()
    }

    /// Checked only on a host without kprobes, because it may forbid trampolines by the same
    /// policy.
    fn refuses_trampolines(&self) -> bool {
        !self.kprobes() && *self.forbids_trampolines.get_or_init(|| forbids_trampolines().unwrap_or(false))
    }
}

/// Whether a policy forbids programs with trampolines. `None` if that is unknown.
///
/// The program names no function (BTF id 0). A policy refuses it with EPERM before the kernel looks
/// at that; without a policy the kernel complains about the missing function.
fn forbids_trampolines() -> Option<bool> {
    // Before 5.11 programs count as locked memory, which is another reason for EPERM.
    if privileges::charges_memlock(kernel::version().ok()?) && !privileges::lift_memlock() {
        return None;
    }
    let slots = empty_program("probe").slots().ok()?;
    let command = ProgLoad::new(ProgType::Tracing, "probe", &slots, c"GPL")?;
    let refused = bpf(&mut command.attach(AttachType::TraceFentry, 0)).err()?;
    Some(Hint::for_errno(refused) == Some(Hint::Forbidden))
}

#[cfg(test)]
mod tests {
    use bpfasm::Program;

    use super::*;

    fn host(kprobes: bool, tracefs: bool, forbids_trampolines: bool) -> Host {
        Host {
            kprobes: kprobes.into(),
            tracefs: tracefs.then(|| PathBuf::from("/t")).into(),
            forbids_trampolines: forbids_trampolines.into(),
        }
    }

    fn every_attach() -> [Attach; 8] {
        let name = || "x".into();
        [
            Attach::TpBtf(name()),
            Attach::RawTp(name()),
            Attach::Iter(name()),
            Attach::Fentry(name()),
            Attach::Fexit(name()),
            Attach::Kprobe(name()),
            Attach::Kretprobe(name()),
            Attach::Tracepoints(name(), vec![name()]),
        ]
    }

    fn refusal(host: &Host, attach: Attach) -> Option<String> {
        let def = ProgramDef { name: "p".into(), attach, program: Program::default() };
        host.check(&def).err().map(|error| error.to_string())
    }

    #[test]
    fn every_skipped_attach_point_is_refused() {
        for kprobes in [false, true] {
            for tracefs in [false, true] {
                for trampolines in [false, true] {
                    let host = host(kprobes, tracefs, trampolines);
                    for attach in every_attach() {
                        let skipped = host.refused().refuses(&attach);
                        assert!(!skipped || refusal(&host, attach.clone()).is_some(), "{host:?} {attach:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_missing_attach_points_are_refused() {
        let refused = |host: &Host| -> Vec<usize> {
            every_attach()
                .into_iter()
                .enumerate()
                .filter_map(|(at, attach)| refusal(host, attach).map(|_| at))
                .collect()
        };
        assert!(refused(&host(true, true, false)).is_empty());
        // Trampolines are not checked on a host with kprobes.
        assert!(refused(&host(true, true, true)).is_empty());
        assert_eq!(refused(&host(true, false, false)), [7]);
        assert_eq!(refused(&host(false, true, false)), [5, 6]);
        assert_eq!(refused(&host(false, true, true)), [3, 4, 5, 6]);
    }

    #[test]
    fn refusals_say_what_would_help() {
        let strict = host(false, false, true);
        let message = |at: usize| refusal(&strict, every_attach()[at].clone()).unwrap();
        assert!(message(3).contains("lockdown"), "{}", message(3));
        assert!(message(5).contains("CONFIG_KPROBE_EVENTS"), "{}", message(5));
        assert!(message(7).contains("mount -t tracefs"), "{}", message(7));
    }
}
