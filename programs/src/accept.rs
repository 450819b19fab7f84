//! Accepts: the moments when a process gets a connection out of a listener's queue.
//!
//! The kernel has no tracepoint for accepts, so this module attaches to functions, and falls back
//! on system calls:
//!
//! 1. [`functions`]: `security_sock_graft`, which gives the new socket to the accepting process.
//!    Kernels without CONFIG_SECURITY_NETWORK lack it. Its program also runs in a task that was
//!    already waiting when tracing began.
//! 2. [`functions`]: the result of `inet_csk_accept`.
//! 3. [`hooks`] only: where the system calls `accept` and `accept4` return, and where io_uring
//!    completes an accept. There the kernel only tells the new file descriptor, so the program
//!    walks from the current task's descriptors to the socket.
//!
//! A tool that only improves what it knows about a socket takes [`functions`]: without them it goes
//! on, and learns the owner later. A tool whose events are accepts takes [`hooks`], which attaches
//! on every kernel.

use std::borrow::Cow;

use bpfasm::object::{Attach, Hook, Need, ProgramDef};
use bpfasm::target::{Access, Arch, Target};
use bpfasm::{AsmError, Fragment, Reg, Size, Text, bpf};

use crate::hook::{self, Function, attach_option};
use crate::sock::Sock;
use crate::stack_layout::SCRATCH;
use crate::stats::{self, Count, count};
use crate::stop_flag;

/// `void security_sock_graft(struct sock *sk, struct socket *parent)`
const GRAFT: Function =
    Function { name: "security_sock_graft", trampoline: "graft_fentry", kprobe: "graft_kprobe" };

/// `struct sock *inet_csk_accept(...)`. Its arguments changed over the years, its result did not.
const ACCEPT: Function =
    Function { name: "inet_csk_accept", trampoline: "accept_fexit", kprobe: "accept_ret" };

/// Attach options on the functions that know the accepted socket in the accepting process.
///
/// A program begins with `first`, which must leave `r1` alone. It ends with `program`, which gets
/// the socket in `r6` and reads it with the access that it is given.
pub fn functions(
    target: &Target,
    first: &Fragment,
    program: &dyn Fn(Access) -> Fragment,
) -> Result<Vec<ProgramDef>, AsmError> {
    let mut options = GRAFT.at_entry(target, target.access, first, program)?;
    options.extend(ACCEPT.at_return(target, first, &|| program(Access::Probed))?);
    Ok(options)
}

/// The name of the hook on functions.
const ACCEPTED: &str = "accepted";
/// The name of the hook on the returns of the two system calls.
const RETURNS: &str = "accept returns";

/// `IORING_OP_ACCEPT`, include/uapi/linux/io_uring.h.
const IORING_OP_ACCEPT: i32 = 13;

/// Hooks for a tool whose events are accepts. Its object needs the map [`stop_flag::map`].
///
/// `event` is the tool's part of the program. It runs in the accepting task, with the TCP socket in
/// `r6`, the context in `r9` and the event counted as seen. It has to count what becomes of the
/// event, and may jump to `out`, where the program ends.
pub fn hooks(target: &Target, event: &dyn Fn(Sock) -> Fragment) -> Result<Vec<Hook>, AsmError> {
    // Most programs end with the same long fragment, which is built once.
    let probed = accepted(event, Sock::new(Access::Probed));
    let by_descriptor = accepted_descriptor(&probed);
    let keep_context = bpf! { r9 = r1; };
    let program = |access| {
        let accepted = match access {
            Access::Probed => Cow::Borrowed(&probed),
            Access::Typed => Cow::Owned(accepted(event, Sock::new(access))),
        };
        bpf! {
            ..stop_flag::unless_stopped("stopped");
            ..&*accepted;
        stopped:
            r0 = 0;
            exit;
        }
    };
    let functions = functions(target, &keep_context, &program)?;
    let mut hooks = vec![
        Hook::new(ACCEPTED, Need::Optional, functions)
            .without("accepts by 32-bit processes, of MPTCP, and by io_uring if repeated or into fixed files")
            .detach(stop_flag::detach()),
    ];
    // A program on any tracepoint of a system call slows all system calls down, and one on the
    // tracepoint of every system call slows them down most. So the two specific tracepoints come
    // first.
    let calls = ["sys_exit_accept", "sys_exit_accept4"].map(Text::from);
    let attach = Attach::Tracepoints("syscalls".into(), calls.into());
    let option = attach_option(target, "accept_returns", attach, || accept_returned(&by_descriptor))?;
    hooks.push(
        Hook::new(RETURNS, Need::Optional, vec![option])
            .fallback_for(ACCEPTED)
            .without("full speed of system calls: each takes 20 to 30 ns longer while the tool runs")
            .detach(stop_flag::detach()),
    );
    let any_call = any_call_returned(target, &by_descriptor);
    hooks.push(
        hook::tracepoint("system call returns", Need::Required, "sys_exit", target, any_call)?
            .fallback_for(RETURNS),
    );
    let by_io_uring = io_uring_completed(&by_descriptor);
    hooks.push(
        hook::untyped_tracepoint("accept by io_uring", Need::Optional, "io_uring_complete", by_io_uring)?
            .fallback_for(ACCEPTED)
            .without("accepts by io_uring"),
    );
    Ok(hooks)
}

/// The end of every program: the current task has accepted the socket in `r6`.
fn accepted(event: &dyn Fn(Sock) -> Fragment, sock: Sock) -> Fragment {
    bpf! {
        ..sock.tcp("out");
        ..stats::open("out");
        ..count(Count::Seen);
        ..event(sock);
    out:
        r0 = 0;
        exit;
    }
}

/// `syscalls:sys_exit_accept` and `sys_exit_accept4`, whose record has `__syscall_nr` and then
/// `ret`.
fn accept_returned(by_descriptor: &Fragment) -> Fragment {
    bpf! {
        r9 = r1;
        r8 = *(u64 *)(r9 + 16);                         // ret
        if r8 s< 0 goto out;
        ..stop_flag::unless_stopped("out");
        ..by_descriptor;
    out:
        r0 = 0;
        exit;
    }
}

/// `sys_exit(struct pt_regs *regs, long ret)`, for every system call.
fn any_call_returned(target: &Target, by_descriptor: &Fragment) -> Fragment {
    let regs = Sock::new(target.access);
    // A task that runs 32-bit code numbers its system calls differently. The width of the field
    // that tells so differs between kernels, so it is read by a probe read.
    let probed = Sock::new(Access::Probed);
    let is_accept = match target.arch {
        Arch::X86_64 => bpf! {
            ..regs.load_from(Reg::R7, Reg::R1, Size::B8, "pt_regs.orig_ax");
            if r1 == 43 goto accept;
            if r1 != 288 goto out;
        accept:
            ..probed.load_from(Reg::R7, Reg::R1, Size::B2, "pt_regs.cs");
            if w1 != 0x33 goto out;                     // __USER_CS
        },
        Arch::Aarch64 => bpf! {
            ..regs.load_from(Reg::R7, Reg::R1, Size::B4, "pt_regs.syscallno");
            if w1 == 202 goto accept;
            if w1 != 242 goto out;
        accept:
            ..probed.load_from(Reg::R7, Reg::R1, Size::B8, "user_pt_regs.pstate");
            if w1 & 0x10 goto out;                      // PSR_MODE32_BIT
        },
    };
    bpf! {
        r9 = r1;
        r8 = *(u64 *)(r9 + 8);                          // ret
        if r8 s< 0 goto out;
        r7 = *(u64 *)(r9 + 0);                          // regs
        ..is_accept;
        ..by_descriptor;
    out:
        r0 = 0;
        exit;
    }
}

/// `io_uring_complete`. Before 5.17 the tracepoint does not say which operation completed. No
/// kernel says so for an accept that is to be repeated (multishot).
fn io_uring_completed(by_descriptor: &Fragment) -> Fragment {
    let sock = Sock::new(Access::Probed);
    bpf! {
        r9 = r1;
        w2 = params(btf_trace_io_uring_complete);
        if w2 == 3 goto with_entry;
        if w2 != 7 goto out;
        w8 = *(u32 *)(r9 + 24);                         // (ctx, req, user_data, res, …)
        goto have_result;
    with_entry:
        r1 = *(u64 *)(r9 + 16);                         // (ctx, req, cqe)
        ..sock.load_from(Reg::R1, Reg::R8, Size::B4, "io_uring_cqe.res");
    have_result:
        if w8 s< 0 goto out;
        r1 = *(u64 *)(r9 + 8);                          // req, or 0
        ..sock.load_from(Reg::R1, Reg::R1, Size::B1, "io_kiocb.opcode");
        if w1 != {IORING_OP_ACCEPT} goto out;
        ..by_descriptor;
    out:
        r0 = 0;
        exit;
    }
}

/// `r6` = the socket behind the current task's file descriptor in `r8`, and on with `accepted`.
/// Jumps to `out` if the file is not a socket.
///
/// Every step is a probe read. A failed read yields 0, and reading at 0 fails again, so one check
/// at the end is enough.
fn accepted_descriptor(accepted: &Fragment) -> Fragment {
    let sock = Sock::new(Access::Probed);
    bpf! {
        call bpf_get_current_task;
        ..sock.load_from(Reg::R0, Reg::R1, Size::B8, "task_struct.files");
        ..sock.load_from(Reg::R1, Reg::R7, Size::B8, "files_struct.fdt");
        ..sock.load_from(Reg::R7, Reg::R1, Size::B4, "fdtable.max_fds");
        if r8 >= r1 goto out;
        ..sock.load_from(Reg::R7, Reg::R3, Size::B8, "fdtable.fd");
        r8 <<= 3;
        r3 += r8;
        r1 = r10;
        r1 += {SCRATCH};
        w2 = 8;
        call bpf_probe_read_kernel;
        r7 = *(u64 *)(r10 + {SCRATCH});                 // the file
        ..sock.load_from(Reg::R7, Reg::R8, Size::B8, "file.private_data");
        ..sock.load_from(Reg::R8, Reg::R1, Size::B8, "socket.file");
        if r1 != r7 goto out;                           // the file's private data is not a socket
        ..sock.load_from(Reg::R8, Reg::R6, Size::B8, "socket.sk");
        ..accepted;
    }
}
