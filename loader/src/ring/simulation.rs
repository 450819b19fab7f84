//! Perf buffers of any number of CPUs in ordinary memory, to measure what reading them costs on a
//! machine larger than the one at hand. They are filled as the kernel does it, and read by the same
//! code as the kernel's.

use std::sync::atomic::{AtomicU64, Ordering};

use super::perf::{DATA_HEAD, PerfBuf, SAMPLE};
use super::{Batch, RingError};
use crate::sys::mmap::Region;

/// Words of the control page.
const CONTROL: usize = 4096 / 8;

/// One perf buffer for each CPU.
#[derive(Debug)]
pub struct PerfBuffers {
    buffers: Vec<Memory>,
    batch: Batch,
}

#[derive(Debug)]
struct Memory {
    control: Vec<AtomicU64>,
    data: Vec<AtomicU64>,
}

impl PerfBuffers {
    /// Empty buffers of at least `bytes` bytes each.
    #[must_use]
    pub fn new(cpus: usize, bytes: usize) -> Self {
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let data = bytes.next_power_of_two().max(4096) / 8;
        let buffers = (0..cpus).map(|_| Memory { control: words(CONTROL), data: words(data) });
        Self { buffers: buffers.collect(), batch: Batch::default() }
    }

    /// Appends a sample of `words` 64-bit words to a CPU's buffer: its time, then zeros. False if
    /// it does not fit; then it is dropped, as by the kernel.
    pub fn append(&self, cpu: usize, time: u64, words: u16) -> bool {
        self.buffers.get(cpu).is_some_and(|memory| memory.append(time, words))
    }

    /// As [`Events::drain`](super::Events::drain): passes every record to `sink` in the order of
    /// time, and returns their number.
    ///
    /// # Errors
    /// Never for records that [`PerfBuffers::append`] wrote.
    pub fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<u64, RingError> {
        self.batch.clear();
        for Memory { control, data } in &self.buffers {
            let buffer = PerfBuf::new(Region::of(control), Region::of(data)).ok_or(RingError::Shape)?;
            self.batch.take(&buffer)?;
        }
        Ok(self.batch.hand_out(sink))
    }
}

impl Memory {
    /// Writes `PERF_RECORD_SAMPLE` with `PERF_SAMPLE_RAW`: header, length, bytes, padding. The
    /// length takes the lower half of a word, so the words of the sample are not aligned to those
    /// of the buffer.
    fn append(&self, time: u64, words: u16) -> bool {
        let raw = u64::from(words) * 8 + 4;
        let record = raw + 12;
        let [head, tail] = [0, 1].map(|at| self.control.get(DATA_HEAD / 8 + at));
        let (Some(head), Some(tail)) = (head, tail) else { return false };
        let at = head.load(Ordering::Relaxed);
        let used = at.wrapping_sub(tail.load(Ordering::Acquire));
        if used + record > self.data.len() as u64 * 8 {
            return false;
        }
        let place = |word: u64| {
            usize::try_from(at / 8 + word).ok().and_then(|word| self.data.get(word % self.data.len()))
        };
        let header = u64::from(SAMPLE) | record << 48;
        let body = [header, raw | time << 32, time >> 32].into_iter().chain(std::iter::repeat(0));
        for (word, value) in (0..record / 8).zip(body) {
            if let Some(place) = place(word) {
                place.store(value.to_le(), Ordering::Relaxed);
            }
        }
        head.store(at.wrapping_add(record), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_in_the_order_of_time_until_a_buffer_is_full() {
        let mut buffers = PerfBuffers::new(3, 4096);
        for round in 0..5 {
            let start = round << 40;
            let appended =
                (0..60_u64).filter(|n| buffers.append((n % 3) as usize, start + 60 - n, 12)).count();
            assert_eq!(appended, 60);
            let mut times = Vec::new();
            let drained = buffers.drain(&mut |record| {
                assert_eq!(record.len(), 12 * 8 + 4);
                times.push(u64::from_ne_bytes(*record.first_chunk().unwrap()));
            });
            assert_eq!(drained, Ok(60));
            assert_eq!(times, (start + 1..=start + 60).collect::<Vec<_>>());
        }
        let fit = (0..100).filter(|time| buffers.append(0, *time, 12)).count();
        assert_eq!(fit, 4096 / (12 * 8 + 16), "samples that do not fit are dropped");
        assert!(!buffers.append(3, 0, 12), "there is no such CPU");
    }
}
