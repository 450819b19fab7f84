//! Sending an event with the kernel's call stack behind it.
//!
//! A program's own stack is too small for both, so they are put together in the value of a per-CPU
//! map. Only the frames that exist are sent.

use bpfasm::object::{Layout, MapDef, MapKind};
use bpfasm::target::Target;
use bpfasm::{Fragment, Reg, bpf};

use crate::emit::{self, Length, Record};
use crate::map;
use crate::stack_layout::{EVENT, ZERO, at};

const MAP: &str = "scratch";

/// `PERF_MAX_STACK_DEPTH`, include/uapi/linux/perf_event.h. A frame is an address of eight bytes.
pub const MAX_FRAMES: u16 = 127;

/// Whether the value is in use: its first eight bytes. The record follows.
const BUSY: i16 = 0;
const RECORD: i16 = 8;

/// The space for one frame more than there can be, which is a power of two: a mask then proves the
/// limit to the verifier.
const STACK_BYTES: u16 = (MAX_FRAMES + 1) * 8;

/// The map, for this kind of event.
#[must_use]
pub fn map(event: Layout) -> MapDef {
    let value = RECORD.unsigned_abs() + event.size + STACK_BYTES;
    MapDef::new(MAP, MapKind::PercpuArray, 4, value.into(), 1)
}

/// Sends the event at [`EVENT`] with the call stack behind it, and counts it as reported or lost.
/// Uses `r7`, this CPU's counters, `r9`, the context, and the zero at [`ZERO`]. Clobbers `r6` and
/// `r8`.
///
/// An event that interrupts the program in the middle of this finds the map's value in use, and is
/// sent without a stack.
pub fn emit(target: &Target, ring_bytes: u32, event: Layout) -> Fragment {
    let mut copy = Fragment::new();
    for offset in (0..usize::from(event.size)).step_by(8) {
        copy.splice(bpf! {
            r1 = *(u64 *)(r10 + {at(EVENT, offset)});
            *(u64 *)(r8 + {at(RECORD, offset)}) = r1;
        });
    }
    let length = Length::InRegister { reg: Reg::R6, max: event.size + STACK_BYTES - 1 };
    bpf! {
        ..map::lookup(MAP, ZERO);
        if r0 == 0 goto without_stack;
        r8 = r0;
        w1 = *(u32 *)(r8 + {BUSY});
        if w1 != 0 goto without_stack;
        *(u32 *)(r8 + {BUSY}) = 1;
        ..copy;
        r1 = r9;
        r2 = r8;
        r2 += {at(RECORD, event.size.into())};
        w3 = {MAX_FRAMES * 8};
        r4 = 0;
        call bpf_get_stack;
        r6 = r0;
        if r6 s>= 0 goto have_stack;
        r6 = 0;
    have_stack:
        r6 &= {STACK_BYTES - 1};
        r6 += {event.size};
        ..emit::send(target, ring_bytes, Record { base: Reg::R8, off: RECORD, length });
        *(u32 *)(r8 + {BUSY}) = 0;
        goto done;
    without_stack:
        ..emit::emit(target, ring_bytes, event);
    done:
    }
}
