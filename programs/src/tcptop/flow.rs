//! What is added up, and what for.

use crate::layout::layout;

layout! {
    /// A connection in the hands of a process: what bytes are added up for.
    pub struct Flow as "tcptop_flow" {
        /// The network namespace, by its address in the kernel. See [`Traffic::netns`].
        pub net: u64,
        /// Process in the initial PID namespace; 0 for what the kernel read for its own sake.
        pub pid: u32,
        /// `inet_sock.inet_sport`, network order
        pub lport: u16,
        /// `sock_common.skc_dport`, network order
        pub rport: u16,
        /// Local address, the first four bytes for AF_INET.
        pub laddr: [u8; 16],
        /// Remote address.
        pub raddr: [u8; 16],
    }
}

layout! {
    /// Its bytes in an interval.
    pub struct Traffic as "tcptop_traffic" {
        /// Bytes that the process handed over for sending.
        pub sent: u64,
        /// Bytes that it took out of the socket.
        pub received: u64,
        /// The name of the thread that was the first to send or receive.
        pub comm: [u8; 16],
        /// Network namespace, as `/proc/PID/ns/net` names it.
        pub netns: u32,
        /// `sock_common.skc_family`
        pub family: u32,
    }
}
