//! The tools under test: what the tests that are about every tool need to know of each.
//!
//! A tool's specimen stands in the tool's own file, beside its cases; [`ALL`] is the only list of
//! them.

use bpfasm::{Access, Attach, Layout, Object, Target};
use btf::Want;
use programs::filter::Filter;

use crate::lab::{Case, Lab};
use crate::spec::Spec;
use crate::tool::Tool;
use crate::vm::kernel::Kernel;

/// Every tool.
pub const ALL: &[&Specimen] = &[
    &crate::tcpconnlat::SPECIMEN,
    &crate::tcpdrop::SPECIMEN,
    &crate::tcplife::SPECIMEN,
    &crate::tcpretrans::SPECIMEN,
    &crate::tcpretrans::SYN_ACKS,
    &crate::tcpstates::SPECIMEN,
    &crate::tcptracer::SPECIMEN,
    &crate::tcpsubnet::SPECIMEN,
    &crate::tcptop::SPECIMEN,
];

/// Every tool once: some have a second specimen.
pub fn tools() -> impl Iterator<Item = &'static Specimen> {
    let first = |at: usize| ALL[..at].iter().all(|earlier| earlier.name != ALL[at].name);
    (0..ALL.len()).filter(move |at| first(*at)).map(|at| ALL[at])
}

/// A tool.
pub struct Specimen {
    pub name: &'static str,
    /// Its object with the options of the lab's set, but this filter.
    pub object: fn(&Lab, &Filter, &Target) -> Object,
    /// Its objects with this filter, and every combination of its other options; the number is the
    /// ring's bytes.
    pub every: fn(&Filter, &Target, u32) -> Vec<Object>,
    /// Its listings: what each is called, and its object. See [`crate::golden`].
    pub golden: fn() -> Vec<(&'static str, Object)>,
    /// The cases of each of its files.
    pub cases: &'static [&'static [Case]],
    /// Makes a socket like this one take part in an event; returns whether the filter let it
    /// through. The tool may report it once, and is left as if the socket had never existed. `None`
    /// for a tool whose events do not leave one by one.
    pub reports: Option<fn(&mut Tool<'_>, &Spec) -> bool>,
    /// The events it sends from the stack's [`programs::stack_layout::EVENT`];
    /// [`Specimen::reports`] sends the first. What it builds in a map's value is for its own cases.
    pub events: &'static [Layout],
    /// What it keeps of a socket in [`programs::table`].
    pub entry: Option<Layout>,
    /// The fields that its programs use on every kernel, in order: each is one more that every
    /// kernel must have.
    pub fields: &'static [&'static str],
    /// The registers that its programs use, as x86-64 names them. On arm64 those at a probe are one
    /// array, and what says which system call it is, and of which architecture, has names of its
    /// own.
    pub registers: &'static [&'static str],
    /// The fields that it does without (`exists(...)`), in order, and the kernels that lack each.
    pub optional: &'static [Lacking],
    /// The tracepoints it attaches to.
    pub tracepoints: &'static [Tracepoint],
    /// How its programs attach on this target.
    pub attach_kinds: fn(&Target) -> Vec<AttachKind>,
    /// What its tests need of a kernel's types and its programs do not.
    pub wanted: &'static [(Want, &'static str)],
    /// Whether the complete run makes every change to its programs ([`crate::mutants`]).
    pub mutate: bool,
}

/// Something that some kernels lack.
pub struct Lacking {
    pub name: &'static str,
    /// These do, oldest first.
    pub kernels: &'static [&'static str],
}

/// Asked for by all that name who acts: without it, helpers are asked.
pub const CURRENT_TASK: Lacking =
    Lacking { name: "bpf_func_id.BPF_FUNC_get_current_task_btf", kernels: &["5.10-x86_64", "5.10-aarch64"] };

/// A tracepoint that a tool attaches to.
pub struct Tracepoint {
    pub name: &'static str,
    /// The struct that its first argument points to, on every kernel that has it; `None` when it is
    /// not always the same.
    pub first: Option<&'static str>,
    /// The kernels that lack it, oldest first.
    pub lacking: &'static [&'static str],
}

/// How a program attaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AttachKind {
    TpBtf,
    RawTp,
    Fentry,
    Fexit,
    Kprobe,
    Kretprobe,
    Tracepoint,
    Iter,
}

impl AttachKind {
    /// The kind of an attachment.
    pub fn of(attach: &Attach) -> Self {
        match attach {
            Attach::TpBtf(_) => Self::TpBtf,
            Attach::RawTp(_) => Self::RawTp,
            Attach::Fentry(_) => Self::Fentry,
            Attach::Fexit(_) => Self::Fexit,
            Attach::Kprobe(_) => Self::Kprobe,
            Attach::Kretprobe(_) => Self::Kretprobe,
            Attach::Tracepoints(..) => Self::Tracepoint,
            Attach::Iter(_) => Self::Iter,
            other => panic!("{other:?} is not looked at here"),
        }
    }

    /// Whether the target supports it.
    pub fn fits(self, target: &Target) -> bool {
        match self {
            Self::TpBtf => target.access == Access::Typed,
            Self::Fentry | Self::Fexit => target.trampolines,
            Self::Kprobe | Self::Kretprobe => target.kprobes,
            Self::RawTp | Self::Tracepoint | Self::Iter => true,
        }
    }
}

/// Those of these kinds that the target supports.
pub fn fitting(kinds: &[AttachKind], target: &Target) -> Vec<AttachKind> {
    kinds.iter().copied().filter(|kind| kind.fits(target)).collect()
}

impl Specimen {
    /// The tool at work in a lab, with the options of its set, but this filter.
    pub fn tool<'a>(&self, lab: &'a Lab, filter: &Filter) -> Tool<'a> {
        lab.tool(&format!("{} {:?} {filter:?}", self.name, lab.set), |target| {
            (self.object)(lab, filter, target)
        })
    }

    /// Its objects with this filter on every target that a kernel has.
    pub fn everywhere(&self, kernel: &Kernel, filter: &Filter) -> Vec<Object> {
        kernel.targets().flat_map(|target| (self.every)(filter, &target, 4096)).collect()
    }
}

/// The tools that report sockets one by one, and a function for each that makes it do so; while a
/// program is changed, only tools whose programs may be.
pub fn reporting(lab: &Lab) -> impl Iterator<Item = (&'static Specimen, fn(&mut Tool<'_>, &Spec) -> bool)> {
    let broken = lab.mutant.is_some();
    ALL.iter()
        .filter(move |specimen| specimen.mutate || !broken)
        .filter_map(|specimen| Some((*specimen, specimen.reports?)))
}
