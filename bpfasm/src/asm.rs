//! Assembles text at run time: the language of `bpf!`, without the macro.
//!
//! A statement ends with a newline or `;`. Comments are `//`, `/* */`, and `#` at the start of a
//! line. A text cannot contain values from Rust (`{…}`, `..fragment`).

use std::convert::Infallible;

use bpfasm_syntax::ast::{self, Arg, Given, StatementKind, Sum, Wide};
use bpfasm_syntax::error::Problem;
use bpfasm_syntax::lex::lex;
use bpfasm_syntax::limit::Limit;
use thiserror::Error;

use crate::fragment::Fragment;
use crate::insn::{Callee, Dest, Imm64, Insn, Operand, Reg};
use crate::symbol::{Symbol, Text};

/// The first error of a text, and its place.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{line}:{column}: {problem}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
    /// The error itself. Its `Display` lists the accepted forms.
    pub problem: Problem,
}

/// Assembles a text.
///
/// ```
/// let fragment = bpfasm::asm::parse("r0 = 7\nexit")?;
/// assert_eq!(bpfasm::Program::link("seven", fragment)?.slots()?, [0x7_0000_00b7, 0x95]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first error in the order of the text.
pub fn parse(text: &str) -> Result<Fragment, ParseError> {
    let (tokens, end) = lex(text);
    let statements = bpfasm_syntax::parse::parse(&tokens, end).map_err(|errors| first(errors, end))?;
    let mut fragment = Fragment::new();
    for statement in statements {
        match statement.kind {
            StatementKind::Label(name) => fragment.label(known(name), None),
            StatementKind::Spread(never) => match never {},
            StatementKind::Insn(written) => {
                let at = statement.span;
                let insn = insn(written, &mut fragment).map_err(|problem| ParseError {
                    line: at.line,
                    column: at.column,
                    problem,
                })?;
                fragment.push(insn, None, None);
            }
        }
    }
    Ok(fragment)
}

type SyntaxError = bpfasm_syntax::error::SyntaxError<bpfasm_syntax::lex::Position>;

fn first(errors: Vec<SyntaxError>, end: bpfasm_syntax::lex::Position) -> ParseError {
    let (at, problem) = errors.into_iter().next().map_or_else(
        || (end, Problem::Expected { what: "a statement", found: "nothing".to_owned() }),
        |error| (error.start, error.problem),
    );
    ParseError { line: at.line, column: at.column, problem }
}

fn known<T>(given: Given<T, Infallible>) -> T {
    match given {
        Given::Written(value) => value,
        Given::Rust(never) => match never {},
    }
}

fn text(name: ast::Name<Infallible>) -> Text {
    Text::Owned(known(name))
}

/// The parser has already checked that numbers fit, so an error here would be a mistake in the
/// parser.
fn insn(insn: ast::Insn<Infallible>, out: &mut Fragment) -> Result<Insn, Problem> {
    Ok(match insn {
        ast::Insn::Alu { width, op, dst, src } => {
            Insn::Alu { width, op, dst: known(dst), src: arg(src, Limit::Imm(width), out)? }
        }
        ast::Insn::Neg { width, dst } => Insn::Neg { width, dst: known(dst) },
        ast::Insn::Mov { width, dst, src } => {
            Insn::Mov { width, dst: known(dst), src: arg(src, Limit::Imm(width), out)? }
        }
        ast::Insn::MovSx { width, from, dst, src } => {
            Insn::MovSx { width, from, dst: known(dst), src: known(src) }
        }
        ast::Insn::Swap { kind, size, dst } => Insn::Swap { kind, size, dst: known(dst) },
        ast::Insn::LoadImm64 { dst, imm } => Insn::LoadImm64 { dst: known(dst), imm: wide(imm, out)? },
        ast::Insn::Load { size, signed, dst, from } => {
            let (base, off) = address(from, out)?;
            Insn::Load { size, signed, dst: known(dst), base, off }
        }
        ast::Insn::Store { size, to, src } => {
            let (base, off) = address(to, out)?;
            Insn::Store { size, base, off, src: arg(src, Limit::Store(size), out)? }
        }
        ast::Insn::Atomic { size, op, at, src } => {
            let (base, off) = address(at, out)?;
            Insn::Atomic { size, op, base, off, src: known(src) }
        }
        ast::Insn::LoadPacket { size, index, off } => {
            Insn::LoadPacket { size, index: index.map(known), off: imm(off, Limit::Signed32, out)? }
        }
        ast::Insn::Jump { long, dest: to } => Insn::Jump { long, dest: dest(to, out) },
        ast::Insn::JumpIf { width, op, dst, src, dest: to } => {
            let src = arg(src, Limit::Imm(width), out)?;
            Insn::JumpIf { width, op, dst: known(dst), src, dest: dest(to, out) }
        }
        ast::Insn::Call(callee) => Insn::Call(match callee {
            ast::Callee::Helper(id) => Callee::Helper(id),
            ast::Callee::HelperRust(never) => match never {},
            ast::Callee::Local(to) => Callee::Local(dest(to, out)),
            ast::Callee::KfuncId(id) => Callee::Kfunc(id),
            ast::Callee::Kfunc(name) => {
                out.symbol(Symbol::Kfunc(text(name)));
                Callee::Kfunc(0)
            }
        }),
        ast::Insn::Exit => Insn::Exit,
    })
}

fn arg(arg: Arg<Infallible>, limit: Limit, out: &mut Fragment) -> Result<Operand, Problem> {
    Ok(match arg {
        Arg::Reg(reg) => Operand::Reg(known(reg)),
        Arg::Const(sum) => Operand::Imm(imm(sum, limit, out)?),
        Arg::Either(never) => match never {},
    })
}

/// The number of a sum. With a symbol it becomes the symbol's addend, and the instruction's field
/// is 0.
fn number(sum: Sum<Infallible>, out: &mut Fragment) -> Result<i128, Problem> {
    let Some(written) = sum.symbol else { return Ok(sum.written) };
    let symbol = match written {
        ast::Symbol::Field { path, from } => Symbol::Field {
            path: text(path),
            from: from.map(text),
            addend: field(sum.written, Limit::Signed32)?,
        },
        ast::Symbol::Size(path) => Symbol::Size(text(path)),
        ast::Symbol::Exists(path) => Symbol::Exists(text(path)),
        ast::Symbol::BitShift(path) => Symbol::BitShift(text(path)),
        ast::Symbol::BitMask(path) => Symbol::BitMask(text(path)),
        ast::Symbol::Enum { name, variant } => Symbol::Enum { name: text(name), variant: text(variant) },
        ast::Symbol::Params(name) => Symbol::Params(text(name)),
        ast::Symbol::Const(name) => Symbol::Const(text(name)),
    };
    out.symbol(symbol);
    Ok(0)
}

fn field(value: i128, limit: Limit) -> Result<i32, Problem> {
    limit.field(value).ok_or(Problem::Range { value, limit })
}

fn imm(sum: Sum<Infallible>, limit: Limit, out: &mut Fragment) -> Result<i32, Problem> {
    field(number(sum, out)?, limit)
}

fn unsigned(sum: Sum<Infallible>) -> Result<u32, Problem> {
    field(sum.written, Limit::Unsigned32).map(i32::cast_unsigned)
}

fn address(address: ast::Address<Infallible>, out: &mut Fragment) -> Result<(Reg, i16), Problem> {
    let value = number(address.off, out)?;
    let off = i16::try_from(value).map_err(|_| Problem::Range { value, limit: Limit::Offset })?;
    Ok((known(address.base), off))
}

fn dest(dest: ast::Dest<Infallible>, out: &mut Fragment) -> Dest {
    match dest {
        ast::Dest::Label(name) => out.dest(text(name)),
        ast::Dest::Rel(distance) => Dest::Rel(distance),
    }
}

fn wide(wide: Wide<Infallible>, out: &mut Fragment) -> Result<Imm64, Problem> {
    let mut signed = |sum| imm(sum, Limit::Signed32, out);
    Ok(match wide {
        Wide::Value(sum) => {
            let value = number(sum, out)?;
            let bits = u64::try_from(value).or_else(|_| i64::try_from(value).map(i64::cast_unsigned));
            Imm64::Value(bits.map_err(|_| Problem::Range { value, limit: Limit::Wide })?)
        }
        Wide::Map(name) => {
            out.symbol(Symbol::Map(text(name)));
            Imm64::MapFd(0)
        }
        Wide::MapOffset(name, offset) => {
            out.symbol(Symbol::Map(text(name)));
            Imm64::MapValue { fd: 0, offset: unsigned(offset)? }
        }
        Wide::MapFd(fd) => Imm64::MapFd(signed(fd)?),
        Wide::MapValue(fd, offset) => Imm64::MapValue { fd: signed(fd)?, offset: unsigned(offset)? },
        Wide::BtfVar(id) => Imm64::BtfVar(signed(id)?),
        Wide::CodeAddr(to) => Imm64::CodeAddr(dest(to, out)),
        Wide::MapIdx(index) => Imm64::MapIdx(signed(index)?),
        Wide::MapValueIdx(index, offset) => {
            Imm64::MapValueIdx { index: signed(index)?, offset: unsigned(offset)? }
        }
    })
}
