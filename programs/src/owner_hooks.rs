//! Whose sockets are, for tools whose own events are others: the table of owners and the hooks that fill it.

use bpfasm::object::{Hook, Need};
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, bpf};

use crate::owner::{self, Owner, Rank};
use crate::sock::Sock;
use crate::state_tool::{NEWSTATE, OLDSTATE};
use crate::stats::{self, Count, count};
use crate::table::{self, IfExists};
use crate::tcp::State;

/// The hooks: every socket is entered at its birth, its owner when that is certain, and forgotten when the kernel forgets it.
/// What they see is none of the tool's events, so the account counts only sockets that found no room.
///
/// The map is `table::map(Owner::LAYOUT, …)`. The last hook is to be run once everything is attached ([`owner::SNAPSHOT_HOOK`]).
pub fn hooks(target: &Target) -> Result<Vec<Hook>, AsmError> {
    let mut hooks = vec![table::destroy_hook()?];
    hooks.extend(owner::hooks(target)?);
    hooks.push(table::tracepoint_hook(
        "state change",
        Need::Required,
        "inet_sock_set_state",
        target,
        state_change(Sock::new(target.access)),
    )?);
    hooks.push(owner::snapshot_hook(Owner::LAYOUT, |_| Fragment::new())?);
    Ok(hooks)
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
fn state_change(sock: Sock) -> Fragment {
    bpf! {
        r9 = r1;
        w1 = *(u32 *)(r9 + {OLDSTATE});
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w1 == w2 goto out;
        r6 = *(u64 *)(r9 + 0);                          // sk
        ..table::key();
        ..sock.tcp("out");
        w1 = *(u32 *)(r9 + {OLDSTATE});
        w2 = *(u32 *)(r9 + {NEWSTATE});
        if w1 == {State::CLOSE.0} goto born;
        if w1 != {State::LISTEN.0} goto alive;
        if w2 == {State::SYN_RECV.0} goto born;         // a new connection, whatever its address was before
    alive:
        ..table::lookup();
        if r8 == 0 goto out;
        ..owner::into_entry(sock, Rank::Closed);
        goto out;
    born:
        ..table::clear(Owner::LAYOUT);
        ..owner::into_new_entry(sock, Rank::Used);      // out of a listener: nobody acts
        ..table::store(IfExists::Replace);
        if w0 == 0 goto out;
        ..stats::open("out");
        ..count(Count::Untracked);
    out:
        r0 = 0;
        exit;
    }
}
