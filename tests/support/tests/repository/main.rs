//! Rules about the repository itself: no import cycles, short files, plain words, and no forgotten
//! tool.

#![forbid(unsafe_code)]

mod cycles;
mod files;
mod fuzz_targets;
mod modules;
mod tools;
mod words;
