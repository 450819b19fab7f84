//! Sockets and processes for the cases.

use programs::tcp::{AF_INET, AF_INET6};

use crate::vm::machine::Task;

/// The process that the sockets belong to.
pub const OWNER: Task = Task { tgid: 0x0a11_ce01, tid: 0x0a11_ce02, comm: *b"alice-the-owner\0" };
/// A process with another thread name that also uses them.
pub const OTHER: Task = Task { tgid: 0x0b0b_0001, tid: 0x0b0b_0002, comm: *b"bob-who-is-next\0" };
/// The task that happens to run when a packet arrives.
pub const STRANGER: Task = Task { tgid: 0x0e5e_0001, tid: 0x0e5e_0002, comm: *b"eve-in-softirqs\0" };
/// The process of an event whose owner is unknown.
pub const NO_PROCESS: Task = Task { tgid: 0, tid: 0, comm: [0; 16] };

/// A socket's fields. Every value differs from every other, so that none can pass for another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    pub family: u16,
    pub protocol: u16,
    /// `sk_type`: 1 is `SOCK_STREAM`.
    pub kind: u16,
    pub laddr: [u8; 16],
    pub raddr: [u8; 16],
    /// In host order.
    pub lport: u16,
    /// In host order.
    pub rport: u16,
    pub netns: u32,
    pub err: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub snd_una: u32,
    pub write_seq: u32,
    pub fin_received: bool,
}

impl Spec {
    /// 192.0.2.33:20531 to 198.51.100.44:10277
    pub const V4: Self = Self {
        family: AF_INET,
        protocol: 6,
        kind: 1,
        laddr: [192, 0, 2, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        raddr: [198, 51, 100, 44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        lport: 20531,
        rport: 10277,
        netns: 0xf000_0123,
        err: 0x6162_6364,
        bytes_acked: 0x0102_0304_0506_0708,
        bytes_received: 0x1112_1314_1516_1718,
        bytes_sent: 0x2122_2324_2526_2728,
        bytes_retrans: 0x3132_3334_3536_3738,
        snd_una: 0x4142_4344,
        write_seq: 0x5152_5354,
        fin_received: true,
    };

    /// 2001:db8:8:9:a:b:c:d to 2001:db8:1:2:3:4:5:6, otherwise like [`Spec::V4`].
    pub const V6: Self = Self {
        family: AF_INET6,
        laddr: [0x20, 1, 0x0d, 0xb8, 0, 8, 0, 9, 0, 0x0a, 0, 0x0b, 0, 0x0c, 0, 0x0d],
        raddr: [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6],
        ..Self::V4
    };

    /// The connection of [`Spec::V4`] on an `AF_INET6` socket.
    pub const MAPPED: Self = Self {
        family: AF_INET6,
        laddr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 33],
        raddr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 44],
        ..Self::V4
    };
}

/// Families and protocols that are not TCP: MPTCP, whose lower byte is TCP's, SCTP, UDP, and
/// families that are not the internet's, one of which has its lower byte.
pub const OTHERS: [(u16, u16); 7] = [(2, 262), (10, 262), (10, 132), (2, 17), (1, 6), (16, 6), (0x102, 6)];
