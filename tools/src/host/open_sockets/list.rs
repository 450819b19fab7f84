//! Lists sockets by `sock_diag`, and finds their owners in `/proc`.
//!
//! The iterator `task_file` is better where it runs: it gives the very socket addresses that
//! tracepoints report, and those of all network namespaces. This gives the sockets of one network
//! namespace (the caller's) with their cookie and inode, and finds the inode among the open files
//! of the processes in `/proc`.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use loader::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::sock_diag::DiagError;
use super::socket::{Owners, Socket};
use super::{proc, sock_diag};

/// Why sockets could not be listed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ListError {
    /// A system call failed.
    System {
        /// What was done, on what.
        call: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
    /// The kernel refused the request; ENOENT if the module `tcp_diag` is missing.
    Refused(Errno),
    /// The kernel's answer is malformed.
    Answer(DiagError),
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { call, errno } => write!(f, "{call}: {errno}"),
            Self::Refused(Errno::NOENT) => f.write_str("sock_diag: this kernel lacks tcp_diag"),
            Self::Refused(errno) => write!(f, "sock_diag: {errno}"),
            Self::Answer(error) => write!(f, "sock_diag: {error}"),
        }
    }
}

impl std::error::Error for ListError {}

/// The TCP sockets of this network namespace, except those in `TIME_WAIT`, which no process owns
/// any more.
#[doc(alias = "NETLINK_SOCK_DIAG")]
pub fn tcp_sockets() -> Result<Vec<Socket>, ListError> {
    let failed = |call| move |error: nix::errno::Errno| ListError::System { call, errno: error.into() };
    let diag: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )
    .map_err(failed("open netlink socket"))?;
    let fd = diag.as_fd().as_raw_fd();
    let mut sockets = Vec::new();
    for family in [sock_diag::AF_INET, sock_diag::AF_INET6] {
        send(fd, &sock_diag::request(family), MsgFlags::empty()).map_err(failed("send to netlink socket"))?;
        dump(|buffer| recv(fd, buffer, MsgFlags::MSG_TRUNC), &mut sockets)?;
    }
    Ok(sockets)
}

/// Receives one dump to its end.
pub(super) fn dump(
    mut receive: impl FnMut(&mut [u8]) -> nix::Result<usize>,
    sockets: &mut Vec<Socket>,
) -> Result<(), ListError> {
    // More than the kernel puts into one message (`netlink_dump`: 32 KiB).
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let length = match receive(&mut buffer) {
            Ok(length) => length,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(ListError::System { call: "read netlink socket", errno: error.into() }),
        };
        // MSG_TRUNC makes recv return the true length, even if the buffer was shorter.
        let message = buffer.get(..length).ok_or(ListError::Answer(DiagError::Truncated { length }))?;
        match sock_diag::parse(message, sockets).map_err(ListError::Answer)? {
            sock_diag::Progress::More => {}
            sock_diag::Progress::Done => return Ok(()),
            sock_diag::Progress::Refused(errno) => return Err(ListError::Refused(errno)),
        }
    }
}

/// Finds the processes that have these sockets open, among the open files of every process in
/// `/proc`.
pub fn owners(inodes: &HashSet<u32>) -> Result<Owners, ListError> {
    proc::owners(Path::new("/proc"), inodes)
        .map_err(|error| ListError::System { call: "list /proc", errno: error.into() })
}
