//! One CPU's perf buffer (`struct perf_event_mmap_page`, `include/uapi/linux/perf_event.h`) as
//! plain memory, without system calls.
//!
//! A record starts with `struct perf_event_header`. Only samples (`bpf_perf_event_output`) and
//! counts of lost records are read. Memory ordering is explained in [`super`].

use std::sync::atomic::{AtomicU64, Ordering};

use super::RingError;
use crate::sys::mmap::Region;

/// `PERF_RECORD_LOST`
const LOST: u32 = 2;
/// `PERF_RECORD_SAMPLE`
pub(super) const SAMPLE: u32 = 9;
/// Offset of `data_head` in the first page.
pub(super) const DATA_HEAD: usize = 1024;
/// Offset of `data_tail`.
const DATA_TAIL: usize = 1032;
/// `sizeof(struct perf_event_header)`
const HEADER: u64 = 8;

/// A record that is passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Record<'a> {
    /// The bytes that a program sent: up to the end of the buffer, and the rest from its start. The
    /// kernel pads them, so there may be up to seven bytes more than were sent.
    Sample(&'a [u8], &'a [u8]),
    /// The number of records that did not fit in the buffer.
    Lost(u64),
}

/// A view of a perf buffer's memory.
#[doc(alias = "BPF_MAP_TYPE_PERF_EVENT_ARRAY")]
pub(crate) struct PerfBuf<'a> {
    head: &'a AtomicU64,
    tail: &'a AtomicU64,
    data: Region<'a>,
    size: u64,
}

impl<'a> PerfBuf<'a> {
    /// `control` is the first page, `data` the pages after it. `None` if a size is wrong.
    pub(crate) fn new(control: Region<'a>, data: Region<'a>) -> Option<Self> {
        let size = u64::try_from(data.len()).ok()?;
        (size.is_power_of_two() && size >= HEADER).then_some(())?;
        Some(Self { head: control.u64_at(DATA_HEAD)?, tail: control.u64_mut_at(DATA_TAIL)?, data, size })
    }

    /// Passes every record to `sink`, in order. Their space is freed at the end, or when `sink`
    /// panics.
    pub(crate) fn drain(&self, sink: &mut dyn FnMut(Record<'_>)) -> Result<(), RingError> {
        // Only the reader writes the tail.
        let start = self.tail.load(Ordering::Relaxed);
        // Pairs with the kernel's barrier between writing records and moving the head.
        let end = self.head.load(Ordering::Acquire);
        if end.wrapping_sub(start) > self.size {
            return Err(RingError::Position { producer: end, consumer: start, size: self.size });
        }
        let mut tail = Tail { word: self.tail, at: start };
        while tail.at != end {
            let length = self.record(tail.at, end, sink)?;
            tail.at = tail.at.wrapping_add(length);
        }
        Ok(())
    }

    /// Passes the record at `at` to `sink` and returns its length.
    fn record(&self, at: u64, end: u64, sink: &mut dyn FnMut(Record<'_>)) -> Result<u64, RingError> {
        let available = end.wrapping_sub(at);
        let bad = |length| RingError::Record { position: at, length, available };
        let [t0, t1, t2, t3, _, _, s0, s1] = self.word(at).ok_or(bad(0))?.to_ne_bytes();
        let kind = u32::from_ne_bytes([t0, t1, t2, t3]);
        let length = u64::from(u16::from_ne_bytes([s0, s1]));
        if length < HEADER || length % 8 != 0 || length > available {
            return Err(bad(length));
        }
        match kind {
            SAMPLE => {
                // With PERF_SAMPLE_RAW alone: u32 size, char data[size].
                const SIZE: u64 = 4;
                if length < HEADER + 8 {
                    return Err(bad(length));
                }
                let [r0, r1, r2, r3, ..] =
                    self.word(at.wrapping_add(HEADER)).ok_or(bad(length))?.to_ne_bytes();
                let raw = u64::from(u32::from_ne_bytes([r0, r1, r2, r3]));
                if raw > length - HEADER - SIZE {
                    return Err(bad(raw));
                }
                let (first, second) = self.slices(at.wrapping_add(HEADER + SIZE), raw).ok_or(bad(raw))?;
                sink(Record::Sample(first, second));
            }
            LOST => {
                // u64 id, u64 lost
                if length < HEADER + 16 {
                    return Err(bad(length));
                }
                sink(Record::Lost(self.word(at.wrapping_add(HEADER + 8)).ok_or(bad(length))?));
            }
            // Throttling and other kinds that do not concern BPF.
            _ => {}
        }
        Ok(length)
    }

    fn offset(&self, at: u64) -> Option<usize> {
        usize::try_from(at & (self.size - 1)).ok()
    }

    /// The word at a position. It does not wrap, because positions are multiples of eight.
    fn word(&self, at: u64) -> Option<u64> {
        Some(self.data.u64_at(self.offset(at)?)?.load(Ordering::Relaxed))
    }

    fn slices(&self, at: u64, length: u64) -> Option<(&'a [u8], &'a [u8])> {
        let offset = self.offset(at)?;
        let length = usize::try_from(length).ok()?;
        let first = length.min(self.data.len().checked_sub(offset)?);
        // SAFETY: both slices are between tail and head: the kernel has written them and does not
        // write there again before the tail has passed them, which is stored after `sink` has
        // returned.
        unsafe { Some((self.data.bytes(offset, first)?, self.data.bytes(0, length - first)?)) }
    }
}

/// The reader's position; stored on drop.
struct Tail<'a> {
    word: &'a AtomicU64,
    at: u64,
}

impl Drop for Tail<'_> {
    fn drop(&mut self) {
        // All reads of the data come before this store, as the comment in `struct
        // perf_event_mmap_page` requires.
        self.word.store(self.at, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 128;

    struct Ring {
        control: Vec<AtomicU64>,
        data: Vec<AtomicU64>,
    }

    #[derive(PartialEq, Eq, Debug)]
    enum Owned {
        Sample(Vec<u8>),
        Lost(u64),
    }

    impl Ring {
        fn new(start: u64) -> Self {
            let words = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
            let ring = Self { control: words(512), data: words(SIZE / 8) };
            ring.control[DATA_HEAD / 8].store(start, Ordering::Relaxed);
            ring.control[DATA_TAIL / 8].store(start, Ordering::Relaxed);
            ring
        }

        fn head(&self) -> u64 {
            self.control[DATA_HEAD / 8].load(Ordering::Relaxed)
        }

        fn tail(&self) -> u64 {
            self.control[DATA_TAIL / 8].load(Ordering::Relaxed)
        }

        /// Appends a record of this type with this claimed size.
        fn append(&self, kind: u32, size: u16, body: &[u8]) {
            let mut bytes = kind.to_ne_bytes().to_vec();
            bytes.extend([0; 2]);
            bytes.extend(size.to_ne_bytes());
            bytes.extend(body);
            let head = self.head();
            for (i, chunk) in bytes.chunks(8).enumerate() {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                let slot = (usize::try_from(head & (SIZE as u64 - 1)).unwrap() / 8 + i) % (SIZE / 8);
                self.data[slot].store(u64::from_ne_bytes(word), Ordering::Relaxed);
            }
            self.control[DATA_HEAD / 8].store(head.wrapping_add(u64::from(size)), Ordering::Release);
        }

        /// A sample as the kernel writes it: padded so that the record is a multiple of eight.
        fn sample(&self, bytes: &[u8]) {
            let raw = (bytes.len() + 4).next_multiple_of(8) - 4;
            let mut body = u32::try_from(raw).unwrap().to_ne_bytes().to_vec();
            body.extend(bytes);
            body.resize(raw + 4, 0);
            self.append(SAMPLE, u16::try_from(raw + 12).unwrap(), &body);
        }

        fn drain(&self) -> Result<Vec<Owned>, RingError> {
            let mut records = Vec::new();
            let view = PerfBuf::new(Region::of(&self.control), Region::of(&self.data)).unwrap();
            view.drain(&mut |record| {
                records.push(match record {
                    Record::Sample(first, second) => Owned::Sample([first, second].concat()),
                    Record::Lost(count) => Owned::Lost(count),
                });
            })?;
            Ok(records)
        }
    }

    fn lost(count: u64) -> Vec<u8> {
        [7u64.to_ne_bytes(), count.to_ne_bytes()].concat()
    }

    #[test]
    fn gives_samples_and_losses_in_order() {
        let ring = Ring::new(0);
        assert_eq!(ring.drain(), Ok(vec![]));
        ring.sample(b"first sample");
        ring.append(LOST, 24, &lost(5));
        ring.append(5, 32, &[0; 24]);
        ring.sample(b"more");
        assert_eq!(
            ring.drain(),
            Ok(vec![
                Owned::Sample(b"first sample".to_vec()),
                Owned::Lost(5),
                Owned::Sample(b"more".to_vec())
            ])
        );
        assert_eq!(ring.tail(), ring.head());
        assert_eq!(ring.drain(), Ok(vec![]));
    }

    #[test]
    fn a_sample_that_wraps_is_two_slices() {
        for start in (0..SIZE as u64).step_by(8).chain([u64::MAX - 7, u64::MAX - 23]) {
            let ring = Ring::new(start);
            ring.sample(b"0123456789abcdefghijklmnopqr");
            ring.append(LOST, 24, &lost(9));
            assert_eq!(
                ring.drain(),
                Ok(vec![Owned::Sample(b"0123456789abcdefghijklmnopqr".to_vec()), Owned::Lost(9)]),
                "from {start}"
            );
        }
    }

    #[test]
    fn records_of_other_kinds_are_skipped() {
        let ring = Ring::new(0);
        ring.append(5, 8, &[]);
        ring.append(5, 32, &[0; 24]);
        ring.sample(b"afterwards, ");
        assert_eq!(ring.drain(), Ok(vec![Owned::Sample(b"afterwards, ".to_vec())]));
    }

    #[test]
    fn the_memory_must_have_the_shape_of_a_buffer() {
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let is_buffer = |control: usize, data: usize| {
            PerfBuf::new(Region::of(&words(control)), Region::of(&words(data))).is_some()
        };
        assert!(is_buffer(512, 1) && is_buffer(512, 16));
        assert!(!is_buffer(512, 0) && !is_buffer(512, 3) && !is_buffer(DATA_TAIL / 8, 16));
    }

    #[test]
    fn a_full_buffer_drains() {
        let ring = Ring::new(16);
        ring.sample(&[3; SIZE - 12]);
        assert_eq!(ring.drain(), Ok(vec![Owned::Sample(vec![3; SIZE - 12])]));
    }

    #[test]
    fn bad_lengths_are_errors() {
        for (kind, size, raw) in [
            (SAMPLE, 0, 0),
            (SAMPLE, 4, 0),
            (SAMPLE, 12, 0),
            (SAMPLE, 8, 0),
            (SAMPLE, 16, 5),
            (SAMPLE, 16, u32::MAX),
            (SAMPLE, u16::MAX - 7, 0),
            (LOST, 16, 0),
            (1, 0, 0),
        ] {
            let ring = Ring::new(0);
            ring.append(kind, size, &raw.to_ne_bytes());
            // The head is right for a record of 24 bytes, so only the record's own length is wrong.
            ring.control[DATA_HEAD / 8].store(24, Ordering::Relaxed);
            assert!(
                matches!(ring.drain(), Err(RingError::Record { position: 0, available: 24, .. })),
                "type {kind} size {size} raw {raw}"
            );
            assert_eq!(ring.tail(), 0);
        }
    }

    #[test]
    fn a_head_too_far_ahead_is_an_error() {
        let ring = Ring::new(0);
        ring.control[DATA_HEAD / 8].store(SIZE as u64 + 8, Ordering::Relaxed);
        assert_eq!(ring.drain(), Err(RingError::Position { producer: 136, consumer: 0, size: 128 }));
    }
}
