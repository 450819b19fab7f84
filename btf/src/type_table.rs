//! Every type by its number.

use crate::{
    Btf, BtfError, TypeId,
    endian::{Endian, Word},
    names::Names,
    raw::Record,
    strings::Strings,
    types::Type,
    walk::{Mark, Recent, Walk},
};

/// All types: those of the base, or of BTF that needs none, and those split from it.
#[derive(Debug)]
pub(crate) struct TypeTable<'b> {
    base: Layer<'b>,
    split: Option<Layer<'b>>,
    strings: Strings<'b>,
    endian: Endian,
}

impl<'b> TypeTable<'b> {
    /// Goes over all types of the data and of its base once, and notes the wanted names.
    pub(crate) fn read(btf: &'b Btf, names: &mut Names) -> Result<Self, BtfError> {
        let endian = btf.endian();
        let (first, second) = match btf.base() {
            Some(base) => (&**base, Some(btf)),
            None => (btf, None),
        };
        let strings = Strings::new(first.strings()?, second.map_or(Ok(&[][..]), Btf::strings)?);
        let base =
            Layer::pass(first.words()?, 1, endian, strings, names).map_err(|error| first.locate(error))?;
        let split = match second {
            Some(split) => Some(Layer::pass(split.words()?, base.end, endian, strings, names)?),
            None => None,
        };
        Ok(Self { base, split, strings, endian })
    }

    pub(crate) fn count(&self) -> u32 {
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
