//! Types behind a number: through typedefs and qualifiers, with an end.

use crate::{
    BtfError, Bytes, Endian, Index, TypeId,
    raw::POINTER_SIZE,
    type_table::TypeTable,
    types::{IntEncoding, Kind, Type},
};

/// What a value is, once typedefs and qualifiers are looked through.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Class {
    /// Nothing: what a function without result returns, or what a `void *` points to.
    Void,
    /// An integer, a `bool` or a character.
    Integer,
    /// A floating-point number.
    Float,
    /// An enum.
    Enum {
        /// Its name, if it has one.
        name: Option<String>,
    },
    /// A pointer.
    Pointer {
        /// The name of the struct or union it points to, if it points to a named one.
        to: Option<String>,
    },
    /// A struct or a union.
    Composite {
        /// Its name, if it has one.
        name: Option<String>,
    },
    /// An array.
    Array {
        /// How many elements; 0 for a flexible array.
        len: u32,
        /// What one of them occupies.
        element: Bytes,
    },
}

impl<'b> Index<'b> {
    pub(crate) fn search(&self) -> Search<'_, 'b> {
        Search { types: &self.types, steps: 0 }
    }
}

/// Deepest nesting followed. C requires compilers to take 12 declarators and 63 nested structs.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most types and members looked at for one question. `struct task_struct`, the largest there is, has some
/// 300.
const MAX_STEPS: u32 = 1 << 16;

/// One question's walk over the types, which ends whatever they say.
pub(crate) struct Search<'i, 'b> {
    types: &'i TypeTable<'b>,
    steps: u32,
}

impl<'b> Search<'_, 'b> {
    pub(crate) fn endian(&self) -> Endian {
        self.types.endian()
    }

    pub(crate) fn step(&mut self, id: TypeId) -> Result<(), BtfError> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(BtfError::TooMuch { id }) } else { Ok(()) }
    }

    pub(crate) fn get(&mut self, id: TypeId) -> Result<Type<'b>, BtfError> {
        self.step(id)?;
        self.types.get(id)
    }

    /// The type behind typedefs, qualifiers and type tags.
    pub(crate) fn strip(&mut self, id: TypeId) -> Result<Type<'b>, BtfError> {
        let mut ty = self.get(id)?;
        for _ in 0..MAX_DEPTH {
            match ty.alias() {
                Some(to) => ty = self.get(to)?,
                None => return Ok(ty),
            }
        }
        Err(BtfError::TooDeep { id })
    }

    /// What a value of the type occupies; `None` for what has no values: `void`, functions, incomplete types.
    pub(crate) fn size(&mut self, id: TypeId) -> Result<Option<Bytes>, BtfError> {
        let mut elements = 1u32;
        let mut ty = self.strip(id)?;
        for _ in 0..MAX_DEPTH {
            let size = match ty.kind {
                Kind::Array { element, count, .. } => {
                    elements = elements.checked_mul(count).ok_or(BtfError::Overflow { id })?;
                    ty = self.strip(element)?;
                    continue;
                }
                Kind::Int(int) => int.size,
                Kind::Ptr(_) => Bytes(POINTER_SIZE),
                Kind::Struct(composite) | Kind::Union(composite) => composite.size,
                Kind::Enum(enumeration) => enumeration.size,
                Kind::Float { size } | Kind::Datasec { size } => size,
                _ => return Ok(None),
            };
            return size
                .0
                .checked_mul(elements)
                .map(|size| Some(Bytes(size)))
                .ok_or(BtfError::Overflow { id });
        }
        Err(BtfError::TooDeep { id })
    }

    pub(crate) fn sized(&mut self, id: TypeId) -> Result<Bytes, BtfError> {
        self.size(id)?.ok_or(BtfError::WrongKind { id, expected: "a type with a size" })
    }

    /// What a stripped type is.
    pub(crate) fn class(&mut self, ty: &Type<'b>) -> Result<Class, BtfError> {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Ok(match ty.kind {
            Kind::Void => Class::Void,
            Kind::Int(_) => Class::Integer,
            Kind::Float { .. } => Class::Float,
            Kind::Enum(_) => Class::Enum { name: named(ty.name) },
            Kind::Struct(_) | Kind::Union(_) | Kind::Fwd { .. } => Class::Composite { name: named(ty.name) },
            Kind::Array { element, count, .. } => Class::Array { len: count, element: self.sized(element)? },
            Kind::Ptr(to) => {
                let to = self.strip(to)?;
                let composite = matches!(to.kind, Kind::Struct(_) | Kind::Union(_) | Kind::Fwd { .. });
                Class::Pointer { to: if composite { named(to.name) } else { None } }
            }
            _ => return Err(BtfError::WrongKind { id: ty.id, expected: "the type of a value" }),
        })
    }
}

/// Whether the top bit of a stripped type's values is a sign.
pub(crate) fn is_signed(ty: &Type<'_>) -> bool {
    match ty.kind {
        Kind::Int(int) => int.encoding == IntEncoding::Signed,
        Kind::Enum(enumeration) => enumeration.signed,
        _ => false,
    }
}
