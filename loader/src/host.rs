//! What the host at hand does not allow, whatever the program is.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bpfasm::Attach;
use bpfasm::object::ProgramDef;
use bpfasm::target::Refused;

use crate::errno::Errno;
use crate::error::{Hint, LoadError};
use crate::features::nothing;
use crate::link::perf::has_kprobes;
use crate::sys::bpf;
use crate::sys::bpf::{AttachType, ProgLoad, ProgType};
use crate::verifier::VerifierLog;
use crate::{kernel, privileges, tracefs};

/// The host at hand. Each question is asked when its answer is first needed, and once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    kprobes: OnceLock<bool>,
    /// Where it is.
    tracefs: OnceLock<Option<PathBuf>>,
    forbids_trampolines: OnceLock<bool>,
}

impl Host {
    /// What no program need be written for. What cannot be told is not refused.
    ///
    /// Where there are kprobes, nothing more is asked: functions can be traced there, which is better than what else could be
    /// refused, or stands in for it.
    pub(crate) fn refused(&self) -> Refused {
        if self.kprobes() {
            return Refused::default();
        }
        Refused { trampolines: self.bars_trampolines(), kprobes: true, tracepoints: self.tracefs().is_none() }
    }

    /// The refusal of an attach option that this host would refuse. What is [refused](Host::refused) is among that.
    pub(crate) fn check(&self, def: &ProgramDef) -> Result<(), LoadError> {
        let attach = |hint| {
            Err(LoadError::Attach { attach: def.attach.clone(), errno: Errno::NOENT, hint: Some(hint) })
        };
        match &def.attach {
            Attach::Kprobe(_) | Attach::Kretprobe(_) if !self.kprobes() => attach(Hint::NoKprobes),
            Attach::Tracepoints(..) if self.tracefs().is_none() => attach(Hint::Tracefs),
            Attach::Fentry(_) | Attach::Fexit(_) if self.bars_trampolines() => Err(LoadError::Load {
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

    /// Only a host that has no kprobes is asked: it may be as strict about trampolines.
    fn bars_trampolines(&self) -> bool {
        !self.kprobes() && *self.forbids_trampolines.get_or_init(|| forbids_trampolines().unwrap_or(false))
    }
}

/// Whether programs with trampolines are forbidden, by a policy that looks no further. Else the kernel goes on to miss the
/// function that it should attach to.
fn forbids_trampolines() -> Option<bool> {
    // Where programs are charged to a limit, that would be another reason to say no.
    if privileges::charges_memlock(kernel::version().ok()?) && !privileges::lift_memlock() {
        return None;
    }
    let slots = nothing().slots().ok()?;
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
    fn refused_attach_points() {
        for kprobes in [false, true] {
            for tracefs in [false, true] {
                for trampolines in [false, true] {
                    let host = host(kprobes, tracefs, trampolines);
                    for attach in every_attach() {
                        let bars = host.refused().refuses(&attach);
                        assert!(!bars || refusal(&host, attach.clone()).is_some(), "{host:?} {attach:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_there_is_refused_and_nothing_else() {
        let refused = |host: &Host| -> Vec<usize> {
            every_attach()
                .into_iter()
                .enumerate()
                .filter_map(|(at, attach)| refusal(host, attach).map(|_| at))
                .collect()
        };
        assert!(refused(&host(true, true, false)).is_empty());
        // Where there are kprobes, nobody asks about trampolines.
        assert!(refused(&host(true, true, true)).is_empty());
        assert_eq!(refused(&host(true, false, false)), [7]);
        assert_eq!(refused(&host(false, true, false)), [5, 6]);
        assert_eq!(refused(&host(false, true, true)), [3, 4, 5, 6]);
    }

    #[test]
    fn refusals_say_what_would_help() {
        let strict = host(false, false, true);
        let said = |at: usize| refusal(&strict, every_attach()[at].clone()).unwrap();
        assert!(said(3).contains("lockdown"), "{}", said(3));
        assert!(said(5).contains("CONFIG_KPROBE_EVENTS"), "{}", said(5));
        assert!(said(7).contains("mount -t tracefs"), "{}", said(7));
    }
}
