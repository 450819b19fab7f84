//! Waiting that ends: every wait of the harness has a limit, and says what it saw when the limit is over.
//!
//! Limits are for a machine that runs by itself. One that is emulated takes ten times as long, and says so in
//! [`PATIENCE`], which multiplies every limit.

use std::env::{self, VarError};
use std::fmt::Display;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// What a wait may take on a machine that is busy with other things. Nothing should come near it.
pub const LIMIT: Duration = Duration::from_secs(15);

/// The environment variable by which all limits are multiplied: a whole number, 1 without it.
pub const PATIENCE: &str = "KERNEL_TESTS_PATIENCE";

/// A limit as long as this machine needs it.
///
/// # Panics
/// When [`PATIENCE`] is no factor; the runner looks at it before any test does.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    limit * slowness()
}

/// How much slower this machine is said to be than one that is not emulated.
///
/// # Panics
/// As [`patient`].
#[must_use]
pub fn slowness() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| patience().unwrap_or_else(|fault| panic!("{fault}")))
}

/// The factor in [`PATIENCE`].
pub(crate) fn patience() -> Result<u32, String> {
    match env::var(PATIENCE) {
        Ok(text) => factor(&text),
        Err(VarError::NotPresent) => Ok(1),
        Err(VarError::NotUnicode(text)) => factor(&text.to_string_lossy()),
    }
}

fn factor(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(factor @ 1..=1000) => Ok(factor),
        _ => Err(format!("{PATIENCE} is {text:?}, and has to be a whole number from 1 to 1000")),
    }
}

/// How often a condition is looked at that no file descriptor announces.
const LOOK: Duration = Duration::from_millis(2);

/// A moment after which waiting is pointless.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Deadline {
    /// A deadline this far from now, or as much further as this machine needs.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        let limit = patient(limit);
        Self { end: Instant::now() + limit, limit }
    }

    /// How far it was from the moment it was set.
    #[must_use]
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// The time left, `None` when it is over.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        self.end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// The time left as `poll(2)` takes it, rounded up so that a poll never ends before the deadline; `None` when it is over.
    #[must_use]
    pub fn poll_timeout(self) -> Option<PollTimeout> {
        let millis = self.left()?.as_millis().saturating_add(1);
        Some(PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX))
    }
}

/// Looks at a condition until it holds. `look` answers `Err(what it saw instead)` while it does not.
///
/// For conditions that nothing announces (an object of the kernel going away); where there is a file descriptor, poll it.
///
/// # Panics
/// When the condition does not hold within `limit`, with what was seen last.
#[track_caller]
pub fn wait_until<T, E: Display>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Deadline::after(limit);
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if deadline.left().is_none() => {
                panic!("no {what} within {:?}; seen last: {seen}", deadline.limit())
            }
            Err(_) => thread::sleep(LOOK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_a_positive_whole_number() {
        assert_eq!((factor("1"), factor("10")), (Ok(1), Ok(10)));
        for wrong in ["", "0", "-1", "1.5", "ten", "1001", " 2"] {
            assert!(factor(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    #[should_panic(expected = "no wonder within 10ms; seen last: nothing")]
    fn a_wait_ends_and_says_what_it_saw() {
        wait_until("wonder", Duration::from_millis(10), || Err::<(), _>("nothing"));
    }
}
