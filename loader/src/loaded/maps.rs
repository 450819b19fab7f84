//! The maps of an object. Each is created when the first program that uses it is about to be loaded, so that one which only
//! an untried attach option names costs nothing; what only takes turns in an array of maps, when everything is attached.

use std::os::fd::BorrowedFd;

use bpfasm::object::BPF_F_NO_PREALLOC;
use bpfasm::{MapDef, MapKind, Object, Program, Symbol, Text};

use super::Note;
use crate::debug::DebugInfo;
use crate::errno::Errno;
use crate::error::LoadError;
use crate::kernel;
use crate::map::{Map, MapTypes, create_error};

/// The maps of an object, those that are there and those that may come.
#[derive(Debug)]
pub(super) struct Maps {
    slots: Vec<Slot>,
    /// Possible CPUs.
    cpus: usize,
    /// Whether maps are charged to a limit that could not be lifted.
    memlock_stuck: bool,
}

#[derive(Debug)]
struct Slot {
    def: MapDef,
    /// Types of key and value in the object's BTF.
    types: Option<(u32, u32)>,
    map: Option<Map>,
}

impl Maps {
    /// Creates none yet. `grow` says that those that may ([`MapDef::grows`]) shall.
    pub(super) fn new(
        object: &Object,
        debug: Option<&DebugInfo>,
        memlock_stuck: bool,
        grow: bool,
    ) -> Result<Self, LoadError> {
        let slots = object.maps.iter().enumerate().map(|(at, def)| Slot {
            def: MapDef {
                flags: def.flags | if grow && def.grows { BPF_F_NO_PREALLOC } else { 0 },
                ..def.clone()
            },
            types: debug.and_then(|debug| debug.maps.get(at).copied().flatten()),
            map: None,
        });
        let cpus = kernel::possible_cpus().map_err(LoadError::Cpus)?;
        Ok(Self { slots: slots.collect(), cpus, memlock_stuck })
    }

    /// Creates what a program uses, as far as it is not there yet. Names of no map are left to who resolves them.
    pub(super) fn create_used(
        &mut self,
        program: &Program,
        btf: Option<BorrowedFd<'_>>,
        notes: &mut Vec<Note>,
    ) -> Result<(), LoadError> {
        for (_, symbol) in &program.symbols {
            if let Symbol::Map(name) = symbol
                && let Some(at) = self.place(name)
            {
                self.create(at, btf, notes)?;
            }
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.def.name == name)
    }

    /// Creates what may be put into arrays of maps that are there.
    pub(super) fn create_inner(
        &mut self,
        btf: Option<BorrowedFd<'_>>,
        notes: &mut Vec<Note>,
    ) -> Result<(), LoadError> {
        let mut places = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.map.is_some()) {
            places.extend(self.inner(&slot.def)?);
        }
        places.into_iter().try_for_each(|at| self.create(at, btf, notes))
    }

    /// Creates a map unless it is there, an array of maps after the first of those that may be put into it, whose shape it takes;
    /// or opens it where it is pinned.
    fn create(
        &mut self,
        at: usize,
        btf: Option<BorrowedFd<'_>>,
        notes: &mut Vec<Note>,
    ) -> Result<(), LoadError> {
        let first = match self.slots.get(at) {
            Some(Slot { map: None, def, .. }) => self.inner(def)?.first().copied(),
            _ => return Ok(()),
        };
        if let Some(first) = first {
            self.create(first, btf, notes)?;
        }
        let first = first.and_then(|at| self.slots.get(at)?.map.as_ref());
        let Some(slot) = self.slots.get(at) else { return Ok(()) };
        let map = match &slot.def.pinned {
            Some(path) => Map::open(&slot.def, path)?,
            None => slot
                .create(btf, first, self.cpus, notes)
                .map_err(|errno| create_error(&slot.def, errno, self.memlock_stuck))?,
        };
        if let Some(slot) = self.slots.get_mut(at) {
            slot.map = Some(map);
        }
        Ok(())
    }

    /// The places of the maps that are put into an array of maps; no other map has any.
    fn inner(&self, def: &MapDef) -> Result<Vec<usize>, LoadError> {
        let wrong = |inner: &str| LoadError::InnerMap { map: def.name.to_string(), inner: inner.to_owned() };
        let is_array = def.kind == MapKind::ArrayOfMaps;
        match def.inner.first() {
            Some(first) if !is_array => return Err(wrong(first)),
            None if is_array => return Err(wrong("")),
            _ => {}
        }
        let place = |name: &Text| {
            let fits = |slot: &Slot| slot.def.name == *name && slot.def.kind != MapKind::ArrayOfMaps;
            self.slots.iter().position(fits).ok_or_else(|| wrong(name))
        };
        def.inner.iter().map(place).collect()
    }

    /// Those that are there and that are ours.
    pub(super) fn created(&self) -> impl Iterator<Item = &Map> {
        self.slots.iter().filter(|slot| slot.def.pinned.is_none()).filter_map(|slot| slot.map.as_ref())
    }

    /// The map of that name, which has to be there already.
    pub(super) fn get(&self, name: &str) -> Result<&Map, LoadError> {
        let slot = self.place(name).and_then(|at| self.slots.get(at));
        let slot = slot.ok_or_else(|| LoadError::NoMap { map: name.to_owned() })?;
        slot.map.as_ref().ok_or_else(|| LoadError::UnusedMap { map: name.to_owned() })
    }
}

impl Slot {
    /// With the types of the entries where the kernel takes them.
    fn create(
        &self,
        btf: Option<BorrowedFd<'_>>,
        inner: Option<&Map>,
        cpus: usize,
        notes: &mut Vec<Note>,
    ) -> Result<Map, Errno> {
        let create = |types| Map::create(&self.def, types, inner, cpus);
        let Some((btf, (key, value))) = btf.zip(self.types) else { return create(None) };
        create(Some(MapTypes { btf, key, value })).or_else(|errno| {
            let map = create(None)?;
            notes.push(Note::MapTypes { map: self.def.name.to_string(), errno });
            Ok(map)
        })
    }
}
