//! Tables: every kind returns what was stored, and no buffer of a wrong length reaches the kernel.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use bpfasm::bpf;
use bpfasm::object::{BPF_F_NO_PREALLOC, MapDef, MapKind};
use kernel_tests::requirements::tables_grow;
use kernel_tests::runner::{Outcome, Test, test};
use loader::{Errno, LoadError, Loaded, Update};

use super::{load_only, map, run};

pub const TESTS: &[Test] = &[
    test("loader::hash_maps_round_trip", hash_maps_round_trip),
    test("loader::a_full_table_refuses", a_full_table_refuses),
    test("loader::a_table_grows_if_the_kernel_can", a_table_grows_if_the_kernel_can),
    test("loader::many_entries_come_in_batches", many_entries_come_in_batches),
    test("loader::per_cpu_values_are_apart_and_sum_up", per_cpu_values_are_apart_and_sum_up),
    test("loader::wrong_lengths_are_refused", wrong_lengths_are_refused),
];

/// An object with this table and a program that does nothing.
#[track_caller]
fn with_table(table: MapDef) -> Loaded {
    load_only(bpf! { r1 = map table ll; r0 = 0; exit; }, vec![table])
}

/// Creates, finds, overwrites, refuses, lists and removes entries.
fn hash_maps_round_trip() -> Outcome {
    for kind in [MapKind::Hash, MapKind::LruHash] {
        let loaded = with_table(map("table", kind, (4, 12, 64)));
        let table = loaded.map("table").expect("the object's map");
        let value = |byte: u8| vec![byte; 12];
        let key = |number: u32| number.to_ne_bytes();
        assert_eq!(table.lookup(&key(1)), Ok(None));
        assert_eq!(table.update(&key(1), &value(1), Update::Existing), Ok(false), "nothing to overwrite");
        assert_eq!(table.update(&key(1), &value(1), Update::New), Ok(true));
        assert_eq!(table.update(&key(1), &value(9), Update::New), Ok(false), "it is there");
        assert_eq!(table.lookup(&key(1)), Ok(Some(value(1))));
        assert_eq!(table.update(&key(1), &value(2), Update::Existing), Ok(true));
        assert_eq!(table.update(&key(2), &value(3), Update::Any), Ok(true));
        assert_eq!(table.lookup(&key(1)), Ok(Some(value(2))));
        let mut keys = HashSet::new();
        let mut at = None;
        while let Some(next) = table.next_key(at.as_deref()).expect("a key") {
            assert!(keys.insert(next.clone()), "{next:?} twice");
            at = Some(next);
        }
        assert_eq!(keys, HashSet::from([key(1).to_vec(), key(2).to_vec()]));
        assert_eq!(table.delete(&key(1)), Ok(true));
        assert_eq!(table.delete(&key(1)), Ok(false));
        let entries = table.entries().expect("entries");
        assert_eq!(entries.iter().collect::<Vec<_>>(), [(&key(2)[..], &value(3)[..])]);
        assert_eq!(table.take_entries().expect("entries").len(), 1);
        assert!(table.entries().expect("entries").is_empty());
        assert_eq!(table.next_key(None), Ok(None), "taken");
    }
    Ok(())
}

fn a_full_table_refuses() -> Outcome {
    let loaded = with_table(map("table", MapKind::Hash, (4, 8, 3)));
    let table = loaded.map("table").expect("the object's map");
    for key in 1..=3_u32 {
        assert_eq!(table.update(&key.to_ne_bytes(), &[0; 8], Update::Any), Ok(true));
    }
    let full = table.update(&4_u32.to_ne_bytes(), &[0; 8], Update::Any).expect_err("a table of three");
    assert_eq!((full.map.as_str(), full.errno), ("table", Errno::BIG), "{full}");
    let mut keys: Vec<_> = table.entries().expect("entries").iter().map(|(key, _)| key.to_vec()).collect();
    keys.sort();
    assert_eq!(keys, [1, 2, 3].map(|key: u32| key.to_ne_bytes().to_vec()), "earlier entries stay");
    Ok(())
}

/// A table has the same number of entries whether it grows or not.
fn a_table_grows_if_the_kernel_can() -> Outcome {
    const COUNT: u32 = 3000;
    for grows in [false, true] {
        let loaded = with_table(MapDef { grows, ..map("table", MapKind::Hash, (4, 8, COUNT)) });
        let table = loaded.map("table").expect("the object's map");
        let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", table.as_fd().as_raw_fd()));
        let flags = if grows && tables_grow() { BPF_F_NO_PREALLOC } else { 0 };
        let fdinfo = fdinfo.expect("information on a map");
        assert!(fdinfo.contains(&format!("\nmap_flags:\t{flags:#x}\n")), "{grows}: {fdinfo}");
        for key in 0..COUNT {
            assert_eq!(table.update(&key.to_ne_bytes(), &[0; 8], Update::New), Ok(true), "{grows}: {key}");
        }
        let full = table.update(&COUNT.to_ne_bytes(), &[0; 8], Update::New).expect_err("a full table");
        assert_eq!(full.errno, Errno::BIG, "{grows}: {full}");
        assert_eq!(table.delete(&7_u32.to_ne_bytes()), Ok(true));
        assert_eq!(
            table.update(&COUNT.to_ne_bytes(), &[0; 8], Update::New),
            Ok(true),
            "{grows}: a free entry"
        );
    }
    Ok(())
}

/// More entries than one batch, read and removed, from every kind of table.
fn many_entries_come_in_batches() -> Outcome {
    const COUNT: u32 = 3000;
    for kind in [MapKind::Hash, MapKind::PercpuHash, MapKind::LpmTrie, MapKind::Array] {
        let is_trie = kind == MapKind::LpmTrie;
        let loaded = with_table(if is_trie {
            MapDef { flags: BPF_F_NO_PREALLOC, ..map("table", kind, (8, 8, COUNT)) }
        } else {
            map("table", kind, (4, 8, COUNT))
        });
        let table = loaded.map("table").expect("the object's map");
        let key = |number: u32| {
            // A trie's key is the length of the prefix and its bytes.
            if is_trie {
                [32_u32.to_ne_bytes(), number.to_be_bytes()].concat()
            } else {
                number.to_ne_bytes().to_vec()
            }
        };
        let value = |number: u32| (u64::from(number) * 3).to_ne_bytes().repeat(table.value_len() / 8);
        for number in 0..COUNT {
            assert_eq!(table.update(&key(number), &value(number), Update::Any), Ok(true), "{kind:?}");
        }
        let want: HashMap<_, _> = (0..COUNT).map(|number| (key(number), value(number))).collect();
        let entries = table.entries().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let got: HashMap<_, _> = entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert_eq!(entries.len(), got.len(), "{kind:?}: each entry once");
        assert!(got == want, "{kind:?}: {} entries", got.len());
        // Entries of an array cannot be removed.
        if kind != MapKind::Array {
            assert_eq!(table.take_entries().expect("entries").len(), got.len(), "{kind:?}");
            assert!(table.entries().expect("entries").is_empty(), "{kind:?}");
        }
    }
    Ok(())
}

/// Each CPU counts in its own value, and the sum is over all CPUs.
fn per_cpu_values_are_apart_and_sum_up() -> Outcome {
    let code = bpf! {
        *(u32 *)(r10 - 4) = 0;
        r1 = map stats ll;
        r2 = r10;
        r2 += -4;
        call bpf_map_lookup_elem;
        if r0 == 0 goto out;
        r1 = 2;
        lock *(u64 *)(r0 + 8) += r1;
    out:
        r0 = 0;
        exit;
    };
    let loaded = load_only(code, vec![map("stats", MapKind::PercpuArray, (4, 20, 1))]);
    let cpus = super::cpus();
    for cpu in 0..cpus {
        for _ in 0..=cpu {
            run(&loaded, &[0], Some(cpu));
        }
    }
    let stats = loaded.map("stats").expect("the object's map");
    let key = 0_u32.to_ne_bytes();
    let values = stats.lookup_percpu(&key).expect("a lookup").expect("a value");
    let mut counts = Vec::new();
    for value in values.iter() {
        let (words, rest) = value.as_chunks::<8>();
        assert_eq!((words.len(), rest.len()), (3, 0), "20 bytes are rounded up to 24 for each CPU");
        counts.push(u64::from_ne_bytes(words[1]));
    }
    for (cpu, count) in (0..u64::from(cpus)).zip(&counts) {
        assert_eq!(*count, 2 * (cpu + 1), "CPU {cpu} of {counts:?}");
    }
    assert_eq!(stats.sum(&key), Ok(vec![0, (1..=u64::from(cpus)).sum::<u64>() * 2, 0]));
    Ok(())
}

/// Otherwise the kernel would read or write past a buffer.
fn wrong_lengths_are_refused() -> Outcome {
    let loaded = with_table(map("table", MapKind::Hash, (4, 8, 4)));
    let table = loaded.map("table").expect("the object's map");
    assert!(table.lookup(&[0; 3]).is_err());
    assert!(table.lookup_into(&[0; 4], &mut [0; 7]).is_err());
    assert!(table.update(&[0; 4], &[0; 9], Update::Any).is_err());
    assert!(table.update(&[0; 1], &[0; 8], Update::Any).is_err());
    assert!(table.delete(&[]).is_err());
    assert!(table.next_key(Some(&[0; 5])).is_err());
    assert!(matches!(loaded.map("none"), Err(LoadError::NoMap { .. })));
    assert!(matches!(loaded.events("table"), Err(LoadError::NotARing { .. })));
    Ok(())
}
