//! Memory that a kernel writes while we read it.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{Mmap, MmapOptions, MmapRaw};

/// A mapping of a ring; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: MmapRaw,
    writable: bool,
}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset` on, shared with the kernel.
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        let raw = fd.as_raw_fd();
        let map = if writable { options.map_raw(raw)? } else { options.map_raw_read_only(raw)? };
        Ok(Self { map, writable })
    }

    /// All of it.
    pub(crate) fn region(&self) -> Region<'_> {
        Region {
            // A mapping is never at address 0; if it were, an empty region is the safe answer.
            base: NonNull::new(self.map.as_mut_ptr()).unwrap_or(NonNull::dangling()),
            len: if self.map.as_ptr().is_null() { 0 } else { self.map.len() },
            writable: self.writable,
            memory: PhantomData,
        }
    }
}

/// A view of memory that others may change at any time: no reference to its bytes exists, except to atomics.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    memory: PhantomData<&'a [AtomicU64]>,
}

impl<'a> Region<'a> {
    /// A view of memory of our own.
    #[cfg(any(test, fuzzing, feature = "simulation"))]
    pub(crate) fn of(words: &'a [AtomicU64]) -> Self {
        Self {
            base: NonNull::from(words).cast(),
            len: size_of_val(words),
            writable: true,
            memory: PhantomData,
        }
    }

    /// Bytes in view.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A part of it.
    pub(crate) fn part(self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset` is within the region, so the result is in the same mapping or one past its end.
        let base = unsafe { self.base.add(offset) };
        Some(Self { base, len, ..self })
    }

    fn place<T>(self, offset: usize) -> Option<NonNull<T>> {
        let place = self.part(offset, size_of::<T>())?.base.cast::<T>();
        place.is_aligned().then_some(place)
    }

    /// The 32-bit word at `offset`; to be read only.
    pub(crate) fn u32_at(self, offset: usize) -> Option<&'a AtomicU32> {
        // SAFETY: within the mapping, which outlives 'a, and aligned; whoever else touches it does so with whole-word accesses.
        self.place(offset).map(|place| unsafe { place.as_ref() })
    }

    /// The 64-bit word at `offset`; to be read only.
    pub(crate) fn u64_at(self, offset: usize) -> Option<&'a AtomicU64> {
        // SAFETY: as in `u32_at`.
        self.place(offset).map(|place| unsafe { place.as_ref() })
    }

    /// The 64-bit word at `offset`, if this memory may be written.
    pub(crate) fn u64_mut_at(self, offset: usize) -> Option<&'a AtomicU64> {
        if self.writable { self.u64_at(offset) } else { None }
    }

    /// The bytes from `offset` on.
    ///
    /// # Safety
    ///
    /// Nobody writes these bytes while the result is in use.
    pub(crate) unsafe fn bytes(self, offset: usize, len: usize) -> Option<&'a [u8]> {
        let part = self.part(offset, len)?;
        // SAFETY: within the mapping, which outlives 'a; the caller promises that nobody writes here.
        Some(unsafe { std::slice::from_raw_parts(part.base.as_ptr(), part.len) })
    }
}

/// Maps a file of the kernel's that never changes: its own BTF. Privately, for `btf_sysfs_vmlinux_mmap` refuses `MAP_SHARED`.
pub(crate) fn constant_file(file: &std::fs::File) -> io::Result<Mmap> {
    // SAFETY: /sys/kernel/btf/vmlinux is a read-only part of the kernel image; nobody can write or shorten it.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(4096)
}
