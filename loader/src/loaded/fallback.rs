//! Which attach option each hook stands on, and which hooks are needed at all.

use std::os::fd::{AsFd, AsRawFd};

use bpfasm::{AsmError, Attach, Detach, Hook, Need, Object, ProgramDef};
use btf::Index;

use super::{Loaded, Note};
use crate::error::LoadError;
use crate::host::Host;
use crate::link::{Close, Link};
use crate::prog::{LoadOptions, Prepared, Prog};
use crate::relocate::{Answers, relocate_with, resolve_maps};

/// Resolves all symbols but maps, of every attach option that this host may have: it may be needed later, when the BTF is no longer at
/// hand.
pub(super) fn prepare(
    object: &Object,
    index: &Index<'_>,
    own: bool,
    host: &Host,
) -> Result<Vec<HookState>, LoadError> {
    let answers = Answers::new(index);
    let mut number = 0;
    let mut hooks = Vec::with_capacity(object.hooks.len());
    for Hook { name, fallback_for, detach, attach_options, .. } in &object.hooks {
        let mut earlier = object.hooks.iter().take(hooks.len());
        let fallback_for = match fallback_for {
            None => None,
            Some(wanted) => {
                let optional = |hook: &Hook| hook.name == *wanted && hook.need == Need::Optional;
                let missing = || LoadError::InsteadOf { hook: name.to_string(), earlier: wanted.to_string() };
                Some(earlier.position(optional).ok_or_else(missing)?)
            }
        };
        let mut ready = Vec::with_capacity(attach_options.len());
        for def in attach_options {
            let relocated = || {
                relocate_with(&def.program, &answers, &object.consts).map_err(|error| LoadError::Reloc {
                    program: def.name.to_string(),
                    error: Box::new(error),
                })
            };
            let prepared = host
                .check(def)
                .and_then(|()| written(def))
                .and_then(|()| relocated())
                .and_then(|program| Prepared::new(&def.name, &def.attach, program, index, own));
            let prepared = match prepared {
                Err(error) if error.is_mistake() => return Err(error),
                other => Box::new(other),
            };
            ready.push(AttachOption { attach: def.attach.clone(), number, prepared });
            number += 1;
        }
        // Taken from the end.
        ready.reverse();
        hooks.push(HookState {
            fallback_for,
            detach: detach.clone(),
            tried: false,
            rest: ready,
            active: None,
        });
    }
    Ok(hooks)
}

/// A program that was not written is none of an attach option that the host would take.
fn written(def: &ProgramDef) -> Result<(), LoadError> {
    let missing = || LoadError::Asm { program: def.name.to_string(), error: Box::new(AsmError::Empty) };
    if def.program.insns.is_empty() { Err(missing()) } else { Ok(()) }
}

/// A hook's way down the ladder.
#[derive(Debug)]
pub(super) struct HookState {
    /// The place of the hook in whose stead it is, before its own.
    fallback_for: Option<usize>,
    pub(super) detach: Detach,
    /// Whether the first attach option was tried.
    tried: bool,
    /// AttachOptions not tried yet, the best one last.
    rest: Vec<AttachOption>,
    pub(super) active: Option<Active>,
}

#[derive(Debug)]
struct AttachOption {
    attach: Attach,
    /// Its place among all attach options of the object.
    number: usize,
    prepared: Box<Result<Prepared, LoadError>>,
}

impl HookState {
    /// Makes sure that nobody waits longer for the hook's end than for what its programs do.
    pub(super) fn park(&mut self) {
        let close = if self.detach == Detach::Waited { Close::Waits } else { Close::Returns };
        if let Some(link) = self.active.as_mut().and_then(|active| active.link.as_mut()) {
            link.park(close);
        }
    }

    /// The numbers of the attach options that can be tried.
    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        self.rest
            .iter()
            .filter(|attach_option| attach_option.prepared.is_ok())
            .map(|attach_option| attach_option.number)
    }
}

/// The attach option a hook stands on. The link is dropped first.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) link: Option<Link>,
    pub(super) prog: Prog,
    attach: Attach,
}

impl Loaded {
    /// Loads the hook, unless that was tried already, or it is not needed because the one in whose stead it is holds so far.
    pub(super) fn load_hook(&mut self, at: usize) -> Result<(), LoadError> {
        let Some(hook) = self.hooks.get(at) else { return Ok(()) };
        let unneeded = hook.fallback_for.is_some_and(|earlier| {
            let held = self.hooks.get(earlier).is_some_and(|hook| hook.active.is_some());
            held || self.reports.get(earlier).is_some_and(|report| report.unneeded)
        });
        let untried = !hook.tried;
        if let Some(report) = self.reports.get_mut(at) {
            report.unneeded = unneeded;
        }
        if untried && !unneeded { self.load_next(at) } else { Ok(()) }
    }

    /// Loads the hook's next attach option that the kernel takes. An error if there is none and the hook is required.
    fn load_next(&mut self, at: usize) -> Result<(), LoadError> {
        let (Some(hook), Some(report)) = (self.hooks.get_mut(at), self.reports.get_mut(at)) else {
            return Ok(());
        };
        hook.tried = true;
        while let Some(AttachOption { attach, number, prepared }) = hook.rest.pop() {
            if let Ok(prepared) = &*prepared {
                let btf = self.btf.as_ref().map(AsFd::as_fd);
                self.maps.create_used(&prepared.program, btf, &mut self.notes)?;
            }
            let maps = &self.maps;
            let debug =
                self.btf.as_ref().zip(self.programs.get(number)).map(|(btf, info)| (btf.as_fd(), info));
            let loaded = prepared.and_then(|mut prepared| {
                let mut program = std::mem::take(&mut prepared.program);
                resolve_maps(&mut program, |name| maps.get(name).ok().map(|map| map.as_fd().as_raw_fd()))
                    .map_err(|error| LoadError::Reloc {
                        program: prepared.name.clone(),
                        error: Box::new(error),
                    })?;
                let options = LoadOptions {
                    license: &self.license,
                    kern_version: self.kern_version,
                    debug,
                    log_level: self.log_level,
                };
                Prog::load(&prepared, &program, &options)
            });
            match loaded {
                Ok(prog) => {
                    if let Some(errno) = prog.plain {
                        self.notes.push(Note::SourceLines { program: prog.name.clone(), errno });
                    }
                    hook.active = Some(Active { link: None, prog, attach });
                    return Ok(());
                }
                // No other way would be open either, or it would only hide what is wrong with this one.
                Err(error) if error.is_unprivileged() || error.is_mistake() => return Err(error),
                Err(error) => report.refused.push((attach, error)),
            }
        }
        match report.need {
            Need::Optional => Ok(()),
            Need::Required => {
                let hook = report.hook.to_string();
                Err(LoadError::NoAttachOption { hook, refused: self.refusals(at) })
            }
        }
    }

    /// Takes the reasons against the hook, behind those against the hooks in whose stead it is.
    fn refusals(&mut self, at: usize) -> Vec<(Attach, LoadError)> {
        let earlier = self.hooks.get(at).and_then(|hook| hook.fallback_for);
        let mut refused = earlier.map(|earlier| self.refusals(earlier)).unwrap_or_default();
        if let Some(report) = self.reports.get_mut(at) {
            refused.append(&mut report.refused);
        }
        refused
    }

    /// Attaches the hook, going down its attach options where the kernel refuses.
    pub(super) fn attach_hook(&mut self, at: usize) -> Result<(), LoadError> {
        // The hook in whose stead it is may have fallen while that was attached.
        self.load_hook(at)?;
        while let Some(hook) = self.hooks.get_mut(at)
            && let Some(active) = &hook.active
            && active.link.is_none()
        {
            let result = Link::new(active.prog.as_fd(), &active.attach);
            let attach = active.attach.clone();
            let (Some(hook), Some(report)) = (self.hooks.get_mut(at), self.reports.get_mut(at)) else {
                break;
            };
            match (result, &mut hook.active) {
                (Ok(link), Some(active)) => {
                    active.link = Some(link);
                    report.taken = Some(attach);
                }
                (Err(error), _) if error.is_unprivileged() => return Err(error),
                (Err(error), active) => {
                    *active = None;
                    report.refused.push((attach, error));
                    self.load_next(at)?;
                }
                (Ok(_), None) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfasm::{Program, ProgramDef, bpf};
    use btf::{Btf, Builder, IntEncoding, Wanted};

    fn hook(name: &'static str, need: Need) -> Hook {
        let program = Program::link(name, bpf! { r0 = 0; exit; }).unwrap();
        Hook::new(
            name,
            need,
            vec![ProgramDef { name: name.into(), attach: Attach::RawTp("x".into()), program }],
        )
    }

    fn prepared(hooks: Vec<Hook>) -> Result<Vec<Option<usize>>, LoadError> {
        let mut types = Builder::new();
        types.int("int", 4, IntEncoding::Signed).unwrap();
        let btf = Btf::from_source(types.finish().unwrap()).unwrap();
        let index = btf.index(&Wanted::new()).unwrap();
        let (name, license) = ("t".into(), "GPL".into());
        let object = Object { name, license, hooks, maps: vec![], consts: vec![] };
        prepare(&object, &index, true, &Host::default())
            .map(|hooks| hooks.iter().map(|hook| hook.fallback_for).collect())
    }

    #[test]
    fn a_hook_stands_in_for_an_optional_one_before_it() {
        let chain = vec![
            hook("a", Need::Optional),
            hook("other", Need::Required),
            hook("b", Need::Optional).fallback_for("a"),
            hook("c", Need::Required).fallback_for("b"),
        ];
        assert_eq!(prepared(chain).unwrap(), [None, None, Some(0), Some(2)]);
    }

    #[test]
    fn anything_else_to_stand_in_for_is_a_mistake() {
        let wrong = |hooks: Vec<Hook>| {
            let error = prepared(hooks).unwrap_err();
            assert!(error.is_mistake(), "{error}");
            error.to_string()
        };
        let itself = hook("b", Need::Optional).fallback_for("b");
        assert_eq!(wrong(vec![itself]), "`b` stands in for `b`, which is no optional hook before it");
        wrong(vec![hook("b", Need::Optional).fallback_for("a")]);
        wrong(vec![hook("b", Need::Optional).fallback_for("a"), hook("a", Need::Optional)]);
        wrong(vec![hook("a", Need::Required), hook("b", Need::Optional).fallback_for("a")]);
    }
}
