//! What became of a connection, or of the attempt to open one.

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
