//! The times that rows of events show.

use rows::Value;
use rows::time::SinceFirst;

use crate::tool::Context;

/// An event, with its times.
pub struct Timed<E> {
    /// The event.
    pub event: E,
    wall: i128,
    since_first: i64,
}

impl<E> Timed<E> {
    /// An event that happened at `ts`, on the monotonic clock.
    pub fn new(event: E, ts: u64, context: &Context<'_>, first: &mut SinceFirst) -> Self {
        Self { event, wall: context.clock.wall(ts), since_first: first.nanoseconds(ts) }
    }

    /// Wall-clock time.
    pub fn wall(&self) -> Value<'static> {
        Value::wall(self.wall)
    }

    /// Seconds since the first row, with this many digits after the point.
    pub fn seconds(&self, digits: u32) -> Value<'static> {
        Value::Seconds { ns: self.since_first, digits }
    }

    /// Nanoseconds since the first row.
    pub fn nanoseconds(&self) -> Value<'static> {
        Value::Signed(self.since_first)
    }
}
