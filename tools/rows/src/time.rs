//! When an event happened. Programs stamp events with `bpf_ktime_get_ns`, which is CLOCK_MONOTONIC;
//! people want wall-clock time.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// The difference between the wall clock and the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: i128,
    /// How long the reading took. Two clocks cannot be read at once, so the difference is only as
    /// exact as this.
    error: i128,
}

impl Clock {
    /// Reads both clocks.
    pub fn now() -> nix::Result<Self> {
        let before = nanoseconds(ClockId::CLOCK_MONOTONIC)?;
        let wall = nanoseconds(ClockId::CLOCK_REALTIME)?;
        let after = nanoseconds(ClockId::CLOCK_MONOTONIC)?;
        Ok(Self::from_readings(before, wall, after))
    }

    /// The wall clock was read between two readings of the monotonic clock, probably in the middle.
    fn from_readings(before: i128, wall: i128, after: i128) -> Self {
        let error = after - before;
        Self { offset: wall - before - error / 2, error }
    }

    /// A pair of clocks whose wall clock is ahead by this many nanoseconds.
    pub fn with_offset(offset: i128) -> Self {
        Self { offset, error: 0 }
    }

    /// Reads the wall clock, in nanoseconds since 1970.
    pub fn wall_now() -> nix::Result<i128> {
        nanoseconds(ClockId::CLOCK_REALTIME)
    }

    /// Reads both clocks again, because the wall clock is set and slewed. A difference within the
    /// errors of the readings is ignored, so that the times of two events do not shift against each
    /// other.
    pub fn renew(&mut self) -> nix::Result<()> {
        self.update(Self::now()?);
        Ok(())
    }

    fn update(&mut self, new: Self) {
        if (new.offset - self.offset).abs() > new.error + self.error {
            *self = new;
        }
    }

    /// Converts a monotonic time to nanoseconds since 1970.
    pub fn wall(self, monotonic: u64) -> i128 {
        i128::from(monotonic) + self.offset
    }
}

fn nanoseconds(clock: ClockId) -> nix::Result<i128> {
    Ok(clock_gettime(clock)?.num_nanoseconds().into())
}

/// The time zone of local times. In the default zone every time is unknown.
#[derive(Clone, Default, Debug)]
pub struct Zone(Option<TimeZone>);

/// The rules of the host's zone (tzfile(5)).
const LOCAL: &str = "/etc/localtime";

impl Zone {
    /// The host's time zone; UTC if the host has none.
    pub fn local() -> Self {
        // The file alone is enough; finding the name of the zone takes a walk through the whole
        // database.
        let rules = if std::env::var_os("TZ").is_none() { std::fs::read(LOCAL).ok() } else { None };
        let zone = rules.and_then(|rules| TimeZone::tzif(LOCAL, &rules).ok());
        Self(Some(zone.unwrap_or_else(TimeZone::system)))
    }

    /// UTC.
    pub fn utc() -> Self {
        Self(Some(TimeZone::UTC))
    }

    /// Date and time in this zone, `wall` nanoseconds after 1970.
    fn at(&self, wall: i128) -> Option<DateTime> {
        let timestamp = Timestamp::from_nanosecond(wall).ok()?;
        Some(self.0.as_ref()?.to_datetime(timestamp))
    }
}

/// Displays a time of day: `13:46:29`.
pub struct LocalTime<'a> {
    wall: i128,
    zone: &'a Zone,
}

impl<'a> LocalTime<'a> {
    /// The time `wall` nanoseconds after 1970, in this zone.
    pub fn new(wall: i128, zone: &'a Zone) -> Self {
        Self { wall, zone }
    }
}

impl fmt::Display for LocalTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone.at(self.wall) {
            Some(time) => write!(f, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second()),
            None => f.write_str("-"),
        }
    }
}

/// Displays a date: `02/21/20`.
pub struct LocalDate<'a> {
    wall: i128,
    zone: &'a Zone,
}

impl<'a> LocalDate<'a> {
    /// The time `wall` nanoseconds after 1970, in this zone.
    pub fn new(wall: i128, zone: &'a Zone) -> Self {
        Self { wall, zone }
    }
}

impl fmt::Display for LocalDate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone.at(self.wall) {
            Some(day) => write!(f, "{:02}/{:02}/{:02}", day.month(), day.day(), day.year().rem_euclid(100)),
            None => f.write_str("-"),
        }
    }
}

/// Seconds since the first row, as the column `TIME(s)` counts them.
#[derive(Clone, Copy, Default, Debug)]
pub struct SinceFirst(Option<u64>);

impl SinceFirst {
    /// Nanoseconds from the first `monotonic` that was given to this one. Negative if an older
    /// event comes later.
    pub fn nanoseconds(&mut self, monotonic: u64) -> i64 {
        let first = *self.0.get_or_insert(monotonic);
        monotonic.wrapping_sub(first).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_a_time_of_day() {
        let shown = |wall| LocalTime::new(wall, &Zone::utc()).to_string();
        assert_eq!(shown(0), "00:00:00");
        assert_eq!(shown(1_582_279_490_000_000_000), "10:04:50");
        assert_eq!(shown(i128::MAX), "-");
    }

    #[test]
    fn local_date_is_a_day() {
        let shown = |wall| LocalDate::new(wall, &Zone::utc()).to_string();
        assert_eq!(shown(0), "01/01/70");
        assert_eq!(shown(1_582_279_490_000_000_000), "02/21/20");
        assert_eq!(shown(i128::MAX), "-");
    }

    #[test]
    fn an_older_event_that_comes_later_is_negative() {
        let mut since = SinceFirst::default();
        let mut since_first = |monotonic| since.nanoseconds(monotonic);
        assert_eq!([2_000, 2_500, 1_000].map(&mut since_first), [0, 500, -1_000]);
    }

    #[test]
    fn only_a_clock_that_was_set_moves_events() {
        let mut clock = Clock { offset: 1_000_000, error: 100 };
        clock.update(Clock { offset: 1_005_000, error: 5_000 });
        assert_eq!(clock.wall(0), 1_000_000, "a reading that was interrupted");
        clock.update(Clock { offset: 1_005_000, error: 50 });
        assert_eq!(clock.wall(0), 1_005_000, "set forward");
        clock.update(Clock { offset: 0, error: 50 });
        assert_eq!(clock.wall(0), 0, "set back");
    }

    #[test]
    fn the_wall_clock_is_read_in_the_middle() {
        let clock = Clock::from_readings(1_000, 50_000, 1_100);
        assert_eq!((clock.offset, clock.error), (50_000 - 1_050, 100));
    }

    /// Compared with the standard library's clock, within a minute.
    #[test]
    fn the_clocks_are_the_system_s() {
        let now = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            i128::try_from(now.as_nanos()).expect("a time")
        };
        let near = |wall: i128| (now() - wall).abs() < 60_000_000_000;
        assert!(near(Clock::wall_now().expect("a clock")));
        let monotonic = nanoseconds(ClockId::CLOCK_MONOTONIC).expect("a clock");
        let monotonic = u64::try_from(monotonic).expect("after boot");
        assert!(near(Clock::now().expect("clocks").wall(monotonic)));
        let mut set = Clock::with_offset(0);
        set.renew().expect("clocks");
        assert!(near(set.wall(monotonic)), "a clock that was set is noticed");
    }

    #[test]
    fn a_difference_within_the_errors_is_ignored() {
        let mut clock = Clock { offset: 1_000, error: 60 };
        clock.update(Clock { offset: 1_100, error: 40 });
        assert_eq!(clock.offset, 1_000);
        clock.update(Clock { offset: 1_101, error: 40 });
        assert_eq!(clock.offset, 1_101);
    }

    #[test]
    fn the_host_has_a_time_zone() {
        assert_ne!(LocalTime::new(0, &Zone::local()).to_string(), "-");
    }

    #[test]
    fn wall_time_moves_with_the_monotonic_one() {
        let clock = Clock::now().expect("clocks");
        assert_eq!(clock.wall(1_000) - clock.wall(0), 1_000);
        assert!(clock.wall(0) > 0, "a host boots after 1970");
    }
}
