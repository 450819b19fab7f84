//! What can be wrong with the data or with the question.

use std::{fmt, io, path::PathBuf};

use crate::{Endian, PathError, TypeId, Want};

/// Why there is neither an answer nor a clear "no".
#[derive(Debug)]
#[non_exhaustive]
pub enum BtfError {
    /// What follows happened with this file.
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: Box<BtfError>,
    },
    /// The file could not be read.
    Io(io::Error),
    /// The path does not lead to a regular file, so there is no telling when reading it would end.
    NotAFile,
    /// The file is larger than any kernel with all its debug information.
    FileSize {
        /// Its bytes.
        found: u64,
    },
    /// Neither BTF nor ELF: the first bytes are neither's magic.
    NotBtf {
        /// The first bytes, as many as there were.
        start: Vec<u8>,
    },
    /// The ELF file is damaged.
    Elf(goblin::error::Error),
    /// The ELF file has no section `.BTF` with bytes in it.
    NoBtfSection,
    /// A format version that this crate does not know.
    Version {
        /// The version found; 1 is the only one there is.
        found: u8,
    },
    /// The data ends before something it says it contains.
    Truncated {
        /// What ends.
        section: Section,
        /// The first byte that was needed, from the start of that section.
        offset: usize,
        /// How many bytes the section has.
        len: usize,
    },
    /// The header's length is less than that of the first version.
    HeaderLength {
        /// `hdr_len`
        found: u32,
    },
    /// A kind of type that this crate does not know, so that the next record cannot be found either.
    UnknownKind {
        /// The type's number.
        id: TypeId,
        /// Where its record is, in bytes from the start of the type section.
        offset: usize,
        /// The kind found.
        kind: u32,
    },
    /// More types than numbers.
    TooManyTypes,
    /// A type refers to one that is not there.
    NoSuchType {
        /// The number referred to.
        id: TypeId,
        /// How many there are, `void` included.
        count: u32,
    },
    /// A type stands where another kind of type is needed.
    WrongKind {
        /// The type found.
        id: TypeId,
        /// What it should be.
        expected: &'static str,
    },
    /// A name is outside the string section, not terminated within 1024 bytes, or not UTF-8.
    BadString {
        /// The offset into the string section.
        offset: u32,
    },
    /// Types nest without end, or deeper than any real one.
    TooDeep {
        /// Where it was given up.
        id: TypeId,
    },
    /// One question took more steps than any real type needs.
    TooMuch {
        /// Where it was given up.
        id: TypeId,
    },
    /// A size or an offset is larger than BTF can express.
    Overflow {
        /// The type whose size or offset it is.
        id: TypeId,
    },
    /// A bit-field that is no number, is wider than its type, is not covered by a load of eight bytes, or a
    /// member that is no bit-field and starts within a byte.
    BadBitField {
        /// The bit-field's declared type.
        id: TypeId,
    },
    /// Several types or functions of this name, and they answer differently.
    Ambiguous {
        /// The name.
        name: String,
        /// Two of them that differ.
        ids: [TypeId; 2],
    },
    /// This is split BTF (a module's), which means nothing without its base.
    NeedsBase,
    /// Split BTF cannot be a base.
    BaseIsSplit,
    /// Split BTF and its base differ in byte order.
    BaseByteOrder {
        /// The base's byte order.
        base: Endian,
    },
    /// A module name that is no file name.
    ModuleName {
        /// The name.
        name: String,
    },
    /// The name was not in [`Wanted`](crate::Wanted). The program asking is wrong, not the kernel.
    NotIndexed {
        /// What it was asked as.
        want: Want,
        /// The name.
        name: String,
    },
    /// The field path is not one. The program asking is wrong, not the kernel.
    Path(PathError),
}

/// Parts of BTF data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Section {
    /// `struct btf_header`
    Header,
    /// The type records.
    Types,
    /// The strings.
    Strings,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Types => "type section",
            Self::Strings => "string section",
        })
    }
}

impl fmt::Display for BtfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "BTF from {}", path.display()),
            Self::Io(_) => f.write_str("cannot be read"),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::FileSize { found } => write!(f, "a file of {found} bytes, too large for a kernel"),
            Self::NotBtf { start } => write!(f, "neither BTF nor ELF: starts with {start:02x?}"),
            Self::Elf(_) => f.write_str("damaged ELF"),
            Self::NoBtfSection => f.write_str("ELF without a .BTF section"),
            Self::Version { found } => write!(f, "BTF version {found}, only 1 is known"),
            Self::Truncated { section, offset, len } => {
                write!(f, "{section} of {len} bytes ends before byte {offset}, where more was announced")
            }
            Self::HeaderLength { found } => write!(f, "header of {found} bytes, at least 24 expected"),
            Self::UnknownKind { id, offset, kind } => {
                write!(f, "type {id} at byte {offset} of the type section is of the unknown kind {kind}")
            }
            Self::TooManyTypes => f.write_str("more types than 32 bits can number"),
            Self::NoSuchType { id, count } => write!(f, "reference to type {id}, but there are {count}"),
            Self::WrongKind { id, expected } => write!(f, "type {id} is not {expected}"),
            Self::BadString { offset } => {
                write!(f, "no readable name at byte {offset} of the string section")
            }
            Self::TooDeep { id } => write!(f, "types nest too deeply at {id}"),
            Self::TooMuch { id } => write!(f, "types are too large to search, given up at {id}"),
            Self::Overflow { id } => write!(f, "type {id} is larger than BTF can express"),
            Self::BadBitField { id } => write!(f, "a bit-field of type {id} that cannot be one"),
            Self::Ambiguous { name, ids: [a, b] } => {
                write!(f, "`{name}` is defined more than once and differently: {a} and {b}")
            }
            Self::NeedsBase => f.write_str("split BTF, to be read on top of its base"),
            Self::BaseIsSplit => f.write_str("the base is split BTF itself"),
            Self::BaseByteOrder { base } => write!(f, "byte order differs from the base's, which is {base}"),
            Self::ModuleName { name } => write!(f, "`{name}` is not the name of a module"),
            Self::NotIndexed { want, name } => write!(f, "{want} `{name}` was not asked for when indexing"),
            Self::Path(path) => path.fmt(f),
        }
    }
}

impl std::error::Error for BtfError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Io(source) => Some(source),
            Self::Elf(source) => Some(source),
            _ => None,
        }
    }
}

impl From<PathError> for BtfError {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

impl BtfError {
    /// The error itself, without the name of the file it happened with.
    pub fn root(&self) -> &Self {
        match self {
            Self::File { source, .. } => source.root(),
            other => other,
        }
    }
}
