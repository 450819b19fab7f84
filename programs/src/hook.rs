//! Building hooks: a program, and the ways to attach it.
//!
//! A hook names its attach options in order of preference. The loader takes the first one that this
//! kernel accepts.

use bpfasm::object::{Attach, Hook, Need, ProgramDef};
use bpfasm::target::{Access, Arch, Target};
use bpfasm::{AsmError, Fragment, Program, bpf};

use crate::stack_layout::SCRATCH;

/// One attach option of a hook. Its program stays empty if the host is known to refuse the attach
/// point ([`Refused`](bpfasm::target::Refused)).
pub fn attach_option(
    target: &Target,
    name: &'static str,
    attach: Attach,
    body: impl FnOnce() -> Fragment,
) -> Result<ProgramDef, AsmError> {
    let program =
        if target.refused.refuses(&attach) { Program::default() } else { Program::link(name, body())? };
    Ok(ProgramDef { name: name.into(), attach, program })
}

/// A hook with one program on one tracepoint.
pub fn tracepoint(
    hook: &'static str,
    need: Need,
    name: &'static str,
    target: &Target,
    body: Fragment,
) -> Result<Hook, AsmError> {
    let attach = match target.access {
        Access::Typed => Attach::TpBtf(name.into()),
        Access::Probed => Attach::RawTp(name.into()),
    };
    one_program(hook, need, name, attach, body)
}

/// A hook with one program on one tracepoint that needs no types: it reads nothing through its
/// arguments, or reads by probe reads on every target. Such a program loads in half the time,
/// because for a typed one the kernel searches its BTF for the tracepoint
/// (`bpf_check_attach_target`, kernel 6.12).
pub fn untyped_tracepoint(
    hook: &'static str,
    need: Need,
    name: &'static str,
    body: Fragment,
) -> Result<Hook, AsmError> {
    one_program(hook, need, name, Attach::RawTp(name.into()), body)
}

fn one_program(
    hook: &'static str,
    need: Need,
    name: &'static str,
    attach: Attach,
    body: Fragment,
) -> Result<Hook, AsmError> {
    let program = Program::link(name, body)?;
    Ok(Hook::new(hook, need, vec![ProgramDef { name: name.into(), attach, program }]))
}

/// A kernel function to attach to, and the names of the two programs that do: by trampoline and by
/// kprobe.
pub struct Function {
    /// The kernel's name of the function.
    pub name: &'static str,
    /// The name of the program that a BPF trampoline calls.
    pub trampoline: &'static str,
    /// The name of the program that a kprobe or kretprobe calls.
    pub kprobe: &'static str,
}

impl Function {
    /// Attach options at the function's entry, for the ways that the target has.
    ///
    /// A program is: `first`, which leaves `r1` alone; `r6` = the function's first argument, a
    /// pointer; and `body`, which is to read through that pointer with the access that it is given.
    /// A trampoline hands over a pointer that the verifier knows the type of: there, that access is
    /// `trampoline_access`.
    pub fn at_entry(
        &self,
        target: &Target,
        trampoline_access: Access,
        first: &Fragment,
        body: &dyn Fn(Access) -> Fragment,
    ) -> Result<Vec<ProgramDef>, AsmError> {
        let mut options = Vec::new();
        if target.trampolines {
            options.push(attach_option(target, self.trampoline, Attach::Fentry(self.name.into()), || {
                bpf! {
                    ..first;
                    r6 = *(u64 *)(r1 + 0);
                    ..body(trampoline_access);
                }
            })?);
        }
        if target.kprobes {
            let register = match target.arch {
                Arch::X86_64 => "pt_regs.di",
                Arch::Aarch64 => "user_pt_regs.regs", // regs[0]
            };
            options.push(attach_option(target, self.kprobe, Attach::Kprobe(self.name.into()), || {
                bpf! {
                    ..first;
                    r6 = *(u64 *)(r1 + field {register});
                    ..body(Access::Probed);
                }
            })?);
        }
        Ok(options)
    }

    /// Attach options at the function's return, for the ways that the target has. A program is:
    /// `first`, which leaves `r1` alone; `r6` = the result, a pointer that can only be read by
    /// probe reads; and `body`. It ends without `body` if the result is 0.
    pub fn at_return(
        &self,
        target: &Target,
        first: &Fragment,
        body: &dyn Fn() -> Fragment,
    ) -> Result<Vec<ProgramDef>, AsmError> {
        let mut options = Vec::new();
        if target.trampolines {
            // bpf_get_func_ret (kernel 5.17) finds the result however many arguments the function
            // has.
            options.push(attach_option(target, self.trampoline, Attach::Fexit(self.name.into()), || {
                bpf! {
                    ..first;
                    r2 = r10;
                    r2 += {SCRATCH};
                    call bpf_get_func_ret;
                    if w0 != 0 goto no_result;
                    r6 = *(u64 *)(r10 + {SCRATCH});
                    if r6 == 0 goto no_result;
                    ..body();
                no_result:
                    r0 = 0;
                    exit;
                }
            })?);
        }
        if target.kprobes {
            let register = match target.arch {
                Arch::X86_64 => "pt_regs.ax",
                Arch::Aarch64 => "user_pt_regs.regs", // regs[0]
            };
            options.push(attach_option(target, self.kprobe, Attach::Kretprobe(self.name.into()), || {
                bpf! {
                    ..first;
                    r6 = *(u64 *)(r1 + field {register});
                    if r6 == 0 goto no_result;
                    ..body();
                no_result:
                    r0 = 0;
                    exit;
                }
            })?);
        }
        Ok(options)
    }
}
