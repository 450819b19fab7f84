//! Programs that run to their end once they have begun.
//!
//! A kernel does not run a program while that same program runs on the same CPU, so that none can call itself. Where a task can be
//! preempted in the middle of one, this leaves out what the next task does; with preemption off it cannot happen. What is left is
//! the few instructions between the kernel's own mark and the first call here.

use bpfasm::object::{Attach, ProgramDef};
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, Program, bpf};

/// A program for this place.
pub(crate) fn program(
    name: &'static str,
    attach: Attach,
    target: &Target,
    body: Fragment,
) -> Result<ProgramDef, AsmError> {
    let body = if target.preemptible && marks_itself(&attach) { undisturbed(body) } else { body };
    Ok(ProgramDef { name: name.into(), attach, program: Program::link(name, body)? })
}

/// Whether the kernel runs such programs with preemption on. It turns it off itself for those of perf (`trace_call_bpf`), and an
/// iterator is run by its reader.
fn marks_itself(attach: &Attach) -> bool {
    matches!(attach, Attach::TpBtf(_) | Attach::RawTp(_) | Attach::Fentry(_) | Attach::Fexit(_))
}

/// `body` as a function of its own, so that each of its ends comes back here. Kernel functions since 6.10.
fn undisturbed(body: Fragment) -> Fragment {
    bpf! {
        r6 = r1;
        call kfunc bpf_preempt_disable;
        r1 = r6;
        call undisturbed;
        call kfunc bpf_preempt_enable;
        r0 = 0;
        exit;
    undisturbed:
        ..body;
    }
}
