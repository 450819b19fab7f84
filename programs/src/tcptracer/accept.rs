//! Accepts. There is no tracepoint for them.

use std::borrow::Cow;

use bpfasm::object::{Attach, Hook, Need};
use bpfasm::target::{Access, Arch, Target};
use bpfasm::{AsmError, Fragment, Reg, Size, Text, bpf};

use super::{Kind, Options, by_current, tell};
use crate::owner;
use crate::sock::Sock;
use crate::stack_layout::SCRATCH;
use crate::stats::{self, Count, count, only_if};
use crate::{stop_flag, table};

/// The hook's name.
const ACCEPT: &str = "accepted";

/// `IORING_OP_ACCEPT`, include/uapi/linux/io_uring.h.
const IORING_OP_ACCEPT: i32 = 13;

/// The hooks: on functions where the kernel lets them be traced; if not, where system calls return, and where io_uring
/// completes.
pub(super) fn hooks(options: &Options, target: &Target) -> Result<Vec<Hook>, AsmError> {
    let tell = |access| accepted(options, target, Sock::new(access));
    // Most attach options say the same in the end, which is written once.
    let told_probed = tell(Access::Probed);
    let by_number = accepted_fd(&told_probed);
    let keep_context = bpf! { r9 = r1; };
    let act = |access| {
        let told =
            if access == Access::Probed { Cow::Borrowed(&told_probed) } else { Cow::Owned(tell(access)) };
        bpf! {
            ..stop_flag::unless_stopped("stopped");
            ..&*told;
        stopped:
            r0 = 0;
            exit;
        }
    };
    let functions = owner::accept_options(target, &keep_context, &act)?;
    let mut hooks = vec![Hook::new(ACCEPT, Need::Optional, functions).without(
        "accepts by 32-bit processes, of MPTCP, and by io_uring several at a time or into fixed files",
    )
    .detach(stop_flag::detach())];
    // Any tracepoint of system calls slows all of them down, one for all of them most.
    let calls = ["sys_exit_accept", "sys_exit_accept4"].map(Text::from);
    let attach = Attach::Tracepoints("syscalls".into(), calls.into());
    let attach_options =
        vec![table::attach_option(target, "accept_returns", attach, || returned(&by_number))?];
    hooks.push(
        Hook::new(RETURNS, Need::Optional, attach_options)
            .fallback_for(ACCEPT)
            .without("system calls at full speed: each takes 20 to 30 ns more as long as it runs")
            .detach(stop_flag::detach()),
    );
    hooks.push(
        table::tracepoint_hook(
            "system call returns",
            Need::Required,
            "sys_exit",
            target,
            any_returned(target, &by_number),
        )?
        .fallback_for(RETURNS),
    );
    hooks.push(
        table::untyped_hook(
            "accept by io_uring",
            Need::Optional,
            "io_uring_complete",
            completed(&by_number),
        )?
        .fallback_for(ACCEPT)
        .without("accepts by io_uring"),
    );
    Ok(hooks)
}

/// The hook's name.
const RETURNS: &str = "accept returns";

/// Tells that the current task has accepted the socket in `r6`, and ends the program.
fn accepted(options: &Options, target: &Target, sock: Sock) -> Fragment {
    let checks = bpf! {
        ..options.actor("filtered");
        ..options.filter.socket(sock, "filtered");
    };
    let some = !checks.is_empty();
    bpf! {
        ..sock.tcp("out");
        ..stats::open("out");
        ..count(Count::Seen);
        ..only_if(checks, some);
        ..by_current(target.access, Kind::Accept);
        ..tell(options, target, sock);
    out:
        r0 = 0;
        exit;
    }
}

/// `syscalls:sys_exit_accept` and `sys_exit_accept4`: `__syscall_nr`, and `ret` behind it.
fn returned(by_number: &Fragment) -> Fragment {
    bpf! {
        r9 = r1;
        r8 = *(u64 *)(r9 + 16);                         // ret
        if r8 s< 0 goto out;
        ..stop_flag::unless_stopped("out");
        ..by_number;
    out:
        r0 = 0;
        exit;
    }
}

/// `sys_exit(struct pt_regs *regs, long ret)`, for any system call.
fn any_returned(target: &Target, by_number: &Fragment) -> Fragment {
    let regs = Sock::new(target.access);
    // A task that runs 32-bit code numbers its calls otherwise. How wide the register's field is differs between kernels.
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
        ..by_number;
    out:
        r0 = 0;
        exit;
    }
}

/// `io_uring_complete`. Before 5.17 it does not say what was done, and of an accept that is to be done again and again no
/// kernel does.
fn completed(by_number: &Fragment) -> Fragment {
    let sock = Sock::new(Access::Probed);
    bpf! {
        r9 = r1;
        w2 = params(btf_trace_io_uring_complete);
        if w2 == 3 goto with_entry;
        if w2 != 7 goto out;
        w8 = *(u32 *)(r9 + 24);                         // (ctx, req, user_data, res, …)
        goto known;
    with_entry:
        r1 = *(u64 *)(r9 + 16);                         // (ctx, req, cqe)
        ..sock.load_from(Reg::R1, Reg::R8, Size::B4, "io_uring_cqe.res");
    known:
        if w8 s< 0 goto out;
        r1 = *(u64 *)(r9 + 8);                          // req, or 0
        ..sock.load_from(Reg::R1, Reg::R1, Size::B1, "io_kiocb.opcode");
        if w1 != {IORING_OP_ACCEPT} goto out;
        ..by_number;
    out:
        r0 = 0;
        exit;
    }
}

/// Goes on as `accepted` does with the socket that the current task has under the number in `r8`; jumps to `out` if it is none.
fn accepted_fd(accepted: &Fragment) -> Fragment {
    // What cannot be read is 0, and at 0 nothing can be read.
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
        if r1 != r7 goto out;                           // what it carries is no socket
        ..sock.load_from(Reg::R8, Reg::R6, Size::B8, "socket.sk");
        ..accepted;
    }
}
