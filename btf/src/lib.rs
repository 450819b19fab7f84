//! Answers questions about a kernel's types with numbers: the offset of a field, whether it exists,
//! the value of a name.
//!
//! BTF is the kernel's own description of its types ([`Documentation/bpf/btf.rst`]). A kernel has
//! more than 100,000 types and a program asks about few of them, so only the wanted names are
//! indexed:
//!
//! ```no_run
//! use btf::{Btf, Lookup, Wanted};
//!
//! let kernel = Btf::kernel()?;
//! let index = kernel.index(&Wanted::new().strukt("sock").enumeration("sock_flags"))?;
//! match index.field("sock.__sk_common.skc_dport")? {
//!     Lookup::Found(field) => println!("at byte {}, {} bytes wide", field.offset, field.size),
//!     Lookup::Absent(why) => println!("{why}"),
//! }
//! # Ok::<(), btf::BtfError>(())
//! ```
//!
//! A question has three possible outcomes: the answer; [`Absent`], if this kernel lacks the type or
//! member, which a program may be prepared for; and [`BtfError`], if the data is damaged or the
//! question is malformed. Damaged data gives an error or a value in bounded time, and never a
//! panic.
//!
//! BTF does not record the width of a pointer. This crate assumes eight bytes, so it is for 64-bit
//! kernels only.
//!
//! [`Documentation/bpf/btf.rst`]: https://docs.kernel.org/bpf/btf.html
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod builder;
mod describe;
mod elf;
mod endian;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod index;
mod kernel;
#[cfg(test)]
mod message_tests;
mod names;
mod path;
mod raw;
mod resolve;
mod search;
mod signature;
mod spec;
mod strings;
mod type_table;
mod types;
mod walk;
mod wanted;

use std::fmt;

pub use builder::{BuildError, Builder, EnumeratorDef, Linkage, MemberDef};
pub use endian::Endian;
pub use error::{BtfError, Section};
pub use index::Index;
pub use path::{FieldPath, PathError, PathFault, Step};
pub use resolve::{BitField, Field};
pub use search::Class;
pub use signature::{Func, Param, Tracepoint};
pub use spec::Btf;
pub use types::{
    Composite, Enumeration, Enumerator, Int, IntEncoding, Kind, Member, ProtoParam, Prototype, Type,
};
pub use wanted::{Want, Wanted};

/// The number of a type within one BTF and its base. The kernel calls it `btf_id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeId(pub u32);

impl TypeId {
    /// `void`, which has number 0 and no record.
    pub const VOID: Self = Self(0);
}

/// A distance or a size in bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bits(pub u32);

/// A distance or a size in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bytes(pub u32);

impl Bytes {
    /// The same distance in bits, if it fits 32 bits.
    pub fn bits(self) -> Option<Bits> {
        self.0.checked_mul(8).map(Bits)
    }
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.0)
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The outcome of a well-formed question about undamaged data.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Lookup<T> {
    /// The kernel has the type, field or value; this is the answer.
    Found(T),
    /// The kernel lacks it; this says which part is missing.
    Absent(Absent),
}

impl<T> Lookup<T> {
    /// The answer, or `None` if the kernel lacks it.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Absent(_) => None,
        }
    }

    /// Whether the kernel has it.
    pub fn is_found(&self) -> bool {
        matches!(self, Self::Found(_))
    }

    /// Converts the answer with `f`.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Found(value) => Lookup::Found(f(value)),
            Self::Absent(why) => Lookup::Absent(why),
        }
    }
}

/// The part of a question that a kernel lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Absent {
    /// No type has this name.
    Type {
        /// The name asked for.
        name: String,
    },
    /// The type is declared but nowhere defined, so it has neither size nor members.
    Incomplete {
        /// The type's name.
        name: String,
    },
    /// The struct or union does not have the member, nor do its anonymous members.
    Member {
        /// The part of the path that exists.
        parent: String,
        /// The missing member.
        member: String,
    },
    /// The path asks for a member of a pointer, a number, or another value without members.
    NotComposite {
        /// The path to the value.
        path: String,
        /// The type of the value, in C.
        is: String,
    },
    /// The path asks for an element of a value that is not an array.
    NotArray {
        /// The path to the value.
        path: String,
        /// The type of the value, in C.
        is: String,
    },
    /// The index is not below the array's length.
    Element {
        /// The path to the array.
        path: String,
        /// The index asked for.
        index: u32,
        /// The number of elements.
        len: u32,
    },
    /// No enum has this name.
    Enum {
        /// The name asked for.
        name: String,
    },
    /// The enum does not have the enumerator.
    Enumerator {
        /// The enum's name; `None` if all enums were searched.
        parent: Option<String>,
        /// The missing enumerator.
        name: String,
    },
    /// No tracepoint has this name.
    Tracepoint {
        /// The name asked for.
        name: String,
    },
    /// No function has this name.
    Func {
        /// The name asked for.
        name: String,
    },
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type { name } => write!(f, "no type `{name}`"),
            Self::Incomplete { name } => write!(f, "`{name}` is declared but not defined"),
            Self::Member { parent, member } => write!(f, "`{parent}` has no member `{member}`"),
            Self::NotComposite { path, is } => write!(f, "`{path}` is `{is}`, which has no members"),
            Self::NotArray { path, is } => write!(f, "`{path}` is `{is}`, not an array"),
            Self::Element { path, index, len } => {
                write!(f, "`{path}` has {len} elements, none numbered {index}")
            }
            Self::Enum { name } => write!(f, "no enum `{name}`"),
            Self::Enumerator { parent: Some(parent), name } => {
                write!(f, "`enum {parent}` has no enumerator `{name}`")
            }
            Self::Enumerator { parent: None, name } => write!(f, "no enumerator `{name}`"),
            Self::Tracepoint { name } => write!(f, "no tracepoint `{name}`"),
            Self::Func { name } => write!(f, "no function `{name}`"),
        }
    }
}
