//! What one pass over the types finds, and any type by its number.

use crate::{
    Absent, Btf, BtfError, Lookup, TypeId, Want, Wanted,
    names::Names,
    type_table::TypeTable,
    types::{Enumerator, Kind, Type},
};

/// The wanted names of one [`Btf`], found, and sparse marks to reach every other type by its number.
#[derive(Debug)]
pub struct Index<'b> {
    pub(crate) btf: &'b Btf,
    pub(crate) types: TypeTable<'b>,
    names: Names,
}

impl Btf {
    /// Finds the wanted names in one pass over the types, and keeps nothing of the rest.
    pub fn index(&self, wanted: &Wanted) -> Result<Index<'_>, BtfError> {
        let mut names = Names::new(wanted);
        let types = TypeTable::read(self, &mut names).map_err(|error| self.locate(error))?;
        Ok(Index { btf: self, types, names })
    }
}

impl<'b> Index<'b> {
    /// How many types there are, `void` and the base's included; numbers start at 0.
    pub fn type_count(&self) -> u32 {
        self.types.count()
    }

    /// The type of that number.
    pub fn ty(&self, id: TypeId) -> Result<Type<'b>, BtfError> {
        self.types.get(id).map_err(|error| self.btf.locate(error))
    }

    /// The numbers of the types found for a name, in their order; more than one where the kernel has several
    /// of that name. For an enumerator, those of the enums that have it.
    pub fn ids(&self, want: Want, name: &str) -> Result<&[TypeId], BtfError> {
        self.names
            .table(want)
            .get(want, name)
            .ok_or_else(|| BtfError::NotIndexed { want, name: name.to_owned() })
    }

    /// A named enum's enumerators, in their order.
    pub fn enum_values(&self, name: &str) -> Result<Lookup<Vec<(&'b str, i64)>>, BtfError> {
        let ids = self.ids(Want::Enum, name)?;
        let lists = ids.iter().map(|id| {
            let mut list = Vec::new();
            for enumerator in self.enumerators(*id)? {
                list.push((enumerator.name()?, enumerator.value));
            }
            Ok((*id, Lookup::Found(list)))
        });
        self.agree(name, lists, || Absent::Enum { name: name.to_owned() }, PartialEq::eq)
    }

    /// The value of an enumerator of a named enum.
    pub fn enum_value(&self, name: &str, enumerator: &str) -> Result<Lookup<i64>, BtfError> {
        let ids = self.ids(Want::Enum, name)?;
        let values = ids.iter().map(|id| {
            Ok((
                *id,
                match self.enumerator_of(*id, enumerator)? {
                    Some(value) => Lookup::Found(value),
                    None => Lookup::Absent(Absent::Enumerator {
                        parent: Some(name.to_owned()),
                        name: enumerator.to_owned(),
                    }),
                },
            ))
        });
        self.agree(name, values, || Absent::Enum { name: name.to_owned() }, PartialEq::eq)
    }

    /// The value of an enumerator of whichever enum has it.
    pub fn enumerator(&self, name: &str) -> Result<Lookup<i64>, BtfError> {
        let ids = self.ids(Want::Enumerator, name)?;
        let values = ids.iter().filter_map(|id| match self.enumerator_of(*id, name) {
            Ok(Some(value)) => Some(Ok((*id, Lookup::Found(value)))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        });
        let absent = || Absent::Enumerator { parent: None, name: name.to_owned() };
        self.agree(name, values, absent, PartialEq::eq)
    }

    pub(crate) fn enumerator_of(&self, id: TypeId, name: &str) -> Result<Option<i64>, BtfError> {
        for enumerator in self.enumerators(id)? {
            if enumerator.is_named(name)? {
                return Ok(Some(enumerator.value));
            }
        }
        Ok(None)
    }

    fn enumerators(&self, id: TypeId) -> Result<impl Iterator<Item = Enumerator<'b>> + use<'b>, BtfError> {
        match self.types.get(id)?.kind {
            Kind::Enum(enumeration) => Ok(enumeration.values()),
            _ => Err(BtfError::WrongKind { id, expected: "an enum" }),
        }
    }

    /// The one answer that all types of a name give. A kernel may describe a type twice, once for each of two
    /// sources that see it differently; as long as the answers are the same, it does not matter which is
    /// meant.
    pub(crate) fn agree<T>(
        &self,
        name: &str,
        answers: impl Iterator<Item = Result<(TypeId, Lookup<T>), BtfError>>,
        none: impl FnOnce() -> Absent,
        same: impl Fn(&T, &T) -> bool,
    ) -> Result<Lookup<T>, BtfError> {
        let mut first: Option<(TypeId, Lookup<T>)> = None;
        for answer in answers {
            let (id, answer) = answer.map_err(|error| self.btf.locate(error))?;
            match &first {
                None => first = Some((id, answer)),
                Some((first_id, first)) => {
                    let agrees = match (first, &answer) {
                        (Lookup::Found(a), Lookup::Found(b)) => same(a, b),
                        (Lookup::Absent(a), Lookup::Absent(b)) => a == b,
                        _ => false,
                    };
                    if !agrees {
                        let error = BtfError::Ambiguous { name: name.to_owned(), ids: [*first_id, id] };
                        return Err(self.btf.locate(error));
                    }
                }
            }
        }
        Ok(first.map_or_else(|| Lookup::Absent(none()), |(_, answer)| answer))
    }
}
