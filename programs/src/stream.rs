//! How far the two streams of a connection have come: the bytes that its process has read, and those it has written.
//!
//! The kernel knows both to the byte, whatever call moved them (`recv`, `splice`, a zero-copy receive). What an event moved is the
//! difference to what the table of sockets has, so every socket is entered at its birth, and those that are open at the start
//! as they are then.

use std::mem::offset_of;

use bpfasm::object::{Hook, Need};
use bpfasm::target::{Access, Target};
use bpfasm::{AsmError, Fragment, Reg, Size, bpf};

use crate::hook::Function;
use crate::layout::layout;
use crate::open_sockets;
use crate::sock::Sock;
use crate::stack_layout::{self, entry};
use crate::state_change::{self, NEWSTATE, OLDSTATE};
use crate::stats::{self, Count, count};
use crate::table::{self, IfExists, IfFull};
use crate::tcp::State;

layout! {
    /// What is kept of a socket while it lives.
    pub struct Entry as "stream" {
        /// Bytes read so far.
        pub read: u64,
        /// Bytes written so far, and whatever else went into the sequence before the socket was entered: only differences mean
        /// anything.
        pub written: u64,
    }
}

/// Where the bytes that an event has moved lie on the stack (`u64`): behind all that is built at [`stack_layout::ENTRY`].
pub const MOVED: i16 = stack_layout::ZERO - 8;

const READ: usize = offset_of!(Entry, read);
const WRITTEN: usize = offset_of!(Entry, written);

/// `SEND_SHUTDOWN`, include/net/sock.h.
const SEND_SHUTDOWN: i32 = 2;

/// `r1` = the bytes that were read so far, of those that arrived; so neither what waits to be read nor the FIN, which has a place
/// in the sequence as well. Clobbers `r0` to `r5` and `r8`.
fn read_so_far(sock: Sock) -> Fragment {
    bpf! {
        ..sock.load(Reg::R8, Size::B4, "tcp_sock.rcv_nxt");
        ..sock.load(Reg::R1, Size::B4, "tcp_sock.copied_seq");
        w8 -= w1;                                       // not read yet; with the FIN, where it has come
        if w8 != 0 goto waiting;
        // tcp_fin() sets SOCK_DONE, and nothing else does.
        ..sock.load(Reg::R8, Size::B8, "sock_common.skc_flags");
        r8 >>= enum(sock_flags.SOCK_DONE);
        w8 &= 1;
    waiting:
        ..sock.load(Reg::R1, Size::B8, "tcp_sock.bytes_received");
        r1 -= r8;
    }
}

/// `r1` = the bytes that were written so far, sent or not. Clobbers `r0` to `r5` and `r8`.
fn written_so_far(sock: Sock) -> Fragment {
    bpf! {
        ..sock.load(Reg::R8, Size::B4, "tcp_sock.write_seq");
        ..sock.load(Reg::R1, Size::B4, "tcp_sock.snd_una");
        w8 -= w1;                                       // not acknowledged yet
        ..sock.load(Reg::R1, Size::B8, "tcp_sock.bytes_acked");
        r1 += r8;
    }
}

/// Where the context has the result: arguments are eight bytes apart.
const RET: i16 = 8;

/// `r6` = the socket, and [`MOVED`] = what was sent; jumps to `out` if that is nothing, or no TCP.
///
/// For `sock_send_length(struct sock *sk, int ret, int flags)`, kernel 6.3, which is always the calling process.
pub fn sent(sock: Sock, out: &'static str) -> Fragment {
    bpf! {
        w2 = *(u32 *)(r1 + {RET});
        if w2 s<= 0 goto {out};                         // an error, or nothing
        *(u64 *)(r10 + {MOVED}) = r2;
        r6 = *(u64 *)(r1 + 0);                          // sk
        ..sock.stream(out);
    }
}

/// [`MOVED`] = what the socket in `r6` has read since the last time; jumps to `out` if that is nothing.
///
/// For `tcp_rcv_space_adjust(struct sock *sk)` (kernel 4.16), which comes after every step of reading, under the socket's lock.
/// A look (`MSG_PEEK`) moves nothing.
pub fn read(sock: Sock, out: &'static str) -> Fragment {
    bpf! {
        ..read_so_far(sock);
        ..since_last(sock, READ, out);
    }
}

/// [`MOVED`] = `r1`, less what the entry has there, which becomes `r1`; jumps to `out` if that is nothing.
fn since_last(sock: Sock, member: usize, out: &'static str) -> Fragment {
    bpf! {
        *(u64 *)(r10 + {MOVED}) = r1;
        ..table::lookup();
        if r8 == 0 goto unknown;
        r1 = *(u64 *)(r10 + {MOVED});
        r2 = *(u64 *)(r8 + {member});
        *(u64 *)(r8 + {member}) = r1;
        r1 -= r2;
        if r1 s<= 0 goto {out};
        *(u64 *)(r10 + {MOVED}) = r1;
        goto known;
    unknown:
        // What was moved before tracing began is none of ours, and this may be a part of it.
        ..enter(sock, IfExists::Keep);
        ..stats::open(out);
        ..count(Count::Untracked);
        goto {out};
    known:
    }
}

/// Enters the socket as it is now; `w0` is not 0 when it was not entered. Clobbers `r8`.
fn enter(sock: Sock, if_exists: IfExists) -> Fragment {
    bpf! {
        ..as_it_is(sock);
        ..table::store(if_exists);
    }
}

/// Builds the entry of a socket as it is now. Clobbers `r8`.
fn as_it_is(sock: Sock) -> Fragment {
    bpf! {
        ..read_so_far(sock);
        *(u64 *)(r10 + {entry!(read)}) = r1;
        ..written_so_far(sock);
        *(u64 *)(r10 + {entry!(written)}) = r1;
    }
}

/// The hooks that keep the table. The last is to be run once everything is attached ([`open_sockets::HOOK`]).
pub fn table_hooks(target: &Target) -> Result<[Hook; 3], AsmError> {
    let born = state_change::hook(target, born(Sock::new(target.access)))?;
    let open = open_sockets::hook(&|sock| as_it_is(sock))?
        .without("the first of what a connection carries that was open at the start");
    Ok([table::destroy_hook()?, born, open])
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: enters a new connection, whatever its
/// address was before.
fn born(sock: Sock) -> Fragment {
    bpf! {
        r9 = r1;
        *(u64 *)(r10 + {entry!(read)}) = 0;
        *(u64 *)(r10 + {entry!(written)}) = 1;          // the SYN of who opens has a place in the sequence
        w1 = *(u32 *)(r9 + {NEWSTATE});
        if w1 == {State::SYN_SENT.0} goto born;
        *(u64 *)(r10 + {entry!(written)}) = 0;
        if w1 != {State::SYN_RECV.0} goto out;
        w1 = *(u32 *)(r9 + {OLDSTATE});
        if w1 != {State::LISTEN.0} goto out;
    born:
        r6 = *(u64 *)(r9 + 0);                          // sk
        ..table::key();
        ..sock.tcp("out");
        ..table::enter_built(IfFull::SocketLost, "out");
    out:
        r0 = 0;
        exit;
    }
}

/// What a tool does without where [`release_hook`] stands in for the tracepoint.
pub const WITHOUT_SEND: &str =
    "bytes written in the moment of a reset, and those of MPTCP's own sockets; kTLS counts its records whole";

/// What is written, seen without the tracepoint that says so: a hook for kernels that lack it.
///
/// `tcp_release_cb(struct sock *sk)` is called whenever a process gives the lock of a socket back. `moved` continues with the
/// socket in `r6` and what was written in [`MOVED`]; it may jump to `out`.
pub fn release_hook(
    name: &'static str,
    target: &Target,
    moved: &dyn Fn(Sock) -> Fragment,
) -> Result<Hook, AsmError> {
    let program = |access| released(Sock::new(access), moved);
    let options = RELEASE.at_entry(target, Access::Typed, &Fragment::new(), &program)?;
    Ok(Hook::new(name, Need::Required, options))
}

/// `void tcp_release_cb(struct sock *sk)`
const RELEASE: Function =
    Function { name: "tcp_release_cb", trampoline: "release_fentry", kprobe: "release_kprobe" };

/// The program on [`RELEASE`], with the socket in `r6`.
fn released(sock: Sock, moved: &dyn Fn(Sock) -> Fragment) -> Fragment {
    bpf! {
        ..table::key();
        ..sock.tcp("out");
        // Before and after a connection, and once a FIN is in the sequence, its numbers tell of no bytes.
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
