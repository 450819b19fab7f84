//! What keeps the benchmark from measuring, in words.

use std::fmt;

/// Why something could not be measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(String);

/// A measurement, or why there is none.
pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// In these words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was being done when it failed.
pub trait During<T> {
    /// Adds that to the error.
    fn during(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Fault(format!("{what}: {error}")))
    }
}
