//! The error type of the benchmark: one line of text.

use std::fmt;

/// The reason why something could not be measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(String);

pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds the failed operation to an error.
pub trait During<T> {
    /// Puts `what` in front of the error.
    fn during(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Fault(format!("{what}: {error}")))
    }
}
