//! What one pass over the types finds, and any type by its number.

use crate::{
    Absent, Btf, BtfError, Lookup, TypeId, Want, Wanted,
    raw::{ENUM_WORDS, ENUM64_WORDS, Endian, Record, Word, kind},
    resolve::Search,
    strings::Strings,
    types::{Enumerator, Kind, Type},
    walk::{Mark, Recent, Walk},
    wanted::{Filter, Table},
};

/// The wanted names of one [`Btf`], found, and sparse marks to reach every other type by its number.
#[derive(Debug)]
pub struct Index<'b> {
    pub(crate) btf: &'b Btf,
    pub(crate) types: Types<'b>,
    names: Names,
}

/// One table for each [`Want`].
#[derive(Debug)]
struct Names {
    types: Table,
    enums: Table,
    enumerators: Table,
    tracepoints: Table,
    funcs: Table,
    /// Of all of these.
    filter: Filter,
    wants_enumerators: bool,
}

impl Names {
    fn new(wanted: &Wanted) -> Self {
        let types = wanted.table(Want::Type);
        let enums = wanted.table(Want::Enum);
        let enumerators = wanted.table(Want::Enumerator);
        let tracepoints = wanted.table(Want::Tracepoint);
        let funcs = wanted.table(Want::Func);
        let filter = Filter::new([&types, &enums, &enumerators, &tracepoints, &funcs]);
        let wants_enumerators = !enumerators.is_empty();
        Self { types, enums, enumerators, tracepoints, funcs, filter, wants_enumerators }
    }

    fn table(&self, want: Want) -> &Table {
        match want {
            Want::Type => &self.types,
            Want::Enum => &self.enums,
            Want::Enumerator => &self.enumerators,
            Want::Tracepoint => &self.tracepoints,
            Want::Func => &self.funcs,
        }
    }
}

impl<'b> Index<'b> {
    pub(crate) fn build(btf: &'b Btf, wanted: &Wanted) -> Result<Self, BtfError> {
        let endian = btf.endian();
        let (first, second) = match btf.base() {
            Some(base) => (&**base, Some(btf)),
            None => (btf, None),
        };
        let strings = Strings::new(first.strings()?, second.map_or(Ok(&[][..]), Btf::strings)?);
        let mut names = Names::new(wanted);
        let base = Layer::pass(first.words()?, 1, endian, strings, &mut names)
            .map_err(|error| first.locate(error))?;
        let split = match second {
            Some(split) => Some(Layer::pass(split.words()?, base.end, endian, strings, &mut names)?),
            None => None,
        };
        Ok(Self { btf, types: Types { base, split, strings, endian }, names })
    }

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

    pub(crate) fn search(&self) -> Search<'_, 'b> {
        Search::new(&self.types)
    }
}

impl Names {
    /// Whether the record may have a wanted name. Asked of every type there is: nearly all leave at the filter, which is why
    /// it comes before the question which names matter for this kind.
    #[inline(always)]
    fn may_want(&self, strings: Strings<'_>, record: &Record<'_>) -> bool {
        self.filter.passes(strings.tail(record.head.name_off).unwrap_or_default())
            || self.wants_enumerators && matches!(record.head.kind(), kind::ENUM | kind::ENUM64)
    }

    /// Notes the record's name, or names, if wanted.
    fn note(&mut self, strings: Strings<'_>, endian: Endian, id: TypeId, record: &Record<'_>) {
        let kind = record.head.kind();
        self.note_name(kind, strings.tail(record.head.name_off).unwrap_or_default(), id);
        if self.wants_enumerators && matches!(kind, kind::ENUM | kind::ENUM64) {
            let stride = if kind == kind::ENUM { ENUM_WORDS } else { ENUM64_WORDS };
            self.note_enumerators(strings, endian, id, record.tail.iter().step_by(stride));
        }
    }

    fn note_name(&mut self, kind: u32, tail: &[u8], id: TypeId) {
        match kind {
            kind::STRUCT | kind::UNION | kind::FWD | kind::INT | kind::FLOAT => self.types.note(tail, id),
            kind::TYPEDEF => {
                self.types.note(tail, id);
                self.tracepoints.note(tail, id);
            }
            kind::ENUM | kind::ENUM64 => {
                self.types.note(tail, id);
                self.enums.note(tail, id);
            }
            kind::FUNC => self.funcs.note(tail, id),
            _ => {}
        }
    }

    fn note_enumerators<'w>(
        &mut self,
        strings: Strings<'_>,
        endian: Endian,
        id: TypeId,
        names: impl Iterator<Item = &'w Word>,
    ) {
        for name in names {
            let tail = strings.tail(endian.u32(*name)).unwrap_or_default();
            if self.filter.passes(tail) {
                self.enumerators.note(tail, id);
            }
        }
    }
}

/// All types: those of the base, or of BTF that needs none, and those split from it.
#[derive(Debug)]
pub(crate) struct Types<'b> {
    base: Layer<'b>,
    split: Option<Layer<'b>>,
    strings: Strings<'b>,
    endian: Endian,
}

impl<'b> Types<'b> {
    fn count(&self) -> u32 {
        self.split.as_ref().map_or(self.base.end, |split| split.end)
    }

    pub(crate) fn endian(&self) -> Endian {
        self.endian
    }

    pub(crate) fn get(&self, id: TypeId) -> Result<Type<'b>, BtfError> {
        if id == TypeId::VOID {
            return Ok(Type::VOID);
        }
        let layer = match &self.split {
            Some(split) if id.0 >= split.first => split,
            _ => &self.base,
        };
        let record = layer.get(id, self.endian)?;
        let record = record.ok_or(BtfError::NoSuchType { id, count: self.count() })?;
        Type::decode(id, record, self.strings, self.endian)
    }
}

/// The types of one type section.
#[derive(Debug)]
struct Layer<'b> {
    words: &'b [Word],
    first: u32,
    /// One past the last.
    end: u32,
    /// The way to each record: some records' numbers, counted from the first, and where they start.
    marks: Vec<Mark>,
    recent: Recent,
}

impl<'b> Layer<'b> {
    /// Goes over every record once, and notes the wanted names.
    fn pass(
        words: &'b [Word],
        first: u32,
        endian: Endian,
        strings: Strings<'_>,
        names: &mut Names,
    ) -> Result<Self, BtfError> {
        let wanted = |record: &Record<'_>| names.may_want(strings, record);
        let Walk { position, count, marks, found, .. } = Walk::over(words, endian, wanted);
        let id = |number| first.checked_add(number).map(TypeId).ok_or(BtfError::TooManyTypes);
        let end = id(count)?;
        if position < words.len() {
            return Err(Record::flaw(words, position, end, endian));
        }
        for mark in found {
            if let Some((record, _)) = Record::read(words, mark.position(), endian) {
                names.note(strings, endian, id(mark.number)?, &record);
            }
        }
        Ok(Self { words, first, end: end.0, marks, recent: Recent::default() })
    }

    fn get(&self, id: TypeId, endian: Endian) -> Result<Option<Record<'b>>, BtfError> {
        if id.0 < self.first || id.0 >= self.end {
            return Ok(None);
        }
        let wanted = id.0 - self.first;
        let mark = self.recent.get(wanted).or_else(|| {
            let before = self.marks.partition_point(|mark| mark.number <= wanted);
            self.marks.get(before.checked_sub(1)?).copied()
        });
        let Some(mark) = mark else { return Ok(None) };
        let read = |position| {
            let record = Record::read(self.words, position, endian);
            record.ok_or_else(|| Record::flaw(self.words, position, id, endian))
        };
        let mut position = mark.position();
        for _ in mark.number..wanted {
            (_, position) = read(position)?;
        }
        self.recent.put(Mark::new(wanted, position));
        read(position).map(|(record, _)| Some(record))
    }
}
