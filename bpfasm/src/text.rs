//! Prints instructions in LLVM's syntax, which differs from the kernel verifier's only in spaces.

use std::fmt;

use bpfasm_syntax::helpers;

use crate::insn::{AtomicOp, Callee, Dest, Imm64, Insn, Operand, Reg, Size, Width};
use crate::symbol::Symbol;

impl fmt::Display for Insn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Line { insn: self, symbol: None, label: None }.fmt(f)
    }
}

/// An instruction to be printed with names in place of numbers.
pub(crate) struct Line<'a> {
    pub(crate) insn: &'a Insn,
    /// Printed in the place that the loader will fill.
    pub(crate) symbol: Option<&'a Symbol>,
    /// Printed as the destination.
    pub(crate) label: Option<&'a str>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.insn {
            Insn::Alu { width, op, dst, src } => {
                write!(f, "{} {op} {}", dst.name(*width), self.operand(*width, *src))
            }
            Insn::Neg { width, dst } => write!(f, "{0} = -{0}", dst.name(*width)),
            Insn::Mov { width, dst, src } => {
                write!(f, "{} = {}", dst.name(*width), self.operand(*width, *src))
            }
            Insn::MovSx { width, from, dst, src } => {
                write!(f, "{} = ({}){}", dst.name(*width), from.signed(), src.name(*width))
            }
            Insn::Swap { kind, size, dst } => write!(f, "{dst} = {kind}{} {dst}", size.bits()),
            Insn::LoadImm64 { dst, imm } => self.wide(f, *dst, imm),
            Insn::Load { size, signed, dst, base, off } => {
                let name = if *signed { size.signed() } else { size.unsigned() };
                write!(f, "{dst} = *({name} *)({})", self.address(*base, *off))
            }
            Insn::Store { size, base, off, src } => {
                // A store's symbol stands for its offset. The register is printed as `rN` for every
                // size, since the instruction does not say which half it uses.
                let src = Value { operand: *src, width: Width::W64, symbol: None };
                write!(f, "*({} *)({}) = {src}", size.unsigned(), self.address(*base, *off))
            }
            Insn::Atomic { size, op, base, off, src } => {
                let width = if *size == Size::B8 { Width::W64 } else { Width::W32 };
                let (kind, src, at) = (size.unsigned(), src.name(width), self.address(*base, *off));
                if let Some((_, operator)) = AtomicOp::LOCK.iter().find(|row| row.0 == *op) {
                    return write!(f, "lock *({kind} *)({at}) {operator} {src}");
                }
                if let Some((_, name)) = AtomicOp::FETCH.iter().find(|row| row.0 == *op) {
                    return write!(f, "{src} = {name}(({kind} *)({at}), {src})");
                }
                let suffix = if width == Width::W64 { "_64" } else { "32_32" };
                match op {
                    AtomicOp::Cmpxchg => {
                        let r0 = Reg::R0.name(width);
                        write!(f, "{r0} = cmpxchg{suffix}({at}, {r0}, {src})")
                    }
                    _ => write!(f, "{src} = xchg{suffix}({at}, {src})"),
                }
            }
            Insn::LoadPacket { size, index, off } => {
                write!(f, "r0 = *({} *)skb[", size.unsigned())?;
                match index {
                    None => write!(f, "{off}]"),
                    Some(index) if *off == 0 => write!(f, "{index}]"),
                    Some(index) => write!(f, "{index} {}]", Signed(i64::from(*off))),
                }
            }
            Insn::Jump { long, dest } => {
                write!(f, "{} {}", if *long { "gotol" } else { "goto" }, self.dest(dest, ""))
            }
            Insn::JumpIf { width, op, dst, src, dest } => {
                let src = self.operand(*width, *src);
                write!(f, "if {} {op} {src} goto {}", dst.name(*width), self.dest(dest, ""))
            }
            Insn::Call(Callee::Helper(id)) => match helpers::name(*id) {
                Some(name) => write!(f, "call {name}"),
                None => write!(f, "call {id}"),
            },
            Insn::Call(Callee::Local(dest)) => write!(f, "call {}", self.dest(dest, "pc")),
            Insn::Call(Callee::Kfunc(id)) => match self.symbol {
                Some(symbol) => write!(f, "call {symbol}"),
                None => write!(f, "call kfunc {id}"),
            },
            Insn::Exit => f.write_str("exit"),
        }
    }
}

impl<'a> Line<'a> {
    fn operand(&self, width: Width, operand: Operand) -> Value<'a> {
        Value { operand, width, symbol: self.symbol }
    }

    fn address(&self, base: Reg, off: i16) -> Address<'a> {
        Address { base, off, symbol: self.symbol }
    }

    fn dest(&self, dest: &'a Dest, prefix: &'static str) -> Place<'a> {
        Place { dest, label: self.label, prefix }
    }

    fn wide(&self, f: &mut fmt::Formatter<'_>, dst: Reg, imm: &Imm64) -> fmt::Result {
        write!(f, "{dst} = ")?;
        match (imm, self.symbol) {
            (Imm64::Value(_), Some(symbol)) => write!(f, "{symbol}")?,
            // LLVM prints wide constants as signed numbers.
            (Imm64::Value(value), None) => write!(f, "{}", value.cast_signed())?,
            (Imm64::MapFd(_), Some(symbol)) => write!(f, "{symbol}")?,
            (Imm64::MapFd(fd), None) => write!(f, "map_fd {fd}")?,
            (Imm64::MapValue { offset, .. }, Some(Symbol::Map(name))) => {
                write!(f, "map_value {name} + {offset}")?
            }
            (Imm64::MapValue { fd, offset }, _) => write!(f, "map_value_fd {fd} + {offset}")?,
            (Imm64::BtfVar(id), _) => write!(f, "btf_var {id}")?,
            (Imm64::CodeAddr(dest), _) => {
                write!(f, "code_addr {}", Place { dest, label: self.label, prefix: "pc" })?;
            }
            (Imm64::MapIdx(index), _) => write!(f, "map_idx {index}")?,
            (Imm64::MapValueIdx { index, offset }, _) => write!(f, "map_value_idx {index} + {offset}")?,
        }
        f.write_str(" ll")
    }
}

/// The second operand.
struct Value<'a> {
    operand: Operand,
    width: Width,
    symbol: Option<&'a Symbol>,
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.operand, self.symbol) {
            (Operand::Reg(reg), _) => f.write_str(reg.name(self.width)),
            (Operand::Imm(_), Some(symbol)) => write!(f, "{symbol}"),
            (Operand::Imm(imm), None) => write!(f, "{imm}"),
        }
    }
}

/// The address in the parentheses of a load or a store.
struct Address<'a> {
    base: Reg,
    off: i16,
    symbol: Option<&'a Symbol>,
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.symbol {
            Some(symbol) => write!(f, "{} + {symbol}", self.base),
            None => write!(f, "{} {}", self.base, Signed(i64::from(self.off))),
        }
    }
}

/// `+ 8`, `- 8`
struct Signed(i64);

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.0 < 0 { '-' } else { '+' }, self.0.unsigned_abs())
    }
}

/// A destination: its name if it has one, otherwise its distance after `prefix`.
struct Place<'a> {
    dest: &'a Dest,
    label: Option<&'a str>,
    prefix: &'static str,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.label, self.dest) {
            (Some(label), _) => f.write_str(label),
            (None, Dest::Label(label)) => label.fmt(f),
            (None, Dest::Rel(distance)) => write!(f, "{}{distance:+}", self.prefix),
        }
    }
}
