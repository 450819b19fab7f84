//! Waiting with a limit: every wait of the harness ends, and on failure shows what it saw last.
//!
//! The limits are for real machines. An emulated machine takes ten times as long; the variable
//! [`PATIENCE`] multiplies every limit.

use std::env::{self, VarError};
use std::fmt::Display;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// The limit of a wait, on a machine that is busy with other work. No wait should come near it.
pub const WAIT_LIMIT: Duration = Duration::from_secs(15);

/// The environment variable that multiplies all limits: a whole number, 1 by default.
pub const PATIENCE: &str = "KERNEL_TESTS_PATIENCE";

/// A limit, multiplied by the factor for this machine.
///
/// # Panics
/// If [`PATIENCE`] is not a factor. The runner checks it before it starts tests.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    limit * slowness()
}

/// How much slower this machine is than a real one, according to [`PATIENCE`].
///
/// # Panics
/// If [`PATIENCE`] is not a factor.
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
        _ => Err(format!("{PATIENCE} is {text:?}: expected a whole number from 1 to 1000")),
    }
}

/// How often a condition is checked that no file descriptor announces.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// The end of a wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Deadline {
    /// A deadline this far from now, multiplied by the factor for this machine.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        let limit = patient(limit);
        Self { end: Instant::now() + limit, limit }
    }

    /// The limit with which the deadline was set, multiplied.
    #[must_use]
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// The time left; `None` if it is over.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        self.end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// The time left as `poll(2)` takes it, rounded up so that a poll never ends before the
    /// deadline; `None` if it is over.
    #[must_use]
    pub fn poll_timeout(self) -> Option<PollTimeout> {
        let millis = self.left()?.as_millis().saturating_add(1);
        Some(PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX))
    }
}

/// Calls `check` until it returns `Ok`. While the condition is not met, `check` returns `Err` with
/// what it saw.
///
/// This is for conditions that no file descriptor announces, such as the end of a kernel object.
/// Otherwise use `poll(2)`.
///
/// # Panics
/// If the condition is not met within `limit`; the message has what was seen last.
#[track_caller]
pub fn wait_until<T, E: Display>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Deadline::after(limit);
    loop {
        match check() {
            Ok(value) => return value,
            Err(seen) if deadline.left().is_none() => {
                panic!("no {what} within {:?}; seen last: {seen}", deadline.limit())
            }
            Err(_) => thread::sleep(CHECK_INTERVAL),
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
    fn a_wait_ends_and_shows_what_it_saw() {
        wait_until("wonder", Duration::from_millis(10), || Err::<(), _>("nothing"));
    }
}
