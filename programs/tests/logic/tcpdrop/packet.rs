//! Packets that are dropped, byte by byte, and the events they lead to.

use programs::tcp::{AF_INET, AF_INET6};
use programs::tcpdrop::Event;

use crate::lab::ns;
use crate::spec::Spec;

/// A packet and what the kernel has noted of it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// From the network header on.
    pub bytes: Vec<u8>,
    /// Bytes before it.
    pub headroom: usize,
    pub protocol: u16,
    /// Whether the kernel has noted where it is.
    pub network_header: bool,
    /// Bytes that are not in the linear part.
    pub missing: usize,
    pub event: Event,
}

const HEADROOM: usize = 70;

impl Packet {
    /// What a socket receives from its peer.
    pub fn received(spec: &Spec) -> Self {
        let [local, remote] = [(spec.laddr, spec.lport), (spec.raddr, spec.rport)];
        let v4 = |bytes: [u8; 16]| {
            let mut plain = [0; 16];
            plain[..4].copy_from_slice(if spec.family == AF_INET { &bytes[..4] } else { &bytes[12..] });
            plain
        };
        let mapped = spec.raddr.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        if spec.family == AF_INET || mapped {
            Self::ipv4((v4(remote.0), remote.1), (v4(local.0), local.1), &[])
        } else {
            Self::ipv6(remote, local, &[])
        }
    }

    /// What it sends.
    pub fn sent(spec: &Spec) -> Self {
        Self::received(&Spec {
            laddr: spec.raddr,
            raddr: spec.laddr,
            lport: spec.rport,
            rport: spec.lport,
            ..spec.clone()
        })
    }

    fn new(bytes: Vec<u8>, protocol: u16, event: Event) -> Self {
        Self { bytes, headroom: HEADROOM, protocol, network_header: true, missing: 0, event }
    }

    pub fn ipv4(from: ([u8; 16], u16), to: ([u8; 16], u16), options: &[u8]) -> Self {
        let words = u8::try_from(5 + options.len() / 4).expect("15 at most");
        let mut bytes = vec![0x40 | words, 0x11, 0x22, 0x33, 0x44, 0x55, 0x40, 0, 0x77, 6, 0x88, 0x99];
        bytes.extend(&from.0[..4]);
        bytes.extend(&to.0[..4]);
        bytes.extend(options);
        bytes.extend(tcp(from.1, to.1));
        Self::new(bytes, 0x0800, event(AF_INET, from, to))
    }

    /// With extension headers: the type of each, and its bytes, of which the first is the type of
    /// the next.
    pub fn ipv6(from: ([u8; 16], u16), to: ([u8; 16], u16), extensions: &[(u8, Vec<u8>)]) -> Self {
        let next = |at: usize| extensions.get(at).map_or(6, |(kind, _)| *kind);
        let mut bytes = vec![0x61, 0x12, 0x23, 0x34, 0x45, 0x56, next(0), 0x78];
        bytes.extend(from.0);
        bytes.extend(to.0);
        for (at, (_, extension)) in extensions.iter().enumerate() {
            bytes.push(next(at + 1));
            bytes.extend(&extension[1..]);
        }
        bytes.extend(tcp(from.1, to.1));
        Self::new(bytes, 0x86dd, event(AF_INET6, from, to))
    }

    /// The same without a TCP header.
    pub fn headless(mut self) -> Self {
        (self.event.sport, self.event.dport, self.event.flags, self.event.transport) = (0, 0, 0, 0);
        self
    }

    /// The same with other bytes.
    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
}

/// SYN, PSH, URG and CWR: in each half of the byte, other bits.
const FLAGS: u8 = 0b1010_1010;

fn tcp(sport: u16, dport: u16) -> Vec<u8> {
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x50, FLAGS, 0x1b, 0x1c, 0x1d, 0x1e, 0, 0]);
    bytes
}

fn event(family: u16, from: ([u8; 16], u16), to: ([u8; 16], u16)) -> Event {
    Event {
        ts: ns(100),
        location: LOCATION,
        saddr: from.0,
        daddr: to.0,
        comm: [0; 16],
        pid: 0,
        netns: 0,
        reason: 0,
        sport: from.1.to_be(),
        dport: to.1.to_be(),
        family,
        flags: FLAGS,
        state: 0,
        transport: 1,
        sent: 0,
    }
}

pub const LOCATION: u64 = 0xffff_ffff_8123_4567;

pub fn v4() -> Packet {
    Packet::received(&Spec::V4)
}

pub fn v6(extensions: &[(u8, Vec<u8>)]) -> Packet {
    let Spec { laddr, lport, raddr, rport, .. } = Spec::V6;
    Packet::ipv6((raddr, rport), (laddr, lport), extensions)
}

/// An extension header of this many bytes: the second byte is its length, in eights without the
/// first.
pub fn extension(kind: u8, len: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0xee; len];
    bytes[1] = match kind {
        44 => 0,                                         // reserved
        51 => u8::try_from(len / 4 - 2).expect("short"), // in fours without the first two
        _ => u8::try_from(len / 8 - 1).expect("short"),
    };
    if kind == 44 {
        bytes[2..4].copy_from_slice(&[0, 0x07]); // no offset, all flags
    }
    (kind, bytes)
}
