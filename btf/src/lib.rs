//! Type information of a kernel, as numbers: where a field is, whether it is, what value a name has.
//!
//! BTF is the kernel's own description of its types ([`Documentation/bpf/btf.rst`]). A tool asks few things
//! of it, each by name, so nothing is indexed but the names asked for:
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
//! Three outcomes are kept apart everywhere: the answer, [`Absent`] (this kernel has no such thing, which a
//! program may be prepared for), and [`BtfError`] (the data is damaged, or the question was put wrongly).
//! Damaged data gives an error or a value, in bounded time, and never a panic.
//!
//! BTF does not say how wide a pointer is. This crate takes eight bytes: 64-bit kernels only.
//!
//! [`Documentation/bpf/btf.rst`]: https://docs.kernel.org/bpf/btf.html
#![forbid(unsafe_code)]

mod builder;
#[cfg(test)]
mod catalogue;
mod describe;
mod elf;
mod endian;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod index;
mod kernel;
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

/// The number of a type within one BTF and its base; what the kernel calls `btf_id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeId(pub u32);

impl TypeId {
    /// `void`, which has no record.
    pub const VOID: Self = Self(0);
}

/// A distance or a length in bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bits(pub u32);

/// A distance or a length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bytes(pub u32);

impl Bytes {
    /// The same distance in bits, if that is a number that BTF can hold.
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

/// What a well-put question to healthy data gives.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Lookup<T> {
    /// The kernel has it.
    Found(T),
    /// The kernel does not have it.
    Absent(Absent),
}

impl<T> Lookup<T> {
    /// The answer, if there is one.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Absent(_) => None,
        }
    }

    /// Whether there is an answer.
    pub fn is_found(&self) -> bool {
        matches!(self, Self::Found(_))
    }

    /// The same outcome with another answer.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Found(value) => Lookup::Found(f(value)),
            Self::Absent(why) => Lookup::Absent(why),
        }
    }
}

/// What exactly a kernel does not have.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Absent {
    /// No type of this name.
    Type {
        /// The name asked for.
        name: String,
    },
    /// The type is declared somewhere and defined nowhere, so it has neither size nor members.
    Incomplete {
        /// The type's name.
        name: String,
    },
    /// The struct or union has no such member, not even in its anonymous members.
    Member {
        /// The path as far as it exists.
        parent: String,
        /// The member it lacks.
        member: String,
    },
    /// A member of a thing that has none: a pointer, a number, an array as a whole.
    NotComposite {
        /// The path to the thing.
        path: String,
        /// What it is, in C.
        is: String,
    },
    /// An element of a thing that is no array.
    NotArray {
        /// The path to the thing.
        path: String,
        /// What it is, in C.
        is: String,
    },
    /// An element behind the array's last.
    Element {
        /// The path to the array.
        path: String,
        /// The element asked for.
        index: u32,
        /// How many there are.
        len: u32,
    },
    /// No enum of this name.
    Enum {
        /// The name asked for.
        name: String,
    },
    /// The enum has no such enumerator.
    Enumerator {
        /// The enum; none when every enum was looked through.
        parent: Option<String>,
        /// The enumerator it lacks.
        name: String,
    },
    /// No tracepoint of this name.
    Tracepoint {
        /// The name asked for.
        name: String,
    },
    /// No function of this name.
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
