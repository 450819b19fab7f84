//! The account: what became of every event.
//!
//! Every event is counted as seen, and then in exactly one of the counters for what became of it.
//! `seen` is counted where a program begins and the others where it ends, so a path that forgets to
//! count shows as a difference. Counters are per CPU. A soft interrupt may run another program of
//! the tool in the middle of one, so each addition is atomic.

use std::mem::offset_of;

use bpfasm::object::{MapDef, MapKind};
use bpfasm::{Fragment, bpf};

use crate::layout::layout;
use crate::map::only_value;

layout! {
    /// One CPU's counters; the value of the map [`MAP`].
    pub struct Stats as "stats" {
        /// Events of the kind that the tool is about, such as state changes of TCP sockets.
        pub seen: u64,
        /// Rejected by a filter or an option.
        pub filtered: u64,
        /// Sent to the reader.
        pub reported: u64,
        /// Only kept in a map: for a later event of the socket, or in a sum.
        pub aggregated: u64,
        /// Not sent, because the ring was full.
        pub lost_ring: u64,
        /// Not kept, because the map was full.
        pub lost_map: u64,
        /// How often a socket was missing in the table: the table was full, or the socket was open
        /// when tracing began and was not found then. Not a fate of events: an event can be sent
        /// nevertheless, with details missing. Each later event of the socket tries again to enter
        /// it.
        pub untracked: u64,
        /// The filtered events that an option would show.
        pub hidden: u64,
    }
}

impl Stats {
    /// Adds another CPU's counters.
    pub fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.filtered += other.filtered;
        self.reported += other.reported;
        self.aggregated += other.aggregated;
        self.lost_ring += other.lost_ring;
        self.lost_map += other.lost_map;
        self.untracked += other.untracked;
        self.hidden += other.hidden;
    }

    /// Whether every event that was seen was counted in exactly one other counter.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.seen == self.filtered + self.reported + self.aggregated + self.lost_ring + self.lost_map
    }
}

pub const MAP: &str = "stats";

#[must_use]
pub fn map() -> MapDef {
    let plain = MapDef::new(MAP, MapKind::PercpuArray, 4, Stats::SIZE.into(), 1);
    MapDef { value: Some(Stats::LAYOUT), ..plain }
}

/// A counter of [`Stats`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    Seen,
    Filtered,
    Reported,
    Aggregated,
    LostRing,
    LostMap,
    Untracked,
    Hidden,
}

impl Count {
    pub(crate) const fn offset(self) -> usize {
        match self {
            Self::Seen => offset_of!(Stats, seen),
            Self::Filtered => offset_of!(Stats, filtered),
            Self::Reported => offset_of!(Stats, reported),
            Self::Aggregated => offset_of!(Stats, aggregated),
            Self::LostRing => offset_of!(Stats, lost_ring),
            Self::LostMap => offset_of!(Stats, lost_map),
            Self::Untracked => offset_of!(Stats, untracked),
            Self::Hidden => offset_of!(Stats, hidden),
        }
    }
}

/// `r7` = this CPU's counters; see [`only_value`] for `out`. Leaves 0 at
/// [`ZERO`](crate::stack_layout::ZERO).
pub fn open(out: &'static str) -> Fragment {
    bpf! {
        ..only_value(MAP, out);
        r7 = r0;
    }
}

pub fn count(what: Count) -> Fragment {
    bpf! {
        r1 = 1;
        lock *(u64 *)(r7 + {what.offset()}) += r1;
    }
}

/// Applies filters: if one of `checks` jumps to `filtered`, counts the event as filtered and jumps
/// to `out`.
pub fn filtered(checks: Fragment) -> Fragment {
    let can_reject = !checks.is_empty();
    filtered_if(can_reject, checks)
}

/// As [`filtered`], for `checks` that do more than check, and jump to `filtered` only if
/// `can_reject`. The verifier refuses code that cannot be reached, so without such a jump nothing
/// is added.
pub fn filtered_if(can_reject: bool, checks: Fragment) -> Fragment {
    if !can_reject {
        return checks;
    }
    bpf! {
        ..checks;
        goto wanted;
    filtered:
        ..count(Count::Filtered);
        goto out;
    wanted:
    }
}
