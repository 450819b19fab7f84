//! A word to programs that take long to detach: to do nothing any more.

use bpfasm::object::{Detach, MapDef, MapKind};
use bpfasm::{Fragment, bpf};

use crate::map::only_value;

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
        ..only_value(MAP, out);
        w1 = *(u32 *)(r0 + 0);
        if w1 != 0 goto {out};
    }
}
