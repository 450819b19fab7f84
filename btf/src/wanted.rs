//! The wanted names, and how they are recognised in one pass over all types.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::TypeId;

/// The kind of thing that a name is asked for as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Want {
    /// A type that a [`FieldPath`](crate::FieldPath) may start from.
    Type,
    /// An enum, by its name.
    Enum,
    /// An enumerator of any enum, anonymous ones included.
    Enumerator,
    /// A tracepoint, by the kernel's name for it: `kfree_skb`.
    Tracepoint,
    /// A function, by its name.
    Func,
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type => "type",
            Self::Enum => "enum",
            Self::Enumerator => "enumerator",
            Self::Tracepoint => "tracepoint",
            Self::Func => "function",
        })
    }
}

/// The names that [`Btf::index`](crate::Btf::index) looks for. One name can be asked for as several
/// kinds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    names: BTreeMap<Want, BTreeSet<Box<str>>>,
}

impl Wanted {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a struct, union or typedef: the first name of a field path.
    #[must_use]
    pub fn strukt(self, name: &str) -> Self {
        self.with(Want::Type, name)
    }

    /// Adds an enum, by its name.
    #[must_use]
    pub fn enumeration(self, name: &str) -> Self {
        self.with(Want::Enum, name)
    }

    /// Adds an enumerator of any enum, for example `TCP_ESTABLISHED`, whose enum has no name.
    #[must_use]
    pub fn enumerator(self, name: &str) -> Self {
        self.with(Want::Enumerator, name)
    }

    /// Adds a tracepoint, for example `inet_sock_set_state`.
    #[must_use]
    pub fn tracepoint(self, name: &str) -> Self {
        self.with(Want::Tracepoint, name)
    }

    /// Adds a function.
    #[must_use]
    pub fn func(self, name: &str) -> Self {
        self.with(Want::Func, name)
    }

    fn with(mut self, want: Want, name: &str) -> Self {
        self.add(want, name);
        self
    }

    /// Adds a name of this kind.
    pub fn add(&mut self, want: Want, name: &str) {
        let names = self.names.entry(want).or_default();
        if !names.contains(name) {
            names.insert(name.into());
        }
    }

    /// Adds the type that a field path starts from: `sock` of `sock.__sk_common.skc_dport`.
    ///
    /// The path is not checked here. [`Index::field`](crate::Index::field) reports a malformed one,
    /// where the caller knows what the path was needed for.
    pub fn add_field(&mut self, path: &str) {
        let root = path.split(['.', '[']).next().unwrap_or(path);
        self.add(Want::Type, root);
    }

    /// A table of the names wanted as `want`, each in the spelling of the data and without types.
    pub(crate) fn table(&self, want: Want) -> Table {
        let mut table = Table::default();
        for name in self.names.get(&want).into_iter().flatten() {
            table.add(&spelling(want, name));
        }
        table
    }
}

/// The spelling of `name` in the data. The prototype of a tracepoint is a typedef with a prefix
/// (`include/trace/bpf_probe.h`).
fn spelling(want: Want, name: &str) -> String {
    match want {
        Want::Tracepoint => format!("btf_trace_{name}"),
        _ => name.to_owned(),
    }
}

/// The names wanted as one kind, and the types found for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    names: BTreeMap<Box<[u8]>, Vec<TypeId>>,
    longest: usize,
}

impl Table {
    fn add(&mut self, name: &str) {
        self.longest = self.longest.max(name.len());
        self.names.insert(name.as_bytes().into(), Vec::new());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds the type `id` to the name that `tail` starts with, if that name is wanted. This
    /// compares text, not string offsets, because a name may occur at several offsets, also as the
    /// end of a longer name.
    pub(crate) fn note(&mut self, tail: &[u8], id: TypeId) {
        let window = tail.get(..=self.longest).unwrap_or(tail);
        let name = window.split(|byte| *byte == 0).next().unwrap_or_default();
        // The empty name belongs to all anonymous types, so it is never found.
        if !name.is_empty()
            && name.len() < window.len()
            && let Some(ids) = self.names.get_mut(name)
        {
            ids.push(id);
        }
    }

    /// The types with this name; `None` if the name was not wanted.
    pub(crate) fn get(&self, want: Want, name: &str) -> Option<&[TypeId]> {
        self.names.get(spelling(want, name).as_bytes()).map(Vec::as_slice)
    }
}

/// Rejects quickly nearly all names that are not in any table.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Hashes of the wanted names' first four bytes: cheap enough to be checked for every type.
    heads: Hashes,
    /// Hashes of their first sixteen bytes, which distinguish names with a common prefix such as
    /// `tcp_` or `btf_trace_`.
    starts: Hashes,
}

impl Filter {
    pub(crate) fn new<'t>(tables: impl IntoIterator<Item = &'t Table>) -> Self {
        let mut filter = Self { heads: Hashes([0; 64]), starts: Hashes([0; 64]) };
        for name in tables.into_iter().flat_map(|table| table.names.keys()) {
            let mut terminated = name.to_vec();
            terminated.push(0);
            match terminated.first_chunk() {
                Some(head) => filter.heads.insert(head_hash(*head)),
                // A name shorter than this may be followed by any bytes, so everything passes.
                None => filter.heads = Hashes([u64::MAX; 64]),
            }
            terminated.resize(terminated.len().max(START), 0);
            if let Some(start) = terminated.first_chunk() {
                filter.starts.insert(start_hash(*start));
            }
        }
        filter
    }

    /// Whether one of the tables may contain the name that `tail` starts with.
    #[inline]
    pub(crate) fn passes(&self, tail: &[u8]) -> bool {
        // Names too close to the end of the section pass.
        tail.first_chunk().is_none_or(|head| self.heads.contains(head_hash(*head)))
            && tail.first_chunk().is_none_or(|start| self.starts.contains(start_hash(*start)))
    }
}

/// A set of hashes by their upper twelve bits: one bit for each value of these.
#[derive(Clone, Debug)]
struct Hashes([u64; 64]);

impl Hashes {
    fn insert(&mut self, hash: u32) {
        self.0[(hash >> 26) as usize] |= 1 << ((hash >> 20) & 63);
    }

    #[inline]
    fn contains(&self, hash: u32) -> bool {
        self.0[(hash >> 26) as usize] & 1 << ((hash >> 20) & 63) != 0
    }
}

/// An odd number with well-mixed bits, whose upper quarter is odd too. The upper bits of a product
/// with either of them depend on all bits of the other factor.
const MIX: u128 = 0x9e37_79b1_7f4a_7c15_f39c_c060_5ced_c835;

#[inline]
fn head_hash(head: [u8; 4]) -> u32 {
    u32::from_le_bytes(head).wrapping_mul((MIX >> 96) as u32)
}

/// The number of a name's first bytes that [`start_hash`] hashes.
const START: usize = 16;

/// The hash of the name at the beginning of `start`. Bytes after its terminator do not count.
fn start_hash(start: [u8; START]) -> u32 {
    const ONES: u128 = u128::from_le_bytes([1; START]);
    let start = u128::from_le_bytes(start);
    // The lowest bit set here is the top one of the first byte that is 0.
    let zeros = start.wrapping_sub(ONES) & !start & (ONES << 7);
    let name = start & (zeros ^ zeros.wrapping_sub(1));
    (name.wrapping_mul(MIX) >> 96) as u32
}

#[cfg(test)]
mod tests {
    use super::{Filter, Table, TypeId, Want, Wanted};

    fn noted(strings: &[u8]) -> Vec<Vec<TypeId>> {
        let wanted = Wanted::new().strukt("sock").strukt("s").strukt("").strukt("so\0ck");
        let mut table = wanted.table(Want::Type);
        for (id, offset) in (0..).zip(0..strings.len()) {
            table.note(&strings[offset..], TypeId(id));
        }
        ["sock", "s", ""].map(|name| table.get(Want::Type, name).expect(name).to_vec()).into()
    }

    #[test]
    fn recognises_a_name_at_every_offset() {
        // Twice as a whole, once as the end of another name, once as the start of another.
        let found = noted(b"\0sock\0inet_sock\0socket\0s\0sock\0");
        assert_eq!(found[0], [1, 11, 25].map(TypeId));
        assert_eq!(found[1], [23].map(TypeId));
        assert!(found[2].is_empty(), "types without a name are not found by that");
    }

    #[test]
    fn a_field_path_adds_its_first_name() {
        for path in ["sock", "sock.__sk_common.skc_dport", "sock[1].a", "sock.a[1]"] {
            let mut wanted = Wanted::new();
            wanted.add_field(path);
            assert_eq!(wanted, Wanted::new().strukt("sock"), "{path}");
        }
    }

    #[test]
    fn an_unterminated_name_is_not_found() {
        let found = noted(b"\0sock");
        assert!(found.iter().all(Vec::is_empty), "{found:?}");
    }

    #[test]
    fn tracepoints_are_typedefs_with_a_prefix() {
        let mut table = Wanted::new().tracepoint("kfree_skb").table(Want::Tracepoint);
        table.note(b"kfree_skb\0", TypeId(1));
        table.note(b"btf_trace_kfree_skb\0", TypeId(2));
        assert_eq!(table.get(Want::Tracepoint, "kfree_skb"), Some(&[TypeId(2)][..]));
        assert_eq!(table.get(Want::Tracepoint, "consume_skb"), None);
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        let mut table = Table::default();
        table.note(b"sock\0", TypeId(1));
        assert!(table.is_empty());
        assert!(!Filter::new([&table]).passes(b"sock\0"));
    }

    #[test]
    fn the_filter_lets_every_wanted_name_through() {
        for name in ["sock", "net", "sk", "s", "a_very_long_name_of_a_function"] {
            let filter = Filter::new([&Wanted::new().func(name).table(Want::Func)]);
            for behind in ["\0", "\0socket\0", "\0\0\0\0", "\0\u{1}\u{80}inet_connection_sock\0"] {
                assert!(filter.passes(format!("{name}{behind}").as_bytes()), "{name} then {behind:?}");
            }
        }
        let filter = Filter::new([&Wanted::new().func("tcp_sendmsg").table(Want::Func)]);
        assert!(!filter.passes(b"udp_sendmsg\0"));
        assert!(filter.passes(b"\0"), "too close to the end");
    }

    #[test]
    fn the_filter_looks_beyond_a_common_prefix() {
        let names = Wanted::new().tracepoint("inet_sock_set_state").tracepoint("tcp_probe");
        let filter = Filter::new([&names.table(Want::Tracepoint)]);
        for others in ["kfree_skb", "sched_switch", "sys_enter", "tcp_retransmit_skb", ""] {
            assert!(!filter.passes(format!("btf_trace_{others}\0{:16}", "").as_bytes()), "{others}");
        }
        assert!(filter.passes(b"btf_trace_tcp_probe\0"));
        assert!(filter.passes(b"btf_\0"), "too close to the end");
    }
}
