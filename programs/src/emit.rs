//! Sending an event, without waking anybody.
//!
//! Waking the reader is by far the dearest thing a program can do, so it is left to the reader's own clock. Only a ring that is
//! filling up faster than the reader comes round wakes it: a few of the events that carry the ring past a quarter.

use bpfasm::object::{Layout, MapDef, MapKind};
use bpfasm::target::{Ring, Target};
use bpfasm::{Fragment, Reg, bpf};

use crate::stack_layout;
use crate::stats::{Count, count};

/// The map's name.
pub const MAP: &str = "events";

/// `BPF_RB_NO_WAKEUP`, include/uapi/linux/bpf.h.
const BPF_RB_NO_WAKEUP: i32 = 1;
/// `BPF_RB_FORCE_WAKEUP`, include/uapi/linux/bpf.h.
const BPF_RB_FORCE_WAKEUP: i32 = 2;
/// `BPF_RB_AVAIL_DATA`, include/uapi/linux/bpf.h.
const BPF_RB_AVAIL_DATA: i32 = 0;
/// `BPF_F_CURRENT_CPU`, include/uapi/linux/bpf.h: as 32 bits.
const BPF_F_CURRENT_CPU: i32 = -1;
/// `BPF_RINGBUF_HDR_SZ`, include/uapi/linux/bpf.h.
const BPF_RINGBUF_HDR_SZ: u32 = 8;

/// The map, of `bytes` bytes; a perf event array gets its sizes from the reader.
#[must_use]
pub fn map(ring: Ring, bytes: u32) -> MapDef {
    let (kind, key_size, value_size, max_entries) = match ring {
        Ring::RingBuf => (MapKind::RingBuf, 0, 0, bytes),
        Ring::PerfEventArray => (MapKind::PerfEventArray, 4, 4, 0),
    };
    MapDef::new(MAP, kind, key_size, value_size, max_entries)
}

/// Sends the event at [`stack_layout::EVENT`] and counts it as reported or lost. `r9` is the context.
pub fn emit(target: &Target, ring_bytes: u32, layout: Layout) -> Fragment {
    assert!(layout.size <= stack_layout::EVENT_MAX);
    send(
        target,
        ring_bytes,
        Record { base: Reg::R10, off: stack_layout::EVENT, length: Length::Fixed(layout.size) },
    )
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// What its place counts from: `r10`, or a register that helper calls leave alone.
    pub base: Reg,
    /// Bytes from there.
    pub off: i16,
    /// How long it is.
    pub length: Length,
}

/// How many bytes something has.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// Always as many.
    Fixed(u16),
    /// As many as a register says that helper calls leave alone.
    InRegister {
        /// The register.
        reg: Reg,
        /// What it says at most, as the verifier knows.
        most: u16,
    },
}

impl Length {
    const fn most(self) -> u16 {
        match self {
            Self::Fixed(bytes) | Self::InRegister { most: bytes, .. } => bytes,
        }
    }

    fn load(self, dst: Reg) -> Fragment {
        match self {
            Self::Fixed(bytes) => bpf! { {dst} = {bytes}; },
            Self::InRegister { reg, .. } => bpf! { {dst} = {reg}; },
        }
    }
}

/// When an event looks how full the ring is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    /// Which events of a CPU do: a power of two, which divides the number of those before it. To look costs a call.
    every: u32,
    /// From a quarter of the ring on, so many bytes in which one that looks wakes the reader.
    window: u32,
}

impl Look {
    /// For a ring of records of at most `most` bytes.
    ///
    /// The window is wide enough that what several CPUs send cannot step over it: where all look, four records; else sixteen looks,
    /// by whichever CPUs, in a tenth of the ring.
    fn at(ring_bytes: u32, most: u16) -> Self {
        let record = u32::from(most).next_multiple_of(8) + BPF_RINGBUF_HDR_SZ;
        let every = 1 << (ring_bytes / 160 / record).max(1).ilog2().min(6);
        Self { every, window: record * if every == 1 { 4 } else { every * 16 } }
    }
}

/// Sends a record and counts it as reported or lost. `r9` is the context, and `r7` this CPU's counters.
pub fn send(target: &Target, ring_bytes: u32, record: Record) -> Fragment {
    let Record { base, off, length } = record;
    let output = match target.ring {
        Ring::RingBuf => {
            let Look { every, window } = Look::at(ring_bytes, length.most());
            let now_and_then = (every > 1).then(|| {
                bpf! {
                    r1 = *(u64 *)(r7 + {Count::Reported.offset()});
                    if r1 & {every - 1} goto quietly;
                }
            });
            bpf! {
                ..now_and_then;
                r1 = map {MAP} ll;
                r2 = {BPF_RB_AVAIL_DATA};
                call bpf_ringbuf_query;
                r4 = {BPF_RB_FORCE_WAKEUP};
                r0 -= {ring_bytes / 4};
                if r0 < {window} goto send;
            quietly:
                r4 = {BPF_RB_NO_WAKEUP};
            send:
                r1 = map {MAP} ll;
                r2 = {base};
                r2 += {off};
                ..length.load(Reg::R3);
                call bpf_ringbuf_output;
            }
        }
        Ring::PerfEventArray => bpf! {
            r1 = r9;
            r2 = map {MAP} ll;
            w3 = {BPF_F_CURRENT_CPU};
            r4 = {base};
            r4 += {off};
            ..length.load(Reg::R5);
            call bpf_perf_event_output;
        },
    };
    bpf! {
        ..output;
        if w0 != 0 goto full;
        ..count(Count::Reported);
        goto sent;
    full:
        ..count(Count::LostRing);
    sent:
    }
}

#[cfg(test)]
mod tests {
    use super::Look;

    #[test]
    fn large_rings_are_looked_at_now_and_then() {
        assert_eq!(Look::at(4096, 88), Look { every: 1, window: 4 * 96 });
        assert_eq!(Look::at(64 << 10, 88), Look { every: 4, window: 4 * 16 * 96 });
        assert_eq!(Look::at(1 << 20, 84), Look { every: 64, window: 64 * 16 * 96 });
        assert_eq!(Look::at(1 << 30, 84), Look { every: 64, window: 64 * 16 * 96 });
        for (ring_bytes, most) in [(4096, 1100), (32 << 10, 8), (1 << 20, 8), (1 << 20, 1100)] {
            let Look { every, window } = Look::at(ring_bytes, most);
            assert!(every.is_power_of_two() && every <= 64);
            assert!(every == 1 || window <= ring_bytes / 8, "{window} of {ring_bytes}");
        }
    }
}
