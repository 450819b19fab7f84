//! Memory that the kernel writes while this process reads it.
//!
//! Ring buffers and BTF are mapped by `memmap2`. Perf buffers are mapped by `nix`: their first page
//! is not file content but a control block that both sides write.

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{Mmap, MmapOptions, MmapRaw};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::errno::Errno;

/// A mapping of a part of a ring buffer; unmapped on drop.
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

    /// The whole mapping.
    pub(crate) fn region(&self) -> Region<'_> {
        Region {
            // A mapping is never at address 0. If it were, an empty region would be safe.
            base: NonNull::new(self.map.as_mut_ptr()).unwrap_or(NonNull::dangling()),
            len: if self.map.as_ptr().is_null() { 0 } else { self.map.len() },
            writable: self.writable,
            memory: PhantomData,
        }
    }
}

/// A mapping of a perf buffer, control page and data; unmapped on drop.
#[derive(Debug)]
pub(crate) struct PerfMapping {
    base: NonNull<c_void>,
    len: usize,
}

impl PerfMapping {
    /// Maps the buffer of a perf event. `len` is one page and a power of two of pages; the first
    /// mapping of an event makes the kernel allocate the buffer.
    #[doc(alias = "mmap")]
    pub(crate) fn new(event: BorrowedFd<'_>, len: usize) -> Result<Self, Errno> {
        let length = NonZeroUsize::new(len).ok_or(Errno::INVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses an address where nothing is mapped, so no existing memory
        // changes.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, event, 0) }?;
        Ok(Self { base, len })
    }

    /// The whole mapping.
    pub(crate) fn region(&self) -> Region<'_> {
        Region { base: self.base.cast(), len: self.len, writable: true, memory: PhantomData }
    }
}

// SAFETY: the mapping belongs to the process, not to a thread. All access goes through `Region`,
// which only gives out atomics, and bytes under the conditions of `Region::bytes`.
unsafe impl Send for PerfMapping {}
// SAFETY: as above.
unsafe impl Sync for PerfMapping {}

impl Drop for PerfMapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped these bytes. Every `Region` of them borrows `self`, so none is left.
        // An error would leave the memory mapped, which is harmless.
        let _ = unsafe { munmap(self.base, self.len) };
    }
}

/// A view of memory that the kernel may change at any time. No reference to its bytes exists except
/// to atomics, and to bytes that [`Region::bytes`] requires not to change.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    memory: PhantomData<&'a [AtomicU64]>,
}

impl<'a> Region<'a> {
    /// A view of ordinary memory.
    #[cfg(any(test, fuzzing, feature = "simulation"))]
    pub(crate) fn of(words: &'a [AtomicU64]) -> Self {
        Self {
            base: NonNull::from(words).cast(),
            len: size_of_val(words),
            writable: true,
            memory: PhantomData,
        }
    }

    /// The number of bytes in view.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The part of `len` bytes at `offset`, or `None` if it is not within this region.
    pub(crate) fn part(self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset` is at most `self.len`, so the result is in the same mapping or one past
        // its end.
        let base = unsafe { self.base.add(offset) };
        Some(Self { base, len, ..self })
    }

    fn place<T>(self, offset: usize) -> Option<NonNull<T>> {
        let place = self.part(offset, size_of::<T>())?.base.cast::<T>();
        place.is_aligned().then_some(place)
    }

    /// The 32-bit word at `offset`, for loads only: the memory may be mapped read-only.
    pub(crate) fn u32_at(self, offset: usize) -> Option<&'a AtomicU32> {
        // SAFETY: the word is aligned and within the mapping, which outlives 'a. The kernel only
        // uses accesses of whole words there.
        self.place(offset).map(|place| unsafe { place.as_ref() })
    }

    /// The 64-bit word at `offset`, for loads only.
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
    /// The kernel does not write these bytes during 'a.
    pub(crate) unsafe fn bytes(self, offset: usize, len: usize) -> Option<&'a [u8]> {
        let part = self.part(offset, len)?;
        // SAFETY: the bytes are within the mapping, which outlives 'a; the caller promises that
        // they do not change.
        Some(unsafe { std::slice::from_raw_parts(part.base.as_ptr(), part.len) })
    }
}

/// Maps a file of the kernel that never changes: its own BTF. The mapping is private, because
/// `btf_sysfs_vmlinux_mmap` refuses `MAP_SHARED`.
pub(crate) fn constant_file(file: &std::fs::File) -> io::Result<Mmap> {
    // SAFETY: /sys/kernel/btf/vmlinux is a read-only part of the kernel image. It cannot be written
    // or truncated.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

/// The page size in bytes; 4096 if it is unknown.
pub(crate) fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(4096)
}
