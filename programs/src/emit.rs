//! Sending an event without waking the reader.
//!
//! Waking the reader is by far the most expensive thing a program can do, so the reader looks into
//! the ring by its own clock. It is woken only when the ring fills up faster than that: by a few of
//! the events that fill the ring past a quarter.
//!
//! Asking how full the ring is costs a helper call. In a large ring only some of a CPU's events
//! ask, at least every 64th (`WakeupCheck`).

use bpfasm::object::{Layout, MapDef, MapKind};
use bpfasm::target::{Ring, Target};
use bpfasm::{Fragment, Reg, bpf};

use crate::stack_layout;
use crate::stats::{Count, count};

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

/// The map: a ring of `bytes` bytes, or a perf event array, whose buffers the reader creates.
#[must_use]
pub fn map(ring: Ring, bytes: u32) -> MapDef {
    let (kind, key_size, value_size, max_entries) = match ring {
        Ring::RingBuf => (MapKind::RingBuf, 0, 0, bytes),
        Ring::PerfEventArray => (MapKind::PerfEventArray, 4, 4, 0),
    };
    MapDef::new(MAP, kind, key_size, value_size, max_entries)
}

/// Sends the event at [`stack_layout::EVENT`] and counts it as reported or lost. Uses `r7`, this
/// CPU's counters, and `r9`, the context.
pub fn emit(target: &Target, ring_bytes: u32, layout: Layout) -> Fragment {
    assert!(layout.size <= stack_layout::EVENT_MAX);
    send(
        target,
        ring_bytes,
        Record { base: Reg::R10, off: stack_layout::EVENT, length: Length::Fixed(layout.size) },
    )
}

/// The bytes to send.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// `r10`, or another register that helper calls do not clobber.
    pub base: Reg,
    /// The distance from there.
    pub off: i16,
    pub length: Length,
}

/// A number of bytes.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    Fixed(u16),
    InRegister {
        /// A register that helper calls do not clobber.
        reg: Reg,
        /// The largest value that the verifier deduces for it.
        max: u16,
    },
}

impl Length {
    const fn max(self) -> u16 {
        match self {
            Self::Fixed(bytes) | Self::InRegister { max: bytes, .. } => bytes,
        }
    }

    fn load(self, dst: Reg) -> Fragment {
        match self {
            Self::Fixed(bytes) => bpf! { {dst} = {bytes}; },
            Self::InRegister { reg, .. } => bpf! { {dst} = {reg}; },
        }
    }
}

/// When an event checks whether to wake the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct WakeupCheck {
    /// An event of a CPU checks if this power of two divides the number of the CPU's events before
    /// it.
    every: u32,
    /// The reader is woken if the ring is filled by a quarter, or by up to this many bytes more.
    window: u32,
}

impl WakeupCheck {
    /// For a ring whose records have at most `max` bytes.
    ///
    /// The window is wide enough that the events of several CPUs cannot jump over it unchecked. If
    /// every event checks, it is as wide as four records. Otherwise it has space for sixteen
    /// checks, by whichever CPUs, and is about a tenth of the ring.
    fn new(ring_bytes: u32, max: u16) -> Self {
        let record = u32::from(max).next_multiple_of(8) + BPF_RINGBUF_HDR_SZ;
        let every = 1 << (ring_bytes / 160 / record).max(1).ilog2().min(6);
        Self { every, window: record * if every == 1 { 4 } else { every * 16 } }
    }
}

/// Sends a record and counts it as reported or lost. Uses `r7`, this CPU's counters, and `r9`, the
/// context.
pub fn send(target: &Target, ring_bytes: u32, record: Record) -> Fragment {
    let Record { base, off, length } = record;
    let output = match target.ring {
        Ring::RingBuf => {
            let WakeupCheck { every, window } = WakeupCheck::new(ring_bytes, length.max());
            let unless_due = (every > 1).then(|| {
                bpf! {
                    r1 = *(u64 *)(r7 + {Count::Reported.offset()});
                    if r1 & {every - 1} goto no_wakeup;
                }
            });
            bpf! {
                ..unless_due;
                r1 = map {MAP} ll;
                r2 = {BPF_RB_AVAIL_DATA};
                call bpf_ringbuf_query;
                r4 = {BPF_RB_FORCE_WAKEUP};
                r0 -= {ring_bytes / 4};
                if r0 < {window} goto send;
            no_wakeup:
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
    use super::WakeupCheck;

    #[test]
    fn events_of_large_rings_check_rarely() {
        assert_eq!(WakeupCheck::new(4096, 88), WakeupCheck { every: 1, window: 4 * 96 });
        assert_eq!(WakeupCheck::new(64 << 10, 88), WakeupCheck { every: 4, window: 4 * 16 * 96 });
        assert_eq!(WakeupCheck::new(1 << 20, 84), WakeupCheck { every: 64, window: 64 * 16 * 96 });
        assert_eq!(WakeupCheck::new(1 << 30, 84), WakeupCheck { every: 64, window: 64 * 16 * 96 });
        for (ring_bytes, max) in [(4096, 1100), (32 << 10, 8), (1 << 20, 8), (1 << 20, 1100)] {
            let WakeupCheck { every, window } = WakeupCheck::new(ring_bytes, max);
            assert!(every.is_power_of_two() && every <= 64);
            assert!(every == 1 || window <= ring_bytes / 8, "{window} of {ring_bytes}");
        }
    }
}
