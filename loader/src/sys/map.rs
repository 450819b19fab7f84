//! Commands on maps. The kernel takes the lengths of key and value from the map, not from the call.
//! So all commands go through [`RawMap`], which knows these lengths and checks every buffer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::info::MapInfo;
use super::name::{OBJ_NAME_LEN, object_name};
use super::ptr::{UserFd, UserPtr};
use super::{Command, bpf, layout};
use crate::errno::Errno;

/// The parameters of `BPF_MAP_CREATE`.
pub(crate) struct MapSpec<'a> {
    /// `enum bpf_map_type`
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) name: &'a str,
    /// A BTF object, the id of the key's type, and the id of the value's type.
    pub(crate) btf: Option<(BorrowedFd<'a>, u32, u32)>,
    /// The template for the inner maps of a map of maps.
    pub(crate) inner: Option<BorrowedFd<'a>>,
    /// The number of possible CPUs if the map has a value for each, else `None`.
    pub(crate) per_cpu: Option<usize>,
}

/// `BPF_MAP_CREATE`
#[repr(C)]
struct MapCreate<'a> {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: UserFd<'a>,
    numa_node: u32,
    map_name: [u8; OBJ_NAME_LEN],
    map_ifindex: u32,
    btf_fd: UserFd<'a>,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
    /// `btf_vmlinux_value_type_id`; it pads the struct to a multiple of eight bytes.
    unused: u32,
}
layout!(MapCreate<'_>, size 64, map_name at 28, btf_fd at 48, btf_value_type_id at 56);

// SAFETY: the layout is checked above, and it has no address.
unsafe impl Command for MapCreate<'_> {
    const CMD: u32 = 0;
    type Out = OwnedFd;
}

/// `BPF_MAP_LOOKUP_ELEM`, `_UPDATE_ELEM`, `_DELETE_ELEM`, `_GET_NEXT_KEY`
#[repr(C)]
struct Elem<'a, const CMD: u32> {
    map_fd: UserFd<'a>,
    pad: u32,
    key: UserPtr<'a>,
    /// The value, or the next key.
    value: UserPtr<'a>,
    flags: u64,
}
layout!(Elem<'_, 0>, size 32, key at 8, value at 16, flags at 24);

const LOOKUP: u32 = 1;
const UPDATE: u32 = 2;
const DELETE: u32 = 3;
const NEXT_KEY: u32 = 4;

// SAFETY: the layout is checked above. Only `RawMap` builds it, from buffers whose lengths it has
// checked.
unsafe impl<const CMD: u32> Command for Elem<'_, CMD> {
    const CMD: u32 = CMD;
    type Out = ();
}

/// `BPF_MAP_LOOKUP_BATCH`, `BPF_MAP_LOOKUP_AND_DELETE_BATCH` (kernel 5.6)
#[repr(C)]
struct BatchAttr<'a, const CMD: u32> {
    in_batch: UserPtr<'a>,
    out_batch: UserPtr<'a>,
    keys: UserPtr<'a>,
    values: UserPtr<'a>,
    count: u32,
    map_fd: UserFd<'a>,
    elem_flags: u64,
    flags: u64,
}
layout!(BatchAttr<'_, 0>, size 56, keys at 16, count at 32, map_fd at 36, flags at 48);

const LOOKUP_BATCH: u32 = 24;
const LOOKUP_AND_DELETE_BATCH: u32 = 25;

// SAFETY: the layout is checked above. Only `RawMap::batch_of` builds it, with a `count` for which
// all buffers are large enough.
unsafe impl<const CMD: u32> Command for BatchAttr<'_, CMD> {
    const CMD: u32 = CMD;
    type Out = ();
}

/// The position after a batch, for the next one. The kernel writes 4 bytes (hash) or a key (other
/// kinds).
pub(crate) struct Cursor {
    token: Vec<u8>,
    next: Vec<u8>,
    started: bool,
}

/// The result of one batch.
pub(crate) struct Batch {
    /// The number of entries in the buffers.
    pub(crate) count: usize,
    /// Whether it was the last one.
    pub(crate) last: bool,
}

/// A map's descriptor and the sizes of its keys and values.
#[derive(Debug)]
pub(crate) struct RawMap {
    fd: OwnedFd,
    key_len: usize,
    value_len: usize,
}

impl RawMap {
    /// Creates a map.
    pub(crate) fn create(spec: &MapSpec<'_>) -> Result<Self, Errno> {
        let len = |size: u32| usize::try_from(size).map_err(|_| Errno::INVAL);
        let value_size = len(spec.value_size)?;
        let value_len = match spec.per_cpu {
            // The kernel rounds each CPU's value up to eight bytes.
            Some(cpus) => value_size.next_multiple_of(8).checked_mul(cpus).ok_or(Errno::BIG)?,
            None => value_size,
        };
        let key_len = len(spec.key_size)?;
        let (btf_fd, key_id, value_id) =
            spec.btf.map_or((UserFd::NONE, 0, 0), |(fd, key, value)| (UserFd::new(fd), key, value));
        let fd = bpf(&mut MapCreate {
            map_type: spec.map_type,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: spec.max_entries,
            map_flags: spec.flags,
            inner_map_fd: spec.inner.map_or(UserFd::NONE, UserFd::new),
            numa_node: 0,
            map_name: object_name(spec.name),
            map_ifindex: 0,
            btf_fd,
            btf_key_type_id: key_id,
            btf_value_type_id: value_id,
            unused: 0,
        })?;
        Ok(Self { fd, key_len, value_len })
    }

    /// A map that another program has created, with one value for each key. `info` has its sizes.
    pub(crate) fn opened(fd: OwnedFd, info: &MapInfo) -> Result<Self, Errno> {
        let len = |size: u32| usize::try_from(size).map_err(|_| Errno::INVAL);
        Ok(Self { fd, key_len: len(info.key_size)?, value_len: len(info.value_size)? })
    }

    /// The size of a key in bytes.
    pub(crate) fn key_len(&self) -> usize {
        self.key_len
    }

    /// The size in bytes of a value as a lookup returns it: in a per-CPU map the values of all
    /// CPUs.
    pub(crate) fn value_len(&self) -> usize {
        self.value_len
    }

    fn elem<'a, const CMD: u32>(
        &'a self,
        key: &'a [u8],
        value: UserPtr<'a>,
        flags: u64,
    ) -> Result<Elem<'a, CMD>, Errno> {
        if key.len() != self.key_len {
            return Err(Errno::INVAL);
        }
        let map_fd = UserFd::new(self.fd.as_fd());
        Ok(Elem { map_fd, pad: 0, key: UserPtr::read(key), value, flags })
    }

    /// Copies the value of `key` to `value`. ENOENT if the map has no such key, EINVAL if a buffer
    /// has the wrong length.
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<(), Errno> {
        if value.len() != self.value_len {
            return Err(Errno::INVAL);
        }
        bpf(&mut self.elem::<LOOKUP>(key, UserPtr::write(value), 0)?)
    }

    /// Sets the value of `key`. `flags` is `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    pub(crate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
        if value.len() != self.value_len {
            return Err(Errno::INVAL);
        }
        bpf(&mut self.elem::<UPDATE>(key, UserPtr::read(value), flags)?)
    }

    /// Removes `key`. ENOENT if the map has no such key.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), Errno> {
        bpf(&mut self.elem::<DELETE>(key, UserPtr::NULL, 0)?)
    }

    /// Copies the key after `key` to `next`, or the first one if `key` is not given or not in the
    /// map. ENOENT at the end.
    pub(crate) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<(), Errno> {
        if next.len() != self.key_len {
            return Err(Errno::INVAL);
        }
        let value = UserPtr::write(next);
        let mut attr = match key {
            Some(key) => self.elem::<NEXT_KEY>(key, value, 0)?,
            None => {
                Elem { map_fd: UserFd::new(self.fd.as_fd()), pad: 0, key: UserPtr::NULL, value, flags: 0 }
            }
        };
        bpf(&mut attr)
    }

    /// The size in bytes of a cursor's buffers, enough for every kind of map.
    fn token_len(&self) -> usize {
        self.key_len.max(size_of::<u64>())
    }

    /// A cursor before the first entry.
    pub(crate) fn cursor(&self) -> Cursor {
        let len = self.token_len();
        Cursor { token: vec![0; len], next: vec![0; len], started: false }
    }

    /// Copies entries from the cursor on, as many as fit in both buffers. With `delete` they are
    /// also removed from the map.
    ///
    /// ENOSPC if one bucket of the hash table does not fit.
    pub(crate) fn batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
        delete: bool,
    ) -> Result<Batch, Errno> {
        if delete {
            self.batch_of::<LOOKUP_AND_DELETE_BATCH>(cursor, keys, values)
        } else {
            self.batch_of::<LOOKUP_BATCH>(cursor, keys, values)
        }
    }

    fn batch_of<const CMD: u32>(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Result<Batch, Errno> {
        let token_len = self.token_len();
        let fits = |len: usize, each: usize| len.checked_div(each).unwrap_or(0);
        let count = fits(keys.len(), self.key_len).min(fits(values.len(), self.value_len));
        if cursor.token.len() < token_len || cursor.next.len() < token_len {
            return Err(Errno::INVAL);
        }
        let mut attr = BatchAttr::<CMD> {
            in_batch: if cursor.started { UserPtr::read(&cursor.token) } else { UserPtr::NULL },
            out_batch: UserPtr::write(&mut cursor.next),
            keys: UserPtr::write(keys),
            values: UserPtr::write(values),
            count: u32::try_from(count).map_err(|_| Errno::BIG)?,
            map_fd: UserFd::new(self.fd.as_fd()),
            elem_flags: 0,
            flags: 0,
        };
        let last = match bpf(&mut attr) {
            Ok(()) => false,
            Err(Errno::NOENT) => true,
            Err(errno) => return Err(errno),
        };
        let count = usize::try_from(attr.count).map_err(|_| Errno::BIG)?.min(count);
        std::mem::swap(&mut cursor.token, &mut cursor.next);
        cursor.started = true;
        Ok(Batch { count, last })
    }
}

impl AsFd for RawMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
