//! What only a kernel, or a loader, can put into an instruction.

use std::borrow::Cow;
use std::fmt;

/// Text that is usually a literal of the source.
pub type Text = Cow<'static, str>;

/// A value that the loader writes into one instruction.
///
/// Which part of the instruction takes it follows from the instruction: the offset of a load or store, the immediate of
/// everything else (arithmetic, move, comparison, wide load, call).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Symbol {
    /// `r1 = map conns ll`: the map's file descriptor.
    Map(Text),
    /// `sock.__sk_common.skc_dport`: bytes from the start of the first name's struct, plus `addend`; with `from`, bytes from
    /// that other field instead (`sock.sk_protocol - sock.sk_type`). A load through it must be as wide as the field.
    Field {
        /// The field, first a struct's name, then members; anonymous structs and unions are walked through.
        path: Text,
        /// Where to count from, when not from the start of the struct.
        from: Option<Text>,
        /// Added to the result.
        addend: i32,
    },
    /// `sizeof(tcp_sock)` or `sizeof(sock.sk_protocol)`: bytes.
    Size(Text),
    /// `exists(sock.sk_drop_counters)`, `exists(sock_flags.SOCK_DONE)`: 1 or 0. Code behind a 0 may name what does not exist.
    Exists(Text),
    /// `shift(inet_connection_sock.icsk_ca_state)`: the lowest bit of a bit-field, counted in a little-endian byte load at
    /// the field's byte offset.
    BitShift(Text),
    /// `mask(inet_connection_sock.icsk_ca_state)`: the bit-field's mask after the shift.
    BitMask(Text),
    /// `enum(sock_flags.SOCK_DONE)`: the value of an enumerator.
    Enum {
        /// The enum's name.
        name: Text,
        /// The enumerator.
        variant: Text,
    },
    /// `params(inet_csk_accept)`: how many parameters a kernel function has; `params(btf_trace_kfree_skb)`: how many arguments
    /// a tracepoint passes to programs.
    Params(Text),
    /// `const NAME`: a number the loader is given by name.
    Const(Text),
    /// `call kfunc bpf_sock_destroy`: a kernel function's BTF id.
    Kfunc(Text),
}

impl Symbol {
    /// The names and paths in it.
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

/// As it stands in an instruction.
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
