//! Sockets that were there before, where no iterator tells of them: `sock_diag` for the sockets, `/proc` for their owners.
//!
//! The iterator `task_file` is better where it runs: it gives the very socket addresses that tracepoints report, and those of
//! all network namespaces. This gives the sockets of one network namespace (the caller's) with their cookie and inode, and
//! finds the inode among the open files of the processes in `/proc`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::sock_diag::DiagError;
use super::{proc, sock_diag};
use loader::Errno;

/// A TCP socket, as `sock_diag` tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Socket {
    /// `skc_state`, `TCP_ESTABLISHED` is 1.
    pub state: u8,
    /// Its own address; an IPv4 address on an IPv6 socket is `::ffff:a.b.c.d`.
    pub local: IpAddr,
    /// Its own port.
    pub local_port: u16,
    /// The other end's address.
    pub remote: IpAddr,
    /// The other end's port.
    pub remote_port: u16,
    /// The interface it is bound to, or 0.
    pub interface: u32,
    /// `sk_cookie`: the same number that `bpf_get_socket_cookie` gives. Asking makes it.
    pub cookie: u64,
    /// The user it belongs to.
    pub uid: u32,
    /// The inode of its file; 0 when no file refers to it (not accepted yet, or closed).
    pub inode: u32,
}

/// A process that has a socket open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Its number in the PID namespace of `/proc`.
    pub pid: u32,
    /// Its name, padded with zeroes (`TASK_COMM_LEN`).
    pub comm: [u8; 16],
}

/// Owners by the inode of the socket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Owners {
    /// Of several processes that share a socket, the one that `/proc` lists first.
    pub by_inode: HashMap<u32, Owner>,
    /// Processes whose open files may not be read: their sockets have no owner here.
    pub hidden: usize,
}

/// Why there is no list of sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ListError {
    /// A system call failed.
    System {
        /// Which one, and on what.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The kernel refused the question; ENOENT where `tcp_diag` is missing.
    Refused(Errno),
    /// An answer that is none.
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

/// The TCP sockets of this network namespace, those in `TIME_WAIT` left out: they are no longer anybody's.
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
        // With MSG_TRUNC the true length, even when the buffer was shorter.
        let message = buffer.get(..length).ok_or(ListError::Answer(DiagError::Truncated { length }))?;
        match sock_diag::parse(message, sockets).map_err(ListError::Answer)? {
            sock_diag::Progress::More => {}
            sock_diag::Progress::Done => return Ok(()),
            sock_diag::Progress::Refused(errno) => return Err(ListError::Refused(errno)),
        }
    }
}

/// Who has these sockets open. Looks through the open files of every process in `/proc`.
pub fn owners(inodes: &HashSet<u32>) -> Result<Owners, ListError> {
    proc::owners(Path::new("/proc"), inodes)
        .map_err(|error| ListError::System { call: "list /proc", errno: error.into() })
}
