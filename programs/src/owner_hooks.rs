//! The hooks that find out who owns a socket. [`crate::owner`] has the record they fill in, and how
//! it is read.
//!
//! A tool that follows sockets anyway enters each of them itself, and adds [`improve`] and
//! [`preexisting`]. A tool whose own events are others, such as dropped packets, takes [`all`]: a
//! table of nothing but owners, and the hooks that keep it.

use bpfasm::object::{Detach, Hook, Layout, MapDef, Need};
use bpfasm::target::{Access, KernelVersion, Target};
use bpfasm::{AsmError, Fragment, bpf};

use crate::owner::{self, Owner, Rank};
use crate::sock::Sock;
use crate::state_change::{self, NEWSTATE, OLDSTATE};
use crate::table::{self, IfFull};
use crate::tcp::State;
use crate::{accept, hook, open_sockets};

/// Hooks that name an owner, or a better one, after a socket's birth: its first send and receive,
/// and its accept.
pub fn improve(target: &Target) -> Result<Vec<Hook>, AsmError> {
    let mut hooks = Vec::new();
    // sock_send_length(struct sock *sk, int ret, int flags) and sock_recv_length, kernel 6.3:
    // always in the process that makes the system call.
    for (name, tracepoint) in [("first send", "sock_send_length"), ("first receive", "sock_recv_length")] {
        let body = bpf! {
            r6 = *(u64 *)(r1 + 0);                      // sk
            ..name_current(target.access, Rank::Used);
        };
        hooks.push(
            hook::untyped_tracepoint(name, Need::Optional, tracepoint, body)?
                .without("the owner of a connection that one process accepts and another one uses"),
        );
    }
    hooks.push(accept(target)?);
    Ok(hooks)
}

/// Kernels from this version on tell which process sends and receives.
const SOCKET_LENGTHS: KernelVersion = KernelVersion { major: 6, minor: 3, patch: 0 };

fn accept(target: &Target) -> Result<Hook, AsmError> {
    let program = |access| name_current(access, Rank::Accepted);
    let options = accept::functions(target, &Fragment::new(), &program)?;
    let missing = if target.version < SOCKET_LENGTHS {
        "the owner of an accepted connection until a process closes it"
    } else {
        "the owner of an accepted connection until a process sends or receives on it"
    };
    // Once the tool detaches, no event needs what these programs write, so nothing waits for them.
    Ok(Hook::new("accept", Need::Optional, options).without(missing).detach(Detach::Unwaited))
}

/// A program's body that names the current task as the owner of the socket whose address is in
/// `r6`, if the table has the socket and no owner of this rank. For moments in process context,
/// where there is no need to look at the lock.
fn name_current(access: Access, rank: Rank) -> Fragment {
    bpf! {
        ..table::key();
        ..table::lookup();
        if r8 == 0 goto out;
        ..owner::current_into_entry(access, rank, "out", Fragment::new());
    out:
        r0 = 0;
        exit;
    }
}

/// How the entry of a socket that was open before is completed. Gets the socket in `r6`, read by
/// the given [`Sock`]; may jump to `skip`, and clobber all registers.
pub type Fill = fn(Sock) -> Fragment;

/// Enters the sockets that are open when tracing begins, with their owners, and completes each
/// entry with `fill`.
pub fn preexisting(entry: Layout, fill: Fill) -> Result<Hook, AsmError> {
    let build = |sock| {
        bpf! {
            ..table::clear(entry);
            ..owner::task_into_new_entry(Rank::Preexisting);
            ..fill(sock);
        }
    };
    Ok(open_sockets::hook(&build)?
        .without("the owners of sockets that were open at the start, except in this network namespace"))
}

/// The hooks that keep a table of owners, for tools that have no other table of sockets.
///
/// Every socket is entered at its birth, gets its owner at the moment when that is certain, and is
/// deleted when the kernel destroys it. These events are not the tool's own, so the account only
/// counts sockets that the table has no space for.
///
/// The map is [`map`]. The last hook has to run after everything is attached
/// ([`open_sockets::HOOK`]).
pub fn all(target: &Target) -> Result<Vec<Hook>, AsmError> {
    let mut hooks = vec![table::destroy_hook()?];
    hooks.extend(improve(target)?);
    hooks.push(state_change::hook(target, state_change(Sock::new(target.access)))?);
    hooks.push(preexisting(Owner::LAYOUT, |_| Fragment::new())?);
    Ok(hooks)
}

/// The table of owners, for `max_sockets` sockets.
#[must_use]
pub fn map(max_sockets: u32) -> MapDef {
    table::map(Owner::LAYOUT, max_sockets)
}

/// The program on `inet_sock_set_state`.
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
        if w1 == {State::CLOSE.0} goto new;
        if w1 != {State::LISTEN.0} goto existing;
        if w2 == {State::SYN_RECV.0} goto new;          // a new connection, which may reuse an old address
    existing:
        ..table::lookup();
        if r8 == 0 goto out;
        ..owner::into_entry(sock, Rank::Closed);
        goto out;
    new:
        // A connection that comes out of a listener has no owner yet.
        ..table::enter(Owner::LAYOUT, owner::into_new_entry(sock, Rank::Used), IfFull::SocketLost, "out");
    out:
        r0 = 0;
        exit;
    }
}

#[cfg(test)]
mod tests {
    use bpfasm::target::{Arch, Refused, Ring};

    use super::*;

    #[test]
    fn a_missing_accept_hook_is_described_for_this_kernel() {
        let missing = |minor| {
            let target = Target {
                version: KernelVersion { major: 6, minor, patch: 0 },
                arch: Arch::X86_64,
                access: Access::Typed,
                ring: Ring::RingBuf,
                trampolines: true,
                kprobes: true,
                refused: Refused::default(),
            };
            accept(&target).expect("links").without.expect("described").to_string()
        };
        assert!(missing(2).ends_with("until a process closes it"), "no hook sees the first send");
        assert!(missing(3).ends_with("until a process sends or receives on it"));
    }
}
