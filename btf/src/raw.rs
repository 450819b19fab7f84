//! The binary format of `include/uapi/linux/btf.h`: the header, and the fixed part of the records.
//! All magic numbers, shifts and record lengths of the format are in this file.
//!
//! The type section is a sequence of 32-bit words, so it is represented as `&[[u8; 4]]`. Every
//! access is checked, and a length in the data is never trusted before the words are read.

use std::ops::Range;

use crate::{
    BtfError, Section, TypeId,
    endian::{Endian, Word},
};

/// `BTF_MAGIC`
const MAGIC: u16 = 0xeb9f;
/// `BTF_VERSION`
pub(crate) const VERSION: u8 = 1;
/// The size of `struct btf_header` in bytes.
pub(crate) const HEADER_LEN: u32 = 24;
/// The size of every pointer in bytes; see the crate's documentation.
pub(crate) const POINTER_SIZE: u32 = 8;

/// `BTF_KIND_*`
pub(crate) mod kind {
    pub(crate) const INT: u32 = 1;
    pub(crate) const PTR: u32 = 2;
    pub(crate) const ARRAY: u32 = 3;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const UNION: u32 = 5;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const FWD: u32 = 7;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const VOLATILE: u32 = 9;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const RESTRICT: u32 = 11;
    pub(crate) const FUNC: u32 = 12;
    pub(crate) const FUNC_PROTO: u32 = 13;
    pub(crate) const VAR: u32 = 14;
    pub(crate) const DATASEC: u32 = 15;
    pub(crate) const FLOAT: u32 = 16;
    pub(crate) const DECL_TAG: u32 = 17;
    pub(crate) const TYPE_TAG: u32 = 18;
    pub(crate) const ENUM64: u32 = 19;
}

/// Reads bytes in order; `None` at their end.
struct Cursor<'b> {
    bytes: &'b [u8],
    endian: Endian,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk()?;
        self.bytes = tail;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(|word| self.endian.u32(word))
    }
}

/// The byte order, and the ranges of the sections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) endian: Endian,
    /// The range of the type section in the data.
    pub(crate) types: Range<usize>,
    /// The range of the string section in the data.
    pub(crate) strings: Range<usize>,
}

impl Header {
    /// The byte order of the magic number at the start of `data`, if it is there.
    pub(crate) fn magic(data: &[u8]) -> Option<Endian> {
        let magic = *data.first_chunk()?;
        if u16::from_le_bytes(magic) == MAGIC {
            Some(Endian::Little)
        } else if u16::from_be_bytes(magic) == MAGIC {
            Some(Endian::Big)
        } else {
            None
        }
    }

    /// Reads `struct btf_header` at the start of `data`. A longer header comes from a later
    /// version, whose first fields have the same meaning, and is accepted.
    pub(crate) fn parse(data: &[u8], endian: Endian) -> Result<Self, BtfError> {
        let mut cursor = Cursor { bytes: data, endian };
        let mut fields = || {
            let [_, _, version, _flags] = cursor.take()?;
            Some((version, [cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?]))
        };
        let Some((version, [header, type_off, type_len, str_off, str_len])) = fields() else {
            return Err(BtfError::Truncated {
                section: Section::Header,
                offset: data.len(),
                len: data.len(),
            });
        };
        if version != VERSION {
            return Err(BtfError::Version { found: version });
        }
        if header < HEADER_LEN {
            return Err(BtfError::HeaderLength { found: header });
        }
        // All records consist of whole words, so the rest is the start of one more record.
        if type_len % 4 != 0 {
            let len = type_len as usize;
            return Err(BtfError::Truncated { section: Section::Types, offset: len, len });
        }
        let range = |section, off: u32, len: u32| {
            let start = usize::try_from(u64::from(header) + u64::from(off)).ok();
            let end = start.and_then(|start| start.checked_add(len as usize));
            match (start, end) {
                (Some(start), Some(end)) if end <= data.len() => Ok(start..end),
                _ => Err(BtfError::Truncated {
                    section,
                    offset: data.len().saturating_sub(start.unwrap_or(usize::MAX)),
                    len: len as usize,
                }),
            }
        };
        Ok(Self {
            endian,
            types: range(Section::Types, type_off, type_len)?,
            strings: range(Section::Strings, str_off, str_len)?,
        })
    }
}

/// `struct btf_type`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) name_off: u32,
    info: u32,
    pub(crate) size_or_type: u32,
}

/// The number of words of `struct btf_type`.
pub(crate) const HEAD_WORDS: usize = 3;
/// The number of words of `struct btf_enum`; the first one is the name.
pub(crate) const ENUM_WORDS: usize = 2;
/// The number of words of `struct btf_enum64`; the first one is the name.
pub(crate) const ENUM64_WORDS: usize = 3;

impl Head {
    #[inline]
    pub(crate) fn read(words: &[Word; HEAD_WORDS], endian: Endian) -> Self {
        let [name, info, size] = *words;
        Self { name_off: endian.u32(name), info: endian.u32(info), size_or_type: endian.u32(size) }
    }

    /// The `info` word of a record.
    pub(crate) fn info(kind: u32, vlen: u32, flag: bool) -> u32 {
        (u32::from(flag) << 31) | (kind << 24) | vlen
    }

    /// The kind: bits 24 to 30. Older kernels use only bits 24 to 28 and leave the others 0.
    #[inline]
    pub(crate) fn kind(self) -> u32 {
        (self.info >> 24) & 0x7f
    }

    /// The number of members, enumerators or parameters: bits 0 to 23. Older kernels use only bits
    /// 0 to 15 and leave the others 0.
    #[inline]
    pub(crate) fn vlen(self) -> u32 {
        self.info & 0x00ff_ffff
    }

    /// `kind_flag`, bit 31. Its meaning depends on the kind.
    pub(crate) fn flag(self) -> bool {
        self.info >> 31 != 0
    }

    pub(crate) fn target(self) -> TypeId {
        TypeId(self.size_or_type)
    }

    /// The number of words after the fixed part; `None` for an unknown kind.
    #[inline]
    pub(crate) fn tail_words(self) -> Option<usize> {
        let kind = self.kind();
        // Kind 0 is `void`, which has no record.
        if !(kind::INT..=kind::ENUM64).contains(&kind) {
            return None;
        }
        let of_kind = |table: u64| (table >> (2 * kind) & 3) as usize;
        Some(of_kind(FIXED_WORDS) + of_kind(WORDS_OF_EACH) * self.vlen() as usize)
    }
}

/// The number of words after a record's head that do not depend on its `vlen`, two bits for each
/// kind.
///
/// This is a table and not a `match`, because the order of kinds in a kernel's types is random and
/// a branch would be mispredicted. It fits a register, because the pass over all records waits only
/// for the position of the next one, and a load from memory would delay it.
const FIXED_WORDS: u64 = by_kind(&[(kind::INT, 1), (kind::ARRAY, 3), (kind::VAR, 1), (kind::DECL_TAG, 1)]);

/// The number of words for each of a record's `vlen` members, two bits for each kind.
const WORDS_OF_EACH: u64 = by_kind(&[
    (kind::STRUCT, 3),
    (kind::UNION, 3),
    (kind::ENUM, ENUM_WORDS as u64),
    (kind::FUNC_PROTO, 2),
    (kind::DATASEC, 3),
    (kind::ENUM64, ENUM64_WORDS as u64),
]);

const fn by_kind(words: &[(u32, u64)]) -> u64 {
    let mut table = 0;
    let mut rest = words;
    while let [(kind, words), others @ ..] = rest {
        assert!(*words < 4 && 2 * *kind < u64::BITS);
        table |= *words << (2 * *kind);
        rest = others;
    }
    table
}

/// One type record: its fixed part and the words after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'b> {
    pub(crate) head: Head,
    pub(crate) tail: &'b [Word],
}

impl<'b> Record<'b> {
    /// The record that starts at word `position`, and the position of the next one. `None` if there
    /// is not a complete record of a known kind; [`Record::flaw`] returns the reason.
    #[inline]
    pub(crate) fn read(words: &'b [Word], position: usize, endian: Endian) -> Option<(Self, usize)> {
        let (head, rest) = words.get(position..)?.split_first_chunk()?;
        let head = Head::read(head, endian);
        let len = head.tail_words()?;
        Some((Self { head, tail: rest.get(..len)? }, position + HEAD_WORDS + len))
    }

    /// Why the bytes at `position` are not a record. A separate function, because building an error inline
    /// would take registers from the loop over all types.
    #[cold]
    pub(crate) fn flaw(words: &[Word], position: usize, id: TypeId, endian: Endian) -> BtfError {
        let head = words.get(position..).and_then(<[Word]>::first_chunk);
        match head.map(|head| Head::read(head, endian)) {
            Some(head) if head.tail_words().is_none() => {
                BtfError::UnknownKind { id, offset: position * 4, kind: head.kind() }
            }
            _ => {
                let len = words.len() * 4;
                BtfError::Truncated { section: Section::Types, offset: len, len }
            }
        }
    }
}

/// `BTF_INT_SIGNED`
pub(crate) const INT_SIGNED: u32 = 1;
/// `BTF_INT_CHAR`
pub(crate) const INT_CHAR: u32 = 2;
/// `BTF_INT_BOOL`
pub(crate) const INT_BOOL: u32 = 4;

/// The word after the head of a `BTF_KIND_INT` record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IntData(pub(crate) u32);

impl IntData {
    /// Combines numbers of at most 4, 8 and 8 bits.
    pub(crate) fn new(encoding: u32, offset: u32, bits: u32) -> Self {
        Self(encoding << 24 | offset << 16 | bits)
    }

    /// `BTF_INT_ENCODING`: `INT_*`.
    pub(crate) fn encoding(self) -> u32 {
        (self.0 >> 24) & 0xf
    }

    /// `BTF_INT_OFFSET`
    pub(crate) fn offset(self) -> u32 {
        (self.0 >> 16) & 0xff
    }

    /// `BTF_INT_BITS`
    pub(crate) fn bits(self) -> u32 {
        self.0 & 0xff
    }
}

/// Splits the `offset` of a `struct btf_member` of a struct with `kind_flag` into the offset (lower
/// 24 bits) and the width (upper 8 bits).
pub(crate) fn split_member_offset(offset: u32) -> (u32, u32) {
    (offset & 0x00ff_ffff, offset >> 24)
}

/// The reverse, if offset and width fit.
pub(crate) fn join_member_offset(offset: u32, width: u32) -> Option<u32> {
    (offset < 1 << 24 && width < 1 << 8).then_some(width << 24 | offset)
}

/// `BTF_MAGIC` in the given byte order.
pub(crate) fn magic(endian: Endian) -> [u8; 2] {
    match endian {
        Endian::Little => MAGIC.to_le_bytes(),
        Endian::Big => MAGIC.to_be_bytes(),
    }
}
