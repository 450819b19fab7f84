//! A socket and its owner.

use std::collections::HashMap;
use std::net::IpAddr;

/// A TCP socket, as `sock_diag` reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Socket {
    /// `skc_state`, `TCP_ESTABLISHED` is 1.
    pub state: u8,
    /// The local address; an IPv4 address on an IPv6 socket is `::ffff:a.b.c.d`.
    pub local: IpAddr,
    /// The local port.
    pub local_port: u16,
    /// The remote address.
    pub remote: IpAddr,
    /// The remote port.
    pub remote_port: u16,
    /// The interface it is bound to, or 0.
    pub interface: u32,
    /// `sk_cookie`, the number that `bpf_get_socket_cookie` returns. The kernel assigns it when it
    /// is first asked for.
    pub cookie: u64,
    /// The user of its owner.
    pub uid: u32,
    /// The inode of its file; 0 if it has none (not accepted yet, or closed).
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

/// The owners of sockets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Owners {
    /// By the socket's inode. If several processes share a socket, the one that `/proc` lists
    /// first.
    pub by_inode: HashMap<u32, Owner>,
    /// Number of processes whose open files this process may not read. Their sockets have no owner
    /// here.
    pub hidden: usize,
}
