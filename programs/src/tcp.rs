//! Constants of TCP that are the same in every kernel.

/// `AF_INET`, include/linux/socket.h.
pub const AF_INET: u16 = 2;
/// `AF_INET6`, include/linux/socket.h.
pub const AF_INET6: u16 = 10;
/// `IPPROTO_TCP`, include/uapi/linux/in.h.
pub const IPPROTO_TCP: u16 = 6;
/// `SOCK_STREAM`, include/linux/net.h.
pub const SOCK_STREAM: u16 = 1;
/// `SHUTDOWN_MASK`, include/net/sock.h: both directions are shut down, by a close or by
/// `shutdown(SHUT_RDWR)`.
pub const SHUTDOWN_MASK: u8 = 3;

/// A connection's state: the first enum of include/net/tcp_states.h, which is visible to users and
/// therefore never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State(pub u8);

impl State {
    pub const ESTABLISHED: Self = Self(1);
    pub const SYN_SENT: Self = Self(2);
    pub const SYN_RECV: Self = Self(3);
    pub const FIN_WAIT1: Self = Self(4);
    pub const FIN_WAIT2: Self = Self(5);
    pub const TIME_WAIT: Self = Self(6);
    pub const CLOSE: Self = Self(7);
    pub const CLOSE_WAIT: Self = Self(8);
    pub const LAST_ACK: Self = Self(9);
    pub const LISTEN: Self = Self(10);
    pub const CLOSING: Self = Self(11);
    pub const NEW_SYN_RECV: Self = Self(12);

    /// The kernel's name without `TCP_`; `None` for an unknown number.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ESTABLISHED => "ESTABLISHED",
            Self::SYN_SENT => "SYN_SENT",
            Self::SYN_RECV => "SYN_RECV",
            Self::FIN_WAIT1 => "FIN_WAIT1",
            Self::FIN_WAIT2 => "FIN_WAIT2",
            Self::TIME_WAIT => "TIME_WAIT",
            Self::CLOSE => "CLOSE",
            Self::CLOSE_WAIT => "CLOSE_WAIT",
            Self::LAST_ACK => "LAST_ACK",
            Self::LISTEN => "LISTEN",
            Self::CLOSING => "CLOSING",
            Self::NEW_SYN_RECV => "NEW_SYN_RECV",
            _ => return None,
        })
    }
}
