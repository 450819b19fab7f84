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
        self.names.entry(want).or_default().insert(name.into());
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

/// Tells quickly of most names that they are in no table: a bit for each hash of a wanted name's first four
/// bytes.
#[derive(Clone, Debug)]
pub(crate) struct Filter([u64; 64]);

impl Filter {
    pub(crate) fn new<'t>(tables: impl IntoIterator<Item = &'t Table>) -> Self {
        let mut filter = Self([0; 64]);
        for name in tables.into_iter().flat_map(|table| table.names.keys()) {
            let mut terminated = name.to_vec();
            terminated.push(0);
            match place(&terminated) {
                Some((word, bit)) => filter.0.iter_mut().skip(word).take(1).for_each(|word| *word |= bit),
                // What stands behind so short a name may be anything.
                None => filter.0 = [u64::MAX; 64],
            }
        }
        filter
    }

    /// Whether one of the tables may have the name that `tail` starts with.
    #[inline]
    pub(crate) fn passes(&self, tail: &[u8]) -> bool {
        match place(tail) {
            Some((word, bit)) => self.0.get(word).is_some_and(|word| word & bit != 0),
            None => true,
        }
    }
}

#[inline]
fn place(tail: &[u8]) -> Option<(usize, u64)> {
    // Any odd number with its bits well mixed; the product's upper bits depend on all four bytes.
    let hash = u32::from_le_bytes(*tail.first_chunk()?).wrapping_mul(0x9e37_79b1);
    Some(((hash >> 26) as usize, 1 << ((hash >> 20) & 63)))
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
            for behind in ["\0", "\0socket\0", "\0\0\0\0"] {
                assert!(filter.passes(format!("{name}{behind}").as_bytes()), "{name} then {behind:?}");
            }
        }
        let filter = Filter::new([&Wanted::new().func("tcp_sendmsg").table(Want::Func)]);
        assert!(!filter.passes(b"udp_sendmsg\0"));
        assert!(filter.passes(b"\0"), "too near the end to tell");
    }
}
