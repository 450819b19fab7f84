//! Addresses and descriptors as the kernel takes them, with the lifetimes of what they point to.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A type the kernel may fill with any bytes, and that has no padding.
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

/// `__aligned_u64`: an address for the kernel, 0 for none. Borrows what it points to.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct UserPtr<'a> {
    address: u64,
    borrow: PhantomData<&'a [u8]>,
}

impl<'a> UserPtr<'a> {
    pub(crate) const NULL: Self = Self { address: 0, borrow: PhantomData };

    /// For the kernel to read. The address of an empty slice is not given: the kernel takes any address for a wish.
    pub(crate) fn read<T>(from: &'a [T]) -> Self {
        if from.is_empty() {
            return Self::NULL;
        }
        Self { address: from.as_ptr().expose_provenance() as u64, borrow: PhantomData }
    }

    /// For the kernel to write.
    pub(crate) fn write<T: Plain>(to: &'a mut [T]) -> Self {
        if to.is_empty() {
            return Self::NULL;
        }
        Self { address: to.as_mut_ptr().expose_provenance() as u64, borrow: PhantomData }
    }

    /// For the kernel to read a C string.
    pub(crate) fn c_str(from: &'a std::ffi::CStr) -> Self {
        Self::read(from.to_bytes_with_nul())
    }
}

/// A file descriptor in a `__u32` field of `bpf_attr`; 0 for none, which is why no descriptor of ours is 0.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct UserFd<'a> {
    raw: u32,
    borrow: PhantomData<BorrowedFd<'a>>,
}

impl<'a> UserFd<'a> {
    pub(crate) const NONE: Self = Self { raw: 0, borrow: PhantomData };

    pub(crate) fn new(fd: BorrowedFd<'a>) -> Self {
        // A borrowed descriptor is never negative (that is its type's invariant), so nothing changes here.
        Self { raw: fd.as_raw_fd().unsigned_abs(), borrow: PhantomData }
    }
}
