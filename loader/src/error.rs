//! What can go wrong between an object and a running kernel.

use std::fmt;
use std::path::{Path, PathBuf};

use bpfasm::error::AsmError;
use bpfasm::object::Attach;
use btf::{Absent, BtfError};

use crate::errno::Errno;
use crate::kernel::{KERNEL_BTF, KernelError};
use crate::pinned::{PinnedError, PinnedFound};
use crate::privileges::Capability;
use crate::relocate::RelocError;
use crate::verifier::VerifierLog;

/// Why an object is not running.
///
/// `{}` is one line, or three where the verifier refused a program: what, which statement, why. `{:#}` adds the verifier's log.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The running kernel could not be identified.
    Kernel(KernelError),
    /// No type information, without which no field has a place.
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// What the file system said.
        errno: Errno,
    },
    /// A file with the types of another kernel.
    OtherKernel {
        /// The file.
        path: PathBuf,
    },
    /// The type information is damaged.
    Btf(BtfError),
    /// A list of CPUs could not be read.
    Cpus(Errno),
    /// A map was not created.
    Map {
        /// Its name.
        map: String,
        /// What the kernel said.
        errno: Errno,
        /// What may help.
        hint: Option<Hint>,
    },
    /// What stands at a path is not the map that should be pinned there.
    Pinned(Box<PinnedError>),
    /// A program cannot be expressed for this kernel.
    Reloc {
        /// Its name.
        program: String,
        /// Why.
        error: Box<RelocError>,
    },
    /// A program cannot be encoded.
    Asm {
        /// Its name.
        program: String,
        /// Why.
        error: Box<AsmError>,
    },
    /// The kernel did not take a program.
    Load {
        /// Its name.
        program: String,
        /// What the kernel said.
        errno: Errno,
        /// What the verifier said.
        log: Box<VerifierLog>,
        /// What may help.
        hint: Option<Hint>,
    },
    /// What a program attaches to is not in this kernel.
    NoTarget {
        /// What it attaches to.
        attach: Attach,
        /// What exactly is missing.
        why: Absent,
    },
    /// What a program attaches to goes by a number in the running kernel's BTF, and only another BTF was given.
    ForeignBtf {
        /// What it attaches to.
        attach: Attach,
    },
    /// A loaded program was not attached. Shown beside its [`AttachName`], which it does not repeat.
    Attach {
        /// What it attaches to.
        attach: Attach,
        /// What the kernel said.
        errno: Errno,
        /// What may help.
        hint: Option<Hint>,
    },
    /// A hook the tool cannot do without, and no way to it.
    NoAttachOption {
        /// The hook's name.
        hook: String,
        /// Each way, and why not; first those of the hooks in whose stead it is.
        refused: Vec<(Attach, LoadError)>,
    },
    /// A hook in the stead of one that is no optional hook before it.
    InsteadOf {
        /// The hook's name.
        hook: String,
        /// The one it names.
        earlier: String,
    },
    /// A ring was not opened.
    Ring {
        /// The map.
        map: String,
        /// What the kernel said.
        errno: Errno,
        /// What may help.
        hint: Option<Hint>,
    },
    /// A map of another kind, asked for events.
    NotARing {
        /// The map.
        map: String,
    },
    /// A map that is not in the object.
    NoMap {
        /// Its name.
        map: String,
    },
    /// A map that names another to be put into it, and one of the two is not of that sort: only an array of maps holds maps, it
    /// has to name at least one, and those are maps of the object that hold none themselves.
    InnerMap {
        /// Its name.
        map: String,
        /// The other's; empty where it names none.
        inner: String,
    },
    /// A map of the object that was not created, because no program that was loaded uses it.
    UnusedMap {
        /// Its name.
        map: String,
    },
    /// A hook that is not in the object, or holds no iterator.
    NoHook {
        /// Its name.
        hook: String,
    },
    /// An iterator did not run.
    Iter {
        /// The hook's name.
        hook: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A loaded program could not be asked about, or be run.
    Program {
        /// Its name.
        program: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// Neither yes nor no: whether the kernel has a feature could not be found out.
    Probe {
        /// The feature.
        feature: &'static str,
        /// What the kernel said.
        errno: Errno,
        /// What may help.
        hint: Option<Hint>,
    },
}

/// What may help.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Hint {
    /// The process lacks these capabilities.
    Capabilities(Vec<Capability>),
    /// Maps are charged to `RLIMIT_MEMLOCK`, and the limit could not be lifted.
    Memlock,
    /// Perf buffers are charged to `kernel.perf_event_mlock_kb`.
    PerfMlock,
    /// tracefs, which has the numbers of tracepoints, is not mounted.
    Tracefs,
    /// The kernel is built without kprobes.
    NoKprobes,
    /// All capabilities are there, so something else forbids it.
    Forbidden,
    /// The kernel is locked down for confidentiality, and a program that reads its memory by address does not load.
    Confidential,
}

impl Hint {
    /// What EPERM means for this process. `None` for any other error.
    pub(crate) fn for_errno(errno: Errno) -> Option<Self> {
        if errno != Errno::PERM {
            return None;
        }
        let missing = crate::privileges::missing();
        Some(if missing.is_empty() { Self::Forbidden } else { Self::Capabilities(missing) })
    }
}

impl Hint {
    /// What to do about it: a command or a setting. `None` where nothing is known to help.
    #[must_use]
    pub fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Capabilities(missing) if missing.contains(&Capability::SysAdmin) => {
                Some("run as root, or setcap cap_sys_admin+ep FILE")
            }
            Self::Capabilities(_) => Some("run as root, or setcap cap_bpf,cap_perfmon+ep FILE"),
            Self::Memlock => Some("ulimit -l unlimited"),
            Self::PerfMlock => Some("a smaller --ring-size, or a larger sysctl kernel.perf_event_mlock_kb"),
            Self::Tracefs => Some("mount -t tracefs tracefs /sys/kernel/tracing"),
            Self::Confidential => Some("boot the kernel with lockdown=integrity, or none"),
            Self::NoKprobes | Self::Forbidden => None,
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities(missing) => {
                f.write_str("run as root, or give ")?;
                for (i, capability) in missing.iter().enumerate() {
                    write!(f, "{}{capability}", if i == 0 { "" } else { " and " })?;
                }
                Ok(())
            }
            Self::Memlock => f.write_str("the locked-memory limit is too low (ulimit -l unlimited)"),
            Self::PerfMlock => f.write_str("the buffers are too large for kernel.perf_event_mlock_kb"),
            Self::Tracefs => {
                f.write_str("no events in /sys/kernel/tracing (mount -t tracefs tracefs /sys/kernel/tracing)")
            }
            Self::NoKprobes => f.write_str("the kernel is built without kprobes (CONFIG_KPROBE_EVENTS)"),
            Self::Forbidden => {
                f.write_str("forbidden by the kernel's lockdown or by a container (seccomp, user namespace)")
            }
            Self::Confidential => f.write_str(
                "under lockdown=confidentiality no program may read the kernel's memory by address \
                 (bpf_probe_read_kernel)",
            ),
        }
    }
}

/// `: <hint>`, or nothing.
struct Behind<'a>(&'a Option<Hint>);

impl fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |hint| write!(f, ": {hint}"))
    }
}

/// An error and what caused it, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// An attach point as people name it: `tp_btf inet_sock_set_state`.
pub struct AttachName<'a>(pub &'a Attach);

impl fmt::Display for AttachName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Attach::TpBtf(name) => write!(f, "tp_btf {name}"),
            Attach::RawTp(name) => write!(f, "raw_tp {name}"),
            Attach::Fentry(name) => write!(f, "fentry {name}"),
            Attach::Fexit(name) => write!(f, "fexit {name}"),
            Attach::Kprobe(name) => write!(f, "kprobe {name}"),
            Attach::Kretprobe(name) => write!(f, "kretprobe {name}"),
            Attach::Tracepoints(category, names) => {
                f.write_str("tracepoint ")?;
                for (i, name) in names.iter().enumerate() {
                    write!(f, "{}{category}:{name}", if i == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Attach::Iter(name) => write!(f, "iter {name}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => write!(f, "{error}"),
            Self::NoBtf { path, errno: Errno::NOENT } if path == Path::new(KERNEL_BTF) => {
                write!(
                    f,
                    "no type information in {} (CONFIG_DEBUG_INFO_BTF): give it with --btf FILE",
                    path.display()
                )
            }
            Self::NoBtf { path, errno } => write!(f, "type information in {}: {errno}", path.display()),
            Self::OtherKernel { path } => write!(
                f,
                "{} has the types of another kernel; this one has its own, so leave --btf out",
                path.display()
            ),
            Self::Btf(error) => write!(f, "{}", Chain(error)),
            Self::Cpus(errno) => write!(f, "list of CPUs in /sys/devices/system/cpu: {errno}"),
            Self::Map { map, errno, hint } => write!(f, "create map `{map}`: {errno}{}", Behind(hint)),
            Self::Pinned(error) => write!(f, "{error}"),
            Self::Reloc { program, error } => write!(f, "program `{program}`: {error}"),
            Self::Asm { program, error } => write!(f, "program `{program}`: {error}"),
            Self::Load { program, errno, log, hint } => {
                write!(f, "load `{program}`: {errno}{}", Behind(hint))?;
                match (log.is_empty(), f.alternate()) {
                    (true, _) => Ok(()),
                    // The verifier only says in its own words what the hint has said.
                    (false, false) if matches!(hint, Some(Hint::Confidential)) => Ok(()),
                    (false, false) => write!(f, "\n{log}"),
                    (false, true) => write!(f, "\n{log:#}"),
                }
            }
            Self::NoTarget { why, .. } => write!(f, "this kernel has {why}"),
            Self::ForeignBtf { .. } => {
                f.write_str("needs the running kernel's own type information, not that of a file")
            }
            Self::Attach { attach: Attach::RawTp(name), errno: Errno::NOENT, .. } => {
                write!(f, "this kernel has no tracepoint `{name}`")
            }
            Self::Attach { errno, hint, .. } => write!(f, "attach: {errno}{}", Behind(hint)),
            Self::NoAttachOption { hook, refused } => {
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
            Self::InsteadOf { hook, earlier } => {
                write!(f, "`{hook}` stands in for `{earlier}`, which is no optional hook before it")
            }
            Self::Ring { map, errno, hint } => write!(f, "open ring `{map}`: {errno}{}", Behind(hint)),
            Self::NotARing { map } => write!(f, "map `{map}` holds no events"),
            Self::NoMap { map } => write!(f, "no map `{map}`"),
            Self::InnerMap { map, inner } => write!(f, "map `{map}` cannot hold a map `{inner}`"),
            Self::UnusedMap { map } => write!(f, "no program that was loaded uses map `{map}`"),
            Self::NoHook { hook } => write!(f, "no iterator `{hook}`"),
            Self::Iter { hook, errno } => write!(f, "iterate `{hook}`: {errno}"),
            Self::Program { program, errno } => write!(f, "program `{program}`: {errno}"),
            Self::Probe { feature, errno, hint } => {
                write!(f, "could not tell whether the kernel has {feature}: {errno}{}", Behind(hint))
            }
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Display already says what the cause says; the chain is for who wants the types.
        match self {
            Self::Kernel(error) => Some(error),
            Self::Btf(error) => Some(error),
            Self::Pinned(error) => Some(&**error),
            Self::Reloc { error, .. } => Some(&**error),
            Self::Asm { error, .. } => Some(&**error),
            _ => None,
        }
    }
}

impl From<KernelError> for LoadError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl From<BtfError> for LoadError {
    fn from(error: BtfError) -> Self {
        Self::Btf(error)
    }
}

impl LoadError {
    pub(crate) fn ring(map: &str, errno: Errno) -> Self {
        let hint = match Hint::for_errno(errno) {
            // With all capabilities, what is left is the limit on perf's memory.
            Some(Hint::Forbidden) => Some(Hint::PerfMlock),
            other => other,
        };
        Self::Ring { map: map.to_owned(), errno, hint }
    }

    /// Whether it is no answer of the kernel's: the object, or the type information, is wrong in itself.
    pub(crate) fn is_mistake(&self) -> bool {
        // Of two types of one name, nobody knows which is meant. That is so on this kernel, perhaps not on the next.
        let damaged = |error: &BtfError| !matches!(error.root(), BtfError::Ambiguous { .. });
        match self {
            Self::Asm { .. } | Self::InsteadOf { .. } | Self::InnerMap { .. } => true,
            Self::Btf(error) => damaged(error),
            Self::Reloc { error, .. } => match &**error {
                RelocError::Btf { error, .. } => damaged(error),
                RelocError::Place { .. } | RelocError::Const { .. } | RelocError::Map { .. } => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// What may help, where the kernel has refused one thing.
    fn hint(&self) -> Option<&Hint> {
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

    /// Whether the process may not do BPF work at all, so that no other way need be tried.
    #[must_use]
    pub fn is_unprivileged(&self) -> bool {
        matches!(self.hint(), Some(Hint::Capabilities(_)))
    }

    /// A command or a setting that would help; of a hook without a way, one for its best way that can be helped.
    #[must_use]
    pub fn cure(&self) -> Option<&'static str> {
        match self {
            Self::NoBtf { .. } => Some("--btf FILE with the type information of this kernel"),
            Self::NoAttachOption { refused, .. } => refused.iter().find_map(|(_, error)| error.cure()),
            _ => self.hint().and_then(Hint::cure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(btf(KERNEL_BTF).ends_with("give it with --btf FILE"));
        assert_eq!(btf("x.btf"), "type information in x.btf: no such file or directory (os error 2)");
    }

    #[test]
    fn a_hook_without_a_way_tells_of_each() {
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
