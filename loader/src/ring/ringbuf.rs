//! The ring buffer of all CPUs (`kernel/bpf/ringbuf.c`, kernel 5.8) as plain memory, without system
//! calls.
//!
//! A record is a header of eight bytes, whose first word is the length with two flags, and the
//! data, padded to a multiple of eight. Memory ordering is explained in [`super`].
//!
//! The kernel lets readers map the data pages twice in a row, so that a record that wraps is still
//! one slice. Here they are mapped once, and the one record in thousands that wraps is copied,
//! because every mapped page counts as memory of the process.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Drained, RingError};
use crate::sys::mmap::Region;

/// `BPF_RINGBUF_BUSY_BIT`: reserved and not yet submitted.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: discarded by the program.
const DISCARD: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`
const HEADER: u64 = 8;

/// A view of a ring buffer's memory.
#[doc(alias = "BPF_MAP_TYPE_RINGBUF")]
pub(crate) struct RingBuf<'a> {
    consumer: &'a AtomicU64,
    producer: &'a AtomicU64,
    data: Region<'a>,
    size: u64,
}

impl<'a> RingBuf<'a> {
    /// `consumer` is the page with the reader's position, `producer` the page with the kernel's,
    /// `data` the records. `None` if a size is wrong.
    pub(crate) fn new(consumer: Region<'a>, producer: Region<'a>, data: Region<'a>) -> Option<Self> {
        let size = u64::try_from(data.len()).ok()?;
        (size.is_power_of_two() && size >= HEADER).then_some(())?;
        Some(Self { consumer: consumer.u64_mut_at(0)?, producer: producer.u64_at(0)?, data, size })
    }

    /// Passes every complete record to `sink`, in order, and frees their space.
    ///
    /// It stops at a record that is still being written. That one and those after it are left for
    /// the next call; waiting here could take as long as the program's CPU is interrupted.
    /// `wrapped` is a buffer for records that wrap.
    pub(crate) fn drain(
        &self,
        wrapped: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Drained, RingError> {
        // Only the reader writes the consumer position.
        let start = self.consumer.load(Ordering::Relaxed);
        // Pairs with the kernel's release after it has written a record's header.
        let end = self.producer.load(Ordering::Acquire);
        let used = end.wrapping_sub(start);
        if used > self.size {
            return Err(RingError::Position { producer: end, consumer: start, size: self.size });
        }
        let mut position = Position { word: self.consumer, at: start, published: start };
        let mut drained = Drained::default();
        while position.at != end {
            let at = position.at;
            let available = end.wrapping_sub(at);
            let bad = |length| RingError::Record { position: at, length, available };
            let offset = usize::try_from(at & (self.size - 1)).map_err(|_| bad(0))?;
            // Pairs with the exchange that clears the busy bit: the program's data is visible after
            // it.
            let header = self.data.u32_at(offset).ok_or(bad(0))?.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let length = u64::from(header & !DISCARD);
            let total = HEADER + length.next_multiple_of(8);
            if total > available {
                return Err(bad(length));
            }
            if header & DISCARD == 0 {
                let start =
                    usize::try_from(at.wrapping_add(HEADER) & (self.size - 1)).map_err(|_| bad(length))?;
                let len = usize::try_from(length).map_err(|_| bad(length))?;
                let first = len.min(self.data.len() - start);
                // SAFETY: the record is submitted, and the kernel does not write there again before
                // the consumer position has passed it, which is stored after `sink` has returned.
                let (head, tail) =
                    unsafe { (self.data.bytes(start, first), self.data.bytes(0, len - first)) };
                let (head, tail) = head.zip(tail).ok_or(bad(length))?;
                if tail.is_empty() {
                    sink(head);
                } else {
                    wrapped.clear();
                    wrapped.extend_from_slice(head);
                    wrapped.extend_from_slice(tail);
                    sink(wrapped);
                }
                drained.records += 1;
            }
            position.at = at.wrapping_add(total);
            // Often enough that programs find free space during a long drain, and seldom enough
            // that the cache line of the position is not taken from them for each record.
            if position.at.wrapping_sub(position.published) >= self.size / 8 {
                position.publish();
            }
        }
        drained.behind = self.producer.load(Ordering::Relaxed).wrapping_sub(position.at) >= self.size / 4;
        Ok(drained)
    }
}

/// The consumer position. Stored on drop, so the space of records is freed even if `sink` panics.
struct Position<'a> {
    word: &'a AtomicU64,
    at: u64,
    published: u64,
}

impl Position<'_> {
    fn publish(&mut self) {
        if self.at != self.published {
            self.word.store(self.at, Ordering::Release);
            self.published = self.at;
        }
    }
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64;

    /// A ring buffer in ordinary memory.
    struct Ring {
        consumer: Vec<AtomicU64>,
        producer: Vec<AtomicU64>,
        data: Vec<AtomicU64>,
    }

    impl Ring {
        fn new(start: u64) -> Self {
            let words = |n: usize, value| (0..n).map(|_| AtomicU64::new(value)).collect();
            Self { consumer: words(1, start), producer: words(1, start), data: words(SIZE / 8, 0) }
        }

        fn put(&self, at: u64, bytes: &[u8]) {
            for (i, chunk) in bytes.chunks(8).enumerate() {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                let slot = (usize::try_from(at).unwrap() % SIZE / 8 + i) % (SIZE / 8);
                self.data[slot].store(u64::from_ne_bytes(word), Ordering::Relaxed);
            }
        }

        /// Writes a record as the kernel does, and moves the producer position.
        fn submit(&self, flags: u32, record: &[u8]) {
            let at = self.producer[0].load(Ordering::Relaxed);
            let length = u32::try_from(record.len()).unwrap();
            let mut bytes = (length | flags).to_ne_bytes().to_vec();
            bytes.extend([0; 4]);
            bytes.extend(record);
            self.put(at, &bytes);
            self.producer[0].store(at + 8 + u64::from(length).next_multiple_of(8), Ordering::Release);
        }

        fn drain(&self) -> Result<Vec<Vec<u8>>, RingError> {
            let mut records = Vec::new();
            let ring =
                RingBuf::new(Region::of(&self.consumer), Region::of(&self.producer), Region::of(&self.data))
                    .unwrap();
            let drained = ring.drain(&mut Vec::new(), &mut |record| records.push(record.to_vec()))?;
            assert_eq!((drained.records, drained.lost), (records.len() as u64, 0));
            Ok(records)
        }

        fn consumed(&self) -> u64 {
            self.consumer[0].load(Ordering::Relaxed)
        }
    }

    #[test]
    fn passes_records_in_order_and_frees_their_space() {
        let ring = Ring::new(0);
        assert_eq!(ring.drain(), Ok(vec![]));
        ring.submit(0, b"one");
        ring.submit(0, b"twenty-three bytes long");
        assert_eq!(ring.drain(), Ok(vec![b"one".to_vec(), b"twenty-three bytes long".to_vec()]));
        assert_eq!(ring.consumed(), 16 + 32);
        assert_eq!(ring.drain(), Ok(vec![]));
    }

    #[test]
    fn the_memory_must_have_the_shape_of_a_ring() {
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let is_ring = |position: usize, data: usize| {
            let position = words(position);
            RingBuf::new(Region::of(&position), Region::of(&position), Region::of(&words(data))).is_some()
        };
        assert!(is_ring(1, 1) && is_ring(1, 16));
        assert!(!is_ring(1, 0) && !is_ring(1, 3) && !is_ring(0, 16));
    }

    /// Often enough for the programs, but not for each record: an eighth of the ring.
    #[test]
    fn space_is_freed_in_eighths_during_a_drain() {
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let (consumer, producer, data) = (words(1), words(1), words(32));
        // Records of 8 and 8 bytes in a ring of 256.
        for record in 0..7 {
            data[2 * record].store(8, Ordering::Relaxed);
        }
        producer[0].store(7 * 16, Ordering::Relaxed);
        let mut freed = Vec::new();
        let view = RingBuf::new(Region::of(&consumer), Region::of(&producer), Region::of(&data)).unwrap();
        let drained = view.drain(&mut Vec::new(), &mut |_| freed.push(consumer[0].load(Ordering::Relaxed)));
        assert_eq!(drained.unwrap().records, 7);
        assert_eq!(freed, [0, 0, 32, 32, 64, 64, 96]);
        assert_eq!(consumer[0].load(Ordering::Relaxed), 112, "the rest is freed at the end");
    }

    #[test]
    fn a_record_that_wraps_is_put_together() {
        let ring = Ring::new(48);
        ring.submit(0, b"starts here, ends there");
        assert_eq!(ring.drain(), Ok(vec![b"starts here, ends there".to_vec()]));
        assert_eq!(ring.consumed(), 80);
    }

    #[test]
    fn a_header_at_the_very_end_has_its_record_at_the_start() {
        let ring = Ring::new(56);
        ring.submit(0, b"all of it at the start");
        assert_eq!(ring.drain(), Ok(vec![b"all of it at the start".to_vec()]));
    }

    #[test]
    fn a_full_ring_drains() {
        let ring = Ring::new(8);
        ring.submit(0, &[7; SIZE - 8]);
        assert_eq!(ring.drain(), Ok(vec![vec![7; SIZE - 8]]));
    }

    #[test]
    fn stops_at_a_busy_record_and_goes_on_when_it_is_done() {
        let ring = Ring::new(0);
        ring.submit(0, b"done");
        ring.submit(BUSY, b"not yet");
        ring.submit(0, b"behind");
        assert_eq!(ring.drain(), Ok(vec![b"done".to_vec()]));
        assert_eq!(ring.consumed(), 16);
        ring.put(16, &7u32.to_ne_bytes());
        ring.put(24, b"not yet");
        assert_eq!(ring.drain(), Ok(vec![b"not yet".to_vec(), b"behind".to_vec()]));
    }

    #[test]
    fn reports_that_a_quarter_has_been_filled_meanwhile() {
        let ring = Ring::new(0);
        let behind = |meanwhile: &[&[u8]]| {
            ring.submit(0, b"seen");
            let view =
                RingBuf::new(Region::of(&ring.consumer), Region::of(&ring.producer), Region::of(&ring.data))
                    .unwrap();
            let drained = view.drain(&mut Vec::new(), &mut |record| {
                if record == b"seen" {
                    meanwhile.iter().for_each(|record| ring.submit(0, record));
                }
            });
            drained.unwrap().behind
        };
        assert!(!behind(&[]));
        assert!(behind(&[b"a quarter"]), "24 of 64 bytes");
        assert!(behind(&[b"exactly"]), "16 of 64 bytes");
        assert!(!behind(&[b""]), "8 of 64 bytes");
        assert!(!behind(&[]), "all of it was read");
    }

    #[test]
    fn skips_discarded_records() {
        let ring = Ring::new(0);
        ring.submit(DISCARD, b"no");
        ring.submit(0, b"yes");
        assert_eq!(ring.drain(), Ok(vec![b"yes".to_vec()]));
        assert_eq!(ring.consumed(), 32);
    }

    #[test]
    fn a_length_past_the_producer_is_an_error() {
        let ring = Ring::new(0);
        ring.submit(0, b"fine");
        ring.put(16, &1000u32.to_ne_bytes());
        ring.producer[0].store(32, Ordering::Relaxed);
        let error = RingError::Record { position: 16, length: 1000, available: 16 };
        assert_eq!(ring.drain(), Err(error));
        assert_eq!(ring.consumed(), 16, "the records before it are consumed");
        assert_eq!(ring.drain(), Err(error), "and the error does not go away");
    }

    #[test]
    fn a_producer_too_far_ahead_is_an_error() {
        let ring = Ring::new(0);
        ring.producer[0].store(SIZE as u64 + 8, Ordering::Relaxed);
        assert_eq!(ring.drain(), Err(RingError::Position { producer: 72, consumer: 0, size: 64 }));
    }

    #[test]
    fn positions_may_wrap_around_the_word() {
        let ring = Ring::new(u64::MAX - 15);
        ring.put(48, &3u32.to_ne_bytes());
        ring.put(56, b"end");
        ring.put(0, &4u32.to_ne_bytes());
        ring.put(8, b"next");
        ring.producer[0].store(16, Ordering::Relaxed);
        assert_eq!(ring.drain(), Ok(vec![b"end".to_vec(), b"next".to_vec()]));
        assert_eq!(ring.consumed(), 16);
    }

    #[test]
    fn space_is_freed_when_the_sink_panics() {
        let ring = Ring::new(0);
        ring.submit(0, b"good");
        ring.submit(0, b"bad");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let view =
                RingBuf::new(Region::of(&ring.consumer), Region::of(&ring.producer), Region::of(&ring.data))
                    .unwrap();
            let _ = view.drain(&mut Vec::new(), &mut |record| assert_eq!(record, b"good"));
        }));
        assert!(result.is_err());
        assert_eq!(ring.consumed(), 16);
    }

    #[test]
    fn no_header_makes_the_reader_go_too_far() {
        for header in (0..=32).chain([0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX, DISCARD, DISCARD | 48])
        {
            let ring = Ring::new(40);
            ring.put(40, &header.to_ne_bytes());
            ring.producer[0].store(40 + 64, Ordering::Relaxed);
            let before = ring.consumed();
            let _ = ring.drain();
            assert!(ring.consumed().wrapping_sub(before) <= 64);
        }
    }
}
