//! Addresses and descriptors in the kernel's structs, with the lifetimes of the memory and files
//! they refer to.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A type that the kernel may fill with any bytes.
///
/// # Safety
///
/// Every bit pattern is a value of the type, and it has no padding bytes.
pub(crate) unsafe trait Plain {}

// SAFETY: an integer has no padding and no invalid value.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

/// `__aligned_u64`: an address, or 0 for none. Borrows the memory at that address.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct UserPtr<'a> {
    address: u64,
    borrow: PhantomData<&'a [u8]>,
}

impl<'a> UserPtr<'a> {
    pub(crate) const NULL: Self = Self { address: 0, borrow: PhantomData };

    /// Memory for the kernel to read. NULL for an empty slice, because the kernel treats any other
    /// address as data.
    pub(crate) fn read<T>(from: &'a [T]) -> Self {
        if from.is_empty() {
            return Self::NULL;
        }
        Self { address: from.as_ptr().expose_provenance() as u64, borrow: PhantomData }
    }

    /// Memory for the kernel to write. NULL for an empty slice.
    pub(crate) fn write<T: Plain>(to: &'a mut [T]) -> Self {
        if to.is_empty() {
            return Self::NULL;
        }
        Self { address: to.as_mut_ptr().expose_provenance() as u64, borrow: PhantomData }
    }

    /// A C string for the kernel to read.
    pub(crate) fn c_str(from: &'a std::ffi::CStr) -> Self {
        Self::read(from.to_bytes_with_nul())
    }
}

/// A file descriptor in a `__u32` field of `bpf_attr`, or 0 for none. That is why
/// `OwnedFd::from_ret` moves descriptor 0.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct UserFd<'a> {
    raw: u32,
    borrow: PhantomData<BorrowedFd<'a>>,
}

impl<'a> UserFd<'a> {
    pub(crate) const NONE: Self = Self { raw: 0, borrow: PhantomData };

    pub(crate) fn new(fd: BorrowedFd<'a>) -> Self {
        // A borrowed descriptor is never negative, so this does not change its value.
        Self { raw: fd.as_raw_fd().unsigned_abs(), borrow: PhantomData }
    }
}
