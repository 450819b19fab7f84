//! Why a symbol of a program has no value on this kernel.

use std::fmt;

use bpfasm::{Source, Text};
use btf::{Absent, BtfError};

use crate::chain::Chain;

/// Why a symbol of a program has no value on this kernel. `{}` starts with file and line of the
/// statement, if it is known.
#[derive(Debug)]
#[non_exhaustive]
pub enum RelocError {
    /// The kernel has no such field, type, enumerator or function, and the program does not check
    /// that it `exists`.
    Absent {
        /// The symbol as written.
        symbol: String,
        /// The name that is missing.
        why: Absent,
        /// The statement with the symbol.
        source: Option<Source>,
    },
    /// A load or a store is not as wide as the field.
    Width {
        /// The field's path.
        path: Text,
        /// The width of the field on this kernel, in bits.
        field_bits: u32,
        /// The width of the load or store, in bits.
        access_bits: u32,
        /// The statement with the symbol.
        source: Option<Source>,
    },
    /// The value does not fit in the instruction.
    Range {
        /// The symbol as written.
        symbol: String,
        /// The symbol's value.
        value: i64,
        /// The statement with the symbol.
        source: Option<Source>,
    },
    /// The symbol stands in an instruction that has no operand for it.
    Place {
        /// The symbol as written.
        symbol: String,
        /// The statement with the symbol.
        source: Option<Source>,
    },
    /// The object does not define this `const`.
    Const {
        /// The constant's name.
        name: Text,
        /// The statement with the symbol.
        source: Option<Source>,
    },
    /// The object does not define this map.
    Map {
        /// The map's name.
        name: Text,
        /// The statement with the symbol.
        source: Option<Source>,
    },
    /// The BTF is damaged, a name in it is ambiguous, or the symbol is not a valid path.
    Btf {
        /// The symbol as written.
        symbol: String,
        /// The error of the lookup.
        error: BtfError,
        /// The statement with the symbol.
        source: Option<Source>,
    },
}

impl RelocError {
    /// The statement with the symbol.
    #[must_use]
    pub fn place(&self) -> Option<&Source> {
        match self {
            Self::Absent { source, .. }
            | Self::Width { source, .. }
            | Self::Range { source, .. }
            | Self::Place { source, .. }
            | Self::Const { source, .. }
            | Self::Map { source, .. }
            | Self::Btf { source, .. } => source.as_ref(),
        }
    }
}

impl fmt::Display for RelocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = self.place() {
            write!(f, "{}:{}: ", source.file, source.line)?;
        }
        match self {
            Self::Absent { symbol, why, .. } => write!(f, "`{symbol}` is not in this kernel: {why}"),
            Self::Width { path, field_bits, access_bits, .. } => {
                write!(
                    f,
                    "`{path}` has {field_bits} bits on this kernel, but the program accesses {access_bits}"
                )
            }
            Self::Range { symbol, value, .. } => {
                write!(f, "`{symbol}` is {value}, which does not fit in the instruction")
            }
            Self::Place { symbol, .. } => write!(f, "this instruction cannot use `{symbol}`"),
            Self::Const { name, .. } => write!(f, "the constant `{name}` is not defined"),
            Self::Map { name, .. } => write!(f, "the map `{name}` is not defined"),
            Self::Btf { symbol, error, .. } => write!(f, "`{symbol}`: {}", Chain(error)),
        }
    }
}

impl std::error::Error for RelocError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Btf { error, .. } => Some(error),
            _ => None,
        }
    }
}
