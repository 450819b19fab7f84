//! Why a program has no numbers on this kernel.

use std::fmt;

use bpfasm::{Source, Text};
use btf::{Absent, BtfError};

/// Why a program has no numbers on this kernel.
#[derive(Debug)]
#[non_exhaustive]
pub enum RelocError {
    /// The kernel has no such field, type, enumerator or function, and the program does not ask whether it `exists`.
    Absent {
        /// The symbol as written.
        symbol: String,
        /// What exactly is missing.
        why: Absent,
        /// The statement.
        source: Option<Source>,
    },
    /// A load or a store that is not as wide as the field.
    Width {
        /// The field.
        path: Text,
        /// Bits of the field.
        kernel: u32,
        /// Bits of the load.
        ours: u32,
        /// The statement.
        source: Option<Source>,
    },
    /// A value that the instruction cannot hold.
    Range {
        /// The symbol as written.
        symbol: String,
        /// Its value.
        value: i64,
        /// The statement.
        source: Option<Source>,
    },
    /// A symbol in an instruction that has no place for it.
    Place {
        /// The symbol as written.
        symbol: String,
        /// The statement.
        source: Option<Source>,
    },
    /// A `const` the object does not define.
    Const {
        /// Its name.
        name: Text,
        /// The statement.
        source: Option<Source>,
    },
    /// A map the object does not define.
    Map {
        /// Its name.
        name: Text,
        /// The statement.
        source: Option<Source>,
    },
    /// The BTF is damaged, or the question was put wrongly.
    Btf {
        /// The symbol as written.
        symbol: String,
        /// What BTF said.
        error: BtfError,
        /// The statement.
        source: Option<Source>,
    },
}

impl RelocError {
    /// The statement it is about.
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
            Self::Width { path, kernel, ours, .. } => {
                write!(f, "`{path}` has {kernel} bits on this kernel, the program moves {ours}")
            }
            Self::Range { symbol, value, .. } => {
                write!(f, "`{symbol}` is {value}, more than the instruction holds")
            }
            Self::Place { symbol, .. } => write!(f, "`{symbol}` has no place in this instruction"),
            Self::Const { name, .. } => write!(f, "the constant `{name}` is not defined"),
            Self::Map { name, .. } => write!(f, "the map `{name}` is not defined"),
            Self::Btf { symbol, error, .. } => write!(f, "`{symbol}`: {}", crate::error::Chain(error)),
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
