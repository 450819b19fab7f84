//! What can be wrong with a program that every statement of is right.

use std::fmt;

use bpfasm_syntax::limit::Limit;

use crate::encode::EncodeError;
use crate::source::Source;
use crate::symbol::Text;

/// Why a fragment is no program. `source` says where the statement is, when it has a place.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AsmError {
    /// A value from Rust that does not fit.
    Range {
        /// The value; of a sum, the sum.
        value: i128,
        /// What would fit.
        limit: Limit,
        /// The statement.
        source: Option<Source>,
    },
    /// A name from Rust that is no name: the listing could not be read back.
    Name {
        /// The name.
        name: Text,
        /// The statement.
        source: Option<Source>,
    },
    /// A jump to a label that no block around it defines.
    UndefinedLabel {
        /// The label.
        label: Text,
        /// The jump.
        source: Option<Source>,
    },
    /// The same label twice in one block.
    DuplicateLabel {
        /// The label.
        label: Text,
        /// The second definition.
        source: Option<Source>,
        /// The line of the first one, in the same file.
        first: Option<u32>,
    },
    /// A jump further than its 16 bits reach; `gotol` has 32.
    JumpTooFar {
        /// The label.
        label: Text,
        /// Slots past the next instruction.
        distance: i64,
        /// Which instruction jumps.
        at: usize,
        /// The jump.
        source: Option<Source>,
    },
    /// A jump out of the program or into the middle of a wide load.
    JumpOutside {
        /// Slots past the next instruction.
        distance: i64,
        /// Which instruction jumps.
        at: usize,
        /// The jump.
        source: Option<Source>,
    },
    /// A symbol in an instruction that has no place for it.
    SymbolPlace {
        /// Which instruction.
        at: usize,
        /// The statement.
        source: Option<Source>,
    },
    /// An instruction that has no encoding.
    Encode {
        /// Which instruction.
        at: usize,
        /// Why.
        error: EncodeError,
        /// The statement.
        source: Option<Source>,
    },
    /// No instruction at all.
    Empty,
    /// More instructions than 32 bits count.
    TooLong,
}

impl AsmError {
    /// The statement it is about.
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
            Self::Name { name, .. } => write!(f, "`{name}` is no name"),
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
            Self::SymbolPlace { at, .. } => write!(f, "instruction {at}: no place for a symbol"),
            Self::Encode { at, error, .. } => write!(f, "instruction {at}: {error}"),
            Self::Empty => f.write_str("a program has at least one instruction"),
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
