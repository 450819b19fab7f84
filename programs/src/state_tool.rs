//! What tools have in common that follow sockets from state to state: the table, whose sockets they are, and one program of
//! their own on `inet_sock_set_state`.

use bpfasm::object::{Hook, Layout, Need, Object};
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, bpf};

use crate::owner::{self, Fill};
use crate::sock::Sock;
use crate::stats::{self, Count, count};
use crate::{LICENSE, emit, table};

/// Such a tool.
pub struct StateTool {
    /// Its name.
    pub name: &'static str,
    /// What it keeps of a socket.
    pub entry: Layout,
    /// How many sockets the table has room for.
    pub max_sockets: u32,
    /// Bytes of the ring.
    pub ring_bytes: u32,
    /// Its program on `inet_sock_set_state`.
    pub state_change: Fragment,
    /// Its program on `tcp_destroy_sock`, where there is more to do than to delete the entry.
    pub destroyed: Option<Fragment>,
    /// Hooks that complete an entry after the socket's birth: [`owner::hooks`], where its owner is not known from the start.
    pub learn: Vec<Hook>,
    /// How the entry of a socket that was open before is completed, if such are wanted.
    pub snapshot: Option<Fill>,
}

impl StateTool {
    /// Its programs and maps.
    pub fn object(self, target: &Target) -> Result<Object, AsmError> {
        let mut hooks = vec![match self.destroyed {
            None => table::destroy_hook()?,
            Some(program) => table::destroyed_hook(target, program)?,
        }];
        hooks.extend(self.learn);
        // After the hooks that improve an entry, so that none is born unobserved; before the walk over what is open.
        hooks.push(table::tracepoint_hook(
            "state change",
            Need::Required,
            "inet_sock_set_state",
            target,
            self.state_change,
        )?);
        if let Some(fill) = self.snapshot {
            hooks.push(owner::snapshot_hook(self.entry, fill)?);
        }
        Ok(Object {
            name: self.name.into(),
            license: LICENSE.into(),
            hooks,
            maps: vec![
                emit::map(target.ring, self.ring_bytes),
                stats::map(),
                table::map(self.entry, self.max_sockets),
            ],
            consts: Vec::new(),
        })
    }
}

/// How such a program begins: `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`.
///
/// Keeps the context in `r9`, makes the socket in `r6` readable, stores its key and counts the change; jumps to `out` when it is
/// none, or not of TCP.
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

/// Where the context has the old state: arguments are eight bytes apart.
pub const OLDSTATE: i16 = 8;
/// Where the context has the new state.
pub const NEWSTATE: i16 = 16;
