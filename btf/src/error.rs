//! Errors of reading BTF and of asking about it.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

use crate::{Endian, PathError, TypeId, Want};

/// Why a question has no answer: the data cannot be read or is damaged, or the question is wrong.
///
/// A kernel that lacks the type or member asked for is not an error, but [`Absent`](crate::Absent).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BtfError {
    /// The error `source` happened with this file.
    #[error("BTF from {}", path.display())]
    File {
        /// The file's path, as it was given.
        path: PathBuf,
        /// What happened; never another `File`.
        source: Box<BtfError>,
    },
    /// The file could not be read.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// The path does not lead to a regular file. Reading a pipe or a device might never end.
    #[error("not a regular file")]
    NotAFile,
    /// The file is larger than any kernel with all its debug information.
    #[error("file of {found} bytes, too large for a kernel")]
    FileSize {
        /// The file's length in bytes.
        found: u64,
    },
    /// The data starts neither with BTF's magic number nor with ELF's.
    #[error("neither BTF nor ELF: starts with {start:02x?}")]
    NotBtf {
        /// The first four bytes, or fewer if the data is shorter.
        start: Vec<u8>,
    },
    /// The ELF file is damaged.
    #[error("damaged ELF")]
    Elf(#[source] goblin::error::Error),
    /// The ELF file has no section `.BTF`, or an empty one.
    #[error("ELF without a .BTF section")]
    NoBtfSection,
    /// The format's version is unknown to this crate.
    #[error("BTF version {found}, only 1 is known")]
    Version {
        /// The version found. Kernels up to 7.3 write version 1.
        found: u8,
    },
    /// The data ends before something that it announces.
    #[error("{section} of {len} bytes ends before byte {offset}, where more was announced")]
    Truncated {
        /// The section that ends.
        section: Section,
        /// The first missing byte, counted from the start of that section.
        offset: usize,
        /// The length of the section in bytes.
        len: usize,
    },
    /// The header is shorter than that of the first version, which has 24 bytes.
    #[error("header of {found} bytes, at least 24 expected")]
    HeaderLength {
        /// The length that the header states, `hdr_len`.
        found: u32,
    },
    /// The kind of a type is unknown to this crate, so the start of the next record is unknown too.
    #[error("type {id} at byte {offset} of the type section is of the unknown kind {kind}")]
    UnknownKind {
        /// The type's number.
        id: TypeId,
        /// The position of its record, in bytes from the start of the type section.
        offset: usize,
        /// The kind found, `BTF_KIND_*`.
        kind: u32,
    },
    /// The data has more types than a 32-bit number can count.
    #[error("more types than a 32-bit number can count")]
    TooManyTypes,
    /// A type refers to a type that does not exist.
    #[error("reference to type {id}, but there are {count}")]
    NoSuchType {
        /// The number referred to.
        id: TypeId,
        /// The number of types, `void` included; valid numbers are below it.
        count: u32,
    },
    /// A type is of another kind than its place requires.
    #[error("type {id} is not {expected}")]
    WrongKind {
        /// The type found.
        id: TypeId,
        /// The kind required, with its article: `an enum`.
        expected: &'static str,
    },
    /// A name lies outside of the string section, is not terminated within 1024 bytes, or is not
    /// UTF-8.
    #[error("no readable name at byte {offset} of the string section")]
    BadString {
        /// The name's offset in the string section, in bytes.
        offset: u32,
    },
    /// Types nest deeper than in any real kernel, or refer to each other in a circle.
    #[error("types nest too deeply at {id}")]
    TooDeep {
        /// The type at which the search stopped.
        id: TypeId,
    },
    /// One question took more steps than the types of any real kernel need.
    #[error("types are too large to search, given up at {id}")]
    TooMuch {
        /// The type at which the search stopped.
        id: TypeId,
    },
    /// A size or an offset in bits does not fit 32 bits.
    #[error("type {id} is larger than BTF can express")]
    Overflow {
        /// The type whose size or offset it is.
        id: TypeId,
    },
    /// A bit-field is not a number, is wider than its type, or spans more than eight bytes. Or a
    /// member that is not a bit-field starts within a byte.
    #[error("invalid bit-field of type {id}")]
    BadBitField {
        /// The bit-field's declared type.
        id: TypeId,
    },
    /// The data has several types or functions of this name, and their answers differ.
    #[error("`{name}` is defined more than once and differently: {} and {}", ids[0], ids[1])]
    Ambiguous {
        /// The name asked for.
        name: String,
        /// Two types of this name whose answers differ.
        ids: [TypeId; 2],
    },
    /// This is split BTF (a module's), which cannot be read without its base (the kernel's).
    #[error("split BTF needs the BTF that it is split from")]
    NeedsBase,
    /// The base is split BTF itself.
    #[error("the base is split BTF itself")]
    BaseIsSplit,
    /// Split BTF and its base differ in byte order.
    #[error("byte order differs from the base's, which is {base}")]
    BaseByteOrder {
        /// The base's byte order.
        base: Endian,
    },
    /// The name of a module cannot be the name of a file.
    #[error("`{name}` is not the name of a module")]
    ModuleName {
        /// The name given.
        name: String,
    },
    /// The name was not in [`Wanted`](crate::Wanted): a mistake of the calling program, not of the
    /// kernel.
    #[error("{want} `{name}` was not among the wanted names when indexing")]
    NotIndexed {
        /// What the name was asked for as.
        want: Want,
        /// The name asked for.
        name: String,
    },
    /// The field path is malformed: a mistake of the calling program, not of the kernel.
    #[error("{0}")]
    Path(PathError),
}

/// A part of BTF data, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Section {
    /// `struct btf_header`
    Header,
    /// The type records.
    Types,
    /// The strings that names refer to.
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
