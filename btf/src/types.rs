//! Types as what they mean, decoded when asked for.

use crate::{
    Bits, BtfError, Bytes, TypeId,
    endian::{Endian, Word},
    raw::{self, IntData, Record, kind},
    strings::Strings,
};

/// One type.
#[derive(Clone, Copy, Debug)]
pub struct Type<'b> {
    /// Its number.
    pub id: TypeId,
    /// Its name; empty for a type without one.
    pub name: &'b str,
    /// What it is.
    pub kind: Kind<'b>,
}

/// What a type is: `BTF_KIND_*`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Kind<'b> {
    /// `void`, which is number 0 and has no record.
    Void,
    /// An integer.
    Int(Int),
    /// A pointer to the given type.
    Ptr(TypeId),
    /// An array.
    Array {
        /// What it is of.
        element: TypeId,
        /// The type of an index; of no use here.
        index: TypeId,
        /// How many elements; 0 for a flexible array.
        count: u32,
    },
    /// A struct.
    Struct(Composite<'b>),
    /// A union.
    Union(Composite<'b>),
    /// `BTF_KIND_ENUM` or `BTF_KIND_ENUM64`
    Enum(Enumeration<'b>),
    /// A struct or union that is declared only.
    Fwd {
        /// A union rather than a struct.
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
        /// Its prototype.
        proto: TypeId,
        /// `BTF_FUNC_*`; Debian's kernels call all their functions static.
        linkage: u32,
    },
    /// What a function takes and gives.
    FuncProto(Prototype<'b>),
    /// A variable.
    Var {
        /// Its type.
        ty: TypeId,
        /// `BTF_VAR_*`
        linkage: u32,
    },
    /// An ELF section of variables.
    Datasec {
        /// Its size.
        size: Bytes,
    },
    /// A floating-point number.
    Float {
        /// Its size.
        size: Bytes,
    },
    /// `btf_decl_tag` on a declaration; the tag is the name.
    DeclTag {
        /// What carries it.
        ty: TypeId,
        /// `None` for the whole, else the number of the member or parameter.
        component: Option<u32>,
    },
    /// `btf_type_tag` between a pointer and what it points to; the tag is the name.
    TypeTag(TypeId),
}

/// An integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Int {
    /// What it occupies.
    pub size: Bytes,
    /// What its bits mean.
    pub encoding: IntEncoding,
    /// How many bits of it count. Less than its size only in BTF that describes bit-fields the old way.
    pub bits: Bits,
    /// Where these bits start. Not 0 only in such BTF.
    pub offset: Bits,
}

/// How an integer's bits are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IntEncoding {
    /// As a number from 0.
    Unsigned,
    /// In two's complement.
    Signed,
    /// As a character; whether it has a sign is not said.
    Char,
    /// As 0 or 1.
    Bool,
}

/// A struct or a union.
#[derive(Clone, Copy, Debug)]
pub struct Composite<'b> {
    /// What it occupies.
    pub size: Bytes,
    members: &'b [[Word; 3]],
    strings: Strings<'b>,
    endian: Endian,
    /// `kind_flag`: member offsets carry a width.
    widths: bool,
}

impl<'b> Composite<'b> {
    /// The members in their order.
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

/// A name that is not read yet.
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
    /// Its type.
    pub ty: TypeId,
    /// Where it starts.
    pub offset: Bits,
    /// Its width if it is a bit-field described the new way; see [`Int::bits`] for the old one.
    pub width: Option<Bits>,
}

impl<'b> Member<'b> {
    /// Its name; empty for an anonymous struct or union.
    pub fn name(&self) -> Result<&'b str, BtfError> {
        self.name.get()
    }

    /// Whether that is its name.
    pub fn is_named(&self, name: &str) -> Result<bool, BtfError> {
        self.name.is(name)
    }
}

/// An enum of up to 32 or 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Enumeration<'b> {
    /// What a variable of it occupies.
    pub size: Bytes,
    /// Whether its values have a sign. BTF written before Linux 6.0 does not say; see [`Enumerator::value`].
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
    /// Whether it is a `BTF_KIND_ENUM64`.
    pub fn is_wide(&self) -> bool {
        matches!(self.values, EnumWords::Wide(_))
    }

    /// The enumerators in their order.
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

/// One iterator after another, one of which is always empty; unlike `Chain`, of known length.
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

/// A name and its value.
#[derive(Clone, Copy, Debug)]
pub struct Enumerator<'b> {
    name: Name<'b>,
    /// The value's 64 bits. The upper half of an unsigned 64-bit enum comes out negative. In BTF written
    /// before Linux 6.0, a negative value of a 32-bit enum comes out as if it were unsigned, since nothing
    /// there says that it is not.
    pub value: i64,
}

impl<'b> Enumerator<'b> {
    /// Its name.
    pub fn name(&self) -> Result<&'b str, BtfError> {
        self.name.get()
    }

    /// Whether that is its name.
    pub fn is_named(&self, name: &str) -> Result<bool, BtfError> {
        self.name.is(name)
    }
}

/// What a function takes and gives.
#[derive(Clone, Copy, Debug)]
pub struct Prototype<'b> {
    /// The type returned.
    pub ret: TypeId,
    params: &'b [[Word; 2]],
    strings: Strings<'b>,
    endian: Endian,
}

impl<'b> Prototype<'b> {
    /// The parameters in their order. A variadic function has a last one without name and of type `void`.
    pub fn params(self) -> impl ExactSizeIterator<Item = ProtoParam<'b>> + Clone + use<'b> {
        self.params.iter().map(move |&[name, ty]| ProtoParam {
            name: Name { strings: self.strings, offset: self.endian.u32(name) },
            ty: TypeId(self.endian.u32(ty)),
        })
    }
}

/// A parameter of a prototype.
#[derive(Clone, Copy, Debug)]
pub struct ProtoParam<'b> {
    name: Name<'b>,
    /// Its type.
    pub ty: TypeId,
}

impl<'b> ProtoParam<'b> {
    /// Its name; empty where the source gave none.
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
            // -1 stands for the whole declaration
            kind::DECL_TAG => {
                Kind::DeclTag { ty: target, component: Some(word(0)).filter(|n| *n != u32::MAX) }
            }
            kind::TYPE_TAG => Kind::TypeTag(target),
            // `Record::read` has refused all others.
            _ => Kind::Void,
        };
        Ok(Self { id, name: strings.get(head.name_off)?, kind })
    }

    /// The type behind a typedef, a qualifier or a type tag, which mean the same memory.
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

    /// A struct or a union.
    pub fn composite(&self) -> Option<Composite<'b>> {
        match self.kind {
            Kind::Struct(composite) | Kind::Union(composite) => Some(composite),
            _ => None,
        }
    }
}

impl Int {
    fn decode(size: Bytes, data: IntData) -> Self {
        // The kernel allows one of the bits at a time. A file that sets several is read by the first that
        // says more.
        let encoding = match data.encoding() {
            n if n & raw::INT_BOOL != 0 => IntEncoding::Bool,
            n if n & raw::INT_SIGNED != 0 => IntEncoding::Signed,
            n if n & raw::INT_CHAR != 0 => IntEncoding::Char,
            _ => IntEncoding::Unsigned,
        };
        Self { size, encoding, bits: Bits(data.bits()), offset: Bits(data.offset()) }
    }
}
