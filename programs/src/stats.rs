//! The account: what became of every event.
//!
//! `seen` is counted at a program's entry and everything else at its ends, so that a path which forgets to count shows as a
//! difference. Counters are per CPU; a soft interrupt may run another of the tool's programs in the middle of one, so each
//! addition is atomic.

use std::mem::offset_of;

use bpfasm::object::{MapDef, MapKind};
use bpfasm::{Fragment, bpf};

use crate::layout::layout;
use crate::map::only_value;

layout! {
    /// One CPU's counters; the value of the map [`MAP`].
    pub struct Stats as "stats" {
        /// Events that belong to the tool at all: for a state tool, changes of state of TCP sockets.
        pub seen: u64,
        /// Not wanted by this command line.
        pub filtered: u64,
        /// Sent to the reader.
        pub reported: u64,
        /// Kept in a table for a later event, and only there.
        pub aggregated: u64,
        /// Should have been sent, and the ring was full.
        pub lost_ring: u64,
        /// Should have been kept, and the table was full.
        pub lost_map: u64,
        /// Times a socket was missing in the table: it found no room, or was open when tracing began and no walk found it.
        /// Where the event itself could still be sent, later ones of that socket know less, and each of them tries again.
        pub untracked: u64,
        /// Of the filtered ones, those that are only shown when asked for.
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

    /// Whether every event seen was counted as exactly one thing.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.seen == self.filtered + self.reported + self.aggregated + self.lost_ring + self.lost_map
    }
}

/// The map's name.
pub const MAP: &str = "stats";

/// The map.
#[must_use]
pub fn map() -> MapDef {
    let plain = MapDef::new(MAP, MapKind::PercpuArray, 4, Stats::SIZE.into(), 1);
    MapDef { value: Some(Stats::LAYOUT), ..plain }
}

/// What an event is counted as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
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

/// `r7` = this CPU's counters; see [`only_value`] for `out`. Leaves 0 at [`ZERO`](crate::stack_layout::ZERO).
pub fn open(out: &'static str) -> Fragment {
    bpf! {
        ..only_value(MAP, out);
        r7 = r0;
    }
}

/// Counts one.
pub fn count(what: Count) -> Fragment {
    bpf! {
        r1 = 1;
        lock *(u64 *)(r7 + {what.offset()}) += r1;
    }
}

/// Goes through `checks`; counts the event as filtered and jumps to `out` where one of them jumps to `filtered`. The verifier
/// refuses code that cannot be reached, so it has to be known whether `some` does.
pub fn only_if(checks: Fragment, some: bool) -> Fragment {
    if !some {
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
