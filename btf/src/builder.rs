//! Writes BTF: what a program loads beside itself for its functions, lines and maps, and small BTF for tests.

use std::{collections::HashMap, fmt};

use crate::{
    Bits, Btf, BtfError, Bytes, Endian, IntEncoding, TypeId, Wanted,
    endian::Word,
    raw::{self, HEADER_LEN, Head, IntData, kind},
};

/// BTF being written. Types are numbered from 1 in the order in which they are added, and may refer to later
/// ones.
///
/// Text and numbers that the format cannot hold are refused at once. Whether the whole makes sense, as that
/// all types referred to exist, is for whoever reads it: `BPF_BTF_LOAD` checks everything.
///
/// ```
/// use btf::{Builder, IntEncoding, Linkage, TypeId};
///
/// let mut types = Builder::new();
/// let int = types.int("int", 4, IntEncoding::Signed)?;
/// let ctx = types.ptr(TypeId::VOID)?;
/// let proto = types.func_proto(int, &[("ctx", ctx)])?;
/// let main = types.func("inet_sock_set_state", proto, Linkage::Global)?;
/// let line = types.add_str("r6 = *(u64 *)(r1 + 0);")?; // `struct bpf_line_info.line_off`
/// let bytes = types.finish()?;
/// # assert_eq!((main, line), (TypeId(4), 29));
/// # assert_eq!(bytes[..2], 0xeb9fu16.to_ne_bytes());
/// # Ok::<(), btf::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    endian: Endian,
    words: Vec<Word>,
    strings: Vec<u8>,
    offsets: HashMap<Box<str>, u32>,
    /// Number of the next type.
    next: u32,
    /// Length of the base's string section.
    base_strings: u32,
}

/// A member of a struct or union to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberDef<'a> {
    /// Its name; empty for an anonymous struct or union.
    pub name: &'a str,
    /// Its type.
    pub ty: TypeId,
    /// Where it starts.
    pub offset: Bits,
    /// Its width, if it is a bit-field.
    pub width: Option<Bits>,
}

impl<'a> MemberDef<'a> {
    /// A member that is no bit-field, at a distance in bytes.
    pub fn new(name: &'a str, ty: TypeId, offset: Bytes) -> Result<Self, BuildError> {
        let offset = offset.bits().ok_or(BuildError::TooLarge { what: "member offset" })?;
        Ok(Self { name, ty, offset, width: None })
    }
}

/// A name and its value, to be written.
pub type EnumeratorDef<'a> = (&'a str, i64);

/// Where a function is seen from: `enum btf_func_linkage`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linkage {
    /// `BTF_FUNC_STATIC`
    Static,
    /// `BTF_FUNC_GLOBAL`
    Global,
    /// `BTF_FUNC_EXTERN`
    Extern,
}

/// What cannot be written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A name with a NUL in it.
    NulInName {
        /// The name.
        name: String,
    },
    /// A number beyond its field.
    TooLarge {
        /// What it counts or measures.
        what: &'static str,
    },
    /// An integer that is not 1, 2, 4, 8 or 16 bytes.
    IntSize {
        /// The size asked for.
        size: u32,
    },
    /// A value beyond its enum.
    EnumValue {
        /// The enumerator.
        name: String,
        /// Its value.
        value: i64,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NulInName { name } => write!(f, "name {name:?} has a NUL in it"),
            Self::TooLarge { what } => write!(f, "{what} is too large for BTF"),
            Self::IntSize { size } => write!(f, "an integer of {size} bytes"),
            Self::EnumValue { name, value } => {
                write!(f, "enumerator `{name}` = {value} does not fit its enum")
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// What all kernels take; the latest take more.
const MAX_VLEN: usize = 0xffff;

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Nothing yet, for the kernel of this machine.
    pub fn new() -> Self {
        Self::with_endian(Endian::NATIVE)
    }

    /// Nothing yet, in the given byte order.
    pub fn with_endian(endian: Endian) -> Self {
        Self {
            endian,
            words: Vec::new(),
            strings: vec![0],
            offsets: HashMap::from([("".into(), 0)]),
            next: 1,
            base_strings: 0,
        }
    }

    /// Nothing yet, to be read on top of `base`, whose types can be referred to.
    pub fn split_from(base: &Btf) -> Result<Self, BtfError> {
        let next = base.index(&Wanted::new())?.type_count();
        let len = base.strings()?.len();
        let base_strings = u32::try_from(len).map_err(|_| BtfError::TooManyTypes)?;
        Ok(Self { next, base_strings, strings: Vec::new(), ..Self::with_endian(base.endian()) })
    }

    /// The offset of `text` in the string section, where it is put if it is not there yet. Names are put
    /// there by themselves; file names and source lines of `struct bpf_line_info` are not.
    pub fn add_str(&mut self, text: &str) -> Result<u32, BuildError> {
        if let Some(offset) = self.offsets.get(text) {
            return Ok(*offset);
        }
        let offset = self.append_str(text)?;
        self.offsets.insert(text.into(), offset);
        Ok(offset)
    }

    /// As [`Builder::add_str`], but does not look whether it is there yet, and is not found by that either: for those who have
    /// many and know which are the same.
    pub fn append_str(&mut self, text: &str) -> Result<u32, BuildError> {
        if text.contains('\0') {
            return Err(BuildError::NulInName { name: text.to_owned() });
        }
        let offset =
            u32::try_from(self.strings.len()).ok().and_then(|len| len.checked_add(self.base_strings));
        let offset = offset.ok_or(BuildError::TooLarge { what: "string section" })?;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        Ok(offset)
    }

    /// `BTF_KIND_INT`
    pub fn int(&mut self, name: &str, size: u32, encoding: IntEncoding) -> Result<TypeId, BuildError> {
        self.int_bits(name, size, encoding, Bits(0), Bits(size.saturating_mul(8)))
    }

    /// `BTF_KIND_INT` of which only some bits count, as compilers described bit-fields before 2018.
    pub fn int_bits(
        &mut self,
        name: &str,
        size: u32,
        encoding: IntEncoding,
        offset: Bits,
        bits: Bits,
    ) -> Result<TypeId, BuildError> {
        if !matches!(size, 1 | 2 | 4 | 8 | 16) {
            return Err(BuildError::IntSize { size });
        }
        if offset.0 > 0xff || bits.0 > 0xff {
            return Err(BuildError::TooLarge { what: "bits of an integer" });
        }
        let encoding = match encoding {
            IntEncoding::Unsigned => 0,
            IntEncoding::Signed => raw::INT_SIGNED,
            IntEncoding::Char => raw::INT_CHAR,
            IntEncoding::Bool => raw::INT_BOOL,
        };
        self.record(name, kind::INT, 0, false, size, &[IntData::new(encoding, offset.0, bits.0).0])
    }

    /// `BTF_KIND_PTR`
    pub fn ptr(&mut self, to: TypeId) -> Result<TypeId, BuildError> {
        self.record("", kind::PTR, 0, false, to.0, &[])
    }

    /// `BTF_KIND_ARRAY`; `index` is any integer type.
    pub fn array(&mut self, element: TypeId, index: TypeId, count: u32) -> Result<TypeId, BuildError> {
        self.record("", kind::ARRAY, 0, false, 0, &[element.0, index.0, count])
    }

    /// `BTF_KIND_STRUCT`
    pub fn strukt(
        &mut self,
        name: &str,
        size: Bytes,
        members: &[MemberDef<'_>],
    ) -> Result<TypeId, BuildError> {
        self.composite(kind::STRUCT, name, size, members)
    }

    /// `BTF_KIND_UNION`
    pub fn union(
        &mut self,
        name: &str,
        size: Bytes,
        members: &[MemberDef<'_>],
    ) -> Result<TypeId, BuildError> {
        self.composite(kind::UNION, name, size, members)
    }

    fn composite(
        &mut self,
        kind: u32,
        name: &str,
        size: Bytes,
        members: &[MemberDef<'_>],
    ) -> Result<TypeId, BuildError> {
        // Only where there is a bit-field, as offsets are shorter then.
        let widths = members.iter().any(|member| member.width.is_some());
        let mut tail = Vec::with_capacity(members.len() * 3);
        for member in members {
            let offset = if widths {
                raw::join_member_offset(member.offset.0, member.width.map_or(0, |width| width.0))
            } else {
                Some(member.offset.0)
            };
            let offset = offset.ok_or(BuildError::TooLarge { what: "member offset" })?;
            tail.extend([self.add_str(member.name)?, member.ty.0, offset]);
        }
        self.record(name, kind, members.len(), widths, size.0, &tail)
    }

    /// `BTF_KIND_ENUM`; unsigned ones are as kernels before 6.0 wrote all of them.
    pub fn enumeration(
        &mut self,
        name: &str,
        size: Bytes,
        signed: bool,
        values: &[EnumeratorDef<'_>],
    ) -> Result<TypeId, BuildError> {
        let mut tail = Vec::with_capacity(values.len() * 2);
        for (name, value) in values {
            let bits = if signed {
                i32::try_from(*value).ok().map(i32::cast_unsigned)
            } else {
                u32::try_from(*value).ok()
            };
            let bits =
                bits.ok_or_else(|| BuildError::EnumValue { name: (*name).to_owned(), value: *value })?;
            tail.extend([self.add_str(name)?, bits]);
        }
        self.record(name, kind::ENUM, values.len(), signed, size.0, &tail)
    }

    /// `BTF_KIND_ENUM64` (Linux 6.0). Of an unsigned one, give values from 2^63 on as the same bits with a
    /// sign.
    pub fn enumeration64(
        &mut self,
        name: &str,
        size: Bytes,
        signed: bool,
        values: &[EnumeratorDef<'_>],
    ) -> Result<TypeId, BuildError> {
        let mut tail = Vec::with_capacity(values.len() * 3);
        for (name, value) in values {
            let [low, high] = halves(value.cast_unsigned());
            tail.extend([self.add_str(name)?, low, high]);
        }
        self.record(name, kind::ENUM64, values.len(), signed, size.0, &tail)
    }

    /// `BTF_KIND_FWD`
    pub fn fwd(&mut self, name: &str, is_union: bool) -> Result<TypeId, BuildError> {
        self.record(name, kind::FWD, 0, is_union, 0, &[])
    }

    /// `BTF_KIND_TYPEDEF`
    pub fn typedef(&mut self, name: &str, to: TypeId) -> Result<TypeId, BuildError> {
        self.record(name, kind::TYPEDEF, 0, false, to.0, &[])
    }

    /// `BTF_KIND_VOLATILE`
    pub fn volatile(&mut self, to: TypeId) -> Result<TypeId, BuildError> {
        self.record("", kind::VOLATILE, 0, false, to.0, &[])
    }

    /// `BTF_KIND_CONST`
    pub fn constant(&mut self, to: TypeId) -> Result<TypeId, BuildError> {
        self.record("", kind::CONST, 0, false, to.0, &[])
    }

    /// `BTF_KIND_RESTRICT`
    pub fn restrict(&mut self, to: TypeId) -> Result<TypeId, BuildError> {
        self.record("", kind::RESTRICT, 0, false, to.0, &[])
    }

    /// `BTF_KIND_TYPE_TAG` (Linux 5.17)
    pub fn type_tag(&mut self, tag: &str, to: TypeId) -> Result<TypeId, BuildError> {
        self.record(tag, kind::TYPE_TAG, 0, false, to.0, &[])
    }

    /// `BTF_KIND_FLOAT` (Linux 5.13)
    pub fn float(&mut self, name: &str, size: Bytes) -> Result<TypeId, BuildError> {
        self.record(name, kind::FLOAT, 0, false, size.0, &[])
    }

    /// `BTF_KIND_FUNC_PROTO`. A last parameter without name and of type `void` stands for `...`.
    pub fn func_proto(&mut self, ret: TypeId, params: &[(&str, TypeId)]) -> Result<TypeId, BuildError> {
        let mut tail = Vec::with_capacity(params.len() * 2);
        for (name, ty) in params {
            tail.extend([self.add_str(name)?, ty.0]);
        }
        self.record("", kind::FUNC_PROTO, params.len(), false, ret.0, &tail)
    }

    /// `BTF_KIND_FUNC`. Kernels before 5.6 take only [`Linkage::Static`].
    pub fn func(&mut self, name: &str, proto: TypeId, linkage: Linkage) -> Result<TypeId, BuildError> {
        let linkage = match linkage {
            Linkage::Static => 0,
            Linkage::Global => 1,
            Linkage::Extern => 2,
        };
        self.record(name, kind::FUNC, linkage, false, proto.0, &[])
    }

    fn record(
        &mut self,
        name: &str,
        kind: u32,
        vlen: usize,
        flag: bool,
        size_or_type: u32,
        tail: &[u32],
    ) -> Result<TypeId, BuildError> {
        let vlen = u32::try_from(vlen).ok().filter(|_| vlen <= MAX_VLEN);
        let vlen = vlen.ok_or(BuildError::TooLarge { what: "number of members" })?;
        let id = TypeId(self.next);
        let next = self.next.checked_add(1).ok_or(BuildError::TooLarge { what: "number of types" })?;
        let head = [self.add_str(name)?, Head::info(kind, vlen, flag), size_or_type];
        self.words.extend(head.iter().chain(tail).map(|word| self.endian.word(*word)));
        self.next = next;
        Ok(id)
    }

    /// The finished data.
    pub fn finish(self) -> Result<Vec<u8>, BuildError> {
        let types = self.words.as_flattened();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).ok();
        let too_large = BuildError::TooLarge { what: "BTF" };
        let (Some(types_len), Some(strings_len)) = (len(types), len(&self.strings)) else {
            return Err(too_large);
        };
        let total = HEADER_LEN.checked_add(types_len).and_then(|sum| sum.checked_add(strings_len));
        let mut bytes = Vec::with_capacity(total.ok_or(too_large)? as usize);
        bytes.extend_from_slice(&raw::magic(self.endian));
        bytes.extend_from_slice(&[raw::VERSION, 0]);
        for field in [HEADER_LEN, 0, types_len, types_len, strings_len] {
            bytes.extend_from_slice(&self.endian.word(field));
        }
        bytes.extend_from_slice(types);
        bytes.extend_from_slice(&self.strings);
        Ok(bytes)
    }
}

/// Lower and upper half.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
