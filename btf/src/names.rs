//! The wanted names, and the types found to have them.

use crate::{
    TypeId, Want, Wanted,
    endian::{Endian, Word},
    raw::{ENUM_WORDS, ENUM64_WORDS, Record, kind},
    strings::Strings,
    wanted::{Filter, Table},
};

/// One table for each [`Want`].
#[derive(Debug)]
pub(crate) struct Names {
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
    pub(crate) fn new(wanted: &Wanted) -> Self {
        let types = wanted.table(Want::Type);
        let enums = wanted.table(Want::Enum);
        let enumerators = wanted.table(Want::Enumerator);
        let tracepoints = wanted.table(Want::Tracepoint);
        let funcs = wanted.table(Want::Func);
        let filter = Filter::new([&types, &enums, &enumerators, &tracepoints, &funcs]);
        let wants_enumerators = !enumerators.is_empty();
        Self { types, enums, enumerators, tracepoints, funcs, filter, wants_enumerators }
    }

    pub(crate) fn table(&self, want: Want) -> &Table {
        match want {
            Want::Type => &self.types,
            Want::Enum => &self.enums,
            Want::Enumerator => &self.enumerators,
            Want::Tracepoint => &self.tracepoints,
            Want::Func => &self.funcs,
        }
    }
}

impl Names {
    /// Whether the record may have a wanted name. Asked of every type there is: nearly all leave at the filter, which is why
    /// it comes before the question which names matter for this kind.
    #[inline(always)]
    pub(crate) fn may_want(&self, strings: Strings<'_>, record: &Record<'_>) -> bool {
        self.filter.passes(strings.tail(record.head.name_off).unwrap_or_default())
            || self.wants_enumerators && matches!(record.head.kind(), kind::ENUM | kind::ENUM64)
    }

    /// Notes the record's name, or names, if wanted.
    pub(crate) fn note(&mut self, strings: Strings<'_>, endian: Endian, id: TypeId, record: &Record<'_>) {
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
