//! What tests of several crates share.
//!
//! - [`fuzz`] runs a fuzz target as a plain test;
//! - [`messages`] reads the table of messages, `tools/ERRORS.md`, and compares it with those that tests provoke;
//! - [`names`] has the names of all tests;
//! - [`random`] has numbers that are the same in every run.

#![forbid(unsafe_code)]

pub mod fuzz;
pub mod messages;
pub mod names;
pub mod random;

use std::path::PathBuf;

/// A file of the project, by its path from the top.
#[must_use]
pub fn project(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}
