//! The TCP sockets that processes already have open when tracing begins.
//!
//! An iterator over all tasks' files (`iter/task_file`, kernel 5.8) enters them in the table, in
//! all network namespaces. The loader runs the iterator after all other hooks have attached, so
//! that no socket can slip in between. Sockets that other hooks entered in the meantime are left as
//! they are.

use bpfasm::object::{Attach, Hook, Need, ProgramDef};
use bpfasm::reg::R1;
use bpfasm::target::Access;
use bpfasm::{AsmError, Fragment, Program, Reg, Size, bpf};

use crate::sock::Sock;
use crate::stats::{self, Count, count};
use crate::table::{self, IfExists};

/// The hook's name, by which the loader runs it.
pub const HOOK: &str = "open sockets";

/// include/uapi/asm-generic/errno-base.h
const EEXIST: i32 = 17;
/// include/uapi/linux/stat.h
const S_IFMT: i32 = 0o170_000;
/// include/uapi/linux/stat.h
const S_IFSOCK: i32 = 0o140_000;

/// `build` builds the entry at [`stack_layout::ENTRY`](crate::stack_layout::ENTRY), with the socket
/// in `r6`, read by the given [`Sock`], and the task that has it open in `r9`. It may jump to
/// `skip`, and clobber all registers.
pub fn hook(build: &dyn Fn(Sock) -> Fragment) -> Result<Hook, AsmError> {
    // The helper tells a socket's file from any other, and the verifier knows the type of its
    // result (kernel 5.11).
    let by_helper = bpf! {
        call bpf_sock_from_file;
        if r0 == 0 goto skip;
        r6 = *(u64 *)(r0 + socket.sk);
    };
    // Without the helper, the inode's type tells, and the file's private data is a mere address. A
    // socket that was opened by its path (O_PATH) has no private data, and reads as 0.
    let by_inode = bpf! {
        r2 = *(u64 *)(r1 + file.f_inode);
        if r2 == 0 goto skip;
        w2 = *(u16 *)(r2 + inode.i_mode);
        w2 &= {S_IFMT};
        if w2 != {S_IFSOCK} goto skip;
        r1 = *(u64 *)(r1 + file.private_data);
        ..Sock::new(Access::Probed).load_from(R1, Reg::R6, Size::B8, "socket.sk");
    };
    let options = [(by_helper, Access::Typed), (by_inode, Access::Probed)]
        .into_iter()
        .map(|(find, access)| {
            let program = Program::link("task_file", step(find, build, Sock::new(access)))?;
            Ok(ProgramDef { name: "task_file".into(), attach: Attach::Iter("task_file".into()), program })
        })
        .collect::<Result<_, AsmError>>()?;
    Ok(Hook::new(HOOK, Need::Optional, options))
}

/// The program, which the iterator calls for each open file: `find` gets the file in `r1`, and
/// leaves its socket in `r6` or jumps to `skip`.
fn step(find: Fragment, build: &dyn Fn(Sock) -> Fragment, sock: Sock) -> Fragment {
    bpf! {
        r9 = *(u64 *)(r1 + bpf_iter__task_file.task);
        if r9 == 0 goto skip;                           // the iteration has ended
        r1 = *(u64 *)(r1 + bpf_iter__task_file.file);
        if r1 == 0 goto skip;
        ..find;
        if r6 == 0 goto skip;
        ..table::key();
        ..sock.stream("skip");                          // no tracepoint tells when a raw socket is destroyed
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
