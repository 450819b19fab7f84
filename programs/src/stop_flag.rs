//! A flag that tells programs to do nothing any more, for programs that take long to detach.
//!
//! Detaching them can take the kernel 100 ms. The tool does not wait for that: it sets the flag
//! first, and from then on they send and count nothing.

use bpfasm::object::{Detach, MapDef, MapKind};
use bpfasm::{Fragment, bpf};

use crate::map::only_value;

pub const MAP: &str = "stopped";

#[must_use]
pub fn map() -> MapDef {
    MapDef::new(MAP, MapKind::Array, 4, 4, 1)
}

/// How to detach hooks whose programs begin with [`unless_stopped`].
#[must_use]
pub fn detach() -> Detach {
    Detach::StoppedBy(MAP.into())
}

/// Jumps to `out` if the tool has set the flag. Clobbers `r0` to `r5`.
pub fn unless_stopped(out: &'static str) -> Fragment {
    bpf! {
        ..only_value(MAP, out);
        w1 = *(u32 *)(r0 + 0);
        if w1 != 0 goto {out};
    }
}
