//! The place in a Rust file that a statement comes from.

use std::fmt;

/// The place in a Rust file where a statement of `bpf!` was written, and its text. Displayed as
/// `file:line: text`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// The path of the file, as the compiler was given it: usually relative to the workspace.
    pub file: &'static str,
    /// The line, counted from 1.
    pub line: u32,
    /// The statement, in the spacing of the language.
    pub text: &'static str,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}
