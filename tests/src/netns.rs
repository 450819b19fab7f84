//! Private network namespaces: a test sees only its own connections, and other programs do not see
//! them.
//!
//! Every test is a process of its own (see `runner`), so its namespace ends with it. The functions
//! here do not touch the namespace in which the runner was started.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};

use crate::netlink;

/// The loopback device is the first device of every namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK_IFINDEX: u32 = 1;

/// The name of both ends of a veth pair.
pub(crate) const VETH: &str = "kt0";

/// A network namespace, kept alive by this value and by the processes inside it.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    inode: u64,
}

impl Netns {
    /// Moves this process into a new namespace whose loopback device is up, with 127.0.0.0/8 and
    /// `::1`.
    ///
    /// # Panics
    /// If the kernel refuses, because the tests do not run as root.
    pub fn enter_new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
        netlink::link_up(LOOPBACK_IFINDEX).expect("set lo up");
        Self::current()
    }

    /// Makes a second namespace and returns to the present one.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn beside() -> Self {
        let here = Self::current();
        let new = Self::enter_new();
        here.enter();
        new
    }

    /// The namespace this process is in.
    ///
    /// # Panics
    /// If `/proc` is not mounted.
    #[must_use]
    pub fn current() -> Self {
        let file = File::open("/proc/self/ns/net").expect("open /proc/self/ns/net");
        let inode = file.metadata().expect("stat /proc/self/ns/net").ino();
        Self { fd: file.into(), inode }
    }

    /// The number that the tools print: the inode of `/proc/PID/ns/net`, `net->ns.inum` in the
    /// kernel.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `f` in this namespace. Processes and sockets that `f` makes stay in it.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        let here = Self::current();
        self.enter();
        let value = f();
        here.enter();
        value
    }

    /// Sets a sysctl of this namespace, such as `net/ipv4/tcp_syn_retries`. `/proc/sys/net` belongs
    /// to the namespace of the process that opens it.
    ///
    /// # Panics
    /// If this is the namespace of the machine, or the kernel refuses.
    pub fn set_sysctl(&self, name: &str, value: &str) {
        let machine = fs::metadata("/proc/1/ns/net").map(|m| m.ino()).ok();
        assert_ne!(machine, Some(self.inode), "a test may not change the machine's own sysctls");
        let path = format!("/proc/sys/{name}");
        self.run(|| fs::write(&path, value)).unwrap_or_else(|e| panic!("write {value} to {path}: {e}"));
    }

    /// Adds an address to the loopback device of the namespace this process is in.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn add_to_loopback(address: Ipv4Addr) {
        netlink::add_address(LOOPBACK_IFINDEX, address.into(), 32).expect("add an address to lo");
    }

    /// Removes such an address: packets to it and from it are no longer sent.
    ///
    /// # Panics
    /// If the device does not have the address.
    pub fn remove_from_loopback(address: Ipv4Addr) {
        netlink::delete_address(LOOPBACK_IFINDEX, address.into(), 32).expect("remove an address from lo");
    }

    fn enter(&self) {
        setns(&self.fd, CloneFlags::CLONE_NEWNET).expect("setns");
    }
}

/// Adds an address to the loopback device of the namespace this process is in.
///
/// # Panics
/// If the kernel refuses.
#[track_caller]
pub fn add_to_loopback(address: IpAddr) {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    netlink::add_address(LOOPBACK_IFINDEX, address, bits)
        .unwrap_or_else(|e| panic!("add {address} to lo: {e}"));
}

/// Connects two namespaces by a veth pair, with `10.87.0.1/24` in `one` and `10.87.0.2/24` in
/// `two`.
///
/// # Errors
/// If the kernel does not support veth.
pub fn join(one: &Netns, two: &Netns) -> io::Result<(IpAddr, IpAddr)> {
    let addresses = [Ipv4Addr::new(10, 87, 0, 1), Ipv4Addr::new(10, 87, 0, 2)].map(IpAddr::from);
    one.run(|| netlink::veth(VETH, &two.fd))?;
    for (netns, address) in [one, two].into_iter().zip(addresses) {
        netns.run(|| {
            let index = if_nametoindex(VETH)?;
            netlink::add_address(index, address, 24)?;
            netlink::link_up(index)
        })?;
    }
    Ok((addresses[0], addresses[1]))
}
