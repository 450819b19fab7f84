//! Passes over all records, from the first to the last, with two walks at once.
//!
//! Records have different lengths and no table of positions, so the position of a record is known
//! only after the record before it is read. A single walk therefore spends its time waiting for one
//! load after another, although the processor could do several at once. The pass over a kernel's
//! BTF is a third of the time that a tracing tool takes to start, so this matters.
//!
//! To use the processor better, [`Walk::over`] runs two walks alternately in one loop: one from the
//! first record, one from the middle of the section. Their loads do not depend on each other, so
//! the processor overlaps them.
//!
//! The second walk needs the start of a record in the middle. [`guess`] looks for a position from
//! which 32 records of known kinds follow each other. It can be wrong, for example within a long
//! struct whose members look like records. The guess is checked when the first walk arrives in the
//! middle:
//!
//! - If it arrives exactly at the guessed position, the second walk has seen the same records as
//!   the first one would have. Both read the same words from there on, so [`Walk::join`] appends
//!   the results of the second walk to those of the first, after adding the number of records
//!   before the middle to each record number.
//! - If it steps over the guessed position, the guess was wrong. The results of the second walk are
//!   dropped, and the first walk continues to the end alone.
//!
//! In both cases the result is the same as that of one walk; only the time differs. A flaw in the
//! data ends a walk at the same record in both cases, too.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    endian::{Endian, Word},
    raw::Record,
};

/// The number of a record, and its position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) number: u32,
    /// The position in words. It fits 32 bits, because the header stores the section's length in
    /// bytes as 32 bits.
    position: u32,
}

impl Mark {
    pub(crate) fn new(number: u32, position: usize) -> Self {
        Self { number, position: u32::try_from(position).unwrap_or(u32::MAX) }
    }

    pub(crate) fn position(self) -> usize {
        self.position as usize
    }
}

/// A cache of the marks of recently used records. Resolving fields reads the same few types again
/// and again. Each entry is one atomic word, so an index can be shared between threads.
#[derive(Debug)]
pub(crate) struct MarkCache([AtomicU64; Self::LEN]);

impl Default for MarkCache {
    /// All entries contain the mark of record 0, which is valid.
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Self::LEN])
    }
}

impl MarkCache {
    const LEN: usize = 64;

    fn slot(&self, number: u32) -> &AtomicU64 {
        &self.0[number as usize % Self::LEN]
    }

    /// The mark of this record, if the cache contains it.
    pub(crate) fn get(&self, number: u32) -> Option<Mark> {
        let word = self.slot(number).load(Ordering::Relaxed);
        let mark = Mark { number: (word >> 32) as u32, position: (word & 0xffff_ffff) as u32 };
        (mark.number == number).then_some(mark)
    }

    pub(crate) fn put(&self, mark: Mark) {
        let word = u64::from(mark.number) << 32 | u64::from(mark.position);
        self.slot(mark.number).store(word, Ordering::Relaxed);
    }
}

/// Every 64th record is marked. That takes 16 KiB for a kernel's 130,000 types.
const STRIDE: u32 = 64;

/// The byte order as a constant. A separate loop for it saves a tenth of the time of a walk,
/// because no number needs a branch on the byte order.
const KNOWN: Endian = Endian::NATIVE;

/// A walk over records.
#[derive(Debug)]
pub(crate) struct Walk<'b> {
    words: &'b [Word],
    /// The position of the next record. At the end of a walk this is the end of the section, or the
    /// position of a flaw.
    pub(crate) position: usize,
    /// The number of records so far.
    pub(crate) count: u32,
    /// Every 64th record, in ascending order.
    pub(crate) marks: Vec<Mark>,
    /// The records for which `wanted` returned `true`, in ascending order.
    pub(crate) found: Vec<Mark>,
}

impl<'b> Walk<'b> {
    /// Walks to the end, or to the first flaw. See the module's documentation.
    pub(crate) fn over(words: &'b [Word], endian: Endian, wanted: impl Fn(&Record<'b>) -> bool) -> Self {
        let mut walk = Self::from(words, 0);
        // Slightly more marks than a kernel needs. Memory that is reserved but not written costs
        // nothing.
        walk.marks.reserve(words.len() / 8 / STRIDE as usize);
        let Some(middle) = guess(words, endian) else { return walk.walk_to(words.len(), endian, &wanted) };
        let mut ahead = Self::from(words, middle);
        if endian == Endian::NATIVE {
            while walk.position < middle && walk.step(KNOWN, &wanted) && ahead.step(KNOWN, &wanted) {}
        }
        let walk = walk.walk_to(middle, endian, &wanted);
        if walk.position == middle {
            walk.join(ahead.walk_to(words.len(), endian, &wanted))
        } else {
            walk.walk_to(words.len(), endian, &wanted)
        }
    }

    /// Walks on to `end`, or to the first flaw.
    #[inline(never)]
    fn walk_to(mut self, end: usize, endian: Endian, wanted: &impl Fn(&Record<'b>) -> bool) -> Self {
        if endian == Endian::NATIVE {
            while self.position < end && self.step(KNOWN, wanted) {}
        } else {
            while self.position < end && self.step(endian, wanted) {}
        }
        self
    }

    fn from(words: &'b [Word], position: usize) -> Self {
        Self { words, position, count: 0, marks: Vec::new(), found: Vec::new() }
    }

    /// Steps over one record; returns whether there was one. Must be inlined, so that the compiler
    /// knows `endian`.
    #[inline(always)]
    fn step(&mut self, endian: Endian, wanted: impl Fn(&Record<'b>) -> bool) -> bool {
        let Some((record, next)) = Record::read(self.words, self.position, endian) else { return false };
        if self.count.is_multiple_of(STRIDE) {
            self.marks.push(Mark::new(self.count, self.position));
        }
        if wanted(&record) {
            self.found.push(Mark::new(self.count, self.position));
        }
        self.position = next;
        // A record has at least three words, and the number of words fits 32 bits.
        self.count = self.count.wrapping_add(1);
        true
    }

    /// Appends the results of a walk that started at this walk's position.
    fn join(mut self, ahead: Self) -> Self {
        let count = self.count;
        let here = |mark: Mark| Mark { number: count.wrapping_add(mark.number), ..mark };
        self.marks.extend(ahead.marks.into_iter().map(here));
        self.found.extend(ahead.found.into_iter().map(here));
        self.count = count.wrapping_add(ahead.count);
        self.position = ahead.position;
        self
    }
}

/// A position where a record seems to start, with about as many records before it as after it.
/// `None` if the section is too short for a second walk to matter, or if no position looks like the
/// start of a record.
fn guess(words: &[Word], endian: Endian) -> Option<usize> {
    /// The part of the section that contains half of a kernel's records. It is more than a half,
    /// because longer records, such as structs, come first: between 48 % (Linux 6.12 to 6.19) and
    /// 64 % (7.3).
    const HALF: (usize, usize) = (5, 8);
    /// This many records in a row are taken as proof that the first one starts there.
    const RECORDS_IN_A_ROW: usize = 32;
    /// The number of positions that are tried: more than the words of a kernel's longest record.
    const MAX_TRIES: usize = 4096;
    /// A shorter section is passed over by one walk.
    const MIN_WORDS: usize = 1 << 16;
    if words.len() < MIN_WORDS {
        return None;
    }
    let (of, all) = HALF;
    let near = words.len() / all * of;
    (near..near + MAX_TRIES).find(|start| {
        let mut position = *start;
        (0..RECORDS_IN_A_ROW).all(|_| match Record::read(words, position, endian) {
            Some((_, next)) => {
                position = next;
                true
            }
            None => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{Mark, STRIDE, Walk, guess};
    use crate::{
        endian::{Endian, Word},
        raw::{Head, Record, kind},
    };

    /// A record with this name, this `info`, and these words after its head.
    fn record(endian: Endian, name: u32, info: u32, tail: &[u32]) -> Vec<Word> {
        [name, info, 1].iter().chain(tail).map(|word| endian.word(*word)).collect()
    }

    fn func(endian: Endian, name: u32) -> Vec<Word> {
        record(endian, name, Head::info(kind::FUNC, 0, false), &[])
    }

    /// A hundred thousand words of records, every third one longer than the others, with `odd`
    /// inserted after `at` records.
    fn types(endian: Endian, at: u32, odd: &[Word]) -> Vec<Word> {
        let mut words = Vec::new();
        for number in 0..24_000 {
            if number == at {
                words.extend_from_slice(odd);
            }
            words.extend(match number % 3 {
                0 => record(endian, number, Head::info(kind::FUNC_PROTO, 2, false), &[1, 2, 3, 4]),
                _ => func(endian, number),
            });
        }
        words
    }

    /// Whether a record is wanted: one in a thousand.
    fn wanted(record: &Record<'_>) -> bool {
        record.head.name_off.is_multiple_of(1000)
    }

    /// The same pass by a single walk.
    fn one_by_one(words: &[Word], endian: Endian) -> (usize, u32, Vec<(u32, usize)>) {
        let (mut position, mut count, mut found) = (0, 0, Vec::new());
        while let Some((record, next)) = Record::read(words, position, endian) {
            if wanted(&record) {
                found.push((count, position));
            }
            (position, count) = (next, count + 1);
        }
        (position, count, found)
    }

    #[track_caller]
    fn same(words: &[Word], endian: Endian) {
        let walk = Walk::over(words, endian, wanted);
        let plain = |marks: &[Mark]| -> Vec<(u32, usize)> {
            marks.iter().map(|mark| (mark.number, mark.position())).collect()
        };
        let (position, count, found) = one_by_one(words, endian);
        assert_eq!((walk.position, walk.count), (position, count));
        assert_eq!(plain(&walk.found), found);
        let mut starts = Vec::new();
        let mut at = 0;
        while let Some((_, next)) = Record::read(words, at, endian) {
            starts.push(at);
            at = next;
        }
        let marks = plain(&walk.marks);
        assert!(marks.iter().all(|(number, position)| starts[*number as usize] == *position));
        assert!(marks.first().is_none_or(|first| *first == (0, 0)));
        // Each record is at most `STRIDE` records from the mark before it.
        let next = marks.iter().skip(1).map(|(number, _)| *number).chain([walk.count]);
        assert!(marks.iter().zip(next).all(|((from, _), to)| (1..=STRIDE).contains(&(to - from))));
    }

    #[test]
    fn two_walks_see_what_one_sees() {
        for endian in [Endian::Little, Endian::Big] {
            let words = types(endian, 0, &[]);
            let middle = guess(&words, endian).unwrap();
            assert!(middle > words.len() / 2 && middle < words.len() * 3 / 4, "{middle}");
            same(&words, endian);
            same(&words[..1000], endian);
            same(&[], endian);
        }
    }

    #[test]
    fn a_wrong_guess_does_not_change_the_result() {
        let endian = Endian::NATIVE;
        // The members of one long struct look like functions, and the second walk starts among
        // them.
        let members: Vec<u32> = func(endian, 7).iter().map(|word| endian.u32(*word)).collect();
        let members = members.repeat(40_000);
        let huge = record(endian, 1000, Head::info(kind::STRUCT, 40_000, false), &members);
        let words = types(endian, 12_000, &huge);
        let middle = guess(&words, endian).unwrap();
        let huge_at = 12_000 / 3 * (7 + 3 + 3);
        assert!(huge_at + 3 < middle && middle + 3 < huge_at + huge.len(), "{middle} in {huge_at}…");
        same(&words, endian);
    }

    #[test]
    fn a_flaw_is_found_at_its_position() {
        let endian = Endian::NATIVE;
        let unknown = record(endian, 1, Head::info(99, 0, false), &[]);
        for at in [0, 100, 12_000, 15_000, 23_999] {
            same(&types(endian, at, &unknown), endian);
        }
        let mut cut = types(endian, 0, &[]);
        cut.pop();
        same(&cut, endian);
    }

    #[test]
    fn without_a_guess_there_is_one_walk() {
        let endian = Endian::NATIVE;
        let huge = record(endian, 1, Head::info(kind::STRUCT, 40_000, false), &[0; 120_000]);
        let words = types(endian, 12_000, &huge);
        assert_eq!(guess(&words, endian), None);
        same(&words, endian);
    }
}
