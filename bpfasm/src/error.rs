//! Errors of linking: every statement is well formed, but they do not make a program.

use std::fmt;

use bpfasm_syntax::limit::Limit;

use crate::encode::EncodeError;
use crate::source::Source;
use crate::symbol::Text;

/// Why a fragment does not link to a program. `source` is the statement at fault, if it was written
/// in a Rust file; a statement of a text or a decoded instruction has none.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AsmError {
    /// A value from Rust does not fit its place in the instruction.
    Range {
        /// The value. For a sum, the whole sum.
        value: i128,
        /// The range that the place allows.
        limit: Limit,
        /// The statement that contains the value.
        source: Option<Source>,
    },
    /// A name from Rust is not a name of the language, so that a listing with it could not be
    /// assembled again.
    Name {
        /// The name given.
        name: Text,
        /// The statement that contains the name.
        source: Option<Source>,
    },
    /// A jump to a label that neither its block nor a block around it defines.
    UndefinedLabel {
        /// The name of the label.
        label: Text,
        /// The statement of the jump.
        source: Option<Source>,
    },
    /// One block defines the same label twice.
    DuplicateLabel {
        /// The name of the label.
        label: Text,
        /// The second definition.
        source: Option<Source>,
        /// The line of the first one, in the same file.
        first: Option<u32>,
    },
    /// The label is too far away for the 16 bits of a `goto`; `gotol` has 32 (since Linux 6.6).
    JumpTooFar {
        /// The name of the label.
        label: Text,
        /// The distance in slots of 8 bytes, from the slot after the jump.
        distance: i64,
        /// The jump's index in the program.
        at: usize,
        /// The statement of the jump.
        source: Option<Source>,
    },
    /// A jump leads out of the program or into the second slot of a wide load.
    JumpOutside {
        /// The distance in slots of 8 bytes, from the slot after the jump.
        distance: i64,
        /// The jump's index in the program.
        at: usize,
        /// The statement of the jump.
        source: Option<Source>,
    },
    /// The instruction has no offset or constant that this symbol could fill.
    SymbolPlace {
        /// The instruction's index in the program.
        at: usize,
        /// The statement of the instruction.
        source: Option<Source>,
    },
    /// The instruction has no encoding.
    Encode {
        /// The instruction's index in the program.
        at: usize,
        /// The reason.
        error: EncodeError,
        /// The statement of the instruction.
        source: Option<Source>,
    },
    /// The fragment contains no instruction.
    Empty,
    /// The program has more slots than a 32-bit number can count.
    TooLong,
}

impl AsmError {
    /// The statement at fault, if it was written in a Rust file.
    #[must_use]
    pub fn place(&self) -> Option<&Source> {
        match self {
            Self::Range { source, .. }
            | Self::Name { source, .. }
            | Self::UndefinedLabel { source, .. }
            | Self::DuplicateLabel { source, .. }
            | Self::JumpTooFar { source, .. }
            | Self::JumpOutside { source, .. }
            | Self::SymbolPlace { source, .. }
            | Self::Encode { source, .. } => source.as_ref(),
            Self::Empty | Self::TooLong => None,
        }
    }
}

impl fmt::Display for AsmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = self.place() {
            write!(f, "{source}: ")?;
        }
        match self {
            Self::Range { value, limit, .. } => write!(f, "{value} does not fit: {limit}"),
            Self::Name { name, .. } => write!(f, "`{name}` is not a name"),
            Self::UndefinedLabel { label, .. } => write!(f, "the label `{label}` is not defined"),
            Self::DuplicateLabel { label, first, .. } => {
                write!(f, "the label `{label}` is already defined in this block")?;
                first.map_or(Ok(()), |line| write!(f, ", in line {line}"))
            }
            Self::JumpTooFar { label, distance, at, .. } => {
                write!(
                    f,
                    "instruction {at}: `{label}` is {distance} slots away, a jump reaches -32768 to 32767"
                )
            }
            Self::JumpOutside { distance, at, .. } => {
                write!(f, "instruction {at}: no instruction starts {distance} slots past the next one")
            }
            Self::SymbolPlace { at, .. } => write!(f, "instruction {at}: it has no place for a symbol"),
            Self::Encode { at, error, .. } => write!(f, "instruction {at}: {error}"),
            Self::Empty => f.write_str("a program needs at least one instruction"),
            Self::TooLong => f.write_str("too many instructions"),
        }
    }
}

impl std::error::Error for AsmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Encode { error, .. } => Some(error),
            _ => None,
        }
    }
}
