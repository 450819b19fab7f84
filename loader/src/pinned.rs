//! Maps that another program has created and pinned in a BPF file system. They are opened and
//! checked here; BPF programs of an object read them.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bpfasm::MapKind;

use crate::errno::Errno;
use crate::hint::Hint;
use crate::sys::bpf;
use crate::sys::info::{MapInfo, ObjInfo};
use crate::sys::open::ObjGet;

/// The kinds of maps that are accepted. A program looks up a key in either with the same code.
const KINDS: [MapKind; 2] = [MapKind::Hash, MapKind::LruHash];

/// The file at a path is not the map that is needed. `{}` is one line: what was found, and what is
/// needed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PinnedError {
    /// The path that was opened.
    pub path: PathBuf,
    /// What was found there.
    pub found: PinnedFound,
    /// Needed: bytes of a key.
    pub key_size: u32,
    /// Needed: bytes of a value, one of these. If empty, every size is accepted.
    pub value_sizes: Vec<u32>,
}

/// What was found at the path of a pinned map.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PinnedFound {
    /// Nothing that the kernel could open as a pinned object.
    Nothing {
        /// The kernel's answer; EINVAL also for a path that contains a zero byte.
        errno: Errno,
        /// The probable cause.
        hint: Option<Hint>,
    },
    /// A pinned program or link.
    NotAMap,
    /// A map of the wrong kind or shape.
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
            PinnedFound::NotAMap => f.write_str("pinned, but not a map")?,
            PinnedFound::Map { kind, key_size, value_size } => {
                write!(f, "{}, keys of {key_size} bytes, values of {value_size}", KindName(*kind))?;
            }
        }
        write!(f, "; expected a pinned hash map, keys of {} bytes", self.key_size)?;
        for (at, size) in self.value_sizes.iter().enumerate() {
            write!(f, "{}{size}", if at == 0 { ", values of " } else { " or " })?;
        }
        Ok(())
    }
}

impl std::error::Error for PinnedError {}

/// Displays a number of `enum bpf_map_type` as words.
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

impl PinnedError {
    /// Whether the process lacks the capabilities to open pinned maps, so the path may be right.
    #[must_use]
    pub fn is_unprivileged(&self) -> bool {
        matches!(self.found, PinnedFound::Nothing { hint: Some(Hint::Capabilities(_)), .. })
    }
}

/// Checks that a hash map, LRU or not, with keys and values of these sizes in bytes is pinned at
/// `path`, and returns the size of its values. An empty `value_sizes` accepts every size. Callers
/// use it to refuse a wrong path before anything is loaded.
///
/// # Errors
/// If the path cannot be opened, or has a map of another kind or size.
pub fn check_pinned(path: &Path, key_size: u32, value_sizes: &[u32]) -> Result<u32, PinnedError> {
    open(path, key_size, value_sizes).map(|(_, info)| info.value_size)
}

/// Opens such a map read-only for this process. BPF programs that use the descriptor may still
/// write.
pub(crate) fn open(
    path: &Path,
    key_size: u32,
    value_sizes: &[u32],
) -> Result<(OwnedFd, MapInfo), PinnedError> {
    let wrong = |found| {
        let (path, value_sizes) = (path.to_owned(), value_sizes.to_vec());
        PinnedError { path, found, key_size, value_sizes }
    };
    let nothing = |errno| wrong(PinnedFound::Nothing { errno, hint: Hint::for_errno(errno) });
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| nothing(Errno::INVAL))?;
    let fd = bpf(&mut ObjGet::read_only(&name)).map_err(nothing)?;
    if !is_map(&fd).map_err(nothing)? {
        return Err(wrong(PinnedFound::NotAMap));
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

/// Programs and links can be pinned too. `BPF_OBJ_GET_INFO_BY_FD` fills another struct for them, so
/// it cannot be asked before this is known.
fn is_map(fd: &OwnedFd) -> Result<bool, Errno> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(link.as_os_str() == "anon_inode:bpf-map")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(found: PinnedFound, value_sizes: &[u32]) -> String {
        let value_sizes = value_sizes.to_vec();
        PinnedError { path: "/sys/fs/bpf/x".into(), found, key_size: 8, value_sizes }.to_string()
    }

    #[test]
    fn messages_say_what_was_found_and_what_is_needed() {
        let array = PinnedFound::Map { kind: 2, key_size: 4, value_size: 16 };
        assert_eq!(
            message(array, &[4, 8]),
            "/sys/fs/bpf/x: an array map, keys of 4 bytes, values of 16; expected a pinned hash map, keys of 8 bytes, \
             values of 4 or 8"
        );
        assert_eq!(
            message(PinnedFound::Nothing { errno: Errno::NOENT, hint: None }, &[]),
            "/sys/fs/bpf/x: no such file or directory (os error 2); expected a pinned hash map, keys of 8 bytes"
        );
        let ring = PinnedFound::Map { kind: 27, key_size: 0, value_size: 0 };
        assert!(message(ring, &[]).contains(": a map of type 27, keys of 0 bytes, "));
        assert!(message(PinnedFound::NotAMap, &[8]).contains(": pinned, but not a map; expected "));
    }

    #[test]
    fn a_missing_path_is_refused() {
        for path in ["/no/such/path", "a\0b"] {
            let error = check_pinned(Path::new(path), 8, &[8]).unwrap_err();
            assert!(matches!(error.found, PinnedFound::Nothing { .. }), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}
