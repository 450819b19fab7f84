//! The names asked for, and how to recognise them while passing over the types.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::TypeId;

/// What a name is asked for as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Want {
    /// A type that a [`FieldPath`](crate::FieldPath) may start from.
    Type,
    /// An enum, by its name.
    Enum,
    /// An enumerator of any enum, anonymous ones too.
    Enumerator,
    /// A tracepoint, by the name the kernel gives it.
    Tracepoint,
    /// A function.
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

/// The names that [`Btf::index`](crate::Btf::index) shall find. A name may be asked for as several things.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    names: BTreeMap<Want, BTreeSet<Box<str>>>,
}

impl Wanted {
    /// No names yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also a struct or union, or a typedef of anything: the first name of a field path.
    #[must_use]
    pub fn strukt(self, name: &str) -> Self {
        self.with(Want::Type, name)
    }

    /// Also an enum, by its name.
    #[must_use]
    pub fn enumeration(self, name: &str) -> Self {
        self.with(Want::Enum, name)
    }

    /// Also an enumerator of whichever enum has it, as `TCP_ESTABLISHED`, whose enum has no name.
    #[must_use]
    pub fn enumerator(self, name: &str) -> Self {
        self.with(Want::Enumerator, name)
    }

    /// Also a tracepoint, as `inet_sock_set_state`.
    #[must_use]
    pub fn tracepoint(self, name: &str) -> Self {
        self.with(Want::Tracepoint, name)
    }

    /// Also a function.
    #[must_use]
    pub fn func(self, name: &str) -> Self {
        self.with(Want::Func, name)
    }

    fn with(mut self, want: Want, name: &str) -> Self {
        self.add(want, name);
        self
    }

    /// Also this name.
    pub fn add(&mut self, want: Want, name: &str) {
        let names = self.names.entry(want).or_default();
        if !names.contains(name) {
            names.insert(name.into());
        }
    }

    /// Adds the type that a field path starts from: `sock` of `sock.__sk_common.skc_dport`.
    ///
    /// The path is not checked here. [`Index::field`](crate::Index::field) reports a malformed one, where the
    /// caller knows what the path was needed for.
    pub fn add_field(&mut self, path: &str) {
        let root = path.split(['.', '[']).next().unwrap_or(path);
        self.add(Want::Type, root);
    }

    /// The names wanted as `want`, each in the spelling of the data and with no type yet.
    pub(crate) fn table(&self, want: Want) -> Table {
        let mut table = Table::default();
        for name in self.names.get(&want).into_iter().flatten() {
            table.add(&spelling(want, name));
        }
        table
    }
}

/// The name that stands in the data for `name`. A tracepoint's prototype is a typedef with a prefix of its
/// own (`include/trace/bpf_probe.h`).
fn spelling(want: Want, name: &str) -> String {
    match want {
        Want::Tracepoint => format!("btf_trace_{name}"),
        _ => name.to_owned(),
    }
}

/// Names wanted as one thing, and the types found to have them.
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

    /// Notes that the type `id` has the name that `tail` starts with, if that is wanted. Compares text, not
    /// string offsets: a name may stand at several of them, also as the end of a longer one.
    pub(crate) fn note(&mut self, tail: &[u8], id: TypeId) {
        let window = tail.get(..=self.longest).unwrap_or(tail);
        let name = window.split(|byte| *byte == 0).next().unwrap_or_default();
        // The empty name is that of all types without one, and so nobody's.
        if !name.is_empty()
            && name.len() < window.len()
            && let Some(ids) = self.names.get_mut(name)
        {
            ids.push(id);
        }
    }

    /// The types of that name; `None` if it was not wanted.
    pub(crate) fn get(&self, want: Want, name: &str) -> Option<&[TypeId]> {
        self.names.get(spelling(want, name).as_bytes()).map(Vec::as_slice)
    }
}

/// Tells quickly of nearly all names that they are in no table.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Of the wanted names' first four bytes: cheap enough to be asked about every type there is.
    heads: Hashes,
    /// Of their first sixteen, which tell one `tcp_*` or `btf_trace_*` from another.
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
                // What stands behind so short a name may be anything.
                None => filter.heads = Hashes([u64::MAX; 64]),
            }
            terminated.resize(terminated.len().max(START), 0);
            if let Some(start) = terminated.first_chunk() {
                filter.starts.insert(start_hash(*start));
            }
        }
        filter
    }

    /// Whether one of the tables may have the name that `tail` starts with.
    #[inline]
    pub(crate) fn passes(&self, tail: &[u8]) -> bool {
        // Too near the end to tell, they pass.
        tail.first_chunk().is_none_or(|head| self.heads.contains(head_hash(*head)))
            && tail.first_chunk().is_none_or(|start| self.starts.contains(start_hash(*start)))
    }
}

/// A set of hashes as far as their upper twelve bits tell: one bit for each value of these.
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

/// Any odd number with its bits well mixed, whose upper quarter is odd too: the upper bits of a product with
/// either depend on all bits of the other factor.
const MIX: u128 = 0x9e37_79b1_7f4a_7c15_f39c_c060_5ced_c835;

#[inline]
fn head_hash(head: [u8; 4]) -> u32 {
    u32::from_le_bytes(head).wrapping_mul((MIX >> 96) as u32)
}

/// How much of a name [`start_hash`] looks at.
const START: usize = 16;

/// Of the name in `start`, or as much of it as is there; what stands behind its end does not count.
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
    fn recognises_a_name_wherever_it_stands() {
        // twice whole, once as the end of another, once as the start of another
        let found = noted(b"\0sock\0inet_sock\0socket\0s\0sock\0");
        assert_eq!(found[0], [1, 11, 25].map(TypeId));
        assert_eq!(found[1], [23].map(TypeId));
        assert!(found[2].is_empty(), "types without a name are not found by that");
    }

    #[test]
    fn an_unterminated_name_is_none() {
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
        assert!(filter.passes(b"\0"), "too near the end to tell");
    }

    #[test]
    fn the_filter_looks_beyond_a_common_prefix() {
        let names = Wanted::new().tracepoint("inet_sock_set_state").tracepoint("tcp_probe");
        let filter = Filter::new([&names.table(Want::Tracepoint)]);
        for others in ["kfree_skb", "sched_switch", "sys_enter", "tcp_retransmit_skb", ""] {
            assert!(!filter.passes(format!("btf_trace_{others}\0{:16}", "").as_bytes()), "{others}");
        }
        assert!(filter.passes(b"btf_trace_tcp_probe\0"));
        assert!(filter.passes(b"btf_\0"), "too near the end to tell");
    }
}
