//! What became of a connection, or of the attempt to open one.

use bpfasm::{Fragment, Reg, Size, bpf};

use crate::sock::Sock;
use crate::tcp::SHUTDOWN_MASK;

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The other side answered, and it was established.
    Established,
    /// A session that ended by FINs.
    Closed,
    /// Ended by a reset from the other side.
    Reset,
    /// Ended by a reset from this side, or given up before it was established.
    Aborted,
    /// Never established: the port is closed.
    Refused,
    /// The other side stopped answering.
    Timeout,
    /// There is no way to the other side.
    Unreachable,
}

impl Outcome {
    /// The word for machines and people.
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

    /// What `sock.sk_err` of a socket that changes to CLOSE tells, a positive errno; `None` where it tells nothing, and the
    /// other side did nothing to end it.
    #[must_use]
    pub const fn of_error(err: u32) -> Option<Self> {
        Some(match err {
            errno::ECONNREFUSED => Self::Refused,
            errno::ETIMEDOUT => Self::Timeout,
            // What ICMP says in words of its own: icmp_err_convert, net/ipv4/icmp.c, and tab_unreach, net/ipv6/icmp.c.
            errno::EACCES
            | errno::ENONET
            | errno::EPROTO
            | errno::ENOPROTOOPT
            | errno::EOPNOTSUPP
            | errno::ENETUNREACH
            | errno::EHOSTDOWN
            | errno::EHOSTUNREACH => Self::Unreachable,
            // The kernel says EPIPE for a reset that meets a socket whose other side had sent its FIN.
            errno::ECONNRESET | errno::EPIPE => Self::Reset,
            _ => return None,
        })
    }
}

/// Writes into an event on the stack why the socket in `r6` changes to CLOSE: at `err` (`u32`) its `sock.sk_err`, a positive errno,
/// and at `err_taken` (`u8`), which is 0 so far, 1 if there is none because a process may have taken it.
///
/// `getsockopt(SO_ERROR)` takes an error without the socket's lock, so also between the moments when the kernel sets it and
/// changes the state. There is nobody to do that where no process has the socket (`sk_socket`): it waits to be accepted, or was
/// closed. And there is no error where the task that runs ends the connection of its own accord: it holds the lock, and has
/// closed the socket, or there are no packets that it handles before it gives the lock back.
pub(crate) fn into_event(sock: Sock, err: i16, err_taken: i16) -> Fragment {
    bpf! {
        ..sock.load(Reg::R1, Size::B4, "sock.sk_err");
        *(u32 *)(r10 + {err}) = w1;
        if w1 != 0 goto known;
        ..sock.load(Reg::R1, Size::B8, "sock.sk_socket");
        if r1 == 0 goto known;
        ..sock.load(Reg::R1, Size::B4, "sock.sk_lock.owned");
        if w1 == 0 goto unknown;
        ..sock.load(Reg::R1, Size::B1, "sock.sk_shutdown");
        if w1 == {SHUTDOWN_MASK} goto known;
        ..sock.load(Reg::R1, Size::B4, "sock.sk_backlog.len");
        if w1 == 0 goto known;
    unknown:
        *(u8 *)(r10 + {err_taken}) = 1;
    known:
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
