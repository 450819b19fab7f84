//! The smallest program, with which the kernel is asked what it accepts.

use bpfasm::{Insn, Operand, Program, Reg, Width};

/// `r0 = 0; exit;`
pub(crate) fn empty_program(name: &'static str) -> Program {
    Program {
        insns: vec![Insn::Mov { width: Width::W64, dst: Reg::R0, src: Operand::Imm(0) }, Insn::Exit],
        source: vec![None, None],
        functions: vec![(0, name.into())],
        ..Program::default()
    }
}
