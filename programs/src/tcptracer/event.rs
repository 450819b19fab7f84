//! What a connect, an accept or a close tells.

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
        /// Who connected, accepted or closed; 0 where not known.
        pub pid: u32,
        /// Their user, in the initial user namespace; 0 also where not known.
        pub uid: u32,
        /// Network namespace, as `/proc/PID/ns/net` names it.
        pub netns: u32,
        /// `sock_common.skc_dport`, network order
        pub rport: u16,
        /// `inet_sock.inet_sport`, network order
        pub lport: u16,
        /// `sock_common.skc_family`
        pub family: u16,
        /// A [`Kind`] as a number.
        pub kind: u16,
        /// Fills up to eight bytes.
        pub reserved: u32,
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Kind {
    /// A connection that this side asked for is established.
    Connect = 1,
    /// A connection that the other side asked for was handed to a process.
    Accept = 2,
    /// A process closed its end.
    Close = 3,
}

impl Event {
    /// What happened; `None` for what no program sends.
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
