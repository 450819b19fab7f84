//! Opening a map, program or link that exists already: by its path in a BPF file system, or by its
//! id.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use super::ptr::UserPtr;
use super::{Command, layout};

/// `BPF_F_RDONLY`
const RDONLY: u32 = 1 << 3;

/// `BPF_OBJ_GET`: opens the map, program or link that is pinned at a path.
#[repr(C)]
pub(crate) struct ObjGet<'a> {
    pathname: UserPtr<'a>,
    /// Must be zero for this command.
    bpf_fd: u32,
    file_flags: u32,
}
layout!(ObjGet<'_>, size 16, file_flags at 12);

// SAFETY: the layout is checked above, and the path is a borrowed C string.
unsafe impl Command for ObjGet<'_> {
    const CMD: u32 = 7;
    type Out = OwnedFd;
}

impl<'a> ObjGet<'a> {
    /// A descriptor with which system calls can read the object, but not change it.
    pub(crate) fn read_only(path: &'a CStr) -> Self {
        Self { pathname: UserPtr::c_str(path), bpf_fd: 0, file_flags: RDONLY }
    }
}

/// `BPF_MAP_GET_FD_BY_ID`: opens a map by its id.
#[repr(C)]
pub(crate) struct MapById {
    map_id: u32,
    next_id: u32,
    open_flags: u32,
    pad: u32,
}
layout!(MapById, size 16, open_flags at 8);

// SAFETY: the layout is checked above, and it has no address.
unsafe impl Command for MapById {
    const CMD: u32 = 14;
    type Out = OwnedFd;
}

impl MapById {
    /// A descriptor with which system calls can read the map, but not change it.
    pub(crate) fn read_only(map_id: u32) -> Self {
        Self { map_id, next_id: 0, open_flags: RDONLY, pad: 0 }
    }
}
