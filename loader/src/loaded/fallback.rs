//! Which attach option each hook uses, and which hooks are needed at all.
//!
//! There are two kinds of fallback:
//!
//! - **Attach options of one hook.** They see the same thing in different ways, best first: for
//!   example `tp_btf`, then `raw_tp`, then a kprobe. The loader takes the first that the kernel
//!   accepts.
//! - **Fallback hooks.** A hook may be a fallback for an earlier, optional hook: it sees something
//!   less precise, and is only loaded if no attach option of the earlier hook is accepted.
//!   Fallbacks form chains: `c` for `b`, `b` for `a`. If `a` is attached, `b` is unneeded and so is
//!   `c`.
//!
//! The kernel can refuse an option at two moments: when its program is loaded, and when it is
//! attached. All hooks are loaded first, in the order of the object, because most refusals come
//! from the verifier and nothing is attached yet that would have to be detached. Then they are
//! attached in the same order. If attaching fails, the hook's next option is loaded and attached at
//! once. Because a fallback hook always comes after the hook it stands in for, it is known by then
//! whether it is needed. That can change once: an option that loaded may still fail to attach, and
//! if it was the last one of its hook, the fallback hook is loaded while the others are attached
//! already.
//!
//! Everything that needs the kernel's BTF is resolved before, for all options ([`prepare`]). A
//! later attempt then only has to fill in the descriptors of maps. Two errors end the search,
//! because no other option could succeed or its success would hide a defect: missing capabilities,
//! and mistakes in the object itself.

use std::os::fd::{AsFd, AsRawFd};

use bpfasm::{AsmError, Attach, Detach, Hook, Need, Object, ProgramDef};
use btf::Index;

use super::{Loaded, Note};
use crate::error::LoadError;
use crate::host::Host;
use crate::link::{Close, Link};
use crate::prog::{LoadOptions, Prepared, Prog};
use crate::relocate::{Answers, relocate_with, resolve_maps};

/// Resolves all symbols except maps, in every attach option that this host may accept. An option
/// may be needed later, when the BTF is no longer available.
///
/// # Errors
/// If the object or the BTF is wrong in itself. An option that this kernel lacks is not an error
/// here.
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
                let missing =
                    || LoadError::FallbackFor { hook: name.to_string(), earlier: wanted.to_string() };
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
                .and_then(|()| require_code(def))
                .and_then(|()| relocated())
                .and_then(|program| Prepared::new(&def.name, &def.attach, program, index, own));
            let prepared = match prepared {
                Err(error) if error.is_mistake() => return Err(error),
                other => Box::new(other),
            };
            ready.push(AttachOption { attach: def.attach.clone(), number, prepared });
            number += 1;
        }
        // Options are popped from the end.
        ready.reverse();
        hooks.push(HookState {
            fallback_for,
            detach: detach.clone(),
            tried: false,
            untried: ready,
            active: None,
        });
    }
    Ok(hooks)
}

/// An empty program is only allowed on an attach option that the host is known to refuse: callers
/// need not write programs for those.
fn require_code(def: &ProgramDef) -> Result<(), LoadError> {
    if !def.program.insns.is_empty() {
        return Ok(());
    }
    Err(LoadError::Asm { program: def.name.to_string(), error: Box::new(AsmError::Empty) })
}

/// A hook, the attach option it uses, and those that can still be tried.
#[derive(Debug)]
pub(super) struct HookState {
    /// The index of the hook that this one is a fallback for; less than its own.
    fallback_for: Option<usize>,
    pub(super) detach: Detach,
    /// Whether any attach option was tried.
    tried: bool,
    /// Attach options not tried yet, the best one last.
    untried: Vec<AttachOption>,
    pub(super) active: Option<Active>,
}

/// An attach option that was not tried yet.
#[derive(Debug)]
struct AttachOption {
    attach: Attach,
    /// Its index among all attach options of the object.
    number: usize,
    prepared: Box<Result<Prepared, LoadError>>,
}

impl HookState {
    /// Lets the kernel detach the hook in the background if the hook allows that ([`Detach`]).
    pub(super) fn defer_close(&mut self) {
        let close = if self.detach == Detach::Waited { Close::Waits } else { Close::Returns };
        if let Some(link) = self.active.as_mut().and_then(|active| active.link.as_mut()) {
            link.defer_close(close);
        }
    }

    /// The numbers of the attach options that can be tried.
    pub(super) fn usable(&self) -> impl Iterator<Item = usize> {
        self.untried.iter().filter(|option| option.prepared.is_ok()).map(|option| option.number)
    }
}

/// The attach option that a hook uses. The link is dropped before the program.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) link: Option<Link>,
    pub(super) prog: Prog,
    attach: Attach,
}

impl Loaded {
    /// Loads the hook, unless that was tried already, or the hook it is a fallback for is loaded.
    pub(super) fn load_hook(&mut self, at: usize) -> Result<(), LoadError> {
        let Some(hook) = self.hooks.get(at) else { return Ok(()) };
        let unneeded = hook.fallback_for.is_some_and(|earlier| {
            let loaded = self.hooks.get(earlier).is_some_and(|hook| hook.active.is_some());
            loaded || self.reports.get(earlier).is_some_and(|report| report.unneeded)
        });
        let untried = !hook.tried;
        if let Some(report) = self.reports.get_mut(at) {
            report.unneeded = unneeded;
        }
        if untried && !unneeded { self.load_next(at) } else { Ok(()) }
    }

    /// Loads the next attach option that the kernel accepts.
    ///
    /// # Errors
    /// If there is none and the hook is required, or if the error ends the search.
    fn load_next(&mut self, at: usize) -> Result<(), LoadError> {
        let (Some(hook), Some(report)) = (self.hooks.get_mut(at), self.reports.get_mut(at)) else {
            return Ok(());
        };
        hook.tried = true;
        while let Some(AttachOption { attach, number, prepared }) = hook.untried.pop() {
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
                    if let Some(errno) = prog.without_lines {
                        self.notes.push(Note::SourceLines { program: prog.name.clone(), errno });
                    }
                    hook.active = Some(Active { link: None, prog, attach });
                    return Ok(());
                }
                // Every other option would fail for the same reason, or would hide the defect.
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

    /// Takes the refusals of the hook, after those of the hooks that it is a fallback for.
    fn refusals(&mut self, at: usize) -> Vec<(Attach, LoadError)> {
        let earlier = self.hooks.get(at).and_then(|hook| hook.fallback_for);
        let mut refused = earlier.map(|earlier| self.refusals(earlier)).unwrap_or_default();
        if let Some(report) = self.reports.get_mut(at) {
            refused.append(&mut report.refused);
        }
        refused
    }

    /// Attaches the hook. If the kernel refuses, the next attach option is loaded and attached.
    pub(super) fn attach_hook(&mut self, at: usize) -> Result<(), LoadError> {
        // The hook that this one is a fallback for may have failed to attach meanwhile.
        self.load_hook(at)?;
        while let Some(hook) = self.hooks.get_mut(at)
            && let Some(active) = &hook.active
            && active.link.is_none()
        {
            let result = Link::new(active.prog.as_fd(), &active.attach, &self.name);
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
    fn a_fallback_names_an_earlier_optional_hook() {
        let chain = vec![
            hook("a", Need::Optional),
            hook("other", Need::Required),
            hook("b", Need::Optional).fallback_for("a"),
            hook("c", Need::Required).fallback_for("b"),
        ];
        assert_eq!(prepared(chain).unwrap(), [None, None, Some(0), Some(2)]);
    }

    #[test]
    fn a_fallback_for_any_other_hook_is_a_mistake() {
        let wrong = |hooks: Vec<Hook>| {
            let error = prepared(hooks).unwrap_err();
            assert!(error.is_mistake(), "{error}");
            error.to_string()
        };
        let itself = hook("b", Need::Optional).fallback_for("b");
        assert_eq!(wrong(vec![itself]), "`b` is a fallback for `b`, which is not an earlier optional hook");
        wrong(vec![hook("b", Need::Optional).fallback_for("a")]);
        wrong(vec![hook("b", Need::Optional).fallback_for("a"), hook("a", Need::Optional)]);
        wrong(vec![hook("a", Need::Required), hook("b", Need::Optional).fallback_for("a")]);
    }
}
