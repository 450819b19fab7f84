//! Maps of a loaded object. Keys and values are plain bytes; a whole map is read in batches.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use bpfasm::object::{MapDef, MapKind};

use crate::errno::Errno;
use crate::error::LoadError;
use crate::hint::Hint;
use crate::pinned;
use crate::sys::bpf;
use crate::sys::info::{MapInfo, ObjInfo};
use crate::sys::map::{MapSpec, RawMap};
use crate::sys::open::MapById;

/// A map operation that failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{action} in map `{map}`: {errno}")]
#[non_exhaustive]
pub struct MapError {
    /// The map's name.
    pub map: String,
    /// The operation, as a verb: `look up`, `update`, ….
    pub action: &'static str,
    /// The kernel's answer; EINVAL also if the key or the value has the wrong length.
    pub errno: Errno,
}

/// Which entries an update may touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// Create or overwrite (`BPF_ANY`).
    Any,
    /// Create only (`BPF_NOEXIST`).
    New,
    /// Overwrite only (`BPF_EXIST`).
    Existing,
}

/// A map of a loaded object; closed on drop. A map pinned by another program can only be read.
#[derive(Debug)]
pub struct Map {
    raw: RawMap,
    def: MapDef,
    /// Number of values per key: the number of possible CPUs in a per-CPU map, else 1.
    values: usize,
}

/// The types of a map's key and value in the object's BTF.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapTypes<'a> {
    pub(crate) btf: BorrowedFd<'a>,
    pub(crate) key: u32,
    pub(crate) value: u32,
}

impl Map {
    /// Creates the map. `inner` is the template for the inner maps of an array of maps, `cpus` the
    /// number of possible CPUs.
    pub(crate) fn create(
        def: &MapDef,
        types: Option<MapTypes<'_>>,
        inner: Option<&Self>,
        cpus: usize,
    ) -> Result<Self, Errno> {
        let per_cpu = matches!(def.kind, MapKind::PercpuArray | MapKind::PercpuHash);
        let events = def.kind == MapKind::PerfEventArray;
        let max_entries = match def.max_entries {
            0 if events => u32::try_from(cpus).map_err(|_| Errno::BIG)?,
            entries => entries,
        };
        let raw = RawMap::create(&MapSpec {
            map_type: def.kind.number(),
            key_size: if events { 4 } else { def.key_size },
            value_size: if events { 4 } else { def.value_size },
            max_entries,
            flags: def.flags,
            name: &def.name,
            btf: types.map(|types| (types.btf, types.key, types.value)),
            inner: inner.map(AsFd::as_fd),
            per_cpu: per_cpu.then_some(cpus),
        })?;
        let def = MapDef { max_entries, ..def.clone() };
        Ok(Self { raw, def, values: if per_cpu { cpus } else { 1 } })
    }

    /// Opens the map that another program has pinned at `path`. The kernel refuses updates through
    /// it.
    pub(crate) fn open(def: &MapDef, path: &Path) -> Result<Self, LoadError> {
        let (fd, info) = pinned::open(path, def.key_size, &[def.value_size])?;
        let found = if info.map_type == MapKind::LruHash.number() { MapKind::LruHash } else { MapKind::Hash };
        let def = MapDef { kind: found, max_entries: info.max_entries, flags: info.map_flags, ..def.clone() };
        let raw = RawMap::opened(fd, &info).map_err(|errno| create_error(&def, errno, false))?;
        Ok(Self { raw, def, values: 1 })
    }

    /// Opens the hash map with this id (`bpftool map list`) read-only, to inspect a map of another
    /// process.
    ///
    /// # Errors
    /// EINVAL for a map of another kind, else the kernel's answer: ENOENT if no map has this id.
    #[doc(alias = "BPF_MAP_GET_FD_BY_ID")]
    pub fn of_id(id: u32) -> Result<Self, Errno> {
        let fd = bpf(&mut MapById::read_only(id))?;
        let mut info = MapInfo::default();
        bpf(&mut ObjInfo::map(fd.as_fd(), &mut info))?;
        if info.map_type != MapKind::Hash.number() {
            return Err(Errno::INVAL);
        }
        let def =
            MapDef::new(format!("map {id}"), MapKind::Hash, info.key_size, info.value_size, info.max_entries);
        Ok(Self { raw: RawMap::opened(fd, &info)?, def, values: 1 })
    }

    /// Bytes of kernel memory of this map (`memlock` in `/proc/self/fdinfo`): since 6.4 what is
    /// allocated, since 5.11 the size of all entries, before that what counts against the limit of
    /// locked memory. `None` without `/proc`, and if the kernel reports 0, as for ring buffers.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let path = format!("/proc/self/fdinfo/{}", self.raw.as_fd().as_raw_fd());
        let text = std::fs::read_to_string(path).ok()?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
        bytes.filter(|bytes| *bytes != 0)
    }

    /// The map's name in the object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.def.name
    }

    /// The map's kind. For a pinned map: hash or LRU hash, whichever was found.
    #[must_use]
    pub fn kind(&self) -> MapKind {
        self.def.kind
    }

    /// The map's capacity in entries; in bytes for a ring buffer.
    #[must_use]
    pub fn max_entries(&self) -> u32 {
        self.def.max_entries
    }

    /// Bytes of a value as [`Map::lookup`] returns it. A per-CPU map has a value for every possible
    /// CPU, each rounded up to a multiple of eight.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.raw.value_len()
    }

    fn failed(&self, action: &'static str) -> impl Fn(Errno) -> MapError {
        move |errno| MapError { map: self.name().to_owned(), action, errno }
    }

    /// The value of `key`, or `None` if the map has no such key.
    #[doc(alias = "BPF_MAP_LOOKUP_ELEM")]
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        let mut value = vec![0; self.value_len()];
        Ok(self.lookup_into(key, &mut value)?.then_some(value))
    }

    /// Copies the value of `key` to `value`, which must be [`Map::value_len`] bytes long. False if
    /// the map has no such key.
    pub fn lookup_into(&self, key: &[u8], value: &mut [u8]) -> Result<bool, MapError> {
        match self.raw.lookup(key, value) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("look up")(errno)),
        }
    }

    /// The value of `key` on each possible CPU, or `None` if the map has no such key.
    pub fn lookup_percpu(&self, key: &[u8]) -> Result<Option<PerCpu>, MapError> {
        Ok(self.lookup(key)?.map(|bytes| PerCpu { bytes, stride: self.stride() }))
    }

    /// The value of `key` as an array of 64-bit counters, each summed over all CPUs. All zero if
    /// the map has no such key.
    pub fn sum(&self, key: &[u8]) -> Result<Vec<u64>, MapError> {
        let words = self.stride() / size_of::<u64>();
        let mut sums = vec![0_u64; words];
        if let Some(values) = self.lookup_percpu(key)? {
            for value in values.iter() {
                for (sum, word) in sums.iter_mut().zip(value.as_chunks().0) {
                    *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
                }
            }
        }
        Ok(sums)
    }

    /// Bytes of one CPU's value, including padding.
    fn stride(&self) -> usize {
        self.value_len().checked_div(self.values).unwrap_or(0)
    }

    /// Sets the value of `key`. False if `which` does not allow it: the key exists already, or does
    /// not exist.
    #[doc(alias = "BPF_MAP_UPDATE_ELEM")]
    pub fn update(&self, key: &[u8], value: &[u8], which: Update) -> Result<bool, MapError> {
        let flags = match which {
            Update::Any => 0,
            Update::New => 1,
            Update::Existing => 2,
        };
        match (self.raw.update(key, value, flags), which) {
            (Ok(()), _) => Ok(true),
            (Err(Errno::EXIST), Update::New) | (Err(Errno::NOENT), Update::Existing) => Ok(false),
            (Err(errno), _) => Err(self.failed("update")(errno)),
        }
    }

    /// Removes `key` and its value. False if the map has no such key.
    #[doc(alias = "BPF_MAP_DELETE_ELEM")]
    pub fn delete(&self, key: &[u8]) -> Result<bool, MapError> {
        match self.raw.delete(key) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("delete")(errno)),
        }
    }

    /// The key after `key`, the first key for `None`, and `None` at the end. If `key` has been
    /// deleted meanwhile, the kernel starts again with the first key.
    #[doc(alias = "BPF_MAP_GET_NEXT_KEY")]
    pub fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>, MapError> {
        let mut next = vec![0; self.raw.key_len()];
        match self.raw.next_key(key, &mut next) {
            Ok(()) => Ok(Some(next)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("list keys")(errno)),
        }
    }

    /// Reads all entries, in batches if the kernel has them (5.6), else key by key.
    pub fn entries(&self) -> Result<Entries, MapError> {
        self.read_all(false)
    }

    /// Reads all entries and removes them from the map.
    ///
    /// Before kernel 5.6 reading and deleting are two steps. What a program adds to an entry
    /// between them is lost.
    pub fn take_entries(&self) -> Result<Entries, MapError> {
        self.read_all(true)
    }

    fn read_all(&self, take: bool) -> Result<Entries, MapError> {
        match self.read_batches(take).map_err(self.failed("read"))? {
            Some(entries) => Ok(entries),
            None => self.read_each(take),
        }
    }

    fn no_entries(&self) -> Entries {
        Entries {
            keys: Vec::new(),
            values: Vec::new(),
            key_len: self.raw.key_len(),
            value_len: self.value_len(),
        }
    }

    /// `None` if the kernel has no batch operations, or none for this kind of map.
    fn read_batches(&self, take: bool) -> Result<Option<Entries>, Errno> {
        /// Entries per batch at first. The buffers grow if one hash bucket has more entries.
        const FIRST_BATCH: usize = 256;
        let (key_len, value_len) = (self.raw.key_len(), self.value_len());
        let mut entries = self.no_entries();
        let mut count = FIRST_BATCH;
        let mut keys = vec![0; count * key_len];
        let mut values = vec![0; count * value_len];
        let mut cursor = self.raw.cursor();
        loop {
            match self.raw.batch(&mut cursor, &mut keys, &mut values, take) {
                Ok(batch) => {
                    entries.keys.extend_from_slice(keys.get(..batch.count * key_len).unwrap_or_default());
                    entries
                        .values
                        .extend_from_slice(values.get(..batch.count * value_len).unwrap_or_default());
                    if batch.last {
                        return Ok(Some(entries));
                    }
                }
                Err(Errno::NOSPC) if count <= usize::try_from(self.max_entries()).unwrap_or(usize::MAX) => {
                    count *= 2;
                    keys.resize(count * key_len, 0);
                    values.resize(count * value_len, 0);
                }
                // Only before the first batch: entries taken by an earlier one are gone from the
                // map.
                Err(Errno::INVAL | Errno::NOTSUPP) if entries.is_empty() => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }

    fn read_each(&self, take: bool) -> Result<Entries, MapError> {
        let mut entries = self.no_entries();
        let mut value = vec![0; self.value_len()];
        let mut key = self.next_key(None)?;
        // If the current key is deleted meanwhile, the kernel starts again with the first key. The
        // bound ends the loop even if this happens again and again.
        let mut left = u64::from(self.max_entries()).saturating_mul(2);
        while let Some(current) = key {
            let next = self.next_key(Some(&current))?;
            if self.lookup_into(&current, &mut value)? {
                entries.keys.extend_from_slice(&current);
                entries.values.extend_from_slice(&value);
                if take {
                    self.delete(&current)?;
                }
            }
            left = left.saturating_sub(1);
            key = if left == 0 { None } else { next };
        }
        Ok(entries)
    }

    /// Puts `inner` into a slot of this array of maps and returns when no program uses the replaced
    /// map any more.
    ///
    /// `BPF_MAP_UPDATE_ELEM` on maps of maps waits for an RCU grace period, some milliseconds to
    /// some tens of them (`maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`, since 4.20). So
    /// programs can count in one of two maps while the caller reads the other, and no increment is
    /// lost. Kernels before 4.20 do not wait.
    pub fn set_inner(&self, slot: u32, inner: &Self) -> Result<(), MapError> {
        self.set_fd(slot, inner.as_fd()).map_err(self.failed("replace a map"))
    }

    /// Puts a map into a slot of an array of maps, or a CPU's perf event into a slot of a perf
    /// event array. The slot keeps it alive until it is overwritten or this map is closed.
    pub(crate) fn set_fd(&self, slot: u32, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        self.raw.update(&slot.to_ne_bytes(), &fd.as_raw_fd().to_ne_bytes(), 0)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

/// The values of one key in a per-CPU map, one for each possible CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PerCpu {
    bytes: Vec<u8>,
    stride: usize,
}

impl PerCpu {
    /// Each CPU's value, in the order of CPU numbers, padded by the kernel to a multiple of eight
    /// bytes.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.stride.max(1))
    }
}

/// Entries read from a map, in no particular order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entries {
    keys: Vec<u8>,
    values: Vec<u8>,
    key_len: usize,
    value_len: usize,
}

impl Entries {
    /// Each entry's key and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.chunks_exact(self.key_len.max(1)).zip(self.values.chunks_exact(self.value_len.max(1)))
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len().checked_div(self.key_len).unwrap_or(0)
    }

    /// Whether the map had no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The error for a map that could not be created. `memlock_stuck`: maps are charged to a limit that
/// the process could not raise.
pub(crate) fn create_error(def: &MapDef, errno: Errno, memlock_stuck: bool) -> LoadError {
    let hint = match Hint::for_errno(errno) {
        Some(Hint::Forbidden) if memlock_stuck => Some(Hint::Memlock),
        other => other,
    };
    LoadError::Map { map: def.name.to_string(), errno, hint }
}
