//! Runs fuzz targets as plain tests: on the inputs of a target's corpus, and on mutations of them.
//!
//! A target is a function of bytes in the `fuzz` module of its crate. `tests/fuzz` runs the same
//! function under libFuzzer, which is guided by coverage. This module is not, but `cargo test` is
//! enough to run it, and its seed is fixed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use crate::project;
use crate::random::Random;

/// Multiplies the number of mutated inputs: `FUZZ_TIMES=1000 cargo test fuzz`.
const TIMES: &str = "FUZZ_TIMES";

/// The greatest length of a mutated input, in bytes.
const MAX_INPUT: usize = 4096;

/// Runs a target on each input of its corpus (`tests/fuzz/corpus/TARGET`), then on `count`
/// mutations.
///
/// # Panics
/// If the target panics (after printing the input), or the corpus is empty.
pub fn run(target: &str, count: usize, body: impl Fn(&[u8])) {
    let corpus = corpus(target);
    let run_on = |origin: &str, input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
            eprintln!("{target}: {origin}: b\"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
    };
    for (name, input) in &corpus {
        run_on(name, input);
    }
    let times = std::env::var(TIMES).ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let mut random = Random(target.len() as u64);
    for _ in 0..count.saturating_mul(times) {
        let (name, input) = &corpus[random.below(corpus.len())];
        let (_, other) = &corpus[random.below(corpus.len())];
        let mut input = input.clone();
        for _ in 0..1 + random.below(4) {
            mutate(&mut input, other, &mut random);
        }
        input.truncate(MAX_INPUT);
        run_on(&format!("mutation of {name}"), &input);
    }
}

/// The inputs of a corpus and the paths of their files, sorted by path.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = project("tests/fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no input", directory.display());
    let read = |path: PathBuf| {
        let input = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.display().to_string(), input)
    };
    paths.into_iter().map(read).collect()
}

/// Bytes that parsers often treat specially.
const EDGE_BYTES: [u8; 16] =
    [0, 1, 7, 8, b'\n', b'\r', 0x1b, b' ', b'"', b',', b'-', b'/', 0x7f, 0x80, 0xe2, 0xff];

/// Numbers at the edges of ranges.
const EDGE_WORDS: [u32; 12] =
    [0, 1, 7, 8, 0xff, 0x100, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, u32::MAX];

/// Makes one change: to a bit, byte or word, or to a range, which it removes, repeats, or replaces
/// by a part of another input.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len());
    let length = 1 + random.below((input.len() - at).min(64));
    let end = (at + length).min(input.len());
    match random.below(9) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.of(&EDGE_BYTES),
        2 if !input.is_empty() => input[at] = input[at].wrapping_add(random.of(&[1, 0xff])),
        3 => {
            let word = random.of(&EDGE_WORDS).to_ne_bytes();
            let width = random.of(&[2, 4]);
            input.iter_mut().skip(at).zip(&word[..width]).for_each(|(to, from)| *to = *from);
        }
        4 => drop(input.drain(at..end)),
        5 => input.insert(at, random.of(&EDGE_BYTES)),
        6 => {
            let again = input[at..end].to_vec();
            let to = random.below(input.len());
            input.splice(to..to, again);
        }
        7 => {
            let from = random.below(other.len());
            let to = (from + 1 + random.below(64)).min(other.len());
            input.splice(at..end, other[from.min(to)..to].iter().copied());
        }
        _ => input.truncate(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_reach_every_neighbour() {
        let (mut random, mut seen) = (Random(1), std::collections::HashSet::new());
        for _ in 0..4000 {
            let mut input = b"ab".to_vec();
            mutate(&mut input, b"xyz", &mut random);
            assert!(input.len() <= 5, "{input:?}");
            seen.insert(input);
        }
        for neighbour in [&b""[..], b"a", b"b", b"ac", b"xb", b"axyz", b"a\0b", b"abab", b"\xff\xff"] {
            assert!(seen.contains(neighbour), "{neighbour:?}");
        }
        mutate(&mut Vec::new(), b"", &mut random);
    }
}
