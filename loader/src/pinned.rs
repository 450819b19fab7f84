//! Maps that others have made and pinned in a BPF file system: opened, checked, read by our programs.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bpfasm::MapKind;

use crate::errno::Errno;
use crate::error::{Hint, LoadError};
use crate::sys::bpf;
use crate::sys::bpf::{MapInfo, ObjGet, ObjInfo};

/// The kinds that our programs look something up in alike.
const KINDS: [MapKind; 2] = [MapKind::Hash, MapKind::LruHash];

/// Why what stands at a path is not the map that is needed. `{}` is one line: what is there, and what is right.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PinnedError {
    /// The path.
    pub path: PathBuf,
    /// What is there.
    pub found: PinnedFound,
    /// What is right: bytes of a key.
    pub key_size: u32,
    /// What is right: bytes of a value, any of these; none for any size at all.
    pub value_sizes: Vec<u32>,
}

/// What stands at a path where a pinned map is expected.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PinnedFound {
    /// Nothing that could be opened as something pinned.
    Nothing {
        /// What the kernel said; EINVAL also for a path with a zero byte in it.
        errno: Errno,
        /// What may help.
        hint: Option<Hint>,
    },
    /// A pinned program or link.
    NoMap,
    /// A map.
    Map {
        /// `enum bpf_map_type`.
        kind: u32,
        /// Bytes of a key.
        key_size: u32,
        /// Bytes of a value.
        value_size: u32,
    },
}

impl fmt::Display for PinnedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.found {
            PinnedFound::Nothing { errno: Errno::INVAL | Errno::ACCES, .. } if self.path.is_file() => {
                f.write_str("not in a BPF file system")?;
            }
            PinnedFound::Nothing { errno, hint: None } => write!(f, "{errno}")?,
            PinnedFound::Nothing { errno, hint: Some(hint) } => write!(f, "{errno}: {hint}")?,
            PinnedFound::NoMap => f.write_str("pinned, but not a map")?,
            PinnedFound::Map { kind, key_size, value_size } => {
                write!(f, "{}, keys of {key_size} bytes, values of {value_size}", KindName(*kind))?;
            }
        }
        write!(f, "; needed is a pinned hash map, keys of {} bytes", self.key_size)?;
        for (at, size) in self.value_sizes.iter().enumerate() {
            write!(f, "{}{size}", if at == 0 { ", values of " } else { " or " })?;
        }
        Ok(())
    }
}

impl std::error::Error for PinnedError {}

/// A kind as people name it.
struct KindName(u32);

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = |kind: MapKind| self.0 == kind.number();
        f.write_str(match () {
            () if is(MapKind::Hash) => "a hash map",
            () if is(MapKind::LruHash) => "an LRU hash map",
            () if is(MapKind::PercpuHash) => "a per-CPU hash map",
            () if is(MapKind::Array) => "an array map",
            () if is(MapKind::PercpuArray) => "a per-CPU array map",
            () => return write!(f, "a map of type {}", self.0),
        })
    }
}

/// Whether a hash map, LRU or not, with keys and values of these sizes is pinned at `path`, so that a tool can refuse a wrong
/// path before anything is loaded. The size of its values, which is one of `value_sizes`; any will do where there are none.
///
/// # Errors
/// [`LoadError::Pinned`].
pub fn check_pinned(path: &Path, key_size: u32, value_sizes: &[u32]) -> Result<u32, LoadError> {
    open(path, key_size, value_sizes).map(|(_, info)| info.value_size)
}

/// Opens such a map, for reading only: what programs do with it is their affair, we change nothing in it.
pub(crate) fn open(path: &Path, key_size: u32, value_sizes: &[u32]) -> Result<(OwnedFd, MapInfo), LoadError> {
    let wrong = |found| {
        let (path, value_sizes) = (path.to_owned(), value_sizes.to_vec());
        LoadError::Pinned(Box::new(PinnedError { path, found, key_size, value_sizes }))
    };
    let nothing = |errno| wrong(PinnedFound::Nothing { errno, hint: Hint::for_errno(errno) });
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| nothing(Errno::INVAL))?;
    let fd = bpf(&mut ObjGet::read_only(&name)).map_err(nothing)?;
    if !is_map(&fd).map_err(nothing)? {
        return Err(wrong(PinnedFound::NoMap));
    }
    let mut info = MapInfo::default();
    bpf(&mut ObjInfo::map(fd.as_fd(), &mut info)).map_err(nothing)?;
    let MapInfo { map_type: kind, key_size: found_key, value_size, .. } = info;
    let right = KINDS.iter().any(|known| known.number() == kind)
        && found_key == key_size
        && (value_sizes.is_empty() || value_sizes.contains(&value_size));
    if right {
        Ok((fd, info))
    } else {
        Err(wrong(PinnedFound::Map { kind, key_size: found_key, value_size }))
    }
}

/// Programs and links are pinned too, and what the kernel tells of them begins with other numbers.
fn is_map(fd: &OwnedFd) -> Result<bool, Errno> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(link.as_os_str() == "anon_inode:bpf-map")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(found: PinnedFound, value_sizes: &[u32]) -> String {
        let value_sizes = value_sizes.to_vec();
        PinnedError { path: "/sys/fs/bpf/x".into(), found, key_size: 8, value_sizes }.to_string()
    }

    #[test]
    fn messages_say_what_is_there_and_what_is_right() {
        let array = PinnedFound::Map { kind: 2, key_size: 4, value_size: 16 };
        assert_eq!(
            said(array, &[4, 8]),
            "/sys/fs/bpf/x: an array map, keys of 4 bytes, values of 16; needed is a pinned hash map, keys of 8 bytes, \
             values of 4 or 8"
        );
        assert_eq!(
            said(PinnedFound::Nothing { errno: Errno::NOENT, hint: None }, &[]),
            "/sys/fs/bpf/x: no such file or directory (os error 2); needed is a pinned hash map, keys of 8 bytes"
        );
        let ring = PinnedFound::Map { kind: 27, key_size: 0, value_size: 0 };
        assert!(said(ring, &[]).contains(": a map of type 27, keys of 0 bytes, "));
        assert!(said(PinnedFound::NoMap, &[8]).contains(": pinned, but not a map; needed is "));
    }

    #[test]
    fn a_path_to_nothing_is_refused() {
        for path in ["/no/such/path", "a\0b"] {
            let error = check_pinned(Path::new(path), 8, &[8]).unwrap_err();
            assert!(matches!(error, LoadError::Pinned(_)), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}
