//! The account at the end: what became of every event.

use loader::Loaded;
use programs::stats::{self, Stats};

use crate::args::Shared;
use crate::failure::Failure;
use crate::output::Format;
use crate::stderr;

/// What the reader counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Records that perf buffers had no room for.
    pub dropped: u64,
    /// Records that were no event of the tool.
    pub unreadable: u64,
    /// Events that became no row, because enough were shown or they are only shown when asked for.
    pub unshown: u64,
    /// Rows whose stack is missing, or has a frame without a name.
    pub unnamed: u64,
}

/// The account of a run.
pub struct Books {
    stats: Stats,
    /// Runs that the kernel left out because the same program was already running on that CPU.
    missed: u64,
    read: Read,
}

/// Adds up the counters of all CPUs.
pub fn read_stats(loaded: &Loaded) -> Result<Stats, Failure> {
    let words = loaded
        .map(stats::MAP)
        .map_err(Failure::failed)?
        .sum(&0_u32.to_ne_bytes())
        .map_err(Failure::failed)?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    stats_of(&bytes)
}

/// The counters in these bytes.
pub fn stats_of(bytes: &[u8]) -> Result<Stats, Failure> {
    Stats::decode(bytes).ok_or_else(|| Failure::failed("the kernel has lost the counters"))
}

impl Books {
    /// Takes the account once nothing is attached any more.
    ///
    /// What finds no room in a perf buffer the kernel counts as well. Since 5.1 the program is told and has counted it as lost
    /// already; what is left are those it took for sent.
    pub fn close(loaded: &Loaded, read: Read) -> Result<Self, Failure> {
        let stats = read_stats(loaded)?;
        let dropped = read.dropped.saturating_sub(stats.lost_ring);
        Ok(Self { stats, missed: loaded.missed().map_err(Failure::failed)?, read: Read { dropped, ..read } })
    }

    /// Events that should have become rows, or should have counted in one, and did not.
    pub fn lost(&self) -> u64 {
        let Stats { lost_ring, lost_map, .. } = self.stats;
        lost_ring + lost_map + self.missed + self.read.dropped + self.read.unreadable
    }

    /// Prints the account on stderr: all of it where asked for, else only what was lost.
    pub fn report(&self, name: &str, shared: &Shared) {
        let Self { stats, missed, read: Read { dropped, unreadable, unshown, unnamed } } = self;
        let Stats { seen, filtered, reported, aggregated, lost_ring, lost_map, untracked, .. } = stats;
        if shared.stats && shared.format == Format::Json {
            stderr::line(format_args!(
                "{{\"tool\":\"{name}\",\"seen\":{seen},\"filtered\":{filtered},\"reported\":{reported},\
                 \"aggregated\":{aggregated},\"lost_ring\":{lost_ring},\"lost_map\":{lost_map},\
                 \"untracked\":{untracked},\"missed\":{missed},\"dropped\":{dropped},\"unreadable\":{unreadable},\
                 \"unshown\":{unshown},\"unnamed\":{unnamed}}}"
            ));
        } else if shared.stats {
            stderr::line(format_args!(
                "tcptools: {name}: seen {seen} = filtered {filtered} + reported {reported} + \
                 aggregated {aggregated} + lost_ring {lost_ring} + lost_map {lost_map}; missed {missed}, \
                 dropped {dropped}, unreadable {unreadable}, untracked {untracked}, unshown {unshown}, unnamed {unnamed}"
            ));
        } else {
            let reasons = [
                (*lost_ring, "ring full, --ring-size makes it larger"),
                (*lost_map, "table full, --max-sockets makes it larger"),
                (*missed, "missed by the kernel, which does not run a program inside itself"),
                (*dropped, "dropped by a perf buffer, --ring-size makes it larger"),
                (*unreadable, "not readable"),
            ];
            let reasons: Vec<_> = reasons
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, reason)| format!("{count} {reason}"))
                .collect();
            if !reasons.is_empty() {
                stderr::line(format_args!(
                    "tcptools: {name}: {} events lost: {}",
                    self.lost(),
                    reasons.join("; ")
                ));
            }
            // What was lost for want of room is said already.
            if untracked > lost_map {
                stderr::line(format_args!(
                    "tcptools: {name}: {untracked} times a socket was missing in the table and its rows know less: the \
                     table was full (--max-sockets makes it larger), or the socket was open before and not known yet"
                ));
            }
        }
    }
}
