//! Who owns a socket: the record in the table, and the fragments that write and read it.
//!
//! # When the owner is known
//!
//! A state change, a retransmission or a drop often happens in a soft interrupt. The current task
//! is then whichever one was interrupted, and has nothing to do with the socket. So a tool does not
//! ask "who is running?" when it sends an event. It records the owner at the moments when the
//! current task certainly acts for the socket, keeps that in the table, and uses it for every later
//! event of the socket.
//!
//! Two kinds of moments are certain:
//!
//! - The hook only runs in process context, for the process that makes the system call: accept,
//!   send, receive. The hooks are in `owner_hooks`.
//! - `sk->sk_lock.owned` is set. Only a task that makes a system call on the socket sets it. While
//!   it is set, the kernel does not process packets of this socket but puts them into its backlog,
//!   so a state change at that time is made by the task that holds the lock. (It also processes the
//!   backlog, just before it gives the lock back. It acts for the socket then, too.)
//!   [`unless_owned`] is this test.
//!
//! It is *not* a certain moment if the hook is about another socket than the locked one, or does
//! not need the lock: there, a task on another CPU may hold it. See [`stored_into_event`].
//!
//! Two moments can name different processes: a server accepts a connection and passes it on to a
//! worker, or a child process closes the copy that it inherited. The better moment wins, see
//! [`Rank`].

use std::mem::offset_of;

use bpfasm::reg::{R1, R8, R10};
use bpfasm::target::Access;
use bpfasm::{Fragment, Reg, Size, bpf};

use crate::layout::layout;
use crate::sock::Sock;
use crate::stack_layout;

/// `TASK_COMM_LEN`, include/linux/sched.h.
pub const COMM_LEN: u16 = 16;

layout! {
    /// The head of every table entry.
    pub struct Owner as "owner" {
        /// Process (thread group) in the initial PID namespace.
        pub pid: u32,
        /// How the owner is known, a [`Rank`]. Decides whether there is one.
        pub rank: u32,
        /// The thread's name at that moment.
        pub comm: [u8; 16],
    }
}

/// How an owner is known. A higher rank replaces a lower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Rank {
    /// The owner is unknown so far.
    Unknown = 0,
    /// The process closed the socket or shut it down.
    Closed = 1,
    /// The process had the socket open when tracing began.
    Preexisting = 2,
    /// The process accepted the connection, perhaps to pass it on.
    Accepted = 3,
    /// The process connected, listened, sent or received.
    Used = 4,
}

/// Does not compile unless the caller's `Entry` starts with an [`Owner`].
macro_rules! entry_starts_with_owner {
    () => {
        const _: () = {
            use ::std::mem::offset_of;
            use $crate::owner::Owner;
            assert!(offset_of!(Entry, pid) == offset_of!(Owner, pid));
            assert!(offset_of!(Entry, rank) == offset_of!(Owner, rank));
            assert!(offset_of!(Entry, comm) == offset_of!(Owner, comm));
        };
    };
}
pub(crate) use entry_starts_with_owner;

const PID: usize = offset_of!(Owner, pid);
const RANK: usize = offset_of!(Owner, rank);
const COMM: usize = offset_of!(Owner, comm);

/// Writes the current task's process and name to `pid` and `comm` bytes from `base`, which is `r8`
/// or `r10`. Clobbers `r0` to `r5`.
pub(crate) fn current(access: Access, base: Reg, pid: i16, comm: i16) -> Fragment {
    let by_helpers = bpf! {
        call bpf_get_current_pid_tgid;
        r0 >>= 32;
        *(u32 *)({base} + {pid}) = w0;
        r1 = {base};
        r1 += {comm};
        w2 = {COMM_LEN};
        call bpf_get_current_comm;
    };
    match access {
        // The name takes two loads. Its helper (which calls `strscpy_pad`) takes longer than
        // anything else in a run.
        Access::Typed => bpf! {
            w0 = exists(bpf_func_id.BPF_FUNC_get_current_task_btf); // kernel 5.11
            if w0 == 0 goto no_helper;
            call bpf_get_current_task_btf;
            ..task(Reg::R0, base, pid, comm);
            goto done;
        no_helper:
            ..by_helpers;
        done:
        },
        Access::Probed => by_helpers,
    }
}

/// Writes the process and the name of the task that `of` points to. Clobbers `r1`.
///
/// Before 5.17, the bytes behind the end of a name may be left over from a longer one.
fn task(of: Reg, base: Reg, pid: i16, comm: i16) -> Fragment {
    bpf! {
        w1 = *(u32 *)({of} + task_struct.tgid);
        *(u32 *)({base} + {pid}) = w1;
        r1 = *(u64 *)({of} + task_struct.comm);
        *(u64 *)({base} + {comm}) = r1;
        r1 = *(u64 *)({of} + task_struct.comm + 8);
        *(u64 *)({base} + {comm + 8}) = r1;
    }
}

/// Copies a name of sixteen bytes. Clobbers `r1`.
fn copy_comm(from: Reg, from_off: i16, to: Reg, to_off: i16) -> Fragment {
    bpf! {
        r1 = *(u64 *)({from} + {from_off});
        *(u64 *)({to} + {to_off}) = r1;
        r1 = *(u64 *)({from} + {from_off + 8});
        *(u64 *)({to} + {to_off + 8}) = r1;
    }
}

/// Jumps to `label` unless the current task acts for the socket, which it does if the socket's lock
/// is held. See the module's documentation for where this is true.
pub fn unless_owned(sock: Sock, label: &'static str) -> Fragment {
    bpf! {
        ..sock.load(R1, Size::B4, "sock.sk_lock.owned");
        if w1 == 0 goto {label};
    }
}

/// Writes the current task into the entry that is being built at [`stack_layout::ENTRY`], if the
/// task acts for the socket. Otherwise leaves the entry without an owner.
pub fn into_new_entry(sock: Sock, rank: Rank) -> Fragment {
    bpf! {
        ..unless_owned(sock, "no_owner");
        ..current(sock.access(), R10, new_entry(PID), new_entry(COMM));
        *(u32 *)(r10 + {new_entry(RANK)}) = {rank as i32};
    no_owner:
    }
}

/// Writes the task in `r9` into the entry that is being built. Clobbers `r1`.
pub fn task_into_new_entry(rank: Rank) -> Fragment {
    bpf! {
        ..task(Reg::R9, R10, new_entry(PID), new_entry(COMM));
        *(u32 *)(r10 + {new_entry(RANK)}) = {rank as i32};
    }
}

/// Where a member of an entry's head lies while the entry is being built.
const fn new_entry(offset: usize) -> i16 {
    stack_layout::at(stack_layout::ENTRY, offset)
}

/// Writes the current task into the entry at `r8`, if the task acts for the socket and the entry
/// has no owner of this rank.
pub fn into_entry(sock: Sock, rank: Rank) -> Fragment {
    bpf! {
        ..current_into_entry(sock.access(), rank, "done", unless_owned(sock, "done"));
    done:
    }
}

/// Writes the current task into the entry at `r8`; jumps to `done` if the entry has an owner of
/// this rank already. `check` runs in between, and may jump to `done` as well.
///
/// The members are written one by one, and another CPU may read them meanwhile. The rank is written
/// last, so a reader of an entry that had no owner sees either no owner or all of it.
pub(crate) fn current_into_entry(
    access: Access,
    rank: Rank,
    done: &'static str,
    check: Fragment,
) -> Fragment {
    bpf! {
        w1 = *(u32 *)(r8 + {RANK});
        if w1 >= {rank as i32} goto {done};
        ..check;
        ..current(access, R8, stack_layout::at(0, PID), stack_layout::at(0, COMM));
        *(u32 *)(r8 + {RANK}) = {rank as i32};
    }
}

/// Writes the owner into an event: `pid` and `comm` are offsets from `r10`. Pid 0 means that the
/// owner is unknown.
///
/// The owner comes from the entry at `r8`. If `r8` is 0, or the entry has no owner, it is the
/// current task, if that acts for the socket.
pub fn into_event(sock: Sock, pid: i16, comm: i16) -> Fragment {
    bpf! {
        if r8 == 0 goto not_stored;
        w1 = *(u32 *)(r8 + {RANK});
        if w1 == 0 goto not_stored;
        ..entry_into_event(pid, comm);
        goto done;
    not_stored:
        ..acting_into_event(sock, pid, comm);
    done:
    }
}

/// Writes the process that acts into an event: the current task if it acts for the socket, else the
/// owner from the entry at `r8`. Pid 0 if there is neither.
pub fn actor_into_event(sock: Sock, pid: i16, comm: i16) -> Fragment {
    bpf! {
        ..unless_owned(sock, "not_acting");
        ..current(sock.access(), R10, pid, comm);
        goto done;
    not_acting:
        ..stored_into_event(pid, comm);
    done:
    }
}

/// Writes the current task into an event if it acts for the socket, else pid 0. For tools without a
/// table.
pub fn acting_into_event(sock: Sock, pid: i16, comm: i16) -> Fragment {
    bpf! {
        ..unknown_into_event(pid, comm);
        ..unless_owned(sock, "done");
        ..current(sock.access(), R10, pid, comm);
    done:
    }
}

/// Writes the owner from the entry at `r8` into an event; pid 0 if `r8` is 0 or the entry has no
/// owner. For moments at which the lock proves nothing, because another task, on another CPU, may
/// hold it.
pub fn stored_into_event(pid: i16, comm: i16) -> Fragment {
    bpf! {
        ..unknown_into_event(pid, comm);
        if r8 == 0 goto done;
        w1 = *(u32 *)(r8 + {RANK});
        if w1 == 0 goto done;
        ..entry_into_event(pid, comm);
    done:
    }
}

/// Writes the owner from the entry at `r8` into an event; pid 0 and no name if the entry has no
/// owner. Clobbers `r1`.
pub fn entry_into_event(pid: i16, comm: i16) -> Fragment {
    bpf! {
        w1 = *(u32 *)(r8 + {PID});
        *(u32 *)(r10 + {pid}) = w1;
        ..copy_comm(R8, stack_layout::at(0, COMM), R10, comm);
    }
}

/// Writes an unknown owner into an event: pid 0 and no name.
pub fn unknown_into_event(pid: i16, comm: i16) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {pid}) = 0;
        *(u64 *)(r10 + {comm}) = 0;
        *(u64 *)(r10 + {comm + 8}) = 0;
    }
}
