//! Adding up by flow, for tools that count in the kernel and send no events.
//!
//! A program builds the key of its flow at [`EVENT`](stack_layout::EVENT) and looks it up. If the
//! flow is new, it builds the value at [`ENTRY`](stack_layout::ENTRY) and stores it, but only if it
//! is still missing: another CPU may have stored the same flow in the meantime. A program that lost
//! this race looks the flow up again, and adds atomically to the value it finds.

use bpfasm::object::{Layout, MapDef, MapKind};
use bpfasm::{Fragment, bpf};

use crate::{map, stack_layout, table};

/// The name of the map of flows. In a tool that has it, the counter `lost_map` is about this map,
/// and not about the table of sockets.
pub const MAP: &str = "flows";

/// A map of flows, for `max_entries` of them. Its memory grows with their number.
#[must_use]
pub fn map(name: &'static str, key: Layout, value: Layout, max_entries: u32) -> MapDef {
    let plain = MapDef::new(name, MapKind::Hash, key.size.into(), value.size.into(), max_entries);
    MapDef { key: Some(key), value: Some(value), grows: true, ..plain }
}

/// `r0` = the address of the value of the flow at [`EVENT`](stack_layout::EVENT), or 0. `load_map`
/// leaves the map in `r1`.
pub fn lookup(load_map: Fragment) -> Fragment {
    map::lookup_in(load_map, stack_layout::EVENT)
}

/// Stores the value at [`ENTRY`](stack_layout::ENTRY) for the flow at
/// [`EVENT`](stack_layout::EVENT), unless the flow has one. `w0` is not 0 if it was not stored.
/// `load_map` leaves the map in `r1`.
pub fn store(load_map: Fragment) -> Fragment {
    bpf! {
        ..load_map;
        r2 = r10;
        r2 += {stack_layout::EVENT};
        r3 = r10;
        r3 += {stack_layout::ENTRY};
        r4 = {table::IfExists::Keep as i32};
        call bpf_map_update_elem;
    }
}
