//! From a field path to a place: through anonymous members, typedefs, qualifiers, arrays and bit-fields.

use crate::{
    Absent, Bits, BtfError, Bytes, Class, Endian, FieldPath, Index, Lookup, Step, TypeId, Want,
    search::{MAX_DEPTH, Search, is_signed},
    types::{Composite, Int, Kind, Type},
};

/// Where a field is and what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// From the start of the path's first type. For a bit-field, where the load of `size` bytes starts.
    pub offset: Bytes,
    /// What it occupies. For a bit-field, the narrowest load that holds all its bits: 1, 2, 4 or 8 bytes,
    /// aligned to that wherever the struct is not packed.
    pub size: Bytes,
    /// Where its bits are, if it is a bit-field.
    pub bits: Option<BitField>,
    /// Whether its top bit is a sign.
    pub signed: bool,
    /// What it is, once typedefs and qualifiers are looked through.
    pub class: Class,
    /// Its type as declared.
    pub type_id: TypeId,
}

/// The bits of a bit-field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BitField {
    /// From the start of the path's first type.
    pub offset: Bits,
    /// How many there are.
    pub width: Bits,
    /// How far the load of [`Field::size`] bytes at [`Field::offset`], made by that kernel's machine, is to
    /// be shifted right.
    pub shift: Bits,
}

impl BitField {
    /// The bits that belong to the field after the shift.
    pub fn mask(&self) -> u64 {
        match self.width.0 {
            64.. => u64::MAX,
            width => (1 << width) - 1,
        }
    }
}

impl Index<'_> {
    /// Where a field is. Its path starts from a name asked for as [`Want::Type`].
    pub fn field(&self, path: &str) -> Result<Lookup<Field>, BtfError> {
        self.resolve(&FieldPath::parse(path)?)
    }

    /// Where a field is.
    pub fn resolve(&self, path: &FieldPath) -> Result<Lookup<Field>, BtfError> {
        let name = path.root();
        let mut roots = Vec::new();
        for id in self.ids(Want::Type, name)? {
            let root = self.ty(*id)?;
            roots.push((rank(&root), root));
        }
        // A struct and a typedef of it often share a name, and a declaration adds nothing to a definition.
        let best = roots.iter().map(|(rank, _)| *rank).min();
        let roots = roots.into_iter().filter(|(rank, _)| Some(*rank) == best);
        let mut search = self.search();
        let answers = roots.map(|(_, root)| Ok((root.id, search.field(path, root.id)?)));
        self.agree(name, answers, || Absent::Type { name: name.to_owned() }, Field::agrees)
    }

    /// The size of a type, or of a field, in bytes.
    pub fn size(&self, path: &str) -> Result<Lookup<u32>, BtfError> {
        Ok(self.field(path)?.map(|field| field.size.0))
    }

    /// Whether there is such a field, such a type, or such an enumerator of a named enum (`sock_flags.SOCK_DONE`).
    pub fn exists(&self, path: &str) -> Result<bool, BtfError> {
        let path = FieldPath::parse(path)?;
        if let [Step::Member(enumerator)] = path.steps() {
            for id in self.ids(Want::Type, path.root())? {
                if matches!(self.ty(*id)?.kind, Kind::Enum(_)) {
                    return Ok(self.enumerator_of(*id, enumerator)?.is_some());
                }
            }
        }
        Ok(self.resolve(&path)?.is_found())
    }
}

fn rank(root: &Type<'_>) -> u8 {
    match root.kind {
        Kind::Struct(_) | Kind::Union(_) => 0,
        Kind::Typedef(_) => 1,
        Kind::Fwd { .. } => 3,
        _ => 2,
    }
}

impl Field {
    /// The same answer, whatever numbers the types have.
    fn agrees(&self, other: &Self) -> bool {
        let same_type = Self { type_id: self.type_id, ..other.clone() };
        *self == same_type
    }
}

/// A value in a struct: its type, where it is, and how wide if it is a bit-field.
#[derive(Clone, Copy)]
struct Place {
    ty: TypeId,
    offset: Bits,
    width: Option<Bits>,
}

impl<'b> Search<'_, 'b> {
    fn field(&mut self, path: &FieldPath, root: TypeId) -> Result<Lookup<Field>, BtfError> {
        let mut place = Place { ty: root, offset: Bits(0), width: None };
        for (done, step) in path.steps().iter().enumerate() {
            let parent = || path.prefix(done);
            let next = match step {
                Step::Member(name) => self.enter_member(place, name, parent)?,
                Step::Element(index) => self.enter_element(place, *index, parent)?,
            };
            place = match next {
                Lookup::Found(next) => next,
                Lookup::Absent(why) => return Ok(Lookup::Absent(why)),
            };
        }
        let ty = self.strip(place.ty)?;
        if let Kind::Fwd { .. } = ty.kind {
            return Ok(Lookup::Absent(Absent::Incomplete { name: ty.name.to_owned() }));
        }
        self.describe_place(place, ty).map(Lookup::Found)
    }

    fn enter_member(
        &mut self,
        place: Place,
        name: &str,
        parent: impl FnOnce() -> String,
    ) -> Result<Lookup<Place>, BtfError> {
        let ty = self.strip(place.ty)?;
        let member = match ty.kind {
            Kind::Struct(composite) | Kind::Union(composite) => self.member(ty.id, composite, name)?,
            Kind::Fwd { .. } => return Ok(Lookup::Absent(Absent::Incomplete { name: ty.name.to_owned() })),
            _ => {
                let is = self.describe(place.ty)?;
                return Ok(Lookup::Absent(Absent::NotComposite { path: parent(), is }));
            }
        };
        match member {
            Some(member) => {
                Ok(Lookup::Found(Place { offset: add(place.offset, member.offset, ty.id)?, ..member }))
            }
            None => Ok(Lookup::Absent(Absent::Member { parent: parent(), member: name.to_owned() })),
        }
    }

    fn enter_element(
        &mut self,
        place: Place,
        index: u32,
        parent: impl FnOnce() -> String,
    ) -> Result<Lookup<Place>, BtfError> {
        let ty = self.strip(place.ty)?;
        let Kind::Array { element, count, .. } = ty.kind else {
            let is = self.describe(place.ty)?;
            return Ok(Lookup::Absent(Absent::NotArray { path: parent(), is }));
        };
        // A flexible array has as many elements as there is memory.
        if count != 0 && index >= count {
            return Ok(Lookup::Absent(Absent::Element { path: parent(), index, len: count }));
        }
        let size = self.sized(element)?;
        let distance = size.0.checked_mul(index).map(Bytes).and_then(Bytes::bits);
        let distance = distance.ok_or(BtfError::Overflow { id: ty.id })?;
        Ok(Lookup::Found(Place { ty: element, offset: add(place.offset, distance, ty.id)?, width: None }))
    }

    fn describe_place(&mut self, place: Place, ty: Type<'b>) -> Result<Field, BtfError> {
        let id = ty.id;
        let size = self.sized(id)?;
        let (first, width) = match (place.width, ty.kind) {
            (Some(width), _) => (place.offset, Some(width)),
            // The old way: an integer type of its own for each width, shifted within its storage.
            (None, Kind::Int(Int { bits, offset, .. })) => {
                let first = add(place.offset, offset, id)?;
                let whole = first.0 % 8 == 0 && size.bits() == Some(bits);
                (first, (!whole).then_some(bits))
            }
            (None, _) => (place.offset, None),
        };
        let (signed, class) = (is_signed(&ty), self.class(&ty)?);
        let (offset, size, bits) = match width {
            Some(width) => {
                let counts = matches!(ty.kind, Kind::Int(_) | Kind::Enum(_)) && size.bits() >= Some(width);
                if !counts {
                    return Err(BtfError::BadBitField { id });
                }
                let (offset, size, bits) =
                    bit_field(first, width, self.endian()).ok_or(BtfError::BadBitField { id })?;
                (offset, size, Some(bits))
            }
            None if first.0 % 8 != 0 => return Err(BtfError::BadBitField { id }),
            None => (Bytes(first.0 / 8), size, None),
        };
        Ok(Field { offset, size, bits, signed, class, type_id: place.ty })
    }

    /// A member by its name, in the struct or in its anonymous members, with its place in the struct.
    fn member(&mut self, id: TypeId, of: Composite<'b>, name: &str) -> Result<Option<Place>, BtfError> {
        // Depth first, in the order of declaration; what is left to do at each level.
        let mut open = vec![(Bits(0), of.members())];
        while let Some((start, members)) = open.last_mut() {
            let Some(member) = members.next() else {
                open.pop();
                continue;
            };
            self.step(id)?;
            let offset = add(*start, member.offset, id)?;
            if member.is_named(name)? {
                return Ok(Some(Place { ty: member.ty, offset, width: member.width }));
            }
            // A bit-field without a name is padding.
            if member.is_named("")?
                && let Some(inner) = self.strip(member.ty)?.composite()
            {
                if open.len() == MAX_DEPTH {
                    return Err(BtfError::TooDeep { id });
                }
                open.push((offset, inner.members()));
            }
        }
        Ok(None)
    }
}

/// The narrowest load that holds the bits: an aligned one, which stays within the declared type's storage,
/// or, in a packed struct where there may be none, one from the byte of the first bit.
fn bit_field(first: Bits, width: Bits, endian: Endian) -> Option<(Bytes, Bytes, BitField)> {
    if width.0 == 0 {
        return None;
    }
    let end = first.0.checked_add(width.0)?;
    let aligned = |size: u32| first.0 / 8 / size * size;
    let bytewise = |_: u32| first.0 / 8;
    let load = |start: &dyn Fn(u32) -> u32| {
        [1u32, 2, 4, 8]
            .into_iter()
            .map(|size| (start(size), size))
            .find(|(start, size)| end - start * 8 <= size * 8)
    };
    let (start, size) = load(&aligned).or_else(|| load(&bytewise))?;
    let below = first.0 - start * 8;
    let shift = match endian {
        Endian::Little => below,
        // Bits are counted from the most significant.
        Endian::Big => size * 8 - below - width.0,
    };
    Some((Bytes(start), Bytes(size), BitField { offset: first, width, shift: Bits(shift) }))
}

fn add(a: Bits, b: Bits, id: TypeId) -> Result<Bits, BtfError> {
    a.0.checked_add(b.0).map(Bits).ok_or(BtfError::Overflow { id })
}
