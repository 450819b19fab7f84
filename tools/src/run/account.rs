//! The account of a run: what became of every event.

use loader::Loaded;
use programs::stats::{self, Stats};
use rows::Format;

use crate::failure::Failure;
use crate::messages;

/// What the reader has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReaderCounts {
    /// Records read.
    pub records: u64,
    /// Records that did not fit into a perf buffer.
    pub dropped: u64,
    /// Records that were not one of the tool's.
    pub unreadable: u64,
    /// Records without a row: enough rows were shown already, or an option has to ask for them.
    pub unshown: u64,
    /// Rows whose stack is missing, or has a frame without a name.
    pub unnamed: u64,
}

/// The account of a run.
#[derive(Debug)]
pub struct Account {
    stats: Stats,
    /// Runs that the kernel skipped because the program was already running on that CPU; `None`
    /// before 5.12, which does not count them.
    missed: Option<u64>,
    /// Events that were counted but had not arrived when the reader stopped: a program was about to
    /// send them, or they were in the buffer behind one that a program was about to send.
    unread: u64,
    reader: ReaderCounts,
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

/// Decodes the counters.
pub fn stats_of(bytes: &[u8]) -> Result<Stats, Failure> {
    Stats::decode(bytes).ok_or_else(|| Failure::failed("the map of counters has the wrong size"))
}

impl Account {
    /// The account with these counters, the last that the reader has seen.
    ///
    /// The kernel and the program both count a record that does not fit into a perf buffer. The
    /// kernel returns an error to the program since 5.1, so `dropped` is what remains: records that
    /// the program believed to be sent.
    pub fn new(stats: Stats, missed: Option<u64>, reader: ReaderCounts) -> Self {
        let dropped = reader.dropped.saturating_sub(stats.lost_ring);
        let Stats { seen, filtered, aggregated, lost_ring, lost_map, .. } = stats;
        let unread = [filtered, aggregated, lost_ring, lost_map, reader.records, dropped]
            .into_iter()
            .fold(seen, u64::saturating_sub);
        Self { stats, missed, unread, reader: ReaderCounts { dropped, ..reader } }
    }

    /// Whether every event that was seen is accounted for, by the programs or by the reader.
    pub fn is_complete(&self) -> bool {
        self.stats.balanced() && self.unread == 0
    }

    /// Events that should have become a row, or should have been counted in one, and were not.
    pub fn lost(&self) -> u64 {
        let Stats { lost_ring, lost_map, .. } = self.stats;
        let missed = self.missed.unwrap_or(0);
        lost_ring + lost_map + missed + self.unread + self.reader.dropped + self.reader.unreadable
    }

    /// Prints the account on stderr: all of it with `--stats`, otherwise only losses.
    pub fn print(&self, name: &str, format: Format, all: bool) {
        let Self {
            stats,
            missed,
            unread,
            reader: ReaderCounts { dropped, unreadable, unshown, unnamed, .. },
        } = self;
        let Stats { seen, filtered, reported, aggregated, lost_ring, lost_map, untracked, .. } = stats;
        let known = |unknown: &str| missed.map_or_else(|| unknown.to_owned(), |missed| missed.to_string());
        if all && format == Format::Json {
            let missed = known("null");
            messages::print_line(format_args!(
                "{{\"tool\":\"{name}\",\"seen\":{seen},\"filtered\":{filtered},\"reported\":{reported},\
                 \"aggregated\":{aggregated},\"lost_ring\":{lost_ring},\"lost_map\":{lost_map},\
                 \"untracked\":{untracked},\"missed\":{missed},\"dropped\":{dropped},\"unread\":{unread},\
                 \"unreadable\":{unreadable},\"unshown\":{unshown},\"unnamed\":{unnamed}}}"
            ));
        } else if all {
            let missed = known("-");
            messages::print_line(format_args!(
                "tcptools: {name}: seen {seen} = filtered {filtered} + reported {reported} + \
                 aggregated {aggregated} + lost_ring {lost_ring} + lost_map {lost_map}; missed {missed}, \
                 dropped {dropped}, unread {unread}, unreadable {unreadable}, untracked {untracked}, unshown {unshown}, \
                 unnamed {unnamed}"
            ));
        } else {
            let reasons = [
                (*lost_ring, "ring buffer full (increase --ring-size)"),
                (*lost_map, "table full (increase --max-sockets)"),
                (
                    missed.unwrap_or(0),
                    "missed: the kernel skipped a program that was already running on that CPU",
                ),
                (*dropped, "perf buffer full (increase --ring-size)"),
                (*unread, "not read before the end"),
                (*unreadable, "unreadable"),
            ];
            let reasons: Vec<_> = reasons
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, reason)| format!("{count} {reason}"))
                .collect();
            if !reasons.is_empty() {
                messages::print_line(format_args!(
                    "tcptools: {name}: {} events lost: {}",
                    self.lost(),
                    reasons.join("; ")
                ));
            }
            // Those in `lost_map` are reported above.
            if untracked > lost_map {
                messages::print_line(format_args!(
                    "tcptools: {name}: {untracked} times a socket was not in the table, and rows lack details: the \
                     table was full (increase --max-sockets), or the socket was open before the start"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero() -> Stats {
        Stats::decode(&[0; Stats::SIZE as usize]).expect("counters")
    }

    const COUNTS: ReaderCounts =
        ReaderCounts { records: 7, dropped: 0, unreadable: 0, unshown: 0, unnamed: 0 };

    #[test]
    fn a_record_that_was_sent_and_not_read_is_lost() {
        let stats = Stats { seen: 12, filtered: 2, reported: 10, ..zero() };
        let all = Account::new(stats, None, ReaderCounts { records: 10, ..COUNTS });
        assert!(all.is_complete() && all.lost() == 0, "{all:?}");
        let some = Account::new(stats, None, COUNTS);
        assert!(!some.is_complete() && some.lost() == 3, "{some:?}");
    }

    #[test]
    fn an_event_that_was_not_sent_yet_is_lost() {
        let stats = Stats { seen: 8, reported: 7, ..zero() };
        let account = Account::new(stats, None, COUNTS);
        assert!(!account.is_complete() && account.lost() == 1, "{account:?}");
    }

    #[test]
    fn a_record_that_a_perf_buffer_dropped_is_lost_once() {
        // The kernel returned an error for two of three.
        let stats = Stats { seen: 10, reported: 8, lost_ring: 2, ..zero() };
        let account = Account::new(stats, None, ReaderCounts { dropped: 3, ..COUNTS });
        assert!(account.is_complete() && account.lost() == 3, "{account:?}");
    }
}
