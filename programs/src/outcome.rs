//! The outcome of a connection, or of the attempt to open one.

use bpfasm::{Fragment, Reg, Size, bpf};

use crate::sock::Sock;
use crate::tcp::SHUTDOWN_MASK;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Established,
    /// The connection ended by FINs.
    Closed,
    /// The peer ended the connection by a reset.
    Reset,
    /// This host ended the connection by a reset, or gave up before it was established.
    Aborted,
    /// The connection was never established: the port is closed.
    Refused,
    /// The peer did not answer any more.
    Timeout,
    /// The peer cannot be reached: a router or the local table said so.
    Unreachable,
}

impl Outcome {
    /// The word in rows and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }

    /// The outcome that `sock.sk_err`, a positive errno, of a socket that changes to CLOSE tells.
    /// `None` if the peer did nothing to end the connection.
    #[must_use]
    pub const fn of_error(err: u32) -> Option<Self> {
        Some(match err {
            errno::ECONNREFUSED => Self::Refused,
            errno::ETIMEDOUT => Self::Timeout,
            // Errors from ICMP: icmp_err_convert, net/ipv4/icmp.c, and tab_unreach,
            // net/ipv6/icmp.c.
            errno::EACCES
            | errno::ENONET
            | errno::EPROTO
            | errno::ENOPROTOOPT
            | errno::EOPNOTSUPP
            | errno::ENETUNREACH
            | errno::EHOSTDOWN
            | errno::EHOSTUNREACH => Self::Unreachable,
            // The kernel sets EPIPE for a reset that follows the peer's FIN.
            errno::ECONNRESET | errno::EPIPE => Self::Reset,
            _ => return None,
        })
    }
}

/// Writes into an event on the stack why the socket in `r6` changes to CLOSE: at `err` (`u32`) its
/// `sock.sk_err`, a positive errno, and at `err_taken` (`u8`), which is 0 before, 1 if there may
/// have been an error that a process has taken.
///
/// `getsockopt(SO_ERROR)` returns the error and resets it to 0, without the socket's lock. So it
/// can do that between the kernel's setting the error and changing the state, and a 0 is ambiguous.
/// It certainly means "no error" in two cases:
///
/// - No process has the socket (`sk_socket` is 0), because it waits to be accepted or was closed.
/// - The current task ends the connection itself. It holds the lock, and either it has closed the
///   socket, or the backlog is empty, so that it is not handling packets while it gives the lock
///   back.
pub(crate) fn into_event(sock: Sock, err: i16, err_taken: i16) -> Fragment {
    bpf! {
        ..sock.load(Reg::R1, Size::B4, "sock.sk_err");
        *(u32 *)(r10 + {err}) = w1;
        if w1 != 0 goto certain;
        ..sock.load(Reg::R1, Size::B8, "sock.sk_socket");
        if r1 == 0 goto certain;
        ..sock.load(Reg::R1, Size::B4, "sock.sk_lock.owned");
        if w1 == 0 goto ambiguous;
        ..sock.load(Reg::R1, Size::B1, "sock.sk_shutdown");
        if w1 == {SHUTDOWN_MASK} goto certain;
        ..sock.load(Reg::R1, Size::B4, "sock.sk_backlog.len");
        if w1 == 0 goto certain;
    ambiguous:
        *(u8 *)(r10 + {err_taken}) = 1;
    certain:
    }
}

/// include/uapi/asm-generic/errno.h
pub(crate) mod errno {
    pub const EACCES: u32 = 13;
    pub const EPIPE: u32 = 32;
    pub const ENONET: u32 = 64;
    pub const EPROTO: u32 = 71;
    pub const ENOPROTOOPT: u32 = 92;
    pub const EOPNOTSUPP: u32 = 95;
    pub const ENETUNREACH: u32 = 101;
    pub const ECONNRESET: u32 = 104;
    pub const ETIMEDOUT: u32 = 110;
    pub const ECONNREFUSED: u32 = 111;
    pub const EHOSTDOWN: u32 = 112;
    pub const EHOSTUNREACH: u32 = 113;
}
