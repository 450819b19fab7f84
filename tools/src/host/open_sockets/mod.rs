//! The owners of sockets that were open when a run began, from sock_diag and /proc. They are the
//! fallback if the kernel has no iterator over open files (`iter/task_file`), and cover this
//! network namespace only.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod list;
mod proc;
mod sock_diag;
mod socket;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use nix::time::{ClockId, clock_gettime};

use self::list::ListError;
use self::socket::Owner;
use crate::address::ip_addr;
use crate::failure::Failure;

/// Both endpoints of a connection; of a listener, its own endpoint and zeroes. IPv4-mapped
/// addresses are plain IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// The local endpoint.
    pub local: (IpAddr, u16),
    /// The remote endpoint.
    pub remote: (IpAddr, u16),
}

impl Tuple {
    fn new(local: (IpAddr, u16), remote: (IpAddr, u16)) -> Self {
        let plain = |(ip, port): (IpAddr, u16)| (ip.to_canonical(), port);
        Self { local: plain(local), remote: plain(remote) }
    }

    /// From the fields of an event: raw addresses of this family, ports in network order.
    pub fn of_event(family: u16, local: ([u8; 16], u16), remote: ([u8; 16], u16)) -> Option<Self> {
        let end = |(bytes, port)| Some((ip_addr(family, bytes)?, u16::from_be(port)));
        Some(Self::new(end(local)?, end(remote)?))
    }
}

/// The sockets that were open at a moment.
#[derive(Debug)]
pub struct OpenSockets {
    owners: HashMap<Tuple, Owner>,
    /// The inode of the network namespace that was listed.
    netns: u32,
    /// The time of the listing, on CLOCK_MONOTONIC in nanoseconds.
    at: u64,
}

impl OpenSockets {
    /// Lists the sockets that are open now.
    pub fn now() -> Result<Self, Failure> {
        let failed = |error: ListError| Failure::failed(error);
        let at = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(Failure::failed)?;
        let at = u64::try_from(at.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(at.tv_nsec()).unwrap_or(0);
        let netns = std::fs::metadata("/proc/self/ns/net").map_err(Failure::failed)?.ino();
        let sockets = list::tcp_sockets().map_err(failed)?;
        let inodes: HashSet<u32> =
            sockets.iter().map(|socket| socket.inode).filter(|&inode| inode != 0).collect();
        let owners = list::owners(&inodes).map_err(failed)?.by_inode;
        let owners = sockets
            .iter()
            .filter_map(|socket| {
                let tuple =
                    Tuple::new((socket.local, socket.local_port), (socket.remote, socket.remote_port));
                Some((tuple, *owners.get(&socket.inode)?))
            })
            .collect();
        Ok(Self { owners, netns: u32::try_from(netns).map_err(Failure::failed)?, at })
    }

    /// The owner of the socket with these endpoints, and the time of the listing.
    pub fn owner(&self, netns: u32, tuple: Option<Tuple>) -> Option<(Owner, u64)> {
        let owner = self.owners.get(&tuple?).filter(|_| netns == self.netns)?;
        Some((*owner, self.at))
    }

    /// Forgets a socket, because its endpoints may belong to another socket from now on.
    pub fn forget(&mut self, netns: u32, tuple: Option<Tuple>) {
        if let (true, Some(tuple)) = (netns == self.netns, tuple) {
            self.owners.remove(&tuple);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use programs::tcp::{AF_INET, AF_INET6};

    use super::*;

    #[test]
    fn finds_its_own_connection_until_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let ends = |stream: &TcpStream| {
            let (local, remote) =
                (stream.local_addr().expect("bound"), stream.peer_addr().expect("connected"));
            Some(Tuple::new((local.ip(), local.port()), (remote.ip(), remote.port())))
        };
        let Ok(mut open) = OpenSockets::now() else {
            // The kernel may lack tcp_diag, and a container may forbid it. The kernel tests require
            // it.
            return;
        };
        let (netns, tuple) = (open.netns, ends(&stream));
        let (owner, at) = open.owner(netns, tuple).expect("it is open");
        assert_eq!((owner.pid, at), (std::process::id(), open.at));
        assert!(open.owner(netns + 1, tuple).is_none(), "the same endpoints in another namespace");
        open.forget(netns, tuple);
        assert!(open.owner(netns, tuple).is_none());
    }

    #[test]
    fn a_mapped_address_is_the_same_endpoint() {
        let mut plain = [0; 16];
        plain[..4].copy_from_slice(&[192, 0, 2, 1]);
        let mapped = std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
        let of = |family, bytes| Tuple::of_event(family, (bytes, 22_u16.to_be()), (bytes, 80_u16.to_be()));
        assert_eq!(of(AF_INET, plain), of(AF_INET6, mapped));
        assert_eq!(of(1, plain), None);
    }
}
