//! The tracepoint of state changes: `inet_sock_set_state(const struct sock *sk, const int oldstate,
//! const int newstate)`.

use bpfasm::object::{Hook, Need};
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, bpf};

use crate::sock::Sock;
use crate::stats::{self, Count, count};
use crate::{hook, table};

/// Offset of the old state in the context, where each argument takes eight bytes.
pub const OLDSTATE: i16 = 8;
/// Offset of the new state in the context.
pub const NEWSTATE: i16 = 16;

/// The hook with this program. A tool has one such hook.
pub fn hook(target: &Target, program: Fragment) -> Result<Hook, AsmError> {
    hook::tracepoint("state change", Need::Required, "inet_sock_set_state", target, program)
}

/// How the program of a tool begins whose events are state changes.
///
/// Keeps the context in `r9`, makes the socket in `r6` readable, stores its key and counts the
/// event as seen. Jumps to `out` if the state does not change, and if the socket is not a TCP
/// socket.
pub fn begin(sock: Sock, out: &'static str) -> Fragment {
    bpf! {
        r9 = r1;
        w1 = *(u32 *)(r9 + {OLDSTATE});
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w1 == w2 goto {out};                         // MPTCP repeats itself
        r6 = *(u64 *)(r9 + 0);                          // sk
        ..table::key();
        ..sock.tcp(out);
        ..stats::open(out);
        ..count(Count::Seen);
    }
}
