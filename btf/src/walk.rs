//! The way over all records, from the first to the last.
//!
//! Where a record starts is only known from the one before it, and that is all that a walk waits for, however much a processor
//! could do at a time. So there are two walks at a time, the second from somewhere in the middle. Where a record starts there is
//! guessed, and whether the guess was right is known once the first walk gets there: it steps on the same place, or over it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    endian::{Endian, Word},
    raw::Record,
};

/// A record's number, and where it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) number: u32,
    /// In words. There are no more than 32 bits count, for the header counts their bytes in as many.
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

/// Marks of records that were asked for. Who resolves the fields of some structs asks for the same few types over and over.
#[derive(Debug)]
pub(crate) struct Recent([AtomicU64; Self::LEN]);

impl Default for Recent {
    /// With the mark of record 0 in all places, which is a true one.
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Self::LEN])
    }
}

impl Recent {
    const LEN: usize = 64;

    fn slot(&self, number: u32) -> &AtomicU64 {
        &self.0[number as usize % Self::LEN]
    }

    /// The mark of that record, if it is among them.
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

/// One of so many records is marked: 16 KiB for a kernel's 130 000 types.
const STRIDE: u32 = 64;

/// A loop of its own for the usual byte order: to choose for each number how to read it costs a tenth of a walk.
const KNOWN: Endian = Endian::NATIVE;

/// A walk over records.
#[derive(Debug)]
pub(crate) struct Walk<'b> {
    words: &'b [Word],
    /// Where the next record starts. The last one has been if that is the end; else there is none.
    pub(crate) position: usize,
    /// Records so far.
    pub(crate) count: u32,
    /// In ascending order.
    pub(crate) marks: Vec<Mark>,
    /// Those that were wanted.
    pub(crate) found: Vec<Mark>,
}

impl<'b> Walk<'b> {
    /// To the end, or the first flaw.
    pub(crate) fn over(words: &'b [Word], endian: Endian, wanted: impl Fn(&Record<'b>) -> bool) -> Self {
        let mut walk = Self::from(words, 0);
        // A little more than there will be, of a kernel's. Memory that is not written costs nothing.
        walk.marks.reserve(words.len() / 8 / STRIDE as usize);
        let Some(middle) = guess(words, endian) else { return walk.until(words.len(), endian, &wanted) };
        let mut ahead = Self::from(words, middle);
        if endian == Endian::NATIVE {
            while walk.position < middle && walk.step(KNOWN, &wanted) && ahead.step(KNOWN, &wanted) {}
        }
        let walk = walk.until(middle, endian, &wanted);
        if walk.position == middle {
            walk.join(ahead.until(words.len(), endian, &wanted))
        } else {
            walk.until(words.len(), endian, &wanted)
        }
    }

    /// The rest of the way.
    #[inline(never)]
    fn until(mut self, end: usize, endian: Endian, wanted: &impl Fn(&Record<'b>) -> bool) -> Self {
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

    /// Over one record; says whether there was one. Inlined, or `endian` would not be known in there.
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
        // A record has three words, and there are no more words than 32 bits count.
        self.count = self.count.wrapping_add(1);
        true
    }

    /// Goes on as another did from here.
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

/// Where a record seems to start, such that there are about as many before it as behind it. `None` where there are too few for
/// that to matter.
fn guess(words: &[Word], endian: Endian) -> Option<usize> {
    /// Where a half of a kernel's types is before and a half behind: those that come first, structs among them, are longer. It has
    /// been from 48 % (6.12 to 6.19) to 64 % of them (7.3).
    const HALF: (usize, usize) = (5, 8);
    /// So many records in a row do not start in the wrong place.
    const ROW: usize = 32;
    /// How far to look for them: more than a kernel's longest record.
    const FAR: usize = 4096;
    const FEW: usize = 1 << 16;
    if words.len() < FEW {
        return None;
    }
    let (of, all) = HALF;
    let near = words.len() / all * of;
    (near..near + FAR).find(|start| {
        let mut position = *start;
        (0..ROW).all(|_| match Record::read(words, position, endian) {
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

    /// A record of this kind, with a name and so many words behind its head.
    fn record(endian: Endian, name: u32, info: u32, tail: &[u32]) -> Vec<Word> {
        [name, info, 1].iter().chain(tail).map(|word| endian.word(*word)).collect()
    }

    fn func(endian: Endian, name: u32) -> Vec<Word> {
        record(endian, name, Head::info(kind::FUNC, 0, false), &[])
    }

    /// A hundred thousand words, every third record longer than the others, `odd` among them behind so many records.
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

    /// Which records are wanted.
    fn wanted(record: &Record<'_>) -> bool {
        record.head.name_off.is_multiple_of(1000)
    }

    /// The same, step by step.
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
        // No record is further from the mark before it than it has to be.
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
    fn a_wrong_guess_does_no_harm() {
        let endian = Endian::NATIVE;
        // The members of a struct that look like functions, and nothing else where the second walk begins.
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
    fn a_flaw_is_found_in_its_place() {
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
    fn where_nothing_looks_like_a_record_one_walk_does() {
        let endian = Endian::NATIVE;
        let huge = record(endian, 1, Head::info(kind::STRUCT, 40_000, false), &[0; 120_000]);
        let words = types(endian, 12_000, &huge);
        assert_eq!(guess(&words, endian), None);
        same(&words, endian);
    }
}
