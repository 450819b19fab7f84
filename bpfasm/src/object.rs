//! What an ELF file would carry: programs, maps, and no number that only a kernel knows.

use std::path::PathBuf;

use crate::program::Program;
use crate::symbol::Text;

/// Where a program attaches, in the kernel's words.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Attach {
    /// A tracepoint with typed arguments (`BPF_TRACE_RAW_TP`, kernel 5.5).
    TpBtf(Text),
    /// A raw tracepoint (kernel 4.17).
    RawTp(Text),
    /// Entry of a kernel function, through a trampoline.
    Fentry(Text),
    /// Return of a kernel function, through a trampoline.
    Fexit(Text),
    /// Entry of a kernel function, through a kprobe.
    Kprobe(Text),
    /// Return of a kernel function, through a kretprobe.
    Kretprobe(Text),
    /// Tracepoints of a category through perf, by their names, of which there is at least one: one program on all of them, or on
    /// none. Closing takes 60 to 80 ms for each.
    Tracepoints(Text, Vec<Text>),
    /// A BPF iterator (`task_file`, `tcp`), run when asked.
    Iter(Text),
}

/// Whether a tool can do without a hook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Need {
    /// Without it the tool does not start.
    Required,
    /// Without it the tool runs and knows less.
    Optional,
}

/// What becomes of a hook's programs when the tool ends. To take a program off a function, or a tracepoint by perf, may take the
/// kernel some 100 ms.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Detach {
    /// They are taken off, however long it takes: nothing comes from them any more.
    Waited,
    /// They may go on for a moment: they send and count nothing.
    Unwaited,
    /// They may go on for a moment, but do nothing once the number in this array of one `u32` is not 0.
    StoppedBy(Text),
}

/// One moment the tool wants to see, and the ways to see it, best first. The loader takes the first that the kernel takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hook {
    /// What is seen there, for messages: `state change`, `accept`.
    pub name: Text,
    /// What happens when no attach option holds.
    pub need: Need,
    /// An earlier, optional hook in whose stead this one is, where no attach option of that one holds. Where one does, or where that
    /// hook is not needed itself, this one is neither loaded nor attached, and `need` does not count.
    pub fallback_for: Option<Text>,
    /// What a user does without where no attach option holds, even if another hook stands in for it: `the owners of …`.
    pub without: Option<Text>,
    /// Whether a tool that ends has to wait until its programs are detached.
    pub detach: Detach,
    /// The ways, best first.
    pub attach_options: Vec<ProgramDef>,
}

impl Hook {
    /// A hook in its own right.
    pub fn new(name: impl Into<Text>, need: Need, attach_options: Vec<ProgramDef>) -> Self {
        Self {
            name: name.into(),
            need,
            fallback_for: None,
            without: None,
            detach: Detach::Waited,
            attach_options,
        }
    }

    /// The same, only where no attach option of that earlier, optional hook holds.
    #[must_use]
    pub fn fallback_for(self, earlier: impl Into<Text>) -> Self {
        Self { fallback_for: Some(earlier.into()), ..self }
    }

    /// The same, with words for what is not there where no attach option holds. They follow `without`.
    #[must_use]
    pub fn without(self, what: impl Into<Text>) -> Self {
        Self { without: Some(what.into()), ..self }
    }

    /// The same, not waited for when the tool ends.
    #[must_use]
    pub fn detach(self, detach: Detach) -> Self {
        Self { detach, ..self }
    }
}

/// A program and where it attaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramDef {
    /// Its name in the kernel (the first 15 bytes) and in listings.
    pub name: Text,
    /// Where it attaches.
    pub attach: Attach,
    /// Its instructions.
    pub program: Program,
}

/// The kind of a map, `enum bpf_map_type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum MapKind {
    Hash,
    LruHash,
    PercpuHash,
    Array,
    PercpuArray,
    LpmTrie,
    StackTrace,
    /// Its values are maps: see [`MapDef::inner`].
    ArrayOfMaps,
    RingBuf,
    PerfEventArray,
}

impl MapKind {
    /// Its number in `enum bpf_map_type` (`include/uapi/linux/bpf.h`).
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Hash => 1,
            Self::Array => 2,
            Self::PerfEventArray => 4,
            Self::PercpuHash => 5,
            Self::PercpuArray => 6,
            Self::StackTrace => 7,
            Self::LruHash => 9,
            Self::LpmTrie => 11,
            Self::ArrayOfMaps => 12,
            Self::RingBuf => 27,
        }
    }
}

/// The shape of a member of a map's key or value, or of an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum FieldType {
    U8,
    U16,
    U32,
    U64,
    /// This many bytes.
    Bytes(u16),
}

/// A member of a [`Layout`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Bytes from the start.
    pub offset: u16,
    /// Its shape.
    pub ty: FieldType,
}

/// A struct of ours, as the kernel is told of it by BTF, so that `bpftool map dump` prints names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Layout {
    /// The struct's name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: u16,
    /// Its members, in order, without hidden padding.
    pub members: &'static [Member],
}

/// The flag of a map whose entries are allocated one by one (include/uapi/linux/bpf.h).
pub const BPF_F_NO_PREALLOC: u32 = 1;

/// A map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapDef {
    /// The name that programs use, and (the first 15 bytes) the kernel.
    pub name: Text,
    /// Its kind.
    pub kind: MapKind,
    /// Bytes of a key; 0 for a ring buffer; 4 for an array.
    pub key_size: u32,
    /// Bytes of a value; 0 for a ring buffer; 4 for an array of maps.
    pub value_size: u32,
    /// Entries; bytes (a power of two, whole pages) for a ring buffer; 0 for a perf event array means one for each CPU.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Whether the entries of this hash map may be allocated one by one as they come, where the kernel can do that for programs
    /// at any moment. Else the kernel allocates all that there can be when the map is created.
    pub grows: bool,
    /// The key's members, when it is a struct of ours; a plain number has none.
    pub key: Option<Layout>,
    /// The value's members.
    pub value: Option<Layout>,
    /// For an array of maps, the maps of the object that may be put into it, all of one kind and shape. The first is created
    /// with it, the others when everything is attached, whether or not a program names them. Its slots are empty at first: to
    /// fill one waits for all programs that run.
    pub inner: Vec<Text>,
    /// Where somebody else has pinned the map (a path in a BPF file system): it is opened there instead of being created. It
    /// has to be a hash map, LRU or not, with keys and values of the sizes given here; how many entries it has is its own
    /// affair. Programs should only read it.
    pub pinned: Option<PathBuf>,
}

impl MapDef {
    /// A map without flags, whose keys and values are plain bytes.
    pub fn new(
        name: impl Into<Text>,
        kind: MapKind,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            key_size,
            value_size,
            max_entries,
            flags: 0,
            grows: false,
            key: None,
            value: None,
            inner: Vec::new(),
            pinned: None,
        }
    }
}

/// All that one tool brings to the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// The tool's name.
    pub name: Text,
    /// What the programs declare to the kernel; GPL-compatible, or most helpers are refused.
    pub license: Text,
    /// Its hooks, in the order in which they are attached.
    pub hooks: Vec<Hook>,
    /// Its maps.
    pub maps: Vec<MapDef>,
    /// Numbers for `const NAME` symbols.
    pub consts: Vec<(Text, i32)>,
}
