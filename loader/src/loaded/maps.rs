//! The maps of an object. Each is created when the first program that uses it is about to be loaded, so that one which only
//! an untried rung names costs nothing.

use std::os::fd::BorrowedFd;

use bpfasm::{MapDef, Object, Program, Symbol};

use super::Note;
use crate::debug::DebugInfo;
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
    /// Creates none yet.
    pub(super) fn new(
        object: &Object,
        debug: Option<&DebugInfo>,
        memlock_stuck: bool,
    ) -> Result<Self, LoadError> {
        let slots = object.maps.iter().enumerate().map(|(at, def)| Slot {
            def: def.clone(),
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
                && let Some(slot) = self.slots.iter_mut().find(|slot| slot.def.name == *name)
                && slot.map.is_none()
            {
                slot.map = Some(slot.create(btf, self.cpus, self.memlock_stuck, notes)?);
            }
        }
        Ok(())
    }

    /// The map of that name, which has to be there already.
    pub(super) fn get(&self, name: &str) -> Result<&Map, LoadError> {
        let slot = self.slots.iter().find(|slot| slot.def.name == name);
        let slot = slot.ok_or_else(|| LoadError::NoMap { map: name.to_owned() })?;
        slot.map.as_ref().ok_or_else(|| LoadError::UnusedMap { map: name.to_owned() })
    }
}

impl Slot {
    /// With the types of the entries where the kernel takes them.
    fn create(
        &self,
        btf: Option<BorrowedFd<'_>>,
        cpus: usize,
        memlock_stuck: bool,
        notes: &mut Vec<Note>,
    ) -> Result<Map, LoadError> {
        let failed = |errno| create_error(&self.def, errno, memlock_stuck);
        let Some((btf, (key, value))) = btf.zip(self.types) else {
            return Map::create(&self.def, None, cpus).map_err(failed);
        };
        Map::create(&self.def, Some(MapTypes { btf, key, value }), cpus).or_else(|errno| {
            let map = Map::create(&self.def, None, cpus).map_err(failed)?;
            notes.push(Note::MapTypes { map: self.def.name.to_string(), errno });
            Ok(map)
        })
    }
}
