//! The maps of an object.
//!
//! A map is created when the first program that uses it is about to be loaded, so a map that only
//! an untried attach option names costs nothing. The inner maps of an array of maps are created
//! when everything is attached; only the first one is needed earlier, as the template of the array.

use std::os::fd::BorrowedFd;

use bpfasm::object::BPF_F_NO_PREALLOC;
use bpfasm::{MapDef, MapKind, Object, Program, Symbol, Text};

use super::report::Note;
use crate::debug::DebugInfo;
use crate::errno::Errno;
use crate::error::LoadError;
use crate::kernel;
use crate::map::{Map, MapTypes, create_error};

/// The maps of an object, created or not.
#[derive(Debug)]
pub(super) struct Maps {
    slots: Vec<Slot>,
    /// The number of possible CPUs.
    cpus: usize,
    /// Whether maps are charged to a limit that the process could not raise.
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
    /// Takes the definitions; creates no map. `grow` says that maps with [`MapDef::grows`] allocate
    /// their entries one by one.
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

    /// Creates the maps that a program uses and that do not exist yet. A name that is not a map of
    /// the object is ignored here; resolving it reports the error.
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

    /// Creates the inner maps of the arrays of maps that exist.
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

    /// Creates a map unless it exists, or opens it if it is pinned. An array of maps takes its
    /// shape from its first inner map, which is created before.
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

    /// The indices of a map's inner maps; empty unless it is an array of maps.
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

    /// The maps that exist and were created by this process.
    pub(super) fn created(&self) -> impl Iterator<Item = &Map> {
        self.slots.iter().filter(|slot| slot.def.pinned.is_none()).filter_map(|slot| slot.map.as_ref())
    }

    /// The map of that name.
    ///
    /// # Errors
    /// If the object does not define it, or if it does not exist yet.
    pub(super) fn get(&self, name: &str) -> Result<&Map, LoadError> {
        let slot = self.place(name).and_then(|at| self.slots.get(at));
        let slot = slot.ok_or_else(|| LoadError::NoMap { map: name.to_owned() })?;
        slot.map.as_ref().ok_or_else(|| LoadError::UnusedMap { map: name.to_owned() })
    }
}

impl Slot {
    /// Creates the map with the types of its entries, or without if the kernel refuses these.
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
