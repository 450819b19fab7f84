//! Finds the processes that have sockets open, in `/proc/<pid>/fd`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use super::socket::{Owner, Owners};

/// Looks through every process. A process that ends meanwhile is skipped.
pub(super) fn owners(proc: &Path, inodes: &HashSet<u32>) -> io::Result<Owners> {
    let mut owners = Owners::default();
    for entry in fs::read_dir(proc)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if owners.by_inode.len() == inodes.len() {
            break;
        }
        let process = proc.join(&name);
        let files = match fs::read_dir(process.join("fd")) {
            Ok(files) => files,
            Err(error) => {
                owners.hidden += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                continue;
            }
        };
        let mut owner = None;
        for file in files.flatten() {
            let Ok(link) = fs::read_link(file.path()) else { continue };
            let Some(inode) = link.to_str().and_then(socket_inode) else { continue };
            if inodes.contains(&inode) {
                let owner = owner.get_or_insert_with(|| Owner { pid, comm: comm(&process) });
                owners.by_inode.entry(inode).or_insert(*owner);
            }
        }
    }
    Ok(owners)
}

/// The number in `socket:[4242]`.
pub(super) fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A process's name; empty if the process has ended.
fn comm(process: &Path) -> [u8; 16] {
    let text = fs::read(process.join("comm")).unwrap_or_default();
    let mut out = [0; 16];
    // The last byte stays zero.
    for (to, from) in out.iter_mut().take(15).zip(text.iter().take_while(|byte| **byte != b'\n')) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn reads_inodes_from_links() {
        assert_eq!(socket_inode("socket:[4242]"), Some(4242));
        for no in ["socket:[]", "socket:[x]", "socket:[1", "pipe:[1]", "socket:[4294967296]", "/dev/null", ""]
        {
            assert_eq!(socket_inode(no), None, "{no}");
        }
    }

    #[test]
    fn finds_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = socket_inode(link.to_str().unwrap()).unwrap();
        let owners = owners(Path::new("/proc"), &HashSet::from([inode])).unwrap();
        let owner = owners.by_inode[&inode];
        assert_eq!(owner.pid, std::process::id());
        assert_eq!(owner.comm, comm(Path::new("/proc/self")));
        assert_eq!(owner.comm[15], 0);
    }

    #[test]
    fn asks_no_more_than_it_must() {
        assert_eq!(owners(Path::new("/proc"), &HashSet::new()).unwrap(), Owners::default());
        assert!(owners(Path::new("/no/such/proc"), &HashSet::from([1])).is_err());
    }
}
