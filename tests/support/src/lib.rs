//! Helpers that the tests of several crates share.
//!
//! - [`fuzz`] runs a fuzz target as a plain test;
//! - [`messages`] reads the table of messages, `tools/ERRORS.md`, and compares it with those that
//!   tests provoke;
//! - [`names`] lists the names of all tests;
//! - [`random`] generates numbers that are the same in every run.
//!
//! Its own tests in `tests/repository` check rules about the whole repository.

#![forbid(unsafe_code)]

pub mod fuzz;
pub mod messages;
pub mod names;
pub mod random;

use std::path::PathBuf;

/// The absolute path of a file, from its path inside the repository.
#[must_use]
pub fn project(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}
