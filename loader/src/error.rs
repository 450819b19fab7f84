//! What can go wrong between an object and a running kernel.

use std::path::{Path, PathBuf};

use bpfasm::error::AsmError;
use bpfasm::object::Attach;
use btf::{Absent, BtfError};
use thiserror::Error;

use crate::attach_name::AttachName;
use crate::chain::Chain;
use crate::errno::Errno;
use crate::hint::{Hint, Suffix};
use crate::kernel::{KERNEL_BTF, KernelError};
use crate::pinned::{PinnedError, PinnedFound};
use crate::relocate::RelocError;
use crate::verifier::VerifierLog;

/// Why an object could not be loaded, attached or read.
///
/// `{}` is one line, or three if the verifier refused a program: what failed, the statement, the
/// reason. `{:#}` adds the verifier's whole log. An `errno` is always the kernel's answer, and a
/// `hint` its probable cause, if one is known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The running kernel could not be identified.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// The kernel has no type information (BTF), so no field can be located.
    #[error(fmt = message::no_btf)]
    NoBtf {
        /// The file that should have it.
        path: PathBuf,
        /// Why the file could not be read.
        errno: Errno,
    },
    /// The BTF file given by the caller describes another kernel.
    #[error("{} has the types of another kernel, and this kernel has its own", path.display())]
    OtherKernel {
        /// The file given by the caller.
        path: PathBuf,
    },
    /// The type information is damaged, or names in it are ambiguous.
    #[error("{}", Chain(.0))]
    Btf(#[from] BtfError),
    /// A list of CPUs (`/sys/devices/system/cpu`) could not be read.
    #[error("list of CPUs in /sys/devices/system/cpu: {0}")]
    Cpus(Errno),
    /// The kernel did not create a map.
    #[error("create map `{map}`: {errno}{}", Suffix(hint))]
    Map {
        /// The map's name in the object.
        map: String,
        /// The kernel's answer.
        errno: Errno,
        /// The probable cause.
        hint: Option<Hint>,
    },
    /// The map at a pinned path is missing or does not fit.
    #[error("{0}")]
    Pinned(#[source] Box<PinnedError>),
    /// A symbol of a program has no value on this kernel.
    #[error("program `{program}`: {error}")]
    Reloc {
        /// The program's name.
        program: String,
        /// The symbol and the reason.
        #[source]
        error: Box<RelocError>,
    },
    /// A program cannot be encoded, for example because a jump is too far.
    #[error("program `{program}`: {error}")]
    Asm {
        /// The program's name.
        program: String,
        /// The instruction and the reason.
        #[source]
        error: Box<AsmError>,
    },
    /// The kernel refused to load a program.
    #[error(fmt = message::load)]
    Load {
        /// The program's name.
        program: String,
        /// The kernel's answer.
        errno: Errno,
        /// The verifier's log; empty if the kernel refused before it verified.
        log: Box<VerifierLog>,
        /// The probable cause.
        hint: Option<Hint>,
    },
    /// The kernel does not have the tracepoint, function or iterator that a program attaches to.
    #[error("this kernel has {why}")]
    NoTarget {
        /// The attach point.
        attach: Attach,
        /// The name that is missing.
        why: Absent,
    },
    /// The kernel knows this attach point by an id in its own BTF, but the caller gave another BTF.
    #[error("needs the running kernel's own type information, not that of a file")]
    ForeignBtf {
        /// The attach point.
        attach: Attach,
    },
    /// A program was loaded, but not attached. Callers print it next to its [`AttachName`], which
    /// the message does not repeat.
    #[error(fmt = message::attach)]
    Attach {
        /// The attach point.
        attach: Attach,
        /// The kernel's answer.
        errno: Errno,
        /// The probable cause.
        hint: Option<Hint>,
    },
    /// The kernel refused every attach option of a required hook.
    #[error(fmt = message::no_attach_option)]
    NoAttachOption {
        /// The hook's name.
        hook: String,
        /// Each attach option with the reason for its refusal. Options of hooks that this one is a
        /// fallback for come first.
        refused: Vec<(Attach, LoadError)>,
    },
    /// `fallback_for` does not name an earlier optional hook.
    #[error("`{hook}` is a fallback for `{earlier}`, which is not an earlier optional hook")]
    FallbackFor {
        /// The hook's name.
        hook: String,
        /// The name in `fallback_for`.
        earlier: String,
    },
    /// The reader of a map's events could not be opened.
    #[error("open ring `{map}`: {errno}{}", Suffix(hint))]
    Ring {
        /// The map's name.
        map: String,
        /// The kernel's answer.
        errno: Errno,
        /// The probable cause.
        hint: Option<Hint>,
    },
    /// Events were requested from a map that is neither a ring buffer nor a perf event array.
    #[error("map `{map}` is not an event buffer")]
    NotARing {
        /// The map's name.
        map: String,
    },
    /// The object does not define this map.
    #[error("no map `{map}`")]
    NoMap {
        /// The name that was looked up.
        map: String,
    },
    /// `inner` of a map is wrong. Only an array of maps has inner maps, it must name at least one,
    /// and each must be a map of the object that has no inner maps itself.
    #[error("map `{map}` cannot have the inner map `{inner}`")]
    InnerMap {
        /// The outer map's name.
        map: String,
        /// The inner map's name; empty if an array of maps names none.
        inner: String,
    },
    /// The map was not created, because no loaded program uses it.
    #[error("no loaded program uses map `{map}`")]
    UnusedMap {
        /// The map's name.
        map: String,
    },
    /// The object has no hook of this name, or the hook is not an iterator.
    #[error("no iterator `{hook}`")]
    NoHook {
        /// The name that was looked up.
        hook: String,
    },
    /// An iterator failed while it ran.
    #[error("iterate `{hook}`: {errno}")]
    Iter {
        /// The hook's name.
        hook: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused to describe or run a loaded program, or its license is not a C string.
    #[error("program `{program}`: {errno}")]
    Program {
        /// The program's name.
        program: String,
        /// The kernel's answer; EINVAL for the license.
        errno: Errno,
    },
    /// A probe got neither yes nor no, so it is unknown whether the kernel has a feature.
    #[error("check for {feature}: {errno}{}", Suffix(hint))]
    Probe {
        /// The feature's name, as in [`crate::features::Report`].
        feature: &'static str,
        /// The kernel's answer.
        errno: Errno,
        /// The probable cause.
        hint: Option<Hint>,
    },
}

/// Messages that depend on more than their fields. The functions take references to the fields, in
/// their order.
mod message {
    use std::fmt::{Formatter, Result};

    use super::{Attach, AttachName, Errno, Hint, KERNEL_BTF, LoadError, Path, Suffix, VerifierLog};

    pub(super) fn no_btf(path: &Path, errno: &Errno, f: &mut Formatter<'_>) -> Result {
        let path_text = path.display();
        if *errno == Errno::NOENT && path.as_os_str() == KERNEL_BTF {
            write!(f, "no type information in {path_text} (CONFIG_DEBUG_INFO_BTF)")
        } else {
            write!(f, "type information in {path_text}: {errno}")
        }
    }

    pub(super) fn load(
        program: &str,
        errno: &Errno,
        log: &VerifierLog,
        hint: &Option<Hint>,
        f: &mut Formatter<'_>,
    ) -> Result {
        write!(f, "load `{program}`: {errno}{}", Suffix(hint))?;
        match (log.is_empty(), f.alternate()) {
            (true, _) => Ok(()),
            // The hint already says it, in plainer words than the verifier.
            (false, false) if matches!(hint, Some(Hint::Confidential)) => Ok(()),
            (false, false) => write!(f, "\n{log}"),
            (false, true) => write!(f, "\n{log:#}"),
        }
    }

    pub(super) fn attach(
        attach: &Attach,
        errno: &Errno,
        hint: &Option<Hint>,
        f: &mut Formatter<'_>,
    ) -> Result {
        match (attach, *errno) {
            (Attach::RawTp(name), Errno::NOENT) => write!(f, "this kernel has no tracepoint `{name}`"),
            _ => write!(f, "attach: {errno}{}", Suffix(hint)),
        }
    }

    pub(super) fn no_attach_option(
        hook: &str,
        refused: &[(Attach, LoadError)],
        f: &mut Formatter<'_>,
    ) -> Result {
        write!(f, "no way to see `{hook}` on this kernel")?;
        for (number, (attach, error)) in refused.iter().enumerate() {
            if f.alternate() {
                write!(f, "\n  {}: {error:#}", AttachName(attach))?;
            } else {
                let before = if number == 0 { ": " } else { "; " };
                write!(f, "{before}{}: {error}", AttachName(attach))?;
            }
        }
        Ok(())
    }
}

impl From<PinnedError> for LoadError {
    fn from(error: PinnedError) -> Self {
        Self::Pinned(Box::new(error))
    }
}

impl LoadError {
    /// The error for a ring that could not be opened, with the cause that `errno` suggests.
    pub(crate) fn ring(map: &str, errno: Errno) -> Self {
        let hint = match Hint::for_errno(errno) {
            // The process has all capabilities: the limit on perf's memory remains as the cause.
            Some(Hint::Forbidden) => Some(Hint::PerfMlock),
            other => other,
        };
        Self::Ring { map: map.to_owned(), errno, hint }
    }

    /// Whether the object or the type information is wrong in itself, so that no kernel would
    /// accept it and no other attach option needs to be tried.
    pub(crate) fn is_mistake(&self) -> bool {
        // An ambiguous name belongs to this kernel: the next one may have it once.
        let damaged = |error: &BtfError| !matches!(error.root(), BtfError::Ambiguous { .. });
        match self {
            Self::Asm { .. } | Self::FallbackFor { .. } | Self::InnerMap { .. } => true,
            Self::Btf(error) => damaged(error),
            Self::Reloc { error, .. } => match &**error {
                RelocError::Btf { error, .. } => damaged(error),
                RelocError::Place { .. } | RelocError::Const { .. } | RelocError::Map { .. } => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// The probable cause, if the kernel refused one operation and the cause is known.
    #[must_use]
    pub fn hint(&self) -> Option<&Hint> {
        match self {
            Self::Map { hint, .. }
            | Self::Load { hint, .. }
            | Self::Attach { hint, .. }
            | Self::Ring { hint, .. }
            | Self::Probe { hint, .. } => hint.as_ref(),
            Self::Pinned(error) => match &error.found {
                PinnedFound::Nothing { hint, .. } => hint.as_ref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the process lacks the capabilities for BPF, so that every other attempt would fail
    /// too.
    #[must_use]
    pub fn is_unprivileged(&self) -> bool {
        matches!(self.hint(), Some(Hint::Capabilities(_)))
    }

    /// A command or a setting that would help. For a hook without an attach option: what would help
    /// its best option that can be helped.
    #[must_use]
    pub fn cure(&self) -> Option<&'static str> {
        match self {
            Self::NoBtf { .. } => Some("a file with the type information of this kernel"),
            Self::NoAttachOption { refused, .. } => refused.iter().find_map(|(_, error)| error.cure()),
            _ => self.hint().and_then(Hint::cure),
        }
    }

    /// Whether `{}` shows a part of a verifier log, which `{:#}` shows in full.
    #[must_use]
    pub fn omits_log(&self) -> bool {
        match self {
            // Under lockdown the hint says it all, and `{}` shows nothing of the log.
            Self::Load { log, hint, .. } => log.omitted() > 0 && *hint != Some(Hint::Confidential),
            Self::NoAttachOption { refused, .. } => refused.iter().any(|(_, error)| error.omits_log()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privileges::Capability;

    #[test]
    fn messages_say_what_helps() {
        let map = |hint| LoadError::Map { map: "conns".into(), errno: Errno::PERM, hint }.to_string();
        assert_eq!(map(None), "create map `conns`: operation not permitted (os error 1)");
        let missing = vec![Capability::Bpf, Capability::Perfmon];
        assert!(
            map(Some(Hint::Capabilities(missing)))
                .ends_with(": run as root, or give CAP_BPF and CAP_PERFMON")
        );
        assert!(map(Some(Hint::Memlock)).ends_with("(ulimit -l unlimited)"));
        let btf = |path: &str| LoadError::NoBtf { path: path.into(), errno: Errno::NOENT }.to_string();
        assert_eq!(btf(KERNEL_BTF), format!("no type information in {KERNEL_BTF} (CONFIG_DEBUG_INFO_BTF)"));
        assert_eq!(btf("x.btf"), "type information in x.btf: no such file or directory (os error 2)");
    }

    #[test]
    fn every_refused_attach_option_is_listed() {
        let typed = Attach::TpBtf("a".into());
        let refused = vec![
            (
                typed.clone(),
                LoadError::NoTarget { attach: typed, why: Absent::Tracepoint { name: "a".into() } },
            ),
            (
                Attach::RawTp("a".into()),
                LoadError::Attach { attach: Attach::RawTp("a".into()), errno: Errno::NOENT, hint: None },
            ),
            (
                Attach::Kprobe("f".into()),
                LoadError::Attach {
                    attach: Attach::Kprobe("f".into()),
                    errno: Errno::PERM,
                    hint: Some(Hint::Forbidden),
                },
            ),
        ];
        let error = LoadError::NoAttachOption { hook: "state change".into(), refused };
        assert!(!error.is_unprivileged());
        assert_eq!(
            format!("{error:#}").lines().collect::<Vec<_>>(),
            [
                "no way to see `state change` on this kernel",
                "  tp_btf a: this kernel has no tracepoint `a`",
                "  raw_tp a: this kernel has no tracepoint `a`",
                "  kprobe f: attach: operation not permitted (os error 1): forbidden by the kernel's lockdown or by a \
                 container (seccomp, user namespace)",
            ]
        );
        let line = error.to_string();
        assert!(line.starts_with("no way to see `state change` on this kernel: tp_btf a: this "), "{line}");
        assert!(line.contains("`a`; raw_tp a: ") && !line.contains('\n'), "{line}");
    }
}
