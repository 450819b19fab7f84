//! Types by their meaning, decoded on demand.

use crate::{
    Bits, BtfError, Bytes, TypeId,
    endian::{Endian, Word},
    raw::{self, IntData, Record, kind},
    strings::Strings,
};

/// One decoded type.
#[derive(Clone, Copy, Debug)]
pub struct Type<'b> {
    /// The type's number.
    pub id: TypeId,
    /// The type's name; empty for an anonymous type.
    pub name: &'b str,
    /// The type's kind and content.
    pub kind: Kind<'b>,
}

/// The kind of a type, `BTF_KIND_*`, and its content.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Kind<'b> {
    /// `void`, which has number 0 and no record.
    Void,
    /// An integer.
    Int(Int),
    /// A pointer to the given type.
    Ptr(TypeId),
    /// An array.
    Array {
        /// The type of the elements.
        element: TypeId,
        /// The type of an index. Has no influence on the array.
        index: TypeId,
        /// The number of elements; 0 for a flexible array.
        count: u32,
    },
    /// A struct.
    Struct(Composite<'b>),
    /// A union.
    Union(Composite<'b>),
    /// `BTF_KIND_ENUM` or `BTF_KIND_ENUM64`
    Enum(Enumeration<'b>),
    /// A struct or union that is declared but not defined.
    Fwd {
        /// Whether it is a union; if not, a struct.
        is_union: bool,
    },
    /// Another name for the given type.
    Typedef(TypeId),
    /// `volatile`
    Volatile(TypeId),
    /// `const`
    Const(TypeId),
    /// `restrict`
    Restrict(TypeId),
    /// A function.
    Func {
        /// The type of its prototype.
        proto: TypeId,
        /// `BTF_FUNC_*`. Debian's kernels mark all functions as static.
        linkage: u32,
    },
    /// The parameters and the result of a function.
    FuncProto(Prototype<'b>),
    /// A variable.
    Var {
        /// The variable's type.
        ty: TypeId,
        /// `BTF_VAR_*`
        linkage: u32,
    },
    /// An ELF section of variables.
    Datasec {
        /// The section's size in bytes.
        size: Bytes,
    },
    /// A floating-point number.
    Float {
        /// The size in bytes.
        size: Bytes,
    },
    /// A `btf_decl_tag` on a declaration. The type's name is the tag.
    DeclTag {
        /// The type of the tagged declaration.
        ty: TypeId,
        /// The index of the tagged member or parameter; `None` if the whole declaration is tagged.
        component: Option<u32>,
    },
    /// A `btf_type_tag` between a pointer and its target. The type's name is the tag.
    TypeTag(TypeId),
}

/// An integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Int {
    /// The size in bytes.
    pub size: Bytes,
    /// The meaning of the bits.
    pub encoding: IntEncoding,
    /// The number of bits that count. Less than the size only in BTF from compilers before 2018,
    /// which described bit-fields by such integers.
    pub bits: Bits,
    /// The offset of these bits within the integer; 0 except in such BTF.
    pub offset: Bits,
}

/// The meaning of an integer's bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IntEncoding {
    /// A number without a sign.
    Unsigned,
    /// A number in two's complement.
    Signed,
    /// A character. BTF does not say whether it is signed.
    Char,
    /// 0 or 1.
    Bool,
}

/// A struct or a union.
#[derive(Clone, Copy, Debug)]
pub struct Composite<'b> {
    /// The size in bytes.
    pub size: Bytes,
    members: &'b [[Word; 3]],
    strings: Strings<'b>,
    endian: Endian,
    /// `kind_flag`: whether member offsets include the width of bit-fields.
    widths: bool,
}

impl<'b> Composite<'b> {
    /// The members in the order of the declaration.
    pub fn members(self) -> impl ExactSizeIterator<Item = Member<'b>> + Clone + use<'b> {
        self.members.iter().map(move |&[name, ty, offset]| {
            let offset = self.endian.u32(offset);
            let (offset, width) = if self.widths { raw::split_member_offset(offset) } else { (offset, 0) };
            Member {
                name: Name { strings: self.strings, offset: self.endian.u32(name) },
                ty: TypeId(self.endian.u32(ty)),
                offset: Bits(offset),
                width: (width != 0).then_some(Bits(width)),
            }
        })
    }
}

/// The offset of a name in the string section; read on demand.
#[derive(Clone, Copy, Debug)]
struct Name<'b> {
    strings: Strings<'b>,
    offset: u32,
}

impl<'b> Name<'b> {
    fn get(self) -> Result<&'b str, BtfError> {
        self.strings.get(self.offset)
    }

    fn is(self, name: &str) -> Result<bool, BtfError> {
        self.strings.is(self.offset, name)
    }
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug)]
pub struct Member<'b> {
    name: Name<'b>,
    /// The member's type.
    pub ty: TypeId,
    /// The distance from the start of the struct in bits.
    pub offset: Bits,
    /// The width in bits, if it is a bit-field that the struct describes (`kind_flag`). In BTF from
    /// compilers before 2018 the type describes it, see [`Int::bits`].
    pub width: Option<Bits>,
}

impl<'b> Member<'b> {
    /// The member's name; empty for an anonymous struct or union.
    pub fn name(&self) -> Result<&'b str, BtfError> {
        self.name.get()
    }

    /// Whether that is its name.
    pub fn is_named(&self, name: &str) -> Result<bool, BtfError> {
        self.name.is(name)
    }
}

/// An enum whose values have up to 32 or up to 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Enumeration<'b> {
    /// The size of a variable in bytes.
    pub size: Bytes,
    /// Whether the values are signed. BTF of kernels before 6.0 does not record it; see
    /// [`Enumerator::value`].
    pub signed: bool,
    values: EnumWords<'b>,
    strings: Strings<'b>,
    endian: Endian,
}

#[derive(Clone, Copy, Debug)]
enum EnumWords<'b> {
    /// `struct btf_enum`
    Narrow(&'b [[Word; 2]]),
    /// `struct btf_enum64`
    Wide(&'b [[Word; 3]]),
}

impl<'b> Enumeration<'b> {
    /// Whether the enum is a `BTF_KIND_ENUM64`.
    pub fn is_wide(&self) -> bool {
        matches!(self.values, EnumWords::Wide(_))
    }

    /// The enumerators in the order of the declaration.
    pub fn values(self) -> impl ExactSizeIterator<Item = Enumerator<'b>> + Clone + use<'b> {
        let (narrow, wide): (&[_], &[_]) = match self.values {
            EnumWords::Narrow(values) => (values, &[]),
            EnumWords::Wide(values) => (&[], values),
        };
        let narrow = narrow.iter().map(move |&[name, value]| {
            let value = self.endian.u32(value);
            let value = if self.signed { i64::from(value.cast_signed()) } else { i64::from(value) };
            (name, value)
        });
        let wide = wide.iter().map(move |&[name, low, high]| {
            let (low, high) = (self.endian.u32(low), self.endian.u32(high));
            (name, (u64::from(high) << 32 | u64::from(low)).cast_signed())
        });
        Values { narrow, wide }.map(move |(name, value)| Enumerator {
            name: Name { strings: self.strings, offset: self.endian.u32(name) },
            value,
        })
    }
}

/// A chain of two iterators, one of which is always empty. Unlike `Chain` it knows its length.
#[derive(Clone)]
struct Values<A, B> {
    narrow: A,
    wide: B,
}

impl<A: ExactSizeIterator, B: ExactSizeIterator<Item = A::Item>> Iterator for Values<A, B> {
    type Item = A::Item;

    fn next(&mut self) -> Option<A::Item> {
        self.narrow.next().or_else(|| self.wide.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.narrow.len() + self.wide.len();
        (len, Some(len))
    }
}

impl<A: ExactSizeIterator, B: ExactSizeIterator<Item = A::Item>> ExactSizeIterator for Values<A, B> {}

/// An enumerator: a name and its value.
#[derive(Clone, Copy, Debug)]
pub struct Enumerator<'b> {
    name: Name<'b>,
    /// The value as 64 bits. A value of 2^63 or more of an unsigned enum becomes negative. In BTF
    /// of kernels before 6.0, which does not record signedness, a negative value of a 32-bit enum
    /// becomes a positive one.
    pub value: i64,
}

impl<'b> Enumerator<'b> {
    /// The enumerator's name.
    pub fn name(&self) -> Result<&'b str, BtfError> {
        self.name.get()
    }

    /// Whether that is its name.
    pub fn is_named(&self, name: &str) -> Result<bool, BtfError> {
        self.name.is(name)
    }
}

/// The parameters and the result of a function.
#[derive(Clone, Copy, Debug)]
pub struct Prototype<'b> {
    /// The type of the result.
    pub ret: TypeId,
    params: &'b [[Word; 2]],
    strings: Strings<'b>,
    endian: Endian,
}

impl<'b> Prototype<'b> {
    /// The parameters in order. The last one of a variadic function has no name and type `void`.
    pub fn params(self) -> impl ExactSizeIterator<Item = ProtoParam<'b>> + Clone + use<'b> {
        self.params.iter().map(move |&[name, ty]| ProtoParam {
            name: Name { strings: self.strings, offset: self.endian.u32(name) },
            ty: TypeId(self.endian.u32(ty)),
        })
    }
}

/// One parameter of a prototype.
#[derive(Clone, Copy, Debug)]
pub struct ProtoParam<'b> {
    name: Name<'b>,
    /// The parameter's type.
    pub ty: TypeId,
}

impl<'b> ProtoParam<'b> {
    /// The parameter's name; empty if the source has none.
    pub fn name(&self) -> Result<&'b str, BtfError> {
        self.name.get()
    }
}

impl<'b> Type<'b> {
    pub(crate) const VOID: Type<'static> = Type { id: TypeId::VOID, name: "", kind: Kind::Void };

    pub(crate) fn decode(
        id: TypeId,
        record: Record<'b>,
        strings: Strings<'b>,
        endian: Endian,
    ) -> Result<Self, BtfError> {
        let Record { head, tail } = record;
        let size = Bytes(head.size_or_type);
        let target = head.target();
        let word = |n: usize| tail.get(n).map_or(0, |word| endian.u32(*word));
        let pairs = || tail.as_chunks::<2>().0;
        let triples = || tail.as_chunks::<3>().0;
        let composite = || Composite { size, members: triples(), strings, endian, widths: head.flag() };
        let enumeration = |values| Enumeration { size, signed: head.flag(), values, strings, endian };
        let kind = match head.kind() {
            kind::INT => Kind::Int(Int::decode(size, IntData(word(0)))),
            kind::PTR => Kind::Ptr(target),
            kind::ARRAY => Kind::Array { element: TypeId(word(0)), index: TypeId(word(1)), count: word(2) },
            kind::STRUCT => Kind::Struct(composite()),
            kind::UNION => Kind::Union(composite()),
            kind::ENUM => Kind::Enum(enumeration(EnumWords::Narrow(pairs()))),
            kind::ENUM64 => Kind::Enum(enumeration(EnumWords::Wide(triples()))),
            kind::FWD => Kind::Fwd { is_union: head.flag() },
            kind::TYPEDEF => Kind::Typedef(target),
            kind::VOLATILE => Kind::Volatile(target),
            kind::CONST => Kind::Const(target),
            kind::RESTRICT => Kind::Restrict(target),
            kind::FUNC => Kind::Func { proto: target, linkage: head.vlen() },
            kind::FUNC_PROTO => Kind::FuncProto(Prototype { ret: target, params: pairs(), strings, endian }),
            kind::VAR => Kind::Var { ty: target, linkage: word(0) },
            kind::DATASEC => Kind::Datasec { size },
            kind::FLOAT => Kind::Float { size },
            // -1 means the whole declaration.
            kind::DECL_TAG => {
                Kind::DeclTag { ty: target, component: Some(word(0)).filter(|n| *n != u32::MAX) }
            }
            kind::TYPE_TAG => Kind::TypeTag(target),
            // `Record::read` has already refused other kinds.
            _ => Kind::Void,
        };
        Ok(Self { id, name: strings.get(head.name_off)?, kind })
    }

    /// The type that a typedef, a qualifier or a type tag refers to; its values look the same in
    /// memory.
    pub fn alias(&self) -> Option<TypeId> {
        match self.kind {
            Kind::Typedef(to)
            | Kind::Volatile(to)
            | Kind::Const(to)
            | Kind::Restrict(to)
            | Kind::TypeTag(to) => Some(to),
            _ => None,
        }
    }

    /// The content of a struct or a union; `None` for other kinds.
    pub fn composite(&self) -> Option<Composite<'b>> {
        match self.kind {
            Kind::Struct(composite) | Kind::Union(composite) => Some(composite),
            _ => None,
        }
    }
}

impl Int {
    fn decode(size: Bytes, data: IntData) -> Self {
        // The kernel allows at most one of these bits. If damaged data sets several, the first of
        // this list counts.
        let encoding = match data.encoding() {
            n if n & raw::INT_BOOL != 0 => IntEncoding::Bool,
            n if n & raw::INT_SIGNED != 0 => IntEncoding::Signed,
            n if n & raw::INT_CHAR != 0 => IntEncoding::Char,
            _ => IntEncoding::Unsigned,
        };
        Self { size, encoding, bits: Bits(data.bits()), offset: Bits(data.offset()) }
    }
}
