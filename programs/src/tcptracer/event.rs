//! The event of a connect, an accept or a close.

use crate::layout::layout;

layout! {
    /// Sent when a connection is opened, accepted or closed by a process here.
    pub struct Event as "tcptracer_event" {
        /// When it happened, `bpf_ktime_get_ns` (CLOCK_MONOTONIC).
        pub ts: u64,
        /// Remote address, the first four bytes for AF_INET.
        pub raddr: [u8; 16],
        /// Local address.
        pub laddr: [u8; 16],
        /// The thread's name.
        pub comm: [u8; 16],
        /// The process that connected, accepted or closed; 0 if unknown.
        pub pid: u32,
        /// Its user ID in the initial user namespace; 0 also if unknown.
        pub uid: u32,
        /// Network namespace: the inode that `/proc/PID/ns/net` shows.
        pub netns: u32,
        /// `sock_common.skc_dport`, network order
        pub rport: u16,
        /// `inet_sock.inet_sport`, network order
        pub lport: u16,
        /// `sock_common.skc_family`
        pub family: u16,
        /// A [`Kind`] as a number.
        pub kind: u16,
        /// Always 0.
        pub reserved: u32,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Kind {
    /// A connection that a process here requested is established.
    Connect = 1,
    /// A process here has accepted a connection.
    Accept = 2,
    /// A process here has closed the connection.
    Close = 3,
}

impl Event {
    /// `None` for a number that no program sends.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Some(match self.kind {
            1 => Kind::Connect,
            2 => Kind::Accept,
            3 => Kind::Close,
            _ => return None,
        })
    }
}
