//! Values that are known only when a program is loaded: offsets in the kernel's structs, ids, map
//! descriptors.

use std::borrow::Cow;
use std::fmt;

/// Text that is usually a literal of the source, so that it need not be copied.
pub type Text = Cow<'static, str>;

/// A value that the loader writes into one instruction.
///
/// The instruction decides which part of it takes the value: the offset of a load or store,
/// otherwise the immediate (arithmetic, move, comparison, wide load, call).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Symbol {
    /// `r1 = map conns ll`: the map's file descriptor.
    Map(Text),
    /// `sock.__sk_common.skc_dport`: the distance in bytes from the start of the struct that the
    /// path begins with, plus `addend`. With `from`, the distance from that other field
    /// (`sock.sk_protocol - sock.sk_type`). A load through it must be as wide as the field.
    Field {
        /// A struct's name, then members and array indices. Anonymous structs and unions have no
        /// part in the path.
        path: Text,
        /// The path of the field to count from, if not from the start of the struct.
        from: Option<Text>,
        /// A number of bytes that is added.
        addend: i32,
    },
    /// `sizeof(tcp_sock)`, `sizeof(sock.sk_protocol)`: the size of a type or a field in bytes.
    Size(Text),
    /// `exists(sock.sk_drop_counters)`, `exists(sock_flags.SOCK_DONE)`: 1 if the kernel has the
    /// field or the enumerator, otherwise 0. Code that runs only if it is 1 may refer to a field
    /// that does not exist.
    Exists(Text),
    /// `shift(inet_connection_sock.icsk_ca_state)`: the number of the bit-field's lowest bit in a
    /// load of its bytes on a little-endian machine.
    BitShift(Text),
    /// `mask(inet_connection_sock.icsk_ca_state)`: the bits that belong to the field after the
    /// shift, as a mask.
    BitMask(Text),
    /// `enum(sock_flags.SOCK_DONE)`: the value of an enumerator.
    Enum {
        /// The enum's name, which it must have.
        name: Text,
        /// The enumerator's name.
        variant: Text,
    },
    /// `params(inet_csk_accept)`: the number of a kernel function's parameters.
    /// `params(btf_trace_kfree_skb)`: the number of arguments that the tracepoint passes to
    /// programs.
    Params(Text),
    /// `const NAME`: a number that the object, or the caller of the loader, gives by name.
    Const(Text),
    /// `call kfunc bpf_sock_destroy`: a kernel function's BTF id.
    Kfunc(Text),
}

impl Symbol {
    /// The names and paths that it consists of.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Text> {
        let (first, second) = match self {
            Self::Map(name)
            | Self::Size(name)
            | Self::Exists(name)
            | Self::BitShift(name)
            | Self::BitMask(name)
            | Self::Params(name)
            | Self::Const(name)
            | Self::Kfunc(name) => (name, None),
            Self::Field { path, from, .. } => (path, from.as_ref()),
            Self::Enum { name, variant } => (name, Some(variant)),
        };
        std::iter::once(first).chain(second)
    }
}

/// The symbol as the language writes it.
impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(name) => write!(f, "map {name}"),
            Self::Field { path, from, addend } => {
                f.write_str(path)?;
                if let Some(from) = from {
                    write!(f, " - {from}")?;
                }
                match addend {
                    0 => Ok(()),
                    ..0 => write!(f, " - {}", addend.unsigned_abs()),
                    1.. => write!(f, " + {addend}"),
                }
            }
            Self::Size(path) => write!(f, "sizeof({path})"),
            Self::Exists(path) => write!(f, "exists({path})"),
            Self::BitShift(path) => write!(f, "shift({path})"),
            Self::BitMask(path) => write!(f, "mask({path})"),
            Self::Enum { name, variant } => write!(f, "enum({name}.{variant})"),
            Self::Params(name) => write!(f, "params({name})"),
            Self::Const(name) => write!(f, "const {name}"),
            Self::Kfunc(name) => write!(f, "kfunc {name}"),
        }
    }
}
