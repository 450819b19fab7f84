//! The system calls that a process may still make after [`confine`], as a seccomp filter: a program
//! of classic BPF over `struct seccomp_data`.
//!
//! The crate `seccompiler` would save 50 lines here. It was measured and not taken: the binary
//! grows by 13 kB, it always kills the process on a call by another machine's number, and its
//! installation does not set the flags of [`rights::filter_system_calls`].

use nix::libc::{self, c_long};

use crate::errno::Errno;
use crate::sys::rights::{self, Insn};

/// A system call that is allowed if all conditions on its arguments are true.
struct Allowed {
    number: c_long,
    only_if: &'static [Condition],
}

/// A condition on an argument. The kernel reads only the lower 32 bits of most arguments, and so do
/// these conditions, except the last one.
#[derive(Clone, Copy)]
enum Condition {
    /// The argument is one of these values.
    OneOf(u8, &'static [u32]),
    /// The argument has this bit.
    With(u8, i32),
    /// The argument does not have this bit.
    Without(u8, i32),
    /// All 64 bits of the argument are zero: no address is given.
    Null(u8),
}

use Condition::{Null, OneOf, With, Without};

const fn always(number: c_long) -> Allowed {
    Allowed { number, only_if: &[] }
}

const fn only_if(number: c_long, only_if: &'static [Condition]) -> Allowed {
    Allowed { number, only_if }
}

/// The allowed commands of `bpf(2)`: look up, update, delete, next key, information about an
/// object, and the two batches. None creates anything.
const BPF_COMMANDS: &[u32] = &[1, 2, 3, 4, 15, 24, 25];

/// The allowed system calls, the most frequent first: kernels before 5.11 run the filter for each
/// call.
const ALLOWED: &[Allowed] = &[
    // The loop: wait, read rings (which are memory), write rows.
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_epoll_wait),
    always(libc::SYS_epoll_pwait),
    always(libc::SYS_write),
    always(libc::SYS_writev),
    // If the vDSO cannot read the clock.
    always(libc::SYS_clock_gettime),
    // Counters and tables.
    only_if(libc::SYS_bpf, &[OneOf(0, BPF_COMMANDS)]),
    // Waiting for a program that is running at this moment.
    always(libc::SYS_sched_yield),
    // Files that are open: /proc/kallsyms, /proc/loadavg.
    always(libc::SYS_read),
    always(libc::SYS_pread64),
    always(libc::SYS_lseek),
    // A connected socket, such as the journal's. No other address can be given.
    only_if(libc::SYS_sendto, &[Null(4)]),
    // Detaching: a kprobe of tracefs is removed by a write, everything else by a close.
    always(libc::SYS_close),
    // The allocator: memory for data, not for code or files.
    always(libc::SYS_brk),
    only_if(libc::SYS_mmap, &[Without(2, libc::PROT_EXEC), With(3, libc::MAP_ANONYMOUS)]),
    only_if(libc::SYS_mprotect, &[Without(2, libc::PROT_EXEC)]),
    always(libc::SYS_mremap),
    always(libc::SYS_munmap),
    always(libc::SYS_madvise),
    always(libc::SYS_futex),
    // The random seed of a hash table.
    always(libc::SYS_getrandom),
    // After SIGSTOP and SIGCONT.
    always(libc::SYS_restart_syscall),
    always(libc::SYS_rt_sigreturn),
    // Exit, and a panic, which aborts.
    always(libc::SYS_exit_group),
    always(libc::SYS_exit),
    always(libc::SYS_sigaltstack),
    always(libc::SYS_rt_sigaction),
    always(libc::SYS_rt_sigprocmask),
    always(libc::SYS_getpid),
    always(libc::SYS_gettid),
    only_if(libc::SYS_tgkill, &[OneOf(2, &[libc::SIGABRT.unsigned_abs()])]),
];

/// `AUDIT_ARCH_*` of this machine: its ELF number, and flags for 64 bits and little-endian.
const ARCH: u32 = {
    let machine: u16 = if cfg!(target_arch = "x86_64") { libc::EM_X86_64 } else { libc::EM_AARCH64 };
    machine as u32 | 0xc000_0000
};

/// The result of any other call: EPERM. The kernel does not kill the process, because then the
/// events in its buffers would be lost without a message, possibly only because some C library's
/// allocator makes an unexpected call. After EPERM the process either continues or stops with an
/// error, and the audit log names the call.
const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();

/// From now on refuses every system call that is not allowed here. The caller must have set
/// `no_new_privs` or have CAP_SYS_ADMIN.
pub(crate) fn confine() -> Result<(), Errno> {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Err(Errno::NOSYS);
    }
    rights::filter_system_calls(&program(ALLOWED)?)
}

/// Offset of the call's number in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of `AUDIT_ARCH_*` in `struct seccomp_data`.
const MACHINE: u32 = 4;

/// Offset of the lower half of an argument in `struct seccomp_data`.
fn argument(index: u8) -> u32 {
    16 + 8 * u32::from(index)
}

#[allow(clippy::cast_possible_truncation, reason = "the codes are numbers below 256")]
fn statement(code: u32, k: u32) -> Insn {
    Insn { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> Insn {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn end(action: u32) -> Insn {
    statement(libc::BPF_RET | libc::BPF_K, action)
}

fn jump(operation: u32, k: u32, jt: u8, jf: u8) -> Insn {
    Insn { jt, jf, ..statement(libc::BPF_JMP | operation | libc::BPF_K, k) }
}

/// Instructions that continue if the condition is true, and otherwise refuse the call.
fn condition(condition: Condition) -> Result<Vec<Insn>, Errno> {
    let insns = match condition {
        With(index, bit) => vec![load(argument(index)), jump(libc::BPF_JSET, bit.cast_unsigned(), 1, 0)],
        Without(index, bit) => vec![load(argument(index)), jump(libc::BPF_JSET, bit.cast_unsigned(), 0, 1)],
        Null(index) => vec![
            load(argument(index)),
            jump(libc::BPF_JEQ, 0, 0, 2),
            load(argument(index) + 4),
            jump(libc::BPF_JEQ, 0, 1, 0),
        ],
        OneOf(index, values) => {
            let mut insns = vec![load(argument(index))];
            for (at, value) in values.iter().enumerate() {
                // Jumps over the refusal, which follows the last comparison.
                let over = u8::try_from(values.len() - at).map_err(|_| Errno::BIG)?;
                insns.push(jump(libc::BPF_JEQ, *value, over, 0));
            }
            insns
        }
    };
    Ok([insns, vec![end(REFUSED)]].concat())
}

/// The whole filter. It refuses the numbers of another machine, then compares the call with each
/// allowed one in turn.
fn program(allowed: &[Allowed]) -> Result<Vec<Insn>, Errno> {
    let mut program = vec![load(MACHINE), jump(libc::BPF_JEQ, ARCH, 1, 0), end(REFUSED), load(NUMBER)];
    for call in allowed {
        let mut insns = Vec::new();
        for wanted in call.only_if {
            insns.extend(condition(*wanted)?);
        }
        insns.push(end(libc::SECCOMP_RET_ALLOW));
        let number = u32::try_from(call.number).map_err(|_| Errno::INVAL)?;
        let over = u8::try_from(insns.len()).map_err(|_| Errno::BIG)?;
        program.push(jump(libc::BPF_JEQ, number, 0, over));
        program.append(&mut insns);
    }
    program.push(end(REFUSED));
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of the filter, by an interpreter of the instructions used here.
    fn answer(machine: u32, number: c_long, args: [u64; 6]) -> u32 {
        let program = program(ALLOWED).expect("a program");
        let mut data = Vec::new();
        data.extend(u32::try_from(number).expect("a number").to_le_bytes());
        data.extend(machine.to_le_bytes());
        data.extend([0; 8]);
        data.extend(args.iter().flat_map(|arg| arg.to_le_bytes()));
        let (mut at, mut a) = (0, 0);
        loop {
            let Insn { code, jt, jf, k } = program[at];
            let branch = |is_true: bool| 1 + usize::from(if is_true { jt } else { jf });
            at += match code {
                0x20 => {
                    let offset = k as usize;
                    a = u32::from_le_bytes(data[offset..offset + 4].try_into().expect("four bytes"));
                    1
                }
                0x15 => branch(a == k),
                0x45 => branch(a & k != 0),
                0x06 => return k,
                other => panic!("unknown code {other:#x} at {at}"),
            };
        }
    }

    fn is_allowed(number: c_long, args: [u64; 6]) -> bool {
        let answer = answer(ARCH, number, args);
        assert!(answer == libc::SECCOMP_RET_ALLOW || answer == 0x5_0001, "{answer:#x}");
        answer == libc::SECCOMP_RET_ALLOW
    }

    #[test]
    fn no_system_call_is_listed_twice() {
        let mut numbers: Vec<c_long> = ALLOWED.iter().map(|call| call.number).collect();
        numbers.sort_unstable();
        let twice: Vec<_> = numbers.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn reading_and_writing_are_allowed() {
        for call in [libc::SYS_epoll_pwait, libc::SYS_write, libc::SYS_close, libc::SYS_exit_group] {
            assert!(is_allowed(call, [u64::MAX; 6]), "{call}");
        }
        for call in ALLOWED.iter().filter(|call| call.only_if.is_empty()) {
            assert!(is_allowed(call.number, [0; 6]), "{}", call.number);
        }
    }

    #[test]
    fn creating_and_opening_is_refused() {
        for call in [
            libc::SYS_openat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_execve,
            libc::SYS_clone,
            libc::SYS_ptrace,
            libc::SYS_perf_event_open,
            libc::SYS_ioctl,
            libc::SYS_kill,
            libc::SYS_io_uring_setup,
        ] {
            assert!(!is_allowed(call, [0; 6]), "{call}");
        }
        // x32 calls have this bit.
        assert!(!is_allowed(libc::SYS_write | 0x4000_0000, [0; 6]));
    }

    #[test]
    fn the_numbers_of_another_machine_are_refused() {
        // AUDIT_ARCH_I386 and AUDIT_ARCH_ARM, in which 4 is write.
        for machine in [0x4000_0003, 0x4000_0028] {
            assert_eq!(answer(machine, 4, [0; 6]), REFUSED);
            assert_eq!(answer(machine, libc::SYS_write, [0; 6]), REFUSED);
        }
    }

    #[test]
    fn bpf_may_only_read_and_write_maps() {
        let allowed: Vec<u64> =
            (0..64).filter(|&command| is_allowed(libc::SYS_bpf, [command, 0, 0, 0, 0, 0])).collect();
        assert_eq!(allowed, [1, 2, 3, 4, 15, 24, 25]);
        // The kernel reads an int and ignores the upper half.
        assert!(!is_allowed(libc::SYS_bpf, [5 | 1 << 32, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn memory_for_code_or_files_is_refused() {
        let [read, write, exec] = [libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC];
        let mmap = |prot: i32, flags: i32| {
            is_allowed(
                libc::SYS_mmap,
                [0, 4096, prot.unsigned_abs().into(), flags.unsigned_abs().into(), 0, 0],
            )
        };
        assert!(mmap(read | write, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS));
        assert!(!mmap(read | write, libc::MAP_PRIVATE));
        assert!(!mmap(read | exec, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS));
        let mprotect =
            |prot: i32| is_allowed(libc::SYS_mprotect, [0, 0, prot.unsigned_abs().into(), 0, 0, 0]);
        assert!(mprotect(read | write) && !mprotect(read | exec));
    }

    #[test]
    fn datagrams_only_go_to_the_connected_address() {
        let to = |address| is_allowed(libc::SYS_sendto, [3, 1, 1, 0, address, 0]);
        assert!(to(0));
        assert!(!to(1) && !to(1 << 32));
    }

    #[test]
    fn the_only_signal_is_abort() {
        let signal = |signal| is_allowed(libc::SYS_tgkill, [1, 1, signal, 0, 0, 0]);
        assert!(signal(6) && !signal(9) && !signal(15));
    }
}
