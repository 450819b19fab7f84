//! Rules about the repository itself: short files and no forgotten tool or fuzz target.

#![forbid(unsafe_code)]

mod files;
mod fuzz_targets;
mod tools;
