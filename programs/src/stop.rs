//! A word to programs that take long to detach: to do nothing any more.

use bpfasm::object::{Detach, MapDef, MapKind};
use bpfasm::{Fragment, bpf};

use crate::frame;

/// The map's name.
pub const MAP: &str = "stopped";

/// The map.
#[must_use]
pub fn map() -> MapDef {
    MapDef::new(MAP, MapKind::Array, 4, 4, 1)
}

/// For hooks whose programs begin with [`unless_stopped`].
#[must_use]
pub fn detach() -> Detach {
    Detach::StoppedBy(MAP.into())
}

/// Jumps to `out` once the tool has detached. Clobbers `r0` to `r5`.
pub fn unless_stopped(out: &'static str) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {frame::ZERO}) = 0;
        r1 = map {MAP} ll;
        r2 = r10;
        r2 += {frame::ZERO};
        call bpf_map_lookup_elem;
        if r0 == 0 goto {out};                          // there is always one
        w1 = *(u32 *)(r0 + 0);
        if w1 != 0 goto {out};
    }
}
