//! The bodies of the fuzz targets in `tests/fuzz`: properties that must be true for any input.

// A target panics if its property is violated.
#![allow(clippy::missing_panics_doc)]

use std::sync::atomic::{AtomicU64, Ordering};

use bpfasm::{Insn, Operand, Program, Reg, Source, Width};

use crate::ring::perf::{PerfBuf, Record};
use crate::ring::ringbuf::RingBuf;
use crate::sys::mmap::Region;
use crate::verifier::VerifierLog;

/// Words of an event buffer.
const WORDS: usize = 32;
/// Bytes of an event buffer.
const SIZE: u64 = 8 * WORDS as u64;
/// Words of a perf buffer's first page.
const CONTROL: usize = 512;
/// `data_head` and `data_tail` in it.
const HEAD_AND_TAIL: [usize; 2] = [128, 129];

/// The memory of an event buffer, and words that are changed while it is read.
struct Memory {
    /// The positions of the reader and the writer.
    positions: [u64; 2],
    data: Vec<AtomicU64>,
    changes: Vec<(usize, u64)>,
}

impl Memory {
    /// From the fuzzer's input: both positions, the words of the buffer, then changes, each a byte
    /// that selects the place and a word.
    fn of(data: &[u8]) -> Option<Self> {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            u64::from_ne_bytes(word)
        };
        let (consumer, rest) = data.split_at_checked(8)?;
        // The input only selects a distance, because with most positions nothing would be read.
        let (ahead, rest) = rest.split_at_checked(2)?;
        let (words, changes) = rest.split_at(rest.len().min(8 * WORDS));
        let ring: Vec<_> =
            (0..WORDS).map(|at| AtomicU64::new(word(words.get(8 * at..).unwrap_or_default()))).collect();
        let consumer = word(consumer) & !7;
        let change = |change: &[u8; 9]| (usize::from(change[0]), word(&change[1..]));
        Some(Self {
            positions: [consumer, consumer.wrapping_add(word(ahead))],
            data: ring,
            changes: changes.as_chunks().0.iter().map(change).collect(),
        })
    }

    /// Makes the next change, outside of the record that is being read: the kernel does not write
    /// there before the reader's position has passed it.
    fn change(&self, done: &mut usize, read: [&[u8]; 2]) {
        let Some((at, word)) = self.changes.get(*done) else { return };
        *done += 1;
        let place = &self.data[at % WORDS];
        let address = std::ptr::from_ref(place) as usize;
        let apart = |part: &[u8]| {
            let start = part.as_ptr() as usize;
            address + 8 <= start || address >= start + part.len()
        };
        if read.into_iter().all(apart) {
            place.store(*word, Ordering::Relaxed);
        }
    }
}

/// The memory of a ring buffer. Records come from between the positions, and the reader's position
/// never passes the writer's.
pub fn ringbuf(data: &[u8]) {
    let Some(memory) = Memory::of(data) else { return };
    let [consumer, producer] = memory.positions.map(|position| vec![AtomicU64::new(position)]);
    let [start, end] = memory.positions;
    let ring = RingBuf::new(Region::of(&consumer), Region::of(&producer), Region::of(&memory.data));
    let (mut records, mut bytes, mut done) = (0, 0, 0);
    let mut wrapped = Vec::new();
    let drained = ring.expect("the shape is right").drain(&mut wrapped, &mut |record| {
        records += 1;
        bytes += 8 + record.len() as u64;
        memory.change(&mut done, [record, &[]]);
        if let Some((at, ahead)) = memory.changes.get(done)
            && at % 5 == 0
        {
            // The new position may also be lower.
            producer[0].store(end.wrapping_add(ahead & 0xffff), Ordering::Relaxed);
        }
    });
    let passed = consumer[0].load(Ordering::Relaxed).wrapping_sub(start);
    assert!(passed <= end.wrapping_sub(start) && bytes <= passed && passed % 8 == 0, "{passed} {bytes}");
    assert!(wrapped.len() as u64 <= SIZE, "a record is no longer than the ring");
    match drained {
        Ok(drained) => assert_eq!((drained.records, drained.lost), (records, 0)),
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

/// The memory of a perf buffer.
pub fn perf(data: &[u8]) {
    let Some(memory) = Memory::of(data) else { return };
    let control: Vec<_> = (0..CONTROL).map(|_| AtomicU64::new(0)).collect();
    let [tail, head] = memory.positions;
    for (at, value) in HEAD_AND_TAIL.into_iter().zip([head, tail]) {
        control[at].store(value, Ordering::Relaxed);
    }
    let (mut bytes, mut done) = (0, 0);
    let ring = PerfBuf::new(Region::of(&control), Region::of(&memory.data)).expect("the shape is right");
    let drained = ring.drain(&mut |record| match record {
        Record::Sample(first, second) => {
            bytes += 12 + (first.len() + second.len()) as u64;
            memory.change(&mut done, [first, second]);
        }
        Record::Lost(_) => bytes += 24,
    });
    let passed = control[HEAD_AND_TAIL[1]].load(Ordering::Relaxed).wrapping_sub(tail);
    assert!(passed <= head.wrapping_sub(tail), "{passed}");
    // After an error the position is that of the damaged record.
    assert!(bytes <= passed, "{bytes} of {passed}");
    assert!(drained.is_err() || passed == head.wrapping_sub(tail), "all of it was read");
}

/// Texts from `/proc`, `/sys` and `uname(2)`. The first byte selects the parser.
pub fn proc(data: &[u8]) {
    let Some((which, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    match which % 2 {
        0 => {
            if let Some(cpus) = crate::kernel::cpu_list(&text) {
                assert!(!cpus.is_empty() && cpus.len() <= crate::kernel::MAX_CPUS, "{}", cpus.len());
                assert!(cpus.is_sorted_by(|a, b| a < b), "no CPU is listed twice");
            }
        }
        _ => {
            let (release, version) = text.split_once('\n').unwrap_or((&text, ""));
            if let Some(version) = crate::kernel::parse_version(release, version) {
                assert!(crate::kernel::version_code(version) >> 16 == version.major.into());
            }
        }
    }
}

/// A verifier log. Its summary has at most two lines.
pub fn verifier(data: &[u8]) {
    let log = VerifierLog::new(&String::from_utf8_lossy(data), &program());
    let short = log.to_string();
    assert!(short.lines().count() <= 2, "{short:?}");
    assert!(log.is_empty() || !log.message().is_empty(), "a log has a message: {data:?}");
    let _ = format!("{log:#}");
}

/// Ten instructions, each of its own statement.
fn program() -> Program {
    let insn = Insn::Mov { width: Width::W64, dst: Reg::R0, src: Operand::Imm(0) };
    let source = (1..11).map(|line| Some(Source { file: "x.rs", line, text: "r0 = 0" }));
    Program { insns: vec![insn; 10], source: source.collect(), ..Program::default() }
}

#[cfg(test)]
mod tests {
    use test_support::fuzz;

    #[test]
    fn ringbuf() {
        fuzz::run("loader_ringbuf", 20_000, super::ringbuf);
    }

    #[test]
    fn perf() {
        fuzz::run("loader_perf", 20_000, super::perf);
    }

    #[test]
    fn proc() {
        fuzz::run("loader_proc", 20_000, super::proc);
    }

    #[test]
    fn verifier() {
        fuzz::run("loader_verifier", 4000, super::verifier);
    }
}
