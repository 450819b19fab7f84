//! The two endpoints of a connection, read from the socket or from an event that has them already.

use bpfasm::{Fragment, Reg, Size, bpf};

use crate::sock::Sock;
use crate::tcp::AF_INET;

/// Where endpoints are read from.
#[derive(Clone, Copy, Debug)]
pub enum Endpoints {
    /// The socket in `r6`.
    Sock(Sock),
    /// One of our structs, such as an event.
    Event(Place),
}

/// Where a struct has the endpoints: offsets from a register. Addresses have 16 bytes, an IPv4
/// address takes the first four. Ports are in network order.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// `r10`, or another register that helper calls do not clobber.
    pub base: Reg,
    /// `u16`, `AF_INET` or `AF_INET6`
    pub family: i16,
    /// 16 bytes
    pub laddr: i16,
    /// 16 bytes
    pub raddr: i16,
    /// `u16`
    pub lport: i16,
    /// `u16`
    pub rport: i16,
    /// `u32`, 0 if unknown
    pub netns: i16,
}

/// Where the caller's `Event` on the stack has the endpoints of its connection.
macro_rules! event_endpoints {
    () => {
        $crate::endpoints::Place {
            base: ::bpfasm::Reg::R10,
            family: $crate::stack_layout::event!(family),
            laddr: $crate::stack_layout::event!(laddr),
            raddr: $crate::stack_layout::event!(raddr),
            lport: $crate::stack_layout::event!(lport),
            rport: $crate::stack_layout::event!(rport),
            netns: $crate::stack_layout::event!(netns),
        }
    };
}
pub(crate) use event_endpoints;

/// Writes the endpoints of the socket in `r6` into an event on the stack. Clobbers `r0` to `r5`.
pub fn into_event(sock: Sock, event: Place) -> Fragment {
    into_event_with(sock, event, Endpoints::Sock(sock).port(Endpoint::Local))
}

/// As [`into_event`], for a request socket, which lacks the field with the local port (see
/// [`Sock::request`]): `local_port` leaves the port in `w1`, in network order.
pub fn into_event_with(sock: Sock, event: Place, local_port: Fragment) -> Fragment {
    assert_eq!(event.base, Reg::R10, "addresses go to the stack");
    let from = Endpoints::Sock(sock);
    bpf! {
        ..from.family();
        *(u16 *)(r10 + {event.family}) = w1;
        ..sock.addresses(event.laddr, event.raddr);
        ..from.port(Endpoint::Remote);
        *(u16 *)(r10 + {event.rport}) = w1;
        ..local_port;
        *(u16 *)(r10 + {event.lport}) = w1;
        ..sock.netns();
        *(u32 *)(r10 + {event.netns}) = w1;
    }
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoint {
    Local,
    Remote,
}

/// An IPv4 address in an IPv6 one is `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2): eighty zero bits,
/// sixteen ones, and the address. This is the third of the four 32-bit words.
const MAPPED_PREFIX: u32 = 0xffff_u32 << 16;
const _: () = assert!(cfg!(target_endian = "little"), "the constant above is for little-endian targets");

impl Endpoints {
    /// `w1` = the address family.
    pub fn family(self) -> Fragment {
        match self {
            Self::Sock(sock) => sock.common(Reg::R1, Size::B2, "sock_common.skc_family"),
            Self::Event(Place { base, family, .. }) => bpf! { w1 = *(u16 *)({base} + {family}); },
        }
    }

    /// `w1` = the port, in network order.
    pub fn port(self, side: Endpoint) -> Fragment {
        match (self, side) {
            // Not skc_num, which becomes 0 when the port is given back, before the change to CLOSE.
            (Self::Sock(sock), Endpoint::Local) => sock.load(Reg::R1, Size::B2, "inet_sock.inet_sport"),
            (Self::Sock(sock), Endpoint::Remote) => sock.common(Reg::R1, Size::B2, "sock_common.skc_dport"),
            (Self::Event(Place { base, lport, .. }), Endpoint::Local) => {
                bpf! { w1 = *(u16 *)({base} + {lport}); }
            }
            (Self::Event(Place { base, rport, .. }), Endpoint::Remote) => {
                bpf! { w1 = *(u16 *)({base} + {rport}); }
            }
        }
    }

    /// `dst` = an IPv4 address, if the family is `AF_INET`. Clobbers nothing else.
    pub fn ipv4(self, side: Endpoint, dst: Reg) -> Fragment {
        match (self, side) {
            (Self::Sock(sock), Endpoint::Local) => sock.common(dst, Size::B4, "sock_common.skc_rcv_saddr"),
            (Self::Sock(sock), Endpoint::Remote) => sock.common(dst, Size::B4, "sock_common.skc_daddr"),
            (Self::Event(place), _) => place.address(side, dst, Size::B4, 0),
        }
    }

    /// `dst` = a part of an address, `addend` bytes into it, if the family is `AF_INET6`. Clobbers
    /// nothing else.
    pub fn ipv6(self, side: Endpoint, dst: Reg, size: Size, addend: i16) -> Fragment {
        match (self, side) {
            (Self::Sock(sock), Endpoint::Local) => {
                sock.common_at(dst, size, "sock_common.skc_v6_rcv_saddr", addend)
            }
            (Self::Sock(sock), Endpoint::Remote) => {
                sock.common_at(dst, size, "sock_common.skc_v6_daddr", addend)
            }
            (Self::Event(place), _) => place.address(side, dst, size, addend),
        }
    }

    /// `w1` = the inode of the network namespace, as `/proc/PID/ns/net` shows it.
    pub fn netns(self) -> Fragment {
        match self {
            Self::Sock(sock) => sock.netns(),
            Self::Event(Place { base, netns, .. }) => bpf! { w1 = *(u32 *)({base} + {netns}); },
        }
    }

    /// Jumps to `label` if the connection's packets are IPv6 (`ipv6`), or if they are IPv4 (not
    /// `ipv6`). An `AF_INET6` socket with IPv4-mapped addresses sends IPv4. Clobbers `r1`.
    pub fn goto_if_ipv6(self, ipv6: bool, label: &'static str) -> Fragment {
        let (on_v6, on_v4) = if ipv6 { (label, "done") } else { ("done", label) };
        bpf! {
            ..self.family();
            if w1 == {AF_INET} goto {on_v4};
            ..self.goto_unless_mapped(Endpoint::Remote, on_v6);
            goto {on_v4};
        done:
        }
    }

    /// Jumps to `label` unless an `AF_INET6` address is a mapped IPv4 address, which is then in the
    /// last four bytes. Clobbers `r1`.
    pub fn goto_unless_mapped(self, side: Endpoint, label: &'static str) -> Fragment {
        bpf! {
            ..self.ipv6(side, Reg::R1, Size::B8, 0);
            if r1 != 0 goto {label};
            ..self.ipv6(side, Reg::R1, Size::B4, 8);
            if w1 != {MAPPED_PREFIX.cast_signed()} goto {label};
        }
    }
}

impl Place {
    fn address(self, side: Endpoint, dst: Reg, size: Size, addend: i16) -> Fragment {
        let base = self.base;
        let off = addend + if side == Endpoint::Local { self.laddr } else { self.raddr };
        match size {
            Size::B1 => bpf! { {dst} = *(u8 *)({base} + {off}); },
            Size::B2 => bpf! { {dst} = *(u16 *)({base} + {off}); },
            Size::B4 => bpf! { {dst} = *(u32 *)({base} + {off}); },
            Size::B8 => bpf! { {dst} = *(u64 *)({base} + {off}); },
        }
    }
}
