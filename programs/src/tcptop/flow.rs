//! What is added up, and by what.

use crate::layout::layout;

layout! {
    /// A connection and the process that uses it: bytes are added up by this.
    pub struct Flow as "tcptop_flow" {
        /// The address of the network namespace in the kernel. [`Traffic::netns`] is its inode.
        pub net: u64,
        /// Process in the initial PID namespace; 0 for bytes that the kernel read for itself.
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
    /// The bytes of a flow in an interval.
    pub struct Traffic as "tcptop_traffic" {
        /// Bytes that the process wrote.
        pub sent: u64,
        /// Bytes that the process read.
        pub received: u64,
        /// The name of the thread that was the first to send or receive.
        pub comm: [u8; 16],
        /// Network namespace: the inode that `/proc/PID/ns/net` shows.
        pub netns: u32,
        /// `sock_common.skc_family`
        pub family: u32,
    }
}
