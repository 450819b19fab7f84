//! What an ELF file would carry: programs, hooks and maps. Numbers that only a kernel knows
//! (offsets of its structs, ids of its types) are left open as symbols.

use std::path::PathBuf;

use crate::program::Program;
use crate::symbol::Text;

/// Where a program attaches, in the kernel's words. The text is the name of the tracepoint,
/// function or iterator, as the kernel spells it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Attach {
    /// A tracepoint with typed arguments (`BPF_TRACE_RAW_TP`, since Linux 5.5).
    TpBtf(Text),
    /// A raw tracepoint (`BPF_PROG_TYPE_RAW_TRACEPOINT`, since Linux 4.17), whose arguments are
    /// plain numbers.
    RawTp(Text),
    /// The entry of a kernel function, through a BPF trampoline (since Linux 5.5 on x86-64, 6.4 on
    /// arm64).
    Fentry(Text),
    /// The return of a kernel function, through a BPF trampoline. The program sees arguments and
    /// result.
    Fexit(Text),
    /// The entry of a kernel function, through a kprobe. The program gets the registers, `struct
    /// pt_regs`.
    Kprobe(Text),
    /// The return of a kernel function, through a kretprobe.
    Kretprobe(Text),
    /// Tracepoints of one category (`syscalls`) through perf, by their names; at least one name.
    /// The program is attached to all of them or to none. The kernel takes 60 to 80 ms to detach
    /// each.
    Tracepoints(Text, Vec<Text>),
    /// A BPF iterator (`task_file`, `tcp`). It runs when its file is read.
    Iter(Text),
}

/// Whether an object is of use without a hook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Need {
    /// Loading fails if none of the hook's attach options can be attached.
    Required,
    /// Loading succeeds without the hook; the events it would have seen are missing.
    Optional,
}

/// Whether unloading an object waits until a hook's programs are detached. The kernel may take 100
/// ms to detach a program from a function or from a tracepoint through perf.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Detach {
    /// Unloading waits: no program of the hook runs afterwards.
    Waited,
    /// Unloading does not wait. A program may run for a moment longer; it neither sends nor counts
    /// anything.
    Unwaited,
    /// Unloading does not wait, but first writes a number other than 0 into this map, an array of
    /// one `u32`. The programs read it and return at once if it is not 0.
    StoppedBy(Text),
}

/// One kind of event, and the programs that can see it. They are alternatives in order of
/// preference: the loader uses the first one that the kernel accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hook {
    /// The event's name for messages and for [`Hook::fallback_for`]: `state change`, `accept`.
    pub name: Text,
    /// What happens if no attach option can be attached.
    pub need: Need,
    /// The name of an earlier, optional hook that this one is a fallback for. This hook is loaded
    /// only if no attach option of the earlier one could be attached. If the earlier hook is
    /// attached, or is not needed itself, this one is skipped, whatever its `need`.
    pub fallback_for: Option<Text>,
    /// What is missing if no attach option can be attached, even if a fallback takes over. It
    /// continues the word "without": `the owners of …`.
    pub without: Option<Text>,
    /// Whether unloading waits until the programs are detached.
    pub detach: Detach,
    /// The alternatives, best first.
    pub attach_options: Vec<ProgramDef>,
}

impl Hook {
    /// A hook that is not a fallback for another one. Unloading waits for it.
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

    /// Makes this hook the fallback for an earlier, optional one.
    #[must_use]
    pub fn fallback_for(self, earlier: impl Into<Text>) -> Self {
        Self { fallback_for: Some(earlier.into()), ..self }
    }

    /// Says what is missing if no attach option can be attached. The text continues the word
    /// "without".
    #[must_use]
    pub fn without(self, what: impl Into<Text>) -> Self {
        Self { without: Some(what.into()), ..self }
    }

    /// Says whether unloading waits for the hook's programs.
    #[must_use]
    pub fn detach(self, detach: Detach) -> Self {
        Self { detach, ..self }
    }
}

/// A program and where it attaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramDef {
    /// The program's name in listings and, cut to 15 bytes, in the kernel.
    pub name: Text,
    /// Where the program attaches.
    pub attach: Attach,
    /// The linked program.
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
    /// An array whose values are maps: see [`MapDef::inner`].
    ArrayOfMaps,
    RingBuf,
    PerfEventArray,
}

impl MapKind {
    /// The kind's number in `enum bpf_map_type` (`include/uapi/linux/bpf.h`).
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

/// The type of a member of a map's key or value, or of an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum FieldType {
    U8,
    U16,
    U32,
    U64,
    /// An array of this many bytes.
    Bytes(u16),
}

/// One member of a [`Layout`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// The member's name.
    pub name: &'static str,
    /// Bytes from the start of the struct.
    pub offset: u16,
    /// The member's type, and so its size.
    pub ty: FieldType,
}

/// The layout of a struct that an object's programs define. The loader describes it to the kernel
/// in BTF, so that `bpftool map dump` prints the members by name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Layout {
    /// The struct's name in BTF.
    pub name: &'static str,
    /// The struct's size in bytes.
    pub size: u16,
    /// All members in ascending order, without gaps: padding is a member too.
    pub members: &'static [Member],
}

/// The flag of a hash map whose entries are allocated one by one as they are inserted
/// (`include/uapi/linux/bpf.h`).
pub const BPF_F_NO_PREALLOC: u32 = 1;

/// A map that programs use, as a loader creates or opens it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapDef {
    /// The name that programs refer to and, cut to 15 bytes, the map's name in the kernel.
    pub name: Text,
    /// The map's kind.
    pub kind: MapKind,
    /// The size of a key in bytes: 0 for a ring buffer, 4 for an array.
    pub key_size: u32,
    /// The size of a value in bytes: 0 for a ring buffer, 4 for an array of maps.
    pub value_size: u32,
    /// The number of entries. For a ring buffer its bytes, a power of two and whole pages. 0 for a
    /// perf event array means one entry for each CPU.
    pub max_entries: u32,
    /// Flags for creating the map, `BPF_F_*`.
    pub flags: u32,
    /// Whether this hash map may allocate entries as they are inserted, if the kernel can do that
    /// in any context (since Linux 6.1). If not, the kernel allocates `max_entries` when the map is
    /// created.
    pub grows: bool,
    /// The key's members, if it is a struct.
    pub key: Option<Layout>,
    /// The value's members, if it is a struct.
    pub value: Option<Layout>,
    /// For an array of maps, the names of the object's maps that may be put into it, all of one
    /// kind and with the same sizes. The first one is created together with the array, the others
    /// after everything is attached, whether or not a program refers to them. The array's slots are
    /// empty at first. Filling a slot waits until the programs running at that moment have
    /// returned.
    pub inner: Vec<Text>,
    /// The path at which another program has pinned the map in a BPF file system. The loader opens
    /// that map and creates none. It must be a hash map, LRU or not, whose keys and values have the
    /// sizes given here; it may have any number of entries. Programs should only read it.
    pub pinned: Option<PathBuf>,
}

impl MapDef {
    /// A map without flags, whose keys and values have no described members. Sizes are in bytes.
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

/// Programs, hooks and maps that are loaded and unloaded together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// The object's name, for messages.
    pub name: Text,
    /// The license that the programs declare to the kernel. The kernel refuses most helpers to
    /// programs whose license is not compatible with the GPL.
    pub license: Text,
    /// The hooks, in the order in which they are attached.
    pub hooks: Vec<Hook>,
    /// The maps that the programs use.
    pub maps: Vec<MapDef>,
    /// Values for the programs' `const NAME` symbols.
    pub consts: Vec<(Text, i32)>,
}
