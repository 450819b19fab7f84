//! Maps, by the rules of their kinds.

use std::collections::BTreeMap;
use std::ops::Range;

use bpfasm::{MapDef, MapKind};

use super::memory::{Memory, poke};

pub const ENOENT: i64 = -2;
pub const E2BIG: i64 = -7;
pub const EEXIST: i64 = -17;
pub const EINVAL: i64 = -22;
pub const ENOSPC: i64 = -28;

/// A map and its values, each at an address that stays its own as long as the machine lives.
#[derive(Debug)]
pub(super) struct Map {
    pub def: MapDef,
    pub values: BTreeMap<Vec<u8>, Memory>,
    /// Keys, oldest first, if the oldest is evicted.
    order: Vec<Vec<u8>>,
    /// Replaced and deleted values: who has a pointer to one keeps it.
    retired: Vec<Memory>,
    /// Which maps are in the slots of an array of maps.
    inner: BTreeMap<Vec<u8>, usize>,
    /// Where the next new value goes. It is there before a program runs, so that one may reach the
    /// value that it enters: the first of a run.
    next: Memory,
}

/// Kinds of maps whose values programs look up.
pub(super) const TABLES: [MapKind; 6] = [
    MapKind::Hash,
    MapKind::LruHash,
    MapKind::PercpuHash,
    MapKind::Array,
    MapKind::PercpuArray,
    MapKind::LpmTrie,
];

/// Kinds of maps that have all their values from the start.
const ARRAYS: [MapKind; 2] = [MapKind::Array, MapKind::PercpuArray];

/// Bytes of a trie's key before the data: how many bits of it count, in the machine's order.
const PREFIX_LEN: usize = 4;

impl Map {
    pub fn new(def: &MapDef) -> Self {
        let mut map = Self {
            def: def.clone(),
            values: BTreeMap::new(),
            order: Vec::new(),
            retired: Vec::new(),
            inner: BTreeMap::new(),
            next: Memory::noise(def.value_size as usize, 0),
        };
        if ARRAYS.contains(&def.kind) {
            for key in 0..def.max_entries {
                let value = Memory::of(&vec![0; def.value_size as usize]);
                map.values.insert(key.to_ne_bytes().to_vec(), value);
            }
        }
        map
    }

    /// Where its values are, and the next one.
    pub fn places(&self) -> impl Iterator<Item = Range<u64>> {
        self.values.values().chain([&self.next]).map(Memory::range)
    }

    /// `map_lookup_elem` of the kind.
    pub fn get(&self, key: &[u8]) -> Option<&Memory> {
        if self.def.kind != MapKind::LpmTrie {
            return self.values.get(key);
        }
        let wanted = prefix_len(key);
        // Of the prefixes that the key begins with, the longest.
        self.values
            .iter()
            .filter(|(prefix, _)| {
                prefix_len(prefix) <= wanted && same_prefix(prefix, key, prefix_len(prefix))
            })
            .max_by_key(|(prefix, _)| prefix_len(prefix))
            .map(|(_, value)| value)
    }

    /// The map in a slot of an array of maps, by its place in the object.
    pub fn inner(&self, key: &[u8]) -> Option<usize> {
        self.inner.get(key).copied()
    }

    /// Puts a map there.
    pub fn put_map(&mut self, slot: u32, map: usize) {
        assert!(self.def.kind == MapKind::ArrayOfMaps && slot < self.def.max_entries);
        self.inner.insert(slot.to_ne_bytes().to_vec(), map);
    }

    /// `map_update_elem` of the kind.
    pub fn put(&mut self, key: &[u8], value: &[u8], flags: u64) -> i64 {
        let mut key = key.to_vec();
        let is_trie = self.def.kind == MapKind::LpmTrie;
        if is_trie {
            let bits = prefix_len(&key);
            if bits as usize > (key.len() - PREFIX_LEN) * 8 {
                return EINVAL;
            }
            // Bits past the prefix do not count: one key for all that are the same prefix.
            let known =
                self.values.keys().find(|known| prefix_len(known) == bits && same_prefix(known, &key, bits));
            key = known.cloned().unwrap_or(key);
        }
        let exists = self.values.contains_key(&key);
        let is_full = self.values.len() as u64 >= self.def.max_entries.into();
        let is_array = ARRAYS.contains(&self.def.kind);
        match (exists, flags) {
            (false, _) if is_array => return E2BIG,
            (true, 1) => return EEXIST,
            (false, 2) => return ENOENT,
            (false, _) if is_full && self.def.kind == MapKind::LruHash => {
                let oldest = self.order[0].clone();
                self.remove(&oldest);
            }
            (false, _) if is_full => return if is_trie { ENOSPC } else { E2BIG },
            _ => {}
        }
        if is_array {
            // An array's value stays where it is.
            poke(self.values[&key].address(), value).expect("own memory");
            return 0;
        }
        // As in the kernel, a replaced value is another one.
        let fresh = std::mem::replace(&mut self.next, Memory::noise(value.len(), 0));
        poke(fresh.address(), value).expect("own memory");
        let old = self.values.insert(key.clone(), fresh);
        self.retired.extend(old);
        if !exists {
            self.order.push(key);
        }
        0
    }

    /// `map_delete_elem` of the kind.
    pub fn remove(&mut self, key: &[u8]) -> i64 {
        let bits = |key: &[u8]| if self.def.kind == MapKind::LpmTrie { Some(prefix_len(key)) } else { None };
        let known = match bits(key) {
            None => self.values.contains_key(key).then(|| key.to_vec()),
            wanted @ Some(len) => self
                .values
                .keys()
                .find(|known| bits(known) == wanted && same_prefix(known, key, len))
                .cloned(),
        };
        let Some(known) = known else { return ENOENT };
        self.order.retain(|key| *key != known);
        self.retired.extend(self.values.remove(&known));
        0
    }
}

/// How many bits of a trie's key count.
fn prefix_len(key: &[u8]) -> u32 {
    u32::from_ne_bytes(key[..PREFIX_LEN].try_into().expect("four bytes"))
}

/// Whether the data of two of a trie's keys begins with the same bits, the first being the highest
/// of the first byte.
fn same_prefix(one: &[u8], other: &[u8], bits: u32) -> bool {
    let bit = |key: &[u8], at: u32| key[PREFIX_LEN + at as usize / 8] >> (7 - at % 8) & 1;
    (0..bits).all(|at| bit(one, at) == bit(other, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(kind: MapKind, key_size: u32) -> Map {
        let def = MapDef::new("map", kind, key_size, 1, 2);
        Map::new(&def)
    }

    fn get(map: &Map, key: &[u8]) -> Option<u8> {
        map.get(key).map(|value| value.bytes()[0])
    }

    /// The longest prefix is found, by its bits and not by what is stored behind them.
    #[test]
    fn tries() {
        let key = |bits: u32, data: [u8; 4]| [bits.to_ne_bytes(), data].concat();
        let mut trie = map(MapKind::LpmTrie, 8);
        assert_eq!(trie.put(&key(33, [10, 0, 0, 0]), &[0], 0), EINVAL);
        assert_eq!(trie.put(&key(8, [10, 9, 9, 9]), &[1], 0), 0);
        assert_eq!(trie.put(&key(23, [10, 1, 3, 0]), &[2], 0), 0);
        assert_eq!(trie.put(&key(0, [0; 4]), &[3], 0), ENOSPC);
        assert_eq!(get(&trie, &key(32, [10, 1, 2, 200])), Some(2));
        assert_eq!(get(&trie, &key(32, [10, 1, 4, 0])), Some(1));
        assert_eq!(get(&trie, &key(22, [10, 1, 2, 0])), Some(1), "a shorter question");
        assert_eq!(get(&trie, &key(32, [11, 1, 2, 3])), None);
        assert_eq!(trie.put(&key(8, [10, 0, 0, 0]), &[4], 1), EEXIST);
        assert_eq!(trie.put(&key(8, [10, 0, 0, 0]), &[4], 0), 0);
        assert_eq!((get(&trie, &key(9, [10, 0, 0, 0])), trie.values.len()), (Some(4), 2));
        assert_eq!(trie.remove(&key(9, [10, 0, 0, 0])), ENOENT);
        assert_eq!(trie.remove(&key(8, [10, 7, 7, 7])), 0);
        assert_eq!(get(&trie, &key(32, [10, 1, 4, 0])), None);
    }

    /// An array has all its values, at fixed addresses; a table that evicts accepts new keys when
    /// it is full.
    #[test]
    fn arrays_and_tables_that_forget() {
        let mut array = map(MapKind::Array, 4);
        let place = array.get(&1_u32.to_ne_bytes()).map(Memory::address);
        assert_eq!(array.put(&1_u32.to_ne_bytes(), &[7], 0), 0);
        assert_eq!(array.get(&1_u32.to_ne_bytes()).map(Memory::address), place);
        assert_eq!((get(&array, &1_u32.to_ne_bytes()), get(&array, &2_u32.to_ne_bytes())), (Some(7), None));
        assert_eq!(array.put(&2_u32.to_ne_bytes(), &[7], 0), E2BIG);
        assert_eq!(array.put(&1_u32.to_ne_bytes(), &[7], 1), EEXIST);

        let mut table = map(MapKind::LruHash, 1);
        for (key, value) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
            assert_eq!(table.put(&[key], &[value], 0), 0);
        }
        assert_eq!([1, 2, 3].map(|key| get(&table, &[key])), [None, Some(2), Some(4)]);
    }
}
