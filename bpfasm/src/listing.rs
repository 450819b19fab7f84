//! Prints a program as text that assembles to the same program.

use std::fmt;

use crate::program::Program;
use crate::text::Line;

/// The listing of a program: one instruction per line, labels on lines of their own, and symbols in
/// the places that the loader will fill.
///
/// [`asm::parse`](crate::asm::parse) and [`Program::link`] turn it back into a program with the
/// same bytes, symbols and labels.
#[must_use]
pub fn listing(program: &Program) -> Listing<'_> {
    Listing { program, sources: false }
}

impl Program {
    /// The [`listing`] of this program.
    #[must_use]
    pub fn listing(&self) -> Listing<'_> {
        listing(self)
    }
}

/// A listing; displaying it prints the text. See [`listing`].
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    program: &'a Program,
    sources: bool,
}

impl Listing<'_> {
    /// Adds the place and the text of the statement that each instruction comes from, as a comment
    /// in the line before it.
    #[must_use]
    pub const fn with_sources(mut self) -> Self {
        self.sources = true;
        self
    }
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program;
        // A program that was not linked may have too many slots to count; then its jumps are listed
        // as distances.
        let starts = program.starts().unwrap_or_default();
        let mut labels = program.labels.iter().peekable();
        let mut symbols = program.symbols.iter().peekable();
        let mut shown = None;
        for (at, insn) in program.insns.iter().enumerate() {
            while let Some((_, label)) = labels.next_if(|(place, _)| *place <= at) {
                writeln!(f, "{label}:")?;
            }
            let symbol = symbols.next_if(|(place, _)| *place == at).map(|(_, symbol)| symbol);
            let target = program.target(at, &starts);
            let label = target.and_then(|target| {
                program.labels.iter().find_map(|(place, label)| (*place == target).then_some(label.as_ref()))
            });
            if let Some(source) =
                program.source_of(at).filter(|source| self.sources && shown != Some(*source))
            {
                writeln!(f, "    // {source}")?;
                shown = Some(source);
            }
            writeln!(f, "    {}", Line { insn, symbol, label })?;
        }
        for (_, label) in labels {
            writeln!(f, "{label}:")?;
        }
        Ok(())
    }
}
