//! Statements that do not start with a register.

use super::{Parsed, Parser};
use crate::ast::{Arg, Callee, Insn, StatementKind};
use crate::error::Problem;
use crate::helpers;
use crate::limit::Limit;
use crate::ops::{AtomicOp, CmpOp, Size, Width};
use crate::token::Kind;

const CONDITIONS: &str = "== != > >= < <= & s> s>= s< s<=";
const LOCKED: &str = "+= |= &= ^=";
const STORED: &str = "u8 u16 u32 u64";

impl<S: Copy, V: Clone> Parser<'_, S, V> {
    pub(super) fn statement_kind(&mut self) -> Parsed<StatementKind<V>, S> {
        let name = match self.peek() {
            Some(Kind::Spread(value, _)) => {
                self.next();
                return Ok(StatementKind::Spread(value.clone()));
            }
            Some(Kind::Word(_) | Kind::Rust(..)) if self.is_op_at(1, ":") => {
                let name = self.name("a label")?;
                self.next();
                return Ok(StatementKind::Label(name));
            }
            Some(Kind::Word(word)) => word.as_str(),
            _ => "",
        };
        let insn = match name {
            "if" => self.condition()?,
            "goto" | "gotol" => {
                self.next();
                let long = name == "gotol";
                Insn::Jump { long, dest: self.dest(if long { Limit::Signed32 } else { Limit::Offset })? }
            }
            "call" => Insn::Call(self.callee()?),
            "exit" => {
                self.next();
                Insn::Exit
            }
            "lock" => self.locked()?,
            _ if self.is_op("*") => self.store()?,
            _ if self.register_ahead(0) || matches!(self.peek(), Some(Kind::Rust(..))) => {
                self.assignment()?
            }
            _ => {
                let found = self.peek().map_or_else(|| "nothing".to_owned(), Kind::describe);
                return Err(self.error(Problem::Statement(found)));
            }
        };
        Ok(StatementKind::Insn(insn))
    }

    /// `if r1 == r2 goto L`
    fn condition(&mut self) -> Parsed<Insn<V>, S> {
        self.next();
        let left = self.register()?;
        let what = "a condition, one of == != > >= < <= & s> s>= s< s<=";
        let Some(op) = self.operator(&CmpOp::ALL) else {
            return Err(self.unknown_operator(what, CONDITIONS));
        };
        let src = self.arg(left.width, left.name(), Limit::Imm(left.width))?;
        if !self.take_word("goto") {
            return Err(self.expected("`goto`"));
        }
        let dest = self.dest(Limit::Offset)?;
        Ok(Insn::JumpIf { width: left.width, op, dst: left.reg, src, dest })
    }

    fn callee(&mut self) -> Parsed<Callee<V>, S> {
        self.next();
        match self.peek() {
            Some(Kind::Word(word)) if word == "kfunc" => {
                self.next();
                if matches!(self.peek(), Some(Kind::Int { .. } | Kind::Op("-"))) {
                    let sum = self.single(Limit::Signed32)?;
                    return Ok(Callee::KfuncId(Limit::Signed32.field(sum.written).unwrap_or_default()));
                }
                Ok(Callee::Kfunc(self.name("a kernel function's name")?))
            }
            Some(Kind::Word(word)) if word.starts_with("bpf_") => {
                let Some(id) = helpers::id(word) else {
                    return Err(self.error(Problem::Helper { name: word.clone(), near: helpers::near(word) }));
                };
                self.next();
                Ok(Callee::Helper(id))
            }
            Some(Kind::Int { value, .. }) => {
                let (value, limit) = (i128::from(*value), Limit::Unsigned32);
                match u32::try_from(value) {
                    Ok(id) => {
                        self.next();
                        Ok(Callee::Helper(id))
                    }
                    Err(_) => Err(self.error(Problem::Range { value, limit })),
                }
            }
            Some(Kind::Rust(value, _)) => {
                self.next();
                Ok(Callee::HelperRust(value.clone()))
            }
            Some(Kind::Word(_) | Kind::Op("+" | "-")) => Ok(Callee::Local(self.dest(Limit::Signed32)?)),
            _ => Err(self.expected("a helper, its number, `kfunc NAME`, a label or `pc+N`")),
        }
    }

    /// `*(u32 *)(r1 + 8) = r2`
    fn store(&mut self) -> Parsed<Insn<V>, S> {
        self.next();
        self.expect_op("(", "`(u32 *)`")?;
        let size = self.stored_type()?;
        let to = self.address()?;
        if !self.take_op("=") {
            return Err(self.unknown_operator("`=`", "`=`, and `lock *(…) += …` for an atomic operation"));
        }
        let start = self.position();
        if self.register_ahead(0) {
            let src = self.register()?;
            if size == Size::B8 && src.width == Width::W32 {
                return Err(
                    self.error_from(start, Problem::Half { found: src.name(), place: "a store of `u64`" })
                );
            }
            return Ok(Insn::Store { size, to, src: Arg::Reg(src.reg) });
        }
        let sum = self.sum()?;
        if sum.symbol.is_some() {
            return Err(self.error_from(start, Problem::StoredSymbol));
        }
        let src = self.sum_arg(sum, start, Limit::Store(size))?;
        Ok(Insn::Store { size, to, src })
    }

    fn stored_type(&mut self) -> Parsed<Size, S> {
        let (size, signed, at) = self.type_name(STORED)?;
        if signed {
            return Err(self.error_at(at, Problem::Type { found: size.signed().to_owned(), forms: STORED }));
        }
        Ok(size)
    }

    /// `lock *(u64 *)(r1 + 0) += r2`
    fn locked(&mut self) -> Parsed<Insn<V>, S> {
        self.next();
        self.expect_op("*", "`*(u32 *)(rN + OFF)`")?;
        self.expect_op("(", "`(u32 *)` or `(u64 *)`")?;
        let (size, _) = self.atomic_type()?;
        let at = self.address()?;
        let Some(op) = self.operator(&AtomicOp::LOCK) else {
            return Err(self.unknown_operator("one of += |= &= ^=", LOCKED));
        };
        // Without 32-bit registers, compilers print `lock *(u32 *)(…) += r2`.
        let src = if size == Size::B4 { self.register()?.reg } else { self.whole_register("`u64`")? };
        Ok(Insn::Atomic { size, op, at, src })
    }
}
