//! TCP segments that the test receives and answers itself, at a moment of its choice.
//!
//! Raw sockets on the loopback device of the namespace this process is in. A listener with a
//! [full backlog](crate::traffic::with_full_backlog) keeps the kernel from answering.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::deadline::{WAIT_LIMIT, patient};

/// The bits of a segment's flags, RFC 9293 section 3.1.
pub mod flags {
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets a connection.
    pub const RST: u8 = 0x04;
    /// Acknowledges a sequence number.
    pub const ACK: u8 = 0x10;
}

/// A segment without options or payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The sender.
    pub from: SocketAddrV4,
    /// The receiver.
    pub to: SocketAddrV4,
    /// The sequence number.
    pub seq: u32,
    /// The sequence number that it acknowledges.
    pub ack: u32,
    /// See [`flags`].
    pub flags: u8,
}

/// The bytes of a TCP header without options.
const HEADER_LENGTH: usize = 20;

impl Segment {
    /// An answer to this segment, a SYN: it acknowledges the next byte of the sender.
    #[must_use]
    pub fn answer(self, seq: u32, flags: u8) -> Self {
        Self { from: self.to, to: self.from, seq, ack: self.seq.wrapping_add(1), flags }
    }

    /// Reads an IPv4 packet.
    fn read(packet: &[u8]) -> Option<Self> {
        let ip_header = usize::from(packet.first()? & 0xf) * 4;
        let address = |at: usize| packet.get(at..)?.first_chunk::<4>().copied().map(Ipv4Addr::from);
        let tcp = packet.get(ip_header..)?;
        let port = |at: usize| tcp.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
        let number = |at: usize| tcp.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
        Some(Self {
            from: SocketAddrV4::new(address(12)?, port(0)?),
            to: SocketAddrV4::new(address(16)?, port(2)?),
            seq: number(4)?,
            ack: number(8)?,
            flags: *tcp.get(13)?,
        })
    }

    /// The TCP header.
    fn header(self) -> [u8; HEADER_LENGTH] {
        const DATA_OFFSET: u8 = 5 << 4;
        let mut header = [0; HEADER_LENGTH];
        header[0..2].copy_from_slice(&self.from.port().to_be_bytes());
        header[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        header[4..8].copy_from_slice(&self.seq.to_be_bytes());
        header[8..12].copy_from_slice(&self.ack.to_be_bytes());
        (header[12], header[13]) = (DATA_OFFSET, self.flags);
        header[14..16].copy_from_slice(&u16::MAX.to_be_bytes()); // window
        let checksum = self.checksum(&header);
        header[16..18].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    /// The checksum of the pseudo-header and of a header whose checksum is still 0.
    fn checksum(self, header: &[u8; HEADER_LENGTH]) -> u16 {
        const IPPROTO_TCP: u8 = 6;
        const LENGTH: u8 = 20;
        let (from, to) = (self.from.ip().octets(), self.to.ip().octets());
        let bytes = [&from[..], &to, &[0, IPPROTO_TCP, 0, LENGTH], header].concat();
        let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let [.., high, low] = (!(folded + (folded >> 16))).to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// Receives all TCP segments that arrive in a namespace, and sends segments there.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// Opens a raw socket in the namespace this process is in.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn tap() -> Self {
        let fd = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)
            .expect("a raw socket");
        let seconds = i64::try_from(patient(WAIT_LIMIT).as_secs()).expect("a time limit");
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0)).expect("set a time limit");
        Self(fd)
    }

    /// Waits for the SYN of a connect to `to`.
    ///
    /// # Panics
    /// If no such segment arrives in time.
    #[must_use]
    #[track_caller]
    pub fn syn_to(&self, to: SocketAddr) -> Segment {
        let mut packet = [0; 2048];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut packet, MsgFlags::empty()).expect("a SYN");
            let segment = Segment::read(&packet[..length]);
            if let Some(syn) =
                segment.filter(|seen| SocketAddr::V4(seen.to) == to && seen.flags == flags::SYN)
            {
                return syn;
            }
        }
    }

    /// Sends a segment.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[track_caller]
    pub fn send(&self, segment: Segment) {
        let to = SockaddrIn::from(SocketAddrV4::new(*segment.to.ip(), 0));
        let sent = sendto(self.0.as_raw_fd(), &segment.header(), &to, MsgFlags::empty());
        assert_eq!(sent, Ok(HEADER_LENGTH), "{segment:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_written_and_read() {
        let [from, to] = ["127.0.0.1:40000", "127.0.0.1:22"].map(|address| address.parse().unwrap());
        let segment =
            Segment { from, to, seq: 0x0102_0304, ack: 0xfffe_fdfc, flags: flags::SYN | flags::ACK };
        let header = segment.header();
        assert_eq!(segment.checksum(&header), 0, "with its checksum, the sum is all ones");
        let ip = [&[0x45; 12][..], &from.ip().octets(), &to.ip().octets()].concat();
        assert_eq!(Segment::read(&[&ip[..], &header].concat()), Some(segment));
        for short in 0..ip.len() + 14 {
            assert_eq!(Segment::read(&[&ip[..], &header].concat()[..short]), None, "{short} bytes");
        }
        let answer = Segment { from: to, to: from, seq: 9, ack: 0x0102_0305, flags: flags::RST };
        assert_eq!(segment.answer(9, flags::RST), answer);
    }
}
