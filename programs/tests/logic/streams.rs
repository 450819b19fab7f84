//! The two streams of a connection as the kernel counts them, and the calls that move bytes.

use programs::stats::Stats;

use crate::lab::fate::NOTHING;
use crate::tool::{Sock, Tool};
use crate::vm::machine::Task;

/// A socket was not in the table.
pub const UNTRACKED: Stats = Stats { untracked: 1, ..NOTHING };

/// The programs that see a socket's lock given back: on the function itself, and by a probe.
pub const RELEASES: [&str; 2] = ["release_fentry", "release_kprobe"];

/// How far a connection has come.
#[derive(Clone, Copy, Default, Debug)]
pub struct Streams {
    /// Where the other side's sequence began.
    pub irs: u32,
    /// Bytes that were read.
    pub received: u64,
    /// Bytes that arrived and were not read.
    pub waiting: u64,
    /// The FIN has arrived.
    pub fin: bool,
    /// And was read.
    pub fin_read: bool,
    /// Where our sequence began.
    pub iss: u32,
    /// 1 where our SYN is a part of what is acknowledged.
    pub syn: u64,
    /// Bytes that were written.
    pub written: u64,
    /// What was acknowledged of that and of the SYN.
    pub acked: u64,
}

impl Streams {
    /// Bytes arrive.
    pub fn arrive(&mut self, bytes: u64) {
        self.waiting += bytes;
    }

    /// Bytes are read.
    pub fn read(&mut self, bytes: u64) {
        self.waiting -= bytes;
        self.received += bytes;
    }
}

/// The sequence number this many bytes after the first.
fn seq(first: u32, bytes: u64) -> u64 {
    (u64::from(first) + bytes) & u64::from(u32::MAX)
}

impl Tool<'_> {
    /// Sets the fields that describe the streams.
    pub fn streams(&mut self, sock: Sock, streams: Streams) {
        let Streams { irs, received, waiting, fin, fin_read, iss, syn, written, acked } = streams;
        let arrived = received + waiting + u64::from(fin);
        let done = 1 << self.machine().kernel.enum_value("sock_flags", "SOCK_DONE");
        for (path, value) in [
            ("tcp_sock.bytes_received", arrived),
            ("tcp_sock.rcv_nxt", seq(irs, arrived)),
            ("tcp_sock.copied_seq", seq(irs, received + u64::from(fin_read))),
            ("sock_common.skc_flags", if fin { done } else { !done }),
            ("tcp_sock.bytes_acked", acked),
            ("tcp_sock.snd_una", seq(iss, acked)),
            ("tcp_sock.write_seq", seq(iss, syn + written)),
        ] {
            self.set_sock(sock, path, value);
        }
    }

    /// `task` has read from a socket, which it has locked.
    pub fn reads(&mut self, task: Task, sock: Sock) -> Stats {
        self.at(0, task);
        self.owned(sock, true);
        let fate = self.run("tcp_rcv_space_adjust", &[sock.address]);
        self.owned(sock, false);
        fate
    }

    /// A call of `task` that sends returns this.
    pub fn sends(&mut self, task: Task, sock: Sock, result: i32) -> Stats {
        self.at(0, task);
        // Of an argument of four bytes, the kernel leaves anything in the upper half.
        let result = u64::from(result.cast_unsigned()) | 0x5a5a_5a5a << 32;
        self.run("sock_send_length", &[sock.address, result, 0])
    }

    /// `task` gives a socket's lock back, seen by one of [`RELEASES`].
    pub fn releases(&mut self, program: &str, task: Task, sock: Sock) -> Stats {
        self.at(0, task);
        if program == RELEASES[0] {
            return self.run(program, &[sock.address]);
        }
        self.enters(program, &[sock.address])
    }
}
