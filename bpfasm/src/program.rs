//! A whole program: instructions whose jumps are resolved, and what is known about them.

use crate::encode::encode;
use crate::error::AsmError;
use crate::insn::Insn;
use crate::source::Source;
use crate::symbol::{Symbol, Text};

/// A program: instructions in order and side tables about them. Indices count instructions, not slots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// The instructions; every `Dest` is `Rel`.
    pub insns: Vec<Insn>,
    /// What the loader writes, and into which instruction; in ascending order.
    pub symbols: Vec<(usize, Symbol)>,
    /// Names of places, for listings; in ascending order.
    pub labels: Vec<(usize, Text)>,
    /// Where each instruction was written; as long as `insns`.
    pub source: Vec<Option<Source>>,
    /// Where local functions start and what they are called; the first is the program itself, at 0.
    pub functions: Vec<(usize, Text)>,
}

impl Program {
    /// The program as the kernel takes it: one `struct bpf_insn` per number, whose bytes in memory (on a little-endian machine)
    /// are the instruction's. What symbols stand for is still 0 unless it was written in.
    ///
    /// # Errors
    /// When an instruction has no encoding; one that [`Program::link`] made has.
    pub fn slots(&self) -> Result<Vec<u64>, AsmError> {
        let mut slots = Vec::with_capacity(self.insns.len());
        for (at, insn) in self.insns.iter().enumerate() {
            let encoded =
                encode(insn).map_err(|error| AsmError::Encode { at, error, source: self.source_of(at) })?;
            slots.extend_from_slice(&encoded);
        }
        Ok(slots)
    }

    /// The same as bytes, in the order of a little-endian kernel.
    ///
    /// # Errors
    /// As [`Program::slots`].
    pub fn bytes(&self) -> Result<Vec<u8>, AsmError> {
        Ok(self.slots()?.into_iter().flat_map(u64::to_le_bytes).collect())
    }

    pub(crate) fn source_of(&self, at: usize) -> Option<Source> {
        self.source.get(at).copied().flatten()
    }
}
