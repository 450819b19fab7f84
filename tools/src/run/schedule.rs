//! When the next report is due.

use std::time::{Duration, Instant};

use crate::tool::Schedule;

/// The reports of a run. They keep to a grid that begins with the run, so a report that takes long
/// does not delay the others.
pub(super) struct Reports {
    schedule: Option<Schedule>,
    last: Instant,
    next: Option<Instant>,
    written: u64,
}

impl Reports {
    pub(super) fn new(schedule: Option<Schedule>, begin: Instant) -> Self {
        let next = schedule.and_then(|schedule| begin.checked_add(schedule.interval));
        Self { schedule, last: begin, next, written: 0 }
    }

    /// When the next report is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// If a report is due, the time since the report before. The report counts as written then.
    pub(super) fn due(&mut self, now: Instant) -> Option<Duration> {
        let (schedule, next) = (self.schedule?, self.next?);
        if now < next {
            return None;
        }
        let elapsed = self.since(now);
        self.last = now;
        self.written += 1;
        let mut next = next + schedule.interval;
        while next <= now {
            next += schedule.interval;
        }
        self.next = Some(next);
        Some(elapsed)
    }

    /// Time since the last report, or since the start.
    pub(super) fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last)
    }

    /// Whether as many reports are written as were asked for.
    pub(super) fn done(&self) -> bool {
        self.schedule.and_then(|schedule| schedule.reports).is_some_and(|reports| self.written >= reports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_keep_to_the_grid() {
        let begin = Instant::now();
        let at = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        let schedule = Schedule { interval: Duration::from_secs(1), reports: Some(3) };
        let mut reports = Reports::new(Some(schedule), begin);
        assert_eq!((reports.due(at(0.9)), reports.next()), (None, Some(at(1.0))));
        assert_eq!(reports.due(at(1.25)), Some(Duration::from_millis(1250)));
        assert_eq!((reports.next(), reports.done()), (Some(at(2.0)), false));
        // A late one is not made up for.
        assert_eq!(reports.due(at(4.5)), Some(Duration::from_millis(3250)));
        assert_eq!(reports.next(), Some(at(5.0)));
        assert!(reports.due(at(5.0)).is_some() && reports.done());
        assert_eq!(reports.since(at(5.5)), Duration::from_millis(500));
    }

    #[test]
    fn without_a_schedule_no_report_is_due() {
        let begin = Instant::now();
        let mut reports = Reports::new(None, begin);
        assert_eq!((reports.due(begin + Duration::from_secs(9)), reports.next()), (None, None));
        assert!(!reports.done());
    }
}
