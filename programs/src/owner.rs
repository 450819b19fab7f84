//! Whose socket it is.
//!
//! Identity belongs to the socket: it is taken at moments when the current task is known to act for it, kept in the table, and
//! used by every later event. `sk->sk_lock.owned` tells such moments apart from soft interrupts, where the current task is
//! whatever happened to run. Where two moments name different processes the better one stands, see [`Rank`].

use std::mem::offset_of;

use bpfasm::object::{Attach, Detach, Hook, Layout, Need, ProgramDef};
use bpfasm::reg::{R1, R8, R10};
use bpfasm::target::{Access, Arch, Target};
use bpfasm::{AsmError, Fragment, Program, Reg, Size, bpf};

use crate::layout::layout;
use crate::sock::Sock;
use crate::stack_layout;
use crate::stats::{self, Count, count};
use crate::table::{self, IfExists};

/// `TASK_COMM_LEN`, include/linux/sched.h.
pub const COMM_LEN: u16 = 16;

layout! {
    /// The head of every table entry.
    pub struct Owner as "owner" {
        /// Process (thread group) in the initial PID namespace.
        pub pid: u32,
        /// How it is known, a [`Rank`].
        pub rank: u32,
        /// The thread's name at that moment.
        pub comm: [u8; 16],
    }
}

/// How an owner is known. A higher rank replaces a lower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Rank {
    /// Nobody is known.
    Unknown = 0,
    /// Closed or shut it down.
    Closed = 1,
    /// Had it among its files when tracing began.
    Held = 2,
    /// Accepted it, perhaps to pass it on.
    Accepted = 3,
    /// Connected, listened, sent or received.
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

/// Writes the current task's process and name to `pid` and `comm` bytes from `base`, which is `r8` or `r10`.
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
        // Two loads for the name: its helper (`strscpy_pad` in there) takes longer than anything else in a run.
        Access::Typed => bpf! {
            w0 = exists(bpf_func_id.BPF_FUNC_get_current_task_btf); // kernel 5.11
            if w0 == 0 goto ask;
            call bpf_get_current_task_btf;
            ..task(Reg::R0, base, pid, comm);
            goto told;
        ask:
            ..by_helpers;
        told:
        },
        Access::Probed => by_helpers,
    }
}

/// Writes the process and the name of the task that `of` points to. Clobbers `r1`.
///
/// Before 5.17 what follows the name's end may be left from a longer one.
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

/// Jumps to `label` unless the current task holds the socket's lock, so acts for it.
pub fn unless_owned(sock: Sock, label: &'static str) -> Fragment {
    bpf! {
        ..sock.load(R1, Size::B4, "sock.sk_lock.owned");
        if w1 == 0 goto {label};
    }
}

/// Writes the current task into the entry that is being built at [`stack_layout::ENTRY`], if it acts for the socket.
pub fn into_new_entry(sock: Sock, rank: Rank) -> Fragment {
    let at = |offset| stack_layout::at(stack_layout::ENTRY, offset);
    bpf! {
        ..unless_owned(sock, "nobody");
        ..current(sock.access(), R10, at(PID), at(COMM));
        *(u32 *)(r10 + {at(RANK)}) = {rank as i32};
    nobody:
    }
}

/// Writes the current task into the entry at `r8`, if it acts for the socket and the entry knows nobody better.
///
/// The members are written one by one while another CPU may read them. The rank goes last, so a reader sees a fresh entry
/// either without an owner or with a whole one.
pub fn into_entry(sock: Sock, rank: Rank) -> Fragment {
    bpf! {
        w1 = *(u32 *)(r8 + {RANK});
        if w1 >= {rank as i32} goto known;
        ..unless_owned(sock, "known");
        ..current(sock.access(), R8, stack_layout::at(0, PID), stack_layout::at(0, COMM));
        *(u32 *)(r8 + {RANK}) = {rank as i32};
    known:
    }
}

/// Writes the owner into an event: `pid` and `comm` are offsets from `r10`. Pid 0 means that nobody is known.
///
/// Taken from the entry at `r8`; without one, or with one that knows nobody, the current task if it acts for the socket.
pub fn into_event(sock: Sock, pid: i16, comm: i16) -> Fragment {
    bpf! {
        if r8 == 0 goto unknown;
        w1 = *(u32 *)(r8 + {RANK});
        if w1 == 0 goto unknown;
        ..entry_into_event(pid, comm);
        goto told;
    unknown:
        ..acting_into_event(sock, pid, comm);
    told:
    }
}

/// Writes who acts into an event: the current task if it acts for the socket, else the owner from the entry at `r8`, else
/// nobody.
pub fn actor_into_event(sock: Sock, pid: i16, comm: i16) -> Fragment {
    bpf! {
        ..unless_owned(sock, "stored");
        ..current(sock.access(), R10, pid, comm);
        goto told;
    stored:
        ..stored_into_event(pid, comm);
    told:
    }
}

/// Writes the current task into an event if it acts for the socket, else nobody. For tools without a table.
pub fn acting_into_event(sock: Sock, pid: i16, comm: i16) -> Fragment {
    bpf! {
        ..nobody_into_event(pid, comm);
        ..unless_owned(sock, "told");
        ..current(sock.access(), R10, pid, comm);
    told:
    }
}

/// Writes the owner from the entry at `r8` into an event, else nobody. For moments at which the lock tells nothing: it may be
/// held by another task, on another CPU.
pub fn stored_into_event(pid: i16, comm: i16) -> Fragment {
    bpf! {
        ..nobody_into_event(pid, comm);
        if r8 == 0 goto told;
        w1 = *(u32 *)(r8 + {RANK});
        if w1 == 0 goto told;
        ..entry_into_event(pid, comm);
    told:
    }
}

/// Writes the owner from the entry at `r8` into an event; pid 0 and no name where it knows nobody. Clobbers `r1`.
pub fn entry_into_event(pid: i16, comm: i16) -> Fragment {
    bpf! {
        w1 = *(u32 *)(r8 + {PID});
        *(u32 *)(r10 + {pid}) = w1;
        ..copy_comm(R8, stack_layout::at(0, COMM), R10, comm);
    }
}

/// Writes into an event that nobody is known.
pub fn nobody_into_event(pid: i16, comm: i16) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {pid}) = 0;
        *(u64 *)(r10 + {comm}) = 0;
        *(u64 *)(r10 + {comm + 8}) = 0;
    }
}

/// Names the current task as the owner of the socket whose address is in `r6`, if the table has the socket and knows nobody
/// better. For moments in process context, where no lock needs to be looked at.
fn learn(access: Access, rank: Rank) -> Fragment {
    bpf! {
        ..table::key();
        ..table::lookup();
        if r8 == 0 goto out;
        w1 = *(u32 *)(r8 + {RANK});
        if w1 >= {rank as i32} goto out;
        ..current(access, R8, stack_layout::at(0, PID), stack_layout::at(0, COMM));
        *(u32 *)(r8 + {RANK}) = {rank as i32};
    out:
        r0 = 0;
        exit;
    }
}

/// The hooks that teach owners after a socket's birth: first use, and accept where the kernel lets it be seen.
pub fn hooks(target: &Target) -> Result<Vec<Hook>, AsmError> {
    let mut hooks = Vec::new();
    // sock_send_length(struct sock *sk, int ret, int flags) and sock_recv_length, kernel 6.3: always the calling process.
    for name in ["sock_send_length", "sock_recv_length"] {
        let body = bpf! {
            r6 = *(u64 *)(r1 + 0);                      // sk
            ..learn(target.access, Rank::Used);
        };
        let hook = if name == "sock_send_length" { "first send" } else { "first receive" };
        hooks.push(
            table::untyped_hook(hook, Need::Optional, name, body)?.without(
                "who uses an accepted connection first, where that is not who accepted or closes it",
            ),
        );
    }
    hooks.push(accept_hook(target)?);
    Ok(hooks)
}

/// Teaches owners by [`accept_options`].
fn accept_hook(target: &Target) -> Result<Hook, AsmError> {
    let attach_options = accept_options(target, &Fragment::new(), &|access| learn(access, Rank::Accepted))?;
    let hook = Hook::new("accept", Need::Optional, attach_options).without(
        "the owner of an accepted connection until a process sends or receives on it (before 6.3: closes it)",
    );
    // What they learn nobody reads any more.
    Ok(hook.detach(Detach::Unwaited))
}

/// The function that gives an accepted socket to the accepting process: `void security_sock_graft(struct sock *sk, struct
/// socket *parent)`. It is entered when a connection is there, so also by a task that began to wait for one before tracing
/// did. Kernels without CONFIG_SECURITY_NETWORK lack it.
const GRAFT: &str = "security_sock_graft";

/// `struct sock *inet_csk_accept(...)`: its result is the accepted socket.
const ACCEPT: &str = "inet_csk_accept";

/// The functions that know the accepted socket in the accepting process. There is no tracepoint.
///
/// A program begins with `first`, which must leave `r1` alone, and ends with `act`, which gets the socket in `r6`, to be read
/// by the given access.
pub(crate) fn accept_options(
    target: &Target,
    first: &Fragment,
    act: &dyn Fn(Access) -> Fragment,
) -> Result<Vec<ProgramDef>, AsmError> {
    let mut attach_options = Vec::new();
    let (argument, result) = match target.arch {
        Arch::X86_64 => ("pt_regs.di", "pt_regs.ax"),
        Arch::Aarch64 => ("user_pt_regs.regs", "user_pt_regs.regs"), // regs[0], both
    };
    if target.trampolines {
        attach_options.push(table::attach_option(
            target,
            "graft_fentry",
            Attach::Fentry(GRAFT.into()),
            || {
                bpf! {
                    ..first;
                    r6 = *(u64 *)(r1 + 0);                  // sk
                    ..act(target.access);
                }
            },
        )?);
    }
    if target.kprobes {
        attach_options.push(table::attach_option(
            target,
            "graft_kprobe",
            Attach::Kprobe(GRAFT.into()),
            || {
                bpf! {
                    ..first;
                    r6 = *(u64 *)(r1 + field {argument});
                    ..act(Access::Probed);
                }
            },
        )?);
    }
    if target.trampolines {
        // bpf_get_func_ret (kernel 5.17) finds the result behind however many arguments this kernel's function has.
        attach_options.push(table::attach_option(
            target,
            "accept_fexit",
            Attach::Fexit(ACCEPT.into()),
            || {
                bpf! {
                    ..first;
                    r2 = r10;
                    r2 += {stack_layout::SCRATCH};
                    call bpf_get_func_ret;
                    if w0 != 0 goto none;
                    r6 = *(u64 *)(r10 + {stack_layout::SCRATCH});
                    if r6 == 0 goto none;
                    ..act(Access::Probed);
                none:
                    r0 = 0;
                    exit;
                }
            },
        )?);
    }
    if target.kprobes {
        attach_options.push(table::attach_option(
            target,
            "accept_ret",
            Attach::Kretprobe(ACCEPT.into()),
            || {
                bpf! {
                    ..first;
                    r6 = *(u64 *)(r1 + field {result});
                    if r6 == 0 goto none;
                    ..act(Access::Probed);
                none:
                    r0 = 0;
                    exit;
                }
            },
        )?);
    }
    Ok(attach_options)
}

/// The hook's name, for the loader to run it by.
pub const SNAPSHOT_HOOK: &str = "open sockets";

/// How the entry of a socket that was there before is completed: with the socket in `r6`, read by the given [`Sock`]. It may
/// jump to `skip`, and clobber all registers.
pub type Fill = fn(Sock) -> Fragment;

/// Enters the TCP sockets that processes hold already, with their owners.
///
/// `fill` completes the entry at [`stack_layout::ENTRY`].
pub fn snapshot_hook(entry: Layout, fill: Fill) -> Result<Hook, AsmError> {
    let build = |sock| {
        bpf! {
            ..table::clear(entry);
            ..holder();
            ..fill(sock);
        }
    };
    Ok(walk_hook(&build)?
        .without("the owners of sockets open at the start, but for those of this network namespace"))
}

/// Writes the task in `r9` into the entry that is being built, as one that has the socket among its files.
fn holder() -> Fragment {
    let at = |offset| stack_layout::at(stack_layout::ENTRY, offset);
    bpf! {
        ..task(Reg::R9, R10, at(PID), at(COMM));
        *(u32 *)(r10 + {at(RANK)}) = {Rank::Held as i32};
    }
}

/// Enters the TCP sockets that processes hold already, of all network namespaces: `iter/task_file`, kernel 5.8.
///
/// `build` builds the entry at [`stack_layout::ENTRY`], with the socket in `r6`, read by the given [`Sock`], and the task in `r9`. It may
/// jump to `skip`, and clobber all registers. Sockets that other hooks entered in the meantime are left as they are.
pub fn walk_hook(build: &dyn Fn(Sock) -> Fragment) -> Result<Hook, AsmError> {
    // The helper knows a socket's file from any other, and the verifier its result (kernel 5.11).
    let by_helper = bpf! {
        call bpf_sock_from_file;
        if r0 == 0 goto skip;
        r6 = *(u64 *)(r0 + socket.sk);
    };
    // Without it, the inode's type tells, and what the file carries is an address only. A socket that is opened by its path
    // (O_PATH) carries none, and reads as 0.
    let by_inode = bpf! {
        r2 = *(u64 *)(r1 + file.f_inode);
        if r2 == 0 goto skip;
        w2 = *(u16 *)(r2 + inode.i_mode);
        w2 &= {S_IFMT};
        if w2 != {S_IFSOCK} goto skip;
        r1 = *(u64 *)(r1 + file.private_data);
        ..Sock::new(Access::Probed).load_from(R1, Reg::R6, Size::B8, "socket.sk");
    };
    let attach_options = [(by_helper, Access::Typed), (by_inode, Access::Probed)]
        .into_iter()
        .map(|(find, access)| {
            let program = Program::link("task_file", step(find, build, Sock::new(access)))?;
            Ok(ProgramDef { name: "task_file".into(), attach: Attach::Iter("task_file".into()), program })
        })
        .collect::<Result<_, AsmError>>()?;
    Ok(Hook::new(SNAPSHOT_HOOK, Need::Optional, attach_options))
}

/// include/uapi/asm-generic/errno-base.h
const EEXIST: i32 = 17;
/// include/uapi/linux/stat.h
const S_IFMT: i32 = 0o170_000;
/// include/uapi/linux/stat.h
const S_IFSOCK: i32 = 0o140_000;

/// One step of the walk; `find` gets the file in `r1` and leaves its socket in `r6`, or jumps to `skip`.
fn step(find: Fragment, build: &dyn Fn(Sock) -> Fragment, sock: Sock) -> Fragment {
    bpf! {
        r9 = *(u64 *)(r1 + bpf_iter__task_file.task);
        if r9 == 0 goto skip;                           // the end of the walk
        r1 = *(u64 *)(r1 + bpf_iter__task_file.file);
        if r1 == 0 goto skip;
        ..find;
        if r6 == 0 goto skip;
        ..table::key();
        ..sock.stream("skip");                          // the kernel never says that a raw socket is destroyed
        ..build(sock);
        ..table::store(IfExists::Keep);
        if w0 == 0 goto skip;
        if w0 == {-EEXIST} goto skip;
        ..stats::open("skip");
        ..count(Count::Untracked);
    skip:
        r0 = 0;
        exit;
    }
}
