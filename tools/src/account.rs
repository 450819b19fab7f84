//! The account at the end: what became of every event.

use loader::Loaded;
use programs::stats::{self, Stats};
use rows::Format;

use crate::args::Shared;
use crate::failure::Failure;
use crate::stderr;

/// What the reader counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Records.
    pub records: u64,
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
#[derive(Debug)]
pub struct Account {
    stats: Stats,
    /// Runs that the kernel left out because the same program was already running on that CPU, where it counts them.
    missed: Option<u64>,
    /// Events that a program was still about to send, or had sent behind one it was about to send, when the reader gave up.
    unread: u64,
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

impl Account {
    /// The account by these counters, the last that the reader went by.
    ///
    /// What finds no room in a perf buffer the kernel counts as well. Since 5.1 the program is told and has counted it as lost
    /// already; what is left are those it took for sent.
    pub fn new(stats: Stats, missed: Option<u64>, read: Read) -> Self {
        let dropped = read.dropped.saturating_sub(stats.lost_ring);
        let Stats { seen, filtered, aggregated, lost_ring, lost_map, .. } = stats;
        let unread = [filtered, aggregated, lost_ring, lost_map, read.records, dropped]
            .into_iter()
            .fold(seen, u64::saturating_sub);
        Self { stats, missed, unread, read: Read { dropped, ..read } }
    }

    /// Whether every event that was seen has come to its end, here or in a program.
    pub fn is_complete(&self) -> bool {
        self.stats.balanced() && self.unread == 0
    }

    /// Events that should have become rows, or should have counted in one, and did not.
    pub fn lost(&self) -> u64 {
        let Stats { lost_ring, lost_map, .. } = self.stats;
        let missed = self.missed.unwrap_or(0);
        lost_ring + lost_map + missed + self.unread + self.read.dropped + self.read.unreadable
    }

    /// Prints the account on stderr: all of it where asked for, else only what was lost.
    pub fn report(&self, name: &str, shared: &Shared) {
        let Self { stats, missed, unread, read: Read { dropped, unreadable, unshown, unnamed, .. } } = self;
        let Stats { seen, filtered, reported, aggregated, lost_ring, lost_map, untracked, .. } = stats;
        let known = |unknown: &str| missed.map_or_else(|| unknown.to_owned(), |missed| missed.to_string());
        if shared.stats && shared.format == Format::Json {
            let missed = known("null");
            stderr::line(format_args!(
                "{{\"tool\":\"{name}\",\"seen\":{seen},\"filtered\":{filtered},\"reported\":{reported},\
                 \"aggregated\":{aggregated},\"lost_ring\":{lost_ring},\"lost_map\":{lost_map},\
                 \"untracked\":{untracked},\"missed\":{missed},\"dropped\":{dropped},\"unread\":{unread},\
                 \"unreadable\":{unreadable},\"unshown\":{unshown},\"unnamed\":{unnamed}}}"
            ));
        } else if shared.stats {
            let missed = known("-");
            stderr::line(format_args!(
                "tcptools: {name}: seen {seen} = filtered {filtered} + reported {reported} + \
                 aggregated {aggregated} + lost_ring {lost_ring} + lost_map {lost_map}; missed {missed}, \
                 dropped {dropped}, unread {unread}, unreadable {unreadable}, untracked {untracked}, unshown {unshown}, \
                 unnamed {unnamed}"
            ));
        } else {
            let reasons = [
                (*lost_ring, "ring full, --ring-size makes it larger"),
                (*lost_map, "table full, --max-sockets makes it larger"),
                (missed.unwrap_or(0), "missed by the kernel, which does not run a program inside itself"),
                (*dropped, "dropped by a perf buffer, --ring-size makes it larger"),
                (*unread, "still on their way at the end"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Stats {
        Stats::decode(&[0; Stats::SIZE as usize]).expect("counters")
    }

    const READ: Read = Read { records: 7, dropped: 0, unreadable: 0, unshown: 0, unnamed: 0 };

    #[test]
    fn what_was_sent_and_not_read_is_lost() {
        let stats = Stats { seen: 12, filtered: 2, reported: 10, ..nothing() };
        let all = Account::new(stats, None, Read { records: 10, ..READ });
        assert!(all.is_complete() && all.lost() == 0, "{all:?}");
        let some = Account::new(stats, None, READ);
        assert!(!some.is_complete() && some.lost() == 3, "{some:?}");
    }

    #[test]
    fn what_a_program_has_not_sent_yet_is_lost() {
        let stats = Stats { seen: 8, reported: 7, ..nothing() };
        let account = Account::new(stats, None, READ);
        assert!(!account.is_complete() && account.lost() == 1, "{account:?}");
    }

    #[test]
    fn what_a_perf_buffer_dropped_is_lost_once() {
        // The program was told of two of three.
        let stats = Stats { seen: 10, reported: 8, lost_ring: 2, ..nothing() };
        let account = Account::new(stats, None, Read { dropped: 3, ..READ });
        assert!(account.is_complete() && account.lost() == 3, "{account:?}");
    }
}
