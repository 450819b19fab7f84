//! From the event buffer to standard output.

use std::fmt;
use std::io::{self, IsTerminal, Stdout};

use loader::{Drained, Events};
use rows::time::{Clock, Zone};
use rows::{Cells, Column, Format, Output, RowSink};

use super::account::ReaderCounts;
use crate::failure::Failure;
use crate::host::journal::Journal;
use crate::host::symbols::Symbols;
use crate::tool::{Context, Report, RowShortfall, Session};

/// Whether one of the columns is the local time, which all tools call `TIME`.
pub(super) fn shows_time_of_day(columns: &[Column]) -> bool {
    columns.iter().any(|column| column.heading() == Some("TIME"))
}

/// Reads records, has the session make rows of them, and counts both.
pub(super) struct Reader {
    clock: Clock,
    rows: RowLimit,
    /// Records read.
    records: u64,
    /// Records that did not fit into a perf buffer.
    dropped: u64,
    /// Records that were not one of the tool's.
    unreadable: u64,
}

impl Reader {
    /// Prints rows on standard output, at most `count` of them.
    pub(super) fn new(format: Format, zone: Zone, count: Option<u64>) -> Result<Self, Failure> {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let output = Output::new(format, zone, stdout).terminal(terminal);
        Ok(Self {
            clock: Clock::now().map_err(Failure::failed)?,
            rows: RowLimit { output, left: count.unwrap_or(u64::MAX), passed: false, unshown: 0 },
            records: 0,
            dropped: 0,
            unreadable: 0,
        })
    }

    /// Prints the headings.
    pub(super) fn begin(&mut self, session: &dyn Session) -> Result<(), Failure> {
        self.rows.output.csv_heading(session.headings());
        if session.begins_with_headings() {
            self.rows.output.heading(session.headings());
        }
        self.flush()
    }

    /// Whether as many rows are printed as were asked for.
    pub(super) fn is_full(&self) -> bool {
        self.rows.left == 0
    }

    /// What was counted until now.
    pub(super) fn counts(&self, RowShortfall { unshown, unnamed }: RowShortfall) -> ReaderCounts {
        let Self { records, dropped, unreadable, ref rows, .. } = *self;
        ReaderCounts { records, dropped, unreadable, unshown: unshown + rows.unshown, unnamed }
    }

    /// Prints what is in the event buffer. Also returns whether the session has printed all that it
    /// kept.
    pub(super) fn drain(
        &mut self,
        events: &mut Events,
        session: &mut dyn Session,
        symbols: &mut Symbols,
        journal: Option<&mut Journal>,
    ) -> Result<(Drained, bool), Failure> {
        // The wall clock may have been set since the last time.
        self.clock.renew().map_err(Failure::failed)?;
        let Self { clock, rows, records, dropped, unreadable } = self;
        let mut context = Context { clock: *clock, symbols, journal };
        let drained = events
            .drain(&mut |record| {
                let event = session.event(record, &mut context, rows);
                *unreadable += u64::from(event.is_none());
            })
            .map_err(Failure::failed)?;
        let flushed = session.flush_pending(&mut context, rows);
        *records += drained.records;
        *dropped += drained.lost;
        self.flush()?;
        Ok((drained, flushed))
    }

    /// Prints a report.
    pub(super) fn report(&mut self, session: &mut dyn Session, report: &Report<'_>) -> Result<(), Failure> {
        session.report(report, &mut self.rows);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.rows.output.flush().map_err(|error| Failure::output(&error))
    }
}

/// Standard output, up to the number of rows that was asked for.
struct RowLimit {
    output: Output<Stdout>,
    /// Rows that may still be printed.
    left: u64,
    /// A row came after the last one that was printed.
    passed: bool,
    /// Rows that came after the last one that was printed.
    unshown: u64,
}

impl RowSink for RowLimit {
    fn row(&mut self, row: &dyn Cells) {
        self.passed = self.left == 0;
        if self.passed {
            self.unshown += 1;
        } else {
            self.left -= 1;
            self.output.row(row);
        }
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        // The lines that belong to the last row come after it, when `left` is 0 already.
        if !self.passed {
            self.output.line(text);
        }
    }

    fn heading(&mut self, columns: &[Column]) {
        self.output.heading(columns);
    }

    fn clear(&mut self) {
        self.output.clear();
    }
}
