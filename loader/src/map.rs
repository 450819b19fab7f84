//! Maps: keys and values as bytes, per-CPU values apart, whole tables in batches.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use bpfasm::object::{MapDef, MapKind};

use crate::errno::Errno;
use crate::error::{Hint, LoadError};
use crate::pinned;
use crate::sys::bpf;
use crate::sys::bpf::{MapById, MapInfo, ObjInfo};
use crate::sys::map::{MapSpec, RawMap};

/// A map operation that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MapError {
    /// The map.
    pub map: String,
    /// What was asked: `look up`, `update`, ….
    pub action: &'static str,
    /// What the kernel said; EINVAL also where key or value has the wrong length.
    pub errno: Errno,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in map `{}`: {}", self.action, self.map, self.errno)
    }
}

impl std::error::Error for MapError {}

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

/// A map of a loaded object; closed on drop. One that somebody else has pinned can only be read.
#[derive(Debug)]
pub struct Map {
    raw: RawMap,
    def: MapDef,
    /// Values for each key: possible CPUs in a per-CPU map, else 1.
    values: usize,
}

/// The types of a map's key and value in a BTF object of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapTypes<'a> {
    pub(crate) btf: BorrowedFd<'a>,
    pub(crate) key: u32,
    pub(crate) value: u32,
}

impl Map {
    /// Creates the map. `inner` is a map like those that an array of maps shall hold, `cpus` the number of possible CPUs.
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

    /// Opens the map that somebody else has pinned at `path`. An update through it is refused.
    pub(crate) fn open(def: &MapDef, path: &Path) -> Result<Self, LoadError> {
        let (fd, info) = pinned::open(path, def.key_size, &[def.value_size])?;
        let found = if info.map_type == MapKind::LruHash.number() { MapKind::LruHash } else { MapKind::Hash };
        let def = MapDef { kind: found, max_entries: info.max_entries, flags: info.map_flags, ..def.clone() };
        let raw = RawMap::opened(fd, &info).map_err(|errno| create_error(&def, errno, false))?;
        Ok(Self { raw, def, values: 1 })
    }

    /// Opens the hash map of this number, whoever made it, for reading only. To see what another process keeps.
    ///
    /// # Errors
    /// EINVAL for a map of another kind; else what the kernel says: ENOENT when there is none.
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

    /// Bytes of memory that it takes as the kernel says (`memlock` in `/proc/self/fdinfo`): from 6.4 on what is allocated, from
    /// 5.11 on the size of its entries, before what counts against the limit of locked memory. `None` without `/proc`, and where the
    /// kernel does not know, as of a ring, which has no entries.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let path = format!("/proc/self/fdinfo/{}", self.raw.as_fd().as_raw_fd());
        let text = std::fs::read_to_string(path).ok()?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
        bytes.filter(|bytes| *bytes != 0)
    }

    /// Its name in the object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.def.name
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> MapKind {
        self.def.kind
    }

    /// Entries it has room for; bytes, for a ring buffer.
    #[must_use]
    pub fn max_entries(&self) -> u32 {
        self.def.max_entries
    }

    /// Bytes of a value as [`Map::lookup`] gives it: in a per-CPU map that of every possible CPU, each rounded up to eight.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.raw.value_len()
    }

    fn failed(&self, action: &'static str) -> impl Fn(Errno) -> MapError {
        move |errno| MapError { map: self.name().to_owned(), action, errno }
    }

    /// The value of a key, if the map has it.
    #[doc(alias = "BPF_MAP_LOOKUP_ELEM")]
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        let mut value = vec![0; self.value_len()];
        Ok(self.lookup_into(key, &mut value)?.then_some(value))
    }

    /// Fills `value`, which must be [`Map::value_len`] long; false when the map has no such key.
    pub fn lookup_into(&self, key: &[u8], value: &mut [u8]) -> Result<bool, MapError> {
        match self.raw.lookup(key, value) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("look up")(errno)),
        }
    }

    /// The values that the CPUs have for a key, if the map has it.
    pub fn lookup_percpu(&self, key: &[u8]) -> Result<Option<PerCpu>, MapError> {
        Ok(self.lookup(key)?.map(|bytes| PerCpu { bytes, each: self.each() }))
    }

    /// The values of a key as numbers, each summed over all CPUs: what per-CPU counters are read with.
    ///
    /// Zeroes when the map has no such key.
    pub fn sum(&self, key: &[u8]) -> Result<Vec<u64>, MapError> {
        let words = self.each() / size_of::<u64>();
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

    /// Bytes between the values of two CPUs.
    fn each(&self) -> usize {
        self.value_len().checked_div(self.values).unwrap_or(0)
    }

    /// Sets the value of a key; false when the [`Update`] does not allow it.
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

    /// Takes a key out; false when the map has no such key.
    #[doc(alias = "BPF_MAP_DELETE_ELEM")]
    pub fn delete(&self, key: &[u8]) -> Result<bool, MapError> {
        match self.raw.delete(key) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("delete")(errno)),
        }
    }

    /// The key after `key`, the first one for `None`, and `None` at the end. Starts again when `key` is gone.
    #[doc(alias = "BPF_MAP_GET_NEXT_KEY")]
    pub fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>, MapError> {
        let mut next = vec![0; self.raw.key_len()];
        match self.raw.next_key(key, &mut next) {
            Ok(()) => Ok(Some(next)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("list keys")(errno)),
        }
    }

    /// All entries.
    pub fn entries(&self) -> Result<Entries, MapError> {
        self.read_all(false)
    }

    /// All entries, which are then no longer in the map.
    ///
    /// Before kernel 5.6, what is added to an entry between reading and deleting it is lost.
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

    /// `None` when there are no batches in this kernel, or none for this kind of map.
    fn read_batches(&self, take: bool) -> Result<Option<Entries>, Errno> {
        /// Entries asked for at first; a hash bucket with more makes it grow.
        const FIRST: usize = 256;
        let (key_len, value_len) = (self.raw.key_len(), self.value_len());
        let mut entries = self.no_entries();
        let mut count = FIRST;
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
                // Only at first: what has been taken is no longer in the map.
                Err(Errno::INVAL | Errno::NOTSUPP) if entries.is_empty() => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }

    fn read_each(&self, take: bool) -> Result<Entries, MapError> {
        let mut entries = self.no_entries();
        let mut value = vec![0; self.value_len()];
        let mut key = self.next_key(None)?;
        // A key deleted under us makes the kernel start again; nobody has more keys than this.
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

    /// Puts another map into a slot of this array of maps, in place of the one that is there.
    ///
    /// When this returns, no program still uses the one that was replaced, and none will: `BPF_MAP_UPDATE_ELEM` waits for an
    /// RCU grace period on maps of maps (`maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`, since 4.20). So a tool that lets
    /// its programs count in one of two maps, and reads the one while they use the other, loses no increment. The price is the
    /// grace period: some milliseconds, up to tens of them. Kernels before 4.20 do not wait.
    pub fn set_inner(&self, slot: u32, inner: &Self) -> Result<(), MapError> {
        self.set_fd(slot, inner.as_fd()).map_err(self.failed("replace a map"))
    }

    /// Puts what a descriptor stands for into a slot: a map, or the perf event of a CPU that programs there may send to. The
    /// slot keeps it alive until it is overwritten or the map is closed.
    pub(crate) fn set_fd(&self, slot: u32, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        self.raw.update(&slot.to_ne_bytes(), &fd.as_raw_fd().to_ne_bytes(), 0)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

/// The values of one key, one for each possible CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PerCpu {
    bytes: Vec<u8>,
    each: usize,
}

impl PerCpu {
    /// Each CPU's value, with the kernel's padding to a multiple of eight behind it.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.each.max(1))
    }
}

/// Entries read from a map, in no order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entries {
    keys: Vec<u8>,
    values: Vec<u8>,
    key_len: usize,
    value_len: usize,
}

impl Entries {
    /// Key and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.chunks_exact(self.key_len.max(1)).zip(self.values.chunks_exact(self.value_len.max(1)))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len().checked_div(self.key_len).unwrap_or(0)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// What it means that a map was not created.
pub(crate) fn create_error(def: &MapDef, errno: Errno, memlock_stuck: bool) -> LoadError {
    let hint = match Hint::for_errno(errno) {
        Some(Hint::Forbidden) if memlock_stuck => Some(Hint::Memlock),
        other => other,
    };
    LoadError::Map { map: def.name.to_string(), errno, hint }
}
