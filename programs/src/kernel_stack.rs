//! Sending an event with the kernel's stack behind it.
//!
//! Both together do not fit a program's stack, so they are put together in the value of a per-CPU map, and only the frames that
//! there are get sent.

use bpfasm::object::{Layout, MapDef, MapKind};
use bpfasm::target::Target;
use bpfasm::{Fragment, Reg, bpf};

use crate::emit::{self, Length, Record};
use crate::map;
use crate::stack_layout::{EVENT, ZERO, at};

/// The map's name.
const MAP: &str = "scratch";

/// `PERF_MAX_STACK_DEPTH`, include/uapi/linux/perf_event.h: frames, of eight bytes each.
pub const MAX_FRAMES: u16 = 127;

/// Whether the value is in use, in its first eight bytes; the event follows.
const BUSY: i16 = 0;
const RECORD: i16 = 8;

/// One more than all frames take, which is a power of two: a mask tells the verifier that no more are sent.
const STACK_ROOM: u16 = (MAX_FRAMES + 1) * 8;

/// The map, for events of this size.
#[must_use]
pub fn map(event: Layout) -> MapDef {
    let value = RECORD.unsigned_abs() + event.size + STACK_ROOM;
    MapDef::new(MAP, MapKind::PercpuArray, 4, value.into(), 1)
}

/// Sends the event at [`EVENT`] with the stack behind it, and counts it as reported or lost; goes on after that. `r9` is the
/// context, and the four bytes at [`ZERO`] are zero. Clobbers `r6` and `r8`.
///
/// Without a stack goes an event that interrupted another one while that was being put together.
pub fn emit(target: &Target, ring_bytes: u32, event: Layout) -> Fragment {
    let mut copy = Fragment::new();
    for offset in (0..usize::from(event.size)).step_by(8) {
        copy.splice(bpf! {
            r1 = *(u64 *)(r10 + {at(EVENT, offset)});
            *(u64 *)(r8 + {at(RECORD, offset)}) = r1;
        });
    }
    let length = Length::InRegister { reg: Reg::R6, most: event.size + STACK_ROOM - 1 };
    bpf! {
        ..map::lookup(MAP, ZERO);
        if r0 == 0 goto plain;
        r8 = r0;
        w1 = *(u32 *)(r8 + {BUSY});
        if w1 != 0 goto plain;
        *(u32 *)(r8 + {BUSY}) = 1;
        ..copy;
        r1 = r9;
        r2 = r8;
        r2 += {at(RECORD, event.size.into())};
        w3 = {MAX_FRAMES * 8};
        r4 = 0;
        call bpf_get_stack;
        r6 = r0;
        if r6 s>= 0 goto taken;
        r6 = 0;
    taken:
        r6 &= {STACK_ROOM - 1};
        r6 += {event.size};
        ..emit::send(target, ring_bytes, Record { base: Reg::R8, off: RECORD, length });
        *(u32 *)(r8 + {BUSY}) = 0;
        goto done;
    plain:
        ..emit::emit(target, ring_bytes, event);
    done:
    }
}
