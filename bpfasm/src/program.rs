//! A linked program: instructions with resolved jumps, and tables about them.

use crate::encode::encode;
use crate::error::AsmError;
use crate::insn::Insn;
use crate::source::Source;
use crate::symbol::{Symbol, Text};

/// A program: its instructions in order, and tables about them. An index counts instructions, not
/// slots: a wide load is one instruction of two slots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// The instructions. Every destination is a distance, [`Dest::Rel`](crate::Dest::Rel).
    pub insns: Vec<Insn>,
    /// The symbols that the loader replaces by numbers, with the indices of their instructions, in
    /// ascending order.
    pub symbols: Vec<(usize, Symbol)>,
    /// The labels, with the indices of the instructions after them, in ascending order.
    pub labels: Vec<(usize, Text)>,
    /// The statement that each instruction comes from; as long as `insns`.
    pub source: Vec<Option<Source>>,
    /// The names of functions, with the indices of their first instructions. The first one is the
    /// program itself, at 0; the others are called by it, or their address is taken.
    pub functions: Vec<(usize, Text)>,
}

impl Program {
    /// The program as `BPF_PROG_LOAD` takes it: one `struct bpf_insn` per number, on a
    /// little-endian machine. Values of symbols are 0 until [`Insn::fill`] writes them.
    ///
    /// # Errors
    /// If an instruction has no encoding. This cannot happen for an unchanged program from
    /// [`Program::link`].
    pub fn slots(&self) -> Result<Vec<u64>, AsmError> {
        let mut slots = Vec::with_capacity(self.insns.len());
        for (at, insn) in self.insns.iter().enumerate() {
            let encoded =
                encode(insn).map_err(|error| AsmError::Encode { at, error, source: self.source_of(at) })?;
            slots.extend_from_slice(&encoded);
        }
        Ok(slots)
    }

    /// The slots as bytes, in the order of a little-endian kernel.
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
