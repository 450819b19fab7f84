//! Events from programs: one reader, whichever ring the kernel has.
//!
//! No program wakes the reader for an event: that is the dearest thing it could do. The reader calls [`Events::drain`] on a
//! bounded period of its own choice; [`Events`] as a descriptor becomes readable only when a program asks for it (ring
//! buffer: `BPF_RB_FORCE_WAKEUP`) or half a perf buffer has been written.

pub(crate) mod perf;
pub(crate) mod ringbuf;
#[cfg(feature = "simulation")]
pub mod simulation;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bpfasm::MapKind;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::errno::Errno;
use crate::error::LoadError;
use crate::kernel;
use crate::map::Map;
use crate::sys;
use crate::sys::mmap::{Mapping, page_size};
use perf::{PerfBuf, Record};
use ringbuf::RingBuf;

/// Ring memory that does not make sense. Ring memory is input, so this is an error and no panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RingError {
    /// More bytes in the ring than it has.
    Position {
        /// Where the kernel writes next.
        producer: u64,
        /// Where we read next.
        consumer: u64,
        /// Bytes of the ring.
        size: u64,
    },
    /// A record longer than what is in the ring, or too short for its kind.
    Record {
        /// Where it starts.
        position: u64,
        /// The length it claims.
        length: u64,
        /// Bytes from there to the kernel's position.
        room: u64,
    },
    /// The memory is not shaped as a ring.
    Shape,
    /// Waiting for a wake-up failed.
    Wait(Errno),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position { producer, consumer, size } => {
                write!(f, "ring of {size} bytes: producer at {producer} with the consumer at {consumer}")
            }
            Self::Record { position, length, room } => {
                write!(f, "ring record at {position} claims {length} bytes, {room} are there")
            }
            Self::Shape => f.write_str("ring memory has the wrong shape"),
            Self::Wait(errno) => write!(f, "wait for ring: {errno}"),
        }
    }
}

impl std::error::Error for RingError {}

/// What one [`Events::drain`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// Records handed out.
    pub records: u64,
    /// Records for which the kernel found no room in a perf buffer. A ring buffer's losses are known to the program alone,
    /// which counts them itself.
    pub lost: u64,
    /// A quarter of the ring has filled up again meanwhile. Programs wake the reader when that quarter is passed, and it is
    /// passed already: without another drain at once nobody would.
    pub behind: bool,
}

/// The reader of a map of events. Closed on drop; it keeps the map's memory alive, not the programs.
#[derive(Debug)]
pub struct Events {
    rings: Rings,
    /// Holds every ring's descriptor, edge-triggered: a ring buffer is "readable" as long as it holds anything, and
    /// level-triggered that would wake the reader for each event while it lags behind.
    epoll: Epoll,
}

#[derive(Debug)]
enum Rings {
    RingBuf { consumer: Mapping, producer: Mapping, page: usize, wrapped: Vec<u8> },
    Perf { buffers: Vec<PerfRing>, page: usize, batch: Batch },
}

/// One CPU's buffer. The event is closed with it.
#[derive(Debug)]
struct PerfRing {
    memory: Mapping,
    /// Held, because closing it ends the event.
    _event: OwnedFd,
}

/// Samples of all CPUs, to be sorted. Kept between drains so that the memory is.
#[derive(Default, Debug)]
struct Batch {
    bytes: Vec<u8>,
    /// Leading word, start in `bytes`, length.
    records: Vec<(u64, usize, usize)>,
}

impl Events {
    /// Opens the ring of `map`; `perf_bytes` is the size of each CPU's perf buffer, where there is one.
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
                        // Went offline since the list was read.
                        Err(Errno::NODEV) => continue,
                        Err(errno) => return Err(failed(errno)),
                    };
                    let memory = Mapping::new(event.as_fd(), 0, page + bytes, true)
                        .map_err(|error| failed(error.into()))?;
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

    /// Hands every complete record to `sink`, without waiting, and says how many there were.
    ///
    /// Records of perf buffers are sorted by their leading `u64` (each event of ours starts with its time) and may have up
    /// to seven bytes of the kernel's padding behind them. Records of a ring buffer come in the order of their reservation.
    pub fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<Drained, RingError> {
        // Taken before the rings are looked at: what arrives later rings again.
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

    /// Bytes of address space that the rings take here: the same memory as the kernel's, or for perf buffers all there is.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        match &self.rings {
            Rings::RingBuf { consumer, producer, .. } => consumer.region().len() + producer.region().len(),
            Rings::Perf { buffers, .. } => buffers.iter().map(|buffer| buffer.memory.region().len()).sum(),
        }
    }

    /// Waits until a program asks for the reader or `timeout` is over; true if a program asked. A signal ends it early.
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
    /// For an epoll set of the reader's: readable when a program asks for a drain. [`Events::drain`] clears it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    /// Takes what is in a buffer; how many records the kernel says it lost there.
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
        // A record too short to have a time comes first.
        let time = record.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        self.records.push((time, start, record.len()));
    }

    fn hand_out(&mut self, sink: &mut dyn FnMut(&[u8])) -> u64 {
        // Stable: records of one CPU with the same time keep their order.
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
