//! Waiting that ends: every wait of the harness has a limit, and says what it saw when the limit is over.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// What a wait may take on a machine that is busy with other things. Nothing should come near it.
pub const LIMIT: Duration = Duration::from_secs(15);

/// How often a condition is looked at that no file descriptor announces.
const LOOK: Duration = Duration::from_millis(2);

/// A moment after which waiting is pointless.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this far from now.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// The time left, `None` when it is over.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
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
            Err(seen) if deadline.left().is_none() => panic!("no {what} within {limit:?}; seen last: {seen}"),
            Err(_) => thread::sleep(LOOK),
        }
    }
}
