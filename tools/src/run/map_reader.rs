//! Reads the map that a tool's reports are made of.

use loader::{Entries, Loaded};

use crate::failure::Failure;
use crate::tool::MapSource;

/// Reads a [`MapSource`].
pub(super) struct MapReader {
    source: MapSource,
    /// Which of two alternating maps programs fill.
    filled: usize,
}

impl MapReader {
    pub(super) fn new(source: MapSource) -> Self {
        Self { source, filled: 0 }
    }

    /// Reads the map. `last` says that the programs are detached.
    pub(super) fn read(&mut self, loaded: &Loaded, last: bool) -> Result<Option<Entries>, Failure> {
        let map = |name| loaded.map(name).map_err(Failure::failed);
        let entries = match self.source {
            MapSource::None => return Ok(None),
            MapSource::Read(name) => map(name)?.entries(),
            MapSource::Alternating { slot, maps } => {
                let [filled, other] = [maps[self.filled], maps[1 - self.filled]];
                if !last {
                    // The kernel returns from the update once no program uses the map that was
                    // replaced.
                    map(slot)?.set_inner(0, map(other)?).map_err(Failure::failed)?;
                    self.filled = 1 - self.filled;
                }
                map(filled)?.take_entries()
            }
        };
        entries.map(Some).map_err(Failure::failed)
    }
}
