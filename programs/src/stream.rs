//! The bytes that a process has read from a connection, and those it has written to it.
//!
//! The kernel knows both numbers exactly, whichever system call moved the bytes (`recv`, `splice`,
//! a zero-copy receive). An event tells that bytes were moved, but not how many: that is the
//! difference between the number now and the one in the table of sockets. So every socket is
//! entered at its birth with zero bytes, and the sockets that are open at the start with the
//! numbers that they have then.

use std::mem::offset_of;

use bpfasm::object::{Hook, Need};
use bpfasm::target::{Access, Target};
use bpfasm::{AsmError, Fragment, Reg, Size, bpf};

use crate::hook::{self, Function};
use crate::layout::layout;
use crate::open_sockets;
use crate::sock::Sock;
use crate::stack_layout::{self, entry};
use crate::state_change::{self, NEWSTATE, OLDSTATE};
use crate::stats::{self, Count, count};
use crate::table::{self, IfExists, IfFull};
use crate::tcp::State;

layout! {
    /// What the table has for a socket.
    pub struct Entry as "stream" {
        /// The number of bytes read.
        pub read: u64,
        /// The number of bytes written, plus the sequence numbers that other things had taken when
        /// the socket was entered. Only differences of it mean anything.
        pub written: u64,
    }
}

/// The place on the stack for the number of bytes that an event has moved (`u64`): at the end of
/// [`stack_layout::ENTRY`], behind all entries that are built there.
pub const MOVED: i16 = stack_layout::ZERO - 8;

const READ: usize = offset_of!(Entry, read);
const WRITTEN: usize = offset_of!(Entry, written);

/// `SEND_SHUTDOWN`, include/net/sock.h.
const SEND_SHUTDOWN: i32 = 2;

/// `r1` = the number of bytes that were read. The kernel counts what has arrived, so what waits to
/// be read is subtracted, and so is the peer's FIN, which takes a sequence number. Clobbers `r0` to
/// `r5` and `r8`.
fn read_so_far(sock: Sock) -> Fragment {
    bpf! {
        ..sock.load(Reg::R8, Size::B4, "tcp_sock.rcv_nxt");
        ..sock.load(Reg::R1, Size::B4, "tcp_sock.copied_seq");
        w8 -= w1;                                       // not read yet, and the FIN if it has arrived
        if w8 != 0 goto waiting;
        // Only tcp_fin() sets SOCK_DONE.
        ..sock.load(Reg::R8, Size::B8, "sock_common.skc_flags");
        r8 >>= enum(sock_flags.SOCK_DONE);
        w8 &= 1;
    waiting:
        ..sock.load(Reg::R1, Size::B8, "tcp_sock.bytes_received");
        r1 -= r8;
    }
}

/// `r1` = the number of bytes that were written, whether they have been sent or not. Clobbers `r0`
/// to `r5` and `r8`.
fn written_so_far(sock: Sock) -> Fragment {
    bpf! {
        ..sock.load(Reg::R8, Size::B4, "tcp_sock.write_seq");
        ..sock.load(Reg::R1, Size::B4, "tcp_sock.snd_una");
        w8 -= w1;                                       // not acknowledged yet
        ..sock.load(Reg::R1, Size::B8, "tcp_sock.bytes_acked");
        r1 += r8;
    }
}

/// Offset of the result in the context, where each argument takes eight bytes.
const RET: i16 = 8;

/// `r6` = the socket, and [`MOVED`] = the number of bytes sent. Jumps to `out` if that is 0, or if
/// the socket is not a TCP socket.
///
/// For `sock_send_length(struct sock *sk, int ret, int flags)`, which always runs in the calling
/// process.
fn sent(sock: Sock, out: &'static str) -> Fragment {
    bpf! {
        w2 = *(u32 *)(r1 + {RET});
        if w2 s<= 0 goto {out};                         // an error, or nothing
        *(u64 *)(r10 + {MOVED}) = r2;
        r6 = *(u64 *)(r1 + 0);                          // sk
        ..sock.stream(out);
    }
}

/// [`MOVED`] = the number of bytes read from the socket in `r6` since the last time. Jumps to `out`
/// if that is 0.
///
/// For `tcp_rcv_space_adjust(struct sock *sk)` (kernel 4.16), which follows every step of reading,
/// under the socket's lock. `MSG_PEEK` moves no bytes.
pub fn read(sock: Sock, out: &'static str) -> Fragment {
    bpf! {
        ..read_so_far(sock);
        ..since_last(sock, READ, out);
    }
}

/// [`MOVED`] = `r1` minus the entry's `member`, which becomes `r1`. Jumps to `out` if the
/// difference is 0, and if the table does not have the socket.
fn since_last(sock: Sock, member: usize, out: &'static str) -> Fragment {
    bpf! {
        *(u64 *)(r10 + {MOVED}) = r1;
        ..table::lookup();
        if r8 == 0 goto no_entry;
        r1 = *(u64 *)(r10 + {MOVED});
        r2 = *(u64 *)(r8 + {member});
        *(u64 *)(r8 + {member}) = r1;
        r1 -= r2;
        if r1 s<= 0 goto {out};
        *(u64 *)(r10 + {MOVED}) = r1;
        goto moved;
    no_entry:
        // These bytes may have been moved before tracing began, so they do not count.
        ..present_entry(sock);
        ..table::store(IfExists::Keep);
        ..stats::open(out);
        ..count(Count::Untracked);
        goto {out};
    moved:
    }
}

/// Builds the entry of a socket with its present numbers. Clobbers `r8`.
fn present_entry(sock: Sock) -> Fragment {
    bpf! {
        ..read_so_far(sock);
        *(u64 *)(r10 + {entry!(read)}) = r1;
        ..written_so_far(sock);
        *(u64 *)(r10 + {entry!(written)}) = r1;
    }
}

/// The hooks that keep the table. The last one has to run after everything is attached
/// ([`open_sockets::HOOK`]).
pub fn table_hooks(target: &Target) -> Result<[Hook; 3], AsmError> {
    let born = state_change::hook(target, born(Sock::new(target.access)))?;
    let open = open_sockets::hook(&|sock| present_entry(sock))?
        .without("the first bytes of connections that were open at the start");
    Ok([table::destroy_hook()?, born, open])
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: enters a
/// new connection, which may reuse the address of an old one.
fn born(sock: Sock) -> Fragment {
    bpf! {
        r9 = r1;
        *(u64 *)(r10 + {entry!(read)}) = 0;
        *(u64 *)(r10 + {entry!(written)}) = 1;          // the active side's SYN takes a sequence number
        w1 = *(u32 *)(r9 + {NEWSTATE});
        if w1 == {State::SYN_SENT.0} goto new;
        *(u64 *)(r10 + {entry!(written)}) = 0;
        if w1 != {State::SYN_RECV.0} goto out;
        w1 = *(u32 *)(r9 + {OLDSTATE});
        if w1 != {State::LISTEN.0} goto out;
    new:
        r6 = *(u64 *)(r9 + 0);                          // sk
        ..table::key();
        ..sock.tcp("out");
        ..table::enter_built(IfFull::SocketLost, "out");
    out:
        r0 = 0;
        exit;
    }
}

/// The name of the hook on the tracepoint `sock_send_length`, which kernels have since 6.3.
pub const SEND_HOOK: &str = "send";

/// Two hooks that see written bytes: on the tracepoint, and its fallback on `tcp_release_cb`, which
/// the kernel calls when a process that has written gives the lock of the socket back. The fallback
/// needs the hooks that keep the table ([`table_hooks`]), the tracepoint does not.
///
/// `moved` continues in the writing process, with the socket in `r6` and the number of bytes in
/// [`MOVED`], and may jump to `out`.
pub fn sent_hooks(target: &Target, moved: &dyn Fn(Sock) -> Fragment) -> Result<[Hook; 2], AsmError> {
    let sock = Sock::new(target.access);
    let sent = bpf! {
        ..sent(sock, "out");
        ..moved(sock);
    out:
        r0 = 0;
        exit;
    };
    let send = hook::tracepoint(SEND_HOOK, Need::Optional, "sock_send_length", target, sent)?
        .without("bytes written just before a reset, bytes of MPTCP sockets, and exact numbers with kTLS");
    let released = |access| released(Sock::new(access), moved);
    let options = RELEASE.at_entry(target, Access::Typed, &Fragment::new(), &released)?;
    Ok([send, Hook::new("sent bytes", Need::Required, options).fallback_for(SEND_HOOK)])
}

/// `void tcp_release_cb(struct sock *sk)`
const RELEASE: Function =
    Function { name: "tcp_release_cb", trampoline: "release_fentry", kprobe: "release_kprobe" };

/// The program on [`RELEASE`], with the socket in `r6`.
fn released(sock: Sock, moved: &dyn Fn(Sock) -> Fragment) -> Fragment {
    bpf! {
        ..table::key();
        ..sock.tcp("out");
        // The numbers do not count bytes before and after a connection, and once a FIN is in the
        // sequence.
        ..sock.common(Reg::R1, Size::B1, "sock_common.skc_state");
        if w1 == {State::CLOSE.0} goto out;
        if w1 == {State::LISTEN.0} goto out;
        ..sock.load(Reg::R1, Size::B1, "sock.sk_shutdown");
        if w1 & {SEND_SHUTDOWN} goto out;
        ..written_so_far(sock);
        ..since_last(sock, WRITTEN, "out");
        ..moved(sock);
    out:
        r0 = 0;
        exit;
    }
}
