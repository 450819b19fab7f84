//! Netlink messages, and the rtnetlink requests that a private namespace needs: set a link up, make
//! a veth pair, add an address.
//!
//! The test binary does not need the command `ip`, because it also runs in virtual machines without
//! a distribution. Layouts are those of `linux/rtnetlink.h`, `linux/if_link.h` and
//! `linux/if_addr.h`; numbers have the names of these headers.
//!
//! The crate `neli` (0.7) is not used: a nested request takes about three times as many lines with
//! it, it has no constants for veth pairs and nf_tables, and it brings some twenty crates.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 0x1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: no other host is on these links, and a tentative address cannot
/// be bound for a second.
const IFA_F_NODAD: u8 = 0x02;

/// A message that is being built: `struct nlmsghdr`, a fixed header, attributes.
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4]; // nlmsg_len, known at the end
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]); // nlmsg_seq, nlmsg_pid
        Self { bytes }
    }

    /// Appends the fixed header.
    pub(crate) fn header(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Appends `struct ifinfomsg`.
    fn ifinfo(&mut self, index: u32, flags: u32, change: u32) {
        self.bytes.extend([0; 4]); // ifi_family, padding, ifi_type
        for word in [index, flags, change] {
            self.bytes.extend(word.to_ne_bytes());
        }
    }

    /// Appends an attribute: `struct rtattr` and the value, padded to four bytes.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |request| request.bytes.extend(value));
    }

    /// Appends an attribute that consists of attributes.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("an attribute is far below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The bytes of the message.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a request is far below 4 GiB");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }

    fn send(self) -> io::Result<()> {
        send(SockProtocol::NetlinkRoute, &self.finish())
    }
}

/// Sends messages, one of which asks for an acknowledgement, and waits for that or for the first
/// error.
pub(crate) fn send(protocol: SockProtocol, messages: &[u8]) -> io::Result<()> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    sendto(fd.as_raw_fd(), messages, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let got = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    acknowledged(&answer[..got])
}

/// Reads `struct nlmsgerr`: 0 is an acknowledgement, other values are negative error numbers.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let error = answer.get(16..20).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(Errno::from_raw(error.wrapping_neg()).into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink sent no acknowledgement")),
    }
}

/// Sets a link up.
pub(crate) fn link_up(index: u32) -> io::Result<()> {
    let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK);
    request.ifinfo(index, IFF_UP, IFF_UP);
    request.send()
}

/// Makes a veth pair: one end here, the other in the namespace `other`, both called `name`.
pub(crate) fn veth(name: &str, other: &OwnedFd) -> io::Result<()> {
    let name = [name.as_bytes(), b"\0"].concat();
    let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    request.ifinfo(0, 0, 0);
    request.attr(IFLA_IFNAME, &name);
    request.nested(IFLA_LINKINFO, |info| {
        info.attr(IFLA_INFO_KIND, b"veth\0");
        info.nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                peer.ifinfo(0, 0, 0);
                peer.attr(IFLA_IFNAME, &name);
                peer.attr(IFLA_NET_NS_FD, &other.as_raw_fd().to_ne_bytes());
            });
        });
    });
    request.send()
}

/// Adds an address to a link.
pub(crate) fn add_address(index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    change_address(Request::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL), index, address, prefix)
}

/// Removes an address from a link.
pub(crate) fn delete_address(index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    change_address(Request::new(RTM_DELADDR, NLM_F_ACK), index, address, prefix)
}

fn change_address(mut request: Request, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (2u8, v4.octets().to_vec()), // AF_INET
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),  // AF_INET6
    };
    request.bytes.extend([family, prefix, IFA_F_NODAD, 0]); // ifa_scope RT_SCOPE_UNIVERSE
    request.bytes.extend(index.to_ne_bytes());
    request.attr(IFA_LOCAL, &octets);
    request.attr(IFA_ADDRESS, &octets);
    request.send()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut request = Request { bytes: Vec::new() };
        request.nested(18, |inner| inner.attr(3, b"abc\0x"));
        let length = |n: u16| n.to_ne_bytes();
        let mut want = Vec::new();
        want.extend([length(16), length(18), length(9), length(3)].concat());
        want.extend(b"abc\0x\0\0\0");
        assert_eq!(request.bytes, want);
    }

    #[test]
    fn answers_are_acknowledgements_errors_or_invalid() {
        let mut ack = vec![0u8; 36];
        ack[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(acknowledged(&ack).is_ok());
        ack[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(acknowledged(&ack).unwrap_err().raw_os_error(), Some(17));
        for end in 0..20 {
            assert_eq!(acknowledged(&ack[..end]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
