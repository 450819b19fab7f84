//! TCP segments that no socket would send: wrong checksums, sequence numbers outside the window,
//! extension headers.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

/// The flags of a TCP header.
pub mod flag {
    pub const SYN: u8 = 0x02;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

const IPPROTO_TCP: u8 = 6;
const IPPROTO_HOPOPTS: u8 = 0;
const IPPROTO_DSTOPTS: u8 = 60;

/// A segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The sender that the segment claims.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// The sequence number.
    pub seq: u32,
    /// See [`flag`].
    pub flags: u8,
    /// The payload.
    pub payload: &'static [u8],
    /// Whether the checksum is right.
    pub intact: bool,
    /// Whether two IPv6 extension headers precede the TCP header.
    pub extended: bool,
}

impl Segment {
    /// A request to connect.
    #[must_use]
    pub fn syn(from: SocketAddr, to: SocketAddr) -> Self {
        Self { from, to, seq: 0x1234_5678, flags: flag::SYN, payload: b"", intact: true, extended: false }
    }

    /// Sends it from the network namespace that this process is in.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[track_caller]
    pub fn send(&self) {
        self.send_times(1);
    }

    /// Sends it this many times without a pause.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[track_caller]
    pub fn send_times(&self, count: u64) {
        let family = if self.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        // IPPROTO_RAW: the packet has its own IP header.
        let raw =
            socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).expect("raw socket");
        // The port of a raw socket's address is its protocol, or 0.
        let to = SockaddrStorage::from(SocketAddr::new(self.to.ip(), 0));
        let packet = self.packet();
        for _ in 0..count {
            let sent = sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty());
            assert_eq!(sent, Ok(packet.len()), "{self:?}");
        }
    }

    fn packet(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let len = |bytes: usize| u16::try_from(bytes).expect("a short packet").to_be_bytes();
        let mut packet = Vec::new();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                packet.extend([0x45, 0]);
                packet.extend(len(20 + tcp.len()));
                packet.extend([0, 1, 0, 0, 64, IPPROTO_TCP, 0, 0]); // the kernel fills in the checksum
                packet.extend(from.octets());
                packet.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                // Six bytes of padding each (PadN).
                let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
                let extensions = match self.extended {
                    true => [options(IPPROTO_DSTOPTS), options(IPPROTO_TCP)].concat(),
                    false => vec![],
                };
                packet.extend([0x60, 0, 0, 0]);
                packet.extend(len(extensions.len() + tcp.len()));
                packet.extend([if self.extended { IPPROTO_HOPOPTS } else { IPPROTO_TCP }, 64]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend(extensions);
            }
            _ => panic!("two families: {self:?}"),
        }
        packet.extend(tcp);
        packet
    }

    fn tcp(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend([0, 0, 0, 0, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(self.payload);
        let mut sum = checksum(self.from.ip(), self.to.ip(), &tcp);
        if !self.intact {
            sum ^= 0x5555;
        }
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }
}

/// RFC 9293, section 3.1: over the addresses, the protocol, the length, and the segment.
fn checksum(from: IpAddr, to: IpAddr, tcp: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend([0, IPPROTO_TCP]);
    bytes.extend(u16::try_from(tcp.len()).expect("a short segment").to_be_bytes());
    bytes.extend(tcp);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over a segment with its checksum is 0.
    #[test]
    fn checksums() {
        for (from, to) in [("192.0.2.1:1000", "198.51.100.2:80"), ("[2001:db8::1]:1000", "[2001:db8::2]:80")]
        {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            for payload in [&b""[..], b"x", b"odd"] {
                let segment = Segment { payload, ..Segment::syn(from, to) };
                assert_eq!(checksum(from.ip(), to.ip(), &segment.tcp()), 0);
                let broken = Segment { intact: false, ..segment };
                assert_ne!(checksum(from.ip(), to.ip(), &broken.tcp()), 0);
            }
        }
    }

    #[test]
    fn lengths() {
        let six = Segment::syn("[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
        assert_eq!(six.packet().len(), 60);
        let extended = Segment { extended: true, ..six }.packet();
        assert_eq!(
            (extended.len(), extended[5], extended[6], extended[40], extended[48]),
            (76, 36, 0, 60, 6)
        );
        let four = Segment::syn("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert_eq!(four.packet().len(), 40);
    }
}
