//! Reading the events that programs send, from a ring buffer or from perf buffers.
//!
//! Programs should not wake the reader for each event, because the wake-up costs many times more
//! than the event. The caller calls [`Events::drain`] periodically. [`Events`] as a descriptor
//! becomes readable only if a program asks for it (ring buffer: `BPF_RB_FORCE_WAKEUP`) or if half a
//! perf buffer is full.
//!
//! # Memory ordering
//!
//! Both buffers are memory shared with the kernel: a writer's position, a reader's position, and
//! records between them. Programs write on other CPUs at the same time, so the order of loads and
//! stores matters:
//!
//! - The reader loads the writer's position with `Acquire`. It pairs with the kernel's release
//!   (ring buffer) or barrier (perf buffer) before it moves the position. So everything that was
//!   written before the position moved, headers in the ring buffer and whole records in a perf
//!   buffer, is visible.
//! - In the ring buffer that is not enough: a position says that space was reserved, not that the
//!   record is complete. Each header has a busy bit, which the kernel clears with an atomic
//!   exchange when the program submits. The reader loads the header with `Acquire` as well, so that
//!   the record's bytes are visible if the bit is clear. It stops at the first busy record.
//! - The reader stores its own position with `Release`, after `sink` has returned. So all its reads
//!   of a record come before the kernel can see that the space is free and write there again.
//! - Its own position it loads with `Relaxed`: nothing else writes it.
//!
//! Because of this, the bytes between the positions do not change while they are borrowed. Records
//! of a ring buffer are passed on as slices of it; only those that wrap are copied, and those of
//! perf buffers, to be sorted. A damaged position or length is an error, never a read outside of
//! the buffer.

pub(crate) mod perf;
pub(crate) mod ringbuf;
#[cfg(feature = "simulation")]
pub mod simulation;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bpfasm::MapKind;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::errno::Errno;
use crate::error::LoadError;
use crate::kernel;
use crate::map::Map;
use crate::sys;
use crate::sys::mmap::{Mapping, PerfMapping, page_size};
use perf::{PerfBuf, Record};
use ringbuf::RingBuf;

/// The memory of an event buffer is damaged, or waiting for events failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The positions are further apart than the buffer is large.
    #[error("ring of {size} bytes: producer at {producer} with the consumer at {consumer}")]
    Position {
        /// The position at which the kernel writes next, in bytes since the buffer was created.
        producer: u64,
        /// The position at which the reader reads next, likewise.
        consumer: u64,
        /// The size of the buffer in bytes.
        size: u64,
    },
    /// A record is longer than the bytes in the buffer, or too short for its kind.
    #[error("ring record at {position} claims {length} bytes, but {available} are available")]
    Record {
        /// The position at which it starts.
        position: u64,
        /// The length in its header, in bytes.
        length: u64,
        /// The number of bytes from its start to the kernel's position.
        available: u64,
    },
    /// The memory does not have the size or alignment of an event buffer.
    #[error("ring memory has the wrong shape")]
    Shape,
    /// `epoll_wait(2)` failed with this error.
    #[error("wait for ring: {0}")]
    Wait(Errno),
}

/// The result of one [`Events::drain`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// The number of records passed to `sink`.
    pub records: u64,
    /// The number of records that did not fit in a perf buffer, as the kernel counts them. Records
    /// that do not fit in a ring buffer are only known to the program, which has to count them.
    pub lost: u64,
    /// Whether a quarter of the ring buffer has been filled again during the drain. Call it again
    /// at once: a program that wakes the reader when a quarter is full will not do so, because that
    /// moment has passed. Always false for perf buffers.
    pub behind: bool,
}

/// The reader of an event buffer; closed on drop. It keeps the map's memory alive, but not the
/// programs.
#[derive(Debug)]
pub struct Events {
    rings: Rings,
    /// Watches every buffer's descriptor, edge-triggered. A ring buffer is "readable" as long as it
    /// is not empty; level-triggered that would end every wait at once while the reader lags
    /// behind.
    epoll: Epoll,
}

#[derive(Debug)]
enum Rings {
    RingBuf { consumer: Mapping, producer: Mapping, page: usize, wrapped: Vec<u8> },
    Perf { buffers: Vec<PerfRing>, page: usize, batch: Batch },
}

/// One CPU's perf buffer and its perf event.
#[derive(Debug)]
struct PerfRing {
    memory: PerfMapping,
    /// Kept open, because closing it disables the event.
    _event: OwnedFd,
}

/// Samples of all CPUs, to be sorted. Reused by the next drain to save allocations.
#[derive(Default, Debug)]
struct Batch {
    bytes: Vec<u8>,
    /// Of each record: its leading word, its start in `bytes`, its length.
    records: Vec<(u64, usize, usize)>,
}

impl Events {
    /// Opens the event buffer `map`. `perf_bytes` is the size of each CPU's buffer if it is a perf
    /// event array.
    pub(crate) fn open(map: &Map, perf_bytes: usize) -> Result<Self, LoadError> {
        let failed = |errno: Errno| LoadError::ring(map.name(), errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|error| failed(error.into()))?;
        let watch = |fd: BorrowedFd<'_>| {
            epoll
                .add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))
                .map_err(|error| failed(error.into()))
        };
        let page = page_size();
        let rings = match map.kind() {
            MapKind::RingBuf => {
                let size = usize::try_from(map.max_entries()).map_err(|_| failed(Errno::INVAL))?;
                let len = size.checked_add(page).ok_or(failed(Errno::INVAL))?;
                let page_offset = u64::try_from(page).map_err(|_| failed(Errno::INVAL))?;
                let consumer =
                    Mapping::new(map.as_fd(), 0, page, true).map_err(|error| failed(error.into()))?;
                let producer = Mapping::new(map.as_fd(), page_offset, len, false)
                    .map_err(|error| failed(error.into()))?;
                watch(map.as_fd())?;
                Rings::RingBuf { consumer, producer, page, wrapped: Vec::new() }
            }
            MapKind::PerfEventArray => {
                let pages = perf_bytes.div_ceil(page).max(1).next_power_of_two();
                let bytes = pages.checked_mul(page).ok_or(failed(Errno::INVAL))?;
                let watermark = u32::try_from(bytes / 2).map_err(|_| failed(Errno::INVAL))?;
                let mut buffers = Vec::new();
                for cpu in kernel::online_cpus().map_err(LoadError::Cpus)? {
                    let event = match sys::perf::open(&sys::perf::Attr::bpf_output(watermark), cpu) {
                        Ok(event) => event,
                        // The CPU went offline after the list was read.
                        Err(Errno::NODEV) => continue,
                        Err(errno) => return Err(failed(errno)),
                    };
                    let memory = PerfMapping::new(event.as_fd(), page + bytes).map_err(failed)?;
                    sys::perf::enable(event.as_fd()).map_err(failed)?;
                    map.set_fd(cpu, event.as_fd()).map_err(failed)?;
                    watch(event.as_fd())?;
                    buffers.push(PerfRing { memory, _event: event });
                }
                Rings::Perf { buffers, page, batch: Batch::default() }
            }
            _ => return Err(LoadError::NotARing { map: map.name().to_owned() }),
        };
        Ok(Self { rings, epoll })
    }

    /// Passes every complete record to `sink`, without waiting for more.
    ///
    /// Records of a ring buffer come in the order of their reservation. Records of perf buffers are
    /// collected from all CPUs and sorted by their leading `u64`, so events should start with a
    /// timestamp. They may be followed by up to seven bytes of the kernel's padding.
    ///
    /// # Errors
    /// If the memory is damaged. Records before the damaged one have been passed to `sink` if they
    /// come from a ring buffer.
    pub fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<Drained, RingError> {
        // Wake-ups are consumed before the buffers are read: one for a later record is not lost.
        self.wait(Duration::ZERO)?;
        match &mut self.rings {
            Rings::RingBuf { consumer, producer, page, wrapped } => {
                let region = producer.region();
                let data = region.part(*page, region.len().saturating_sub(*page)).ok_or(RingError::Shape)?;
                RingBuf::new(consumer.region(), region, data).ok_or(RingError::Shape)?.drain(wrapped, sink)
            }
            Rings::Perf { buffers, page, batch } => {
                let mut lost = 0;
                batch.clear();
                for buffer in buffers.iter() {
                    let region = buffer.memory.region();
                    let data =
                        region.part(*page, region.len().saturating_sub(*page)).ok_or(RingError::Shape)?;
                    lost += batch.take(&PerfBuf::new(region, data).ok_or(RingError::Shape)?)?;
                }
                Ok(Drained { records: batch.hand_out(sink), lost, behind: false })
            }
        }
    }

    /// The number of bytes that this process maps. For a ring buffer it is the memory of the map;
    /// perf buffers have no other memory.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        match &self.rings {
            Rings::RingBuf { consumer, producer, .. } => consumer.region().len() + producer.region().len(),
            Rings::Perf { buffers, .. } => buffers.iter().map(|buffer| buffer.memory.region().len()).sum(),
        }
    }

    /// Waits until a program wakes the reader, a perf buffer is half full, or `timeout` is over.
    /// False after a timeout and after a signal.
    ///
    /// # Errors
    /// If `epoll_wait(2)` fails for any other reason.
    pub fn wait(&self, timeout: Duration) -> Result<bool, RingError> {
        let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX);
        let mut woken = [EpollEvent::empty(); 64];
        match self.epoll.wait(&mut woken, timeout) {
            Ok(count) => Ok(count > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(RingError::Wait(error.into())),
        }
    }
}

impl AsFd for Events {
    /// A descriptor for the caller's own epoll set. It is readable when [`Events::wait`] would
    /// return true; [`Events::drain`] resets it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    /// Copies all samples of a buffer. Returns the number of records that the kernel lost there.
    fn take(&mut self, buffer: &PerfBuf<'_>) -> Result<u64, RingError> {
        let mut lost = 0;
        buffer.drain(&mut |record| match record {
            Record::Sample(first, second) => self.push(first, second),
            Record::Lost(count) => lost += count,
        })?;
        Ok(lost)
    }

    fn push(&mut self, first: &[u8], second: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
        let record = self.bytes.get(start..).unwrap_or_default();
        // A record that is too short for a timestamp sorts first.
        let time = record.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        self.records.push((time, start, record.len()));
    }

    /// Passes all records to `sink` in the order of time, and returns their number.
    fn hand_out(&mut self, sink: &mut dyn FnMut(&[u8])) -> u64 {
        // The sort is stable: records of one CPU with the same time keep their order.
        self.records.sort_by_key(|&(time, ..)| time);
        for &(_, start, len) in &self.records {
            sink(self.bytes.get(start..start + len).unwrap_or_default());
        }
        self.records.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_out_by_time() {
        let mut batch = Batch::default();
        let record = |time: u64, tag: u8| [&time.to_ne_bytes()[..], &[tag]].concat();
        batch.push(&record(30, 1), &[]);
        batch.push(&record(40, 2), &[]);
        batch.push(&record(10, 3)[..5], &record(10, 3)[5..]);
        batch.push(&record(30, 4), &[]);
        batch.push(b"tiny", &[]);
        let mut tags = Vec::new();
        assert_eq!(batch.hand_out(&mut |record| tags.push(record.last().copied())), 5);
        assert_eq!(tags, [Some(b'y'), Some(3), Some(1), Some(4), Some(2)]);
        batch.clear();
        assert_eq!(batch.hand_out(&mut |_| panic!("empty")), 0);
    }
}
