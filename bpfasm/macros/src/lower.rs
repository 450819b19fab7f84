//! Turns statements into calls of `bpfasm::rt`.

use bpfasm_syntax::ast::{
    Address, Arg, Callee, Dest, Given, Insn, Name, Register, Statement, StatementKind, Sum, Symbol, Wide,
};
use bpfasm_syntax::limit::Limit;
use proc_macro::{Delimiter, Span, TokenStream};

use crate::emit::{Emit, join};

/// `{ let mut block = …; …; block.finish() }`
pub(crate) fn block(statements: Vec<Statement<Span, TokenStream>>) -> TokenStream {
    let site = Emit::at(Span::call_site());
    let mut file = statements.first().map_or_else(|| Span::call_site().file(), |first| first.span.file());
    let count = i128::try_from(statements.len()).unwrap_or_default();
    let new = site.call("rt::Block::new", [site.string(&file), site.int(count)]);
    // In an empty block the variable is not changed, and `mut` would be a warning.
    let mutable = if statements.is_empty() { TokenStream::new() } else { site.ident("mut") };
    let mut parts =
        vec![join([site.ident("let"), mutable, site.ident("block"), site.punct("="), new, site.punct(";")])];
    for statement in statements {
        let emit = Emit::at(statement.span);
        // Another macro, from another file, may have produced a part of the block.
        if file != statement.span.file() {
            file = statement.span.file();
            parts.push(emit.method("file", [emit.string(&file)]));
            parts.push(emit.punct(";"));
        }
        let line = emit.int(i128::try_from(statement.span.line()).unwrap_or_default());
        parts.push(emit.method("at", [line, emit.string(&statement.text)]));
        parts.push(emit.punct(";"));
        parts.push(match statement.kind {
            StatementKind::Label(name) => emit.method("label", [self::name(emit, name)]),
            StatementKind::Spread(rust) => emit.method("splice", [rust]),
            StatementKind::Insn(insn) => {
                let insn = Lower { emit }.insn(insn);
                // The instruction is bound to a variable first, because its expression may borrow
                // the block.
                let variable = || emit.ident("insn");
                let bind = [emit.ident("let"), variable(), emit.punct("="), insn, emit.punct(";")];
                emit.group(Delimiter::Brace, [join(bind), emit.method("insn", [variable()])])
            }
        });
        parts.push(emit.punct(";"));
    }
    parts.push(site.method("finish", []));
    site.group(Delimiter::Brace, parts)
}

fn name(emit: Emit, name: Name<TokenStream>) -> TokenStream {
    match name {
        Given::Written(name) => emit.string(&name),
        Given::Rust(rust) => rust,
    }
}

/// The field of an instruction that receives a number.
#[derive(Clone, Copy)]
enum Field {
    /// 32 bits, and the range that they accept.
    Imm(Limit),
    /// The 16 bits of an offset.
    Off,
    /// 32 bits without a sign.
    Unsigned,
    /// The 64 bits of a wide load.
    Wide,
}

/// Lowers one statement.
struct Lower {
    emit: Emit,
}

impl Lower {
    fn insn(&self, insn: Insn<TokenStream>) -> TokenStream {
        let emit = self.emit;
        match insn {
            Insn::Alu { width, op, dst, src } => {
                let src = self.arg(src, Limit::Imm(width));
                let op = self.variant("AluOp", &op);
                self.record(
                    "Alu",
                    [
                        ("width", self.variant("Width", &width)),
                        ("op", op),
                        ("dst", self.reg(dst)),
                        ("src", src),
                    ],
                )
            }
            Insn::Neg { width, dst } => {
                self.record("Neg", [("width", self.variant("Width", &width)), ("dst", self.reg(dst))])
            }
            Insn::Mov { width, dst, src } => {
                let src = self.arg(src, Limit::Imm(width));
                self.record(
                    "Mov",
                    [("width", self.variant("Width", &width)), ("dst", self.reg(dst)), ("src", src)],
                )
            }
            Insn::MovSx { width, from, dst, src } => self.record(
                "MovSx",
                [
                    ("width", self.variant("Width", &width)),
                    ("from", self.variant("Size", &from)),
                    ("dst", self.reg(dst)),
                    ("src", self.reg(src)),
                ],
            ),
            Insn::Swap { kind, size, dst } => self.record(
                "Swap",
                [
                    ("kind", self.variant("SwapKind", &kind)),
                    ("size", self.variant("Size", &size)),
                    ("dst", self.reg(dst)),
                ],
            ),
            Insn::LoadImm64 { dst, imm } => {
                let imm = self.wide(imm);
                self.record("LoadImm64", [("dst", self.reg(dst)), ("imm", imm)])
            }
            Insn::Load { size, signed, dst, from } => {
                let dst = self.reg(dst);
                let (base, off) = self.address(from);
                self.record(
                    "Load",
                    [
                        ("size", self.variant("Size", &size)),
                        ("signed", emit.bool(signed)),
                        ("dst", dst),
                        ("base", base),
                        ("off", off),
                    ],
                )
            }
            Insn::Store { size, to, src } => {
                let (base, off) = self.address(to);
                let src = self.arg(src, Limit::Store(size));
                self.record(
                    "Store",
                    [("size", self.variant("Size", &size)), ("base", base), ("off", off), ("src", src)],
                )
            }
            Insn::Atomic { size, op, at, src } => {
                let (base, off) = self.address(at);
                self.record(
                    "Atomic",
                    [
                        ("size", self.variant("Size", &size)),
                        ("op", self.variant("AtomicOp", &op)),
                        ("base", base),
                        ("off", off),
                        ("src", self.reg(src)),
                    ],
                )
            }
            Insn::LoadPacket { size, index, off } => {
                let index = match index {
                    Some(index) => self.some(self.reg(index)),
                    None => self.none(),
                };
                let off = self.imm(off, Limit::Signed32);
                self.record(
                    "LoadPacket",
                    [("size", self.variant("Size", &size)), ("index", index), ("off", off)],
                )
            }
            Insn::Jump { long, dest } => {
                self.record("Jump", [("long", emit.bool(long)), ("dest", self.dest(dest))])
            }
            Insn::JumpIf { width, op, dst, src, dest } => {
                let dst = self.reg(dst);
                let src = self.arg(src, Limit::Imm(width));
                self.record(
                    "JumpIf",
                    [
                        ("width", self.variant("Width", &width)),
                        ("op", self.variant("CmpOp", &op)),
                        ("dst", dst),
                        ("src", src),
                        ("dest", self.dest(dest)),
                    ],
                )
            }
            Insn::Call(callee) => emit.call("Insn::Call", [self.callee(callee)]),
            Insn::Exit => emit.path("Insn::Exit"),
        }
    }

    /// `::bpfasm::Insn::Name { … }`
    fn record<const N: usize>(&self, name: &str, fields: [(&str, TokenStream); N]) -> TokenStream {
        self.emit.record(&format!("Insn::{name}"), fields)
    }

    /// The path of a variant without fields. `Debug` prints its name.
    fn variant(&self, name: &str, variant: &impl std::fmt::Debug) -> TokenStream {
        self.emit.path(&format!("{name}::{variant:?}"))
    }

    fn some(&self, value: TokenStream) -> TokenStream {
        self.emit.call("rt::Some", [value])
    }

    fn none(&self) -> TokenStream {
        self.emit.path("rt::None")
    }

    fn reg(&self, reg: Register<TokenStream>) -> TokenStream {
        match reg {
            Given::Written(reg) => self.variant("Reg", &reg),
            Given::Rust(rust) => self.emit.call("rt::reg", [rust]),
        }
    }

    fn arg(&self, arg: Arg<TokenStream>, limit: Limit) -> TokenStream {
        match arg {
            Arg::Reg(reg) => self.emit.call("Operand::Reg", [self.reg(reg)]),
            Arg::Const(sum) => self.emit.call("Operand::Imm", [self.imm(sum, limit)]),
            Arg::Either(rust) => self.emit.method("operand", [self.limit(limit), rust]),
        }
    }

    /// A number for a field of 32 bits; 0 if there is a symbol.
    fn imm(&self, sum: Sum<TokenStream>, limit: Limit) -> TokenStream {
        self.number(sum, Field::Imm(limit))
    }

    fn address(&self, address: Address<TokenStream>) -> (TokenStream, TokenStream) {
        let base = self.reg(address.base);
        (base, self.number(address.off, Field::Off))
    }

    /// A number for a field. With a symbol it becomes the symbol's addend, and the field is 0.
    fn number(&self, sum: Sum<TokenStream>, field: Field) -> TokenStream {
        let Sum { symbol, written, rust } = sum;
        match symbol {
            Some(symbol) => {
                let addend = self.sum(written, rust, Field::Imm(Limit::Signed32));
                self.with_symbol(self.symbol(symbol, addend), self.emit.int(0))
            }
            None => self.sum(written, rust, field),
        }
    }

    /// `{ let symbol = …; block.symbol(symbol); value }`: bound to a variable first, because its
    /// expression may borrow the block.
    fn with_symbol(&self, symbol: TokenStream, value: TokenStream) -> TokenStream {
        let emit = self.emit;
        let bind = [emit.ident("let"), emit.ident("symbol"), emit.punct("="), symbol, emit.punct(";")];
        let set = emit.method("symbol", [emit.ident("symbol")]);
        emit.group(Delimiter::Brace, [join(bind), set, emit.punct(";"), value])
    }

    /// A sum without a symbol. The parser has checked sums of written numbers; the block checks
    /// sums with values from Rust when it runs.
    fn sum(&self, written: i128, rust: Vec<(bool, TokenStream)>, field: Field) -> TokenStream {
        let emit = self.emit;
        if rust.is_empty() {
            return match field {
                // For a 32-bit operation, 0xffffffff is -1 in the field.
                Field::Imm(limit) => emit.int(limit.field(written).map_or(written, i128::from)),
                Field::Wide if written < 0 => emit.method("wide", [emit.int(written)]),
                Field::Off | Field::Unsigned | Field::Wide => emit.int(written),
            };
        }
        let mut value = emit.int(written);
        for (negative, rust) in rust {
            value.extend(emit.punct(if negative { "-" } else { "+" }));
            value.extend(emit.call("rt::int", [rust]));
        }
        match field {
            Field::Imm(limit) => emit.method("imm", [self.limit(limit), value]),
            Field::Off => emit.method("off", [value]),
            Field::Unsigned => emit.method("unsigned", [value]),
            Field::Wide => emit.method("wide", [value]),
        }
    }

    fn limit(&self, limit: Limit) -> TokenStream {
        match limit {
            Limit::Imm(width) => self.emit.call("Limit::Imm", [self.variant("Width", &width)]),
            Limit::Store(size) => self.emit.call("Limit::Store", [self.variant("Size", &size)]),
            other => self.variant("Limit", &other),
        }
    }

    fn text(&self, name: Name<TokenStream>) -> TokenStream {
        self.emit.call("rt::name", [self::name(self.emit, name)])
    }

    fn symbol(&self, symbol: Symbol<TokenStream>, addend: TokenStream) -> TokenStream {
        let emit = self.emit;
        let (kind, name) = match symbol {
            Symbol::Field { path, from } => {
                let from = match from {
                    Some(from) => self.some(self.text(from)),
                    None => self.none(),
                };
                let path = self.text(path);
                return emit.record("Symbol::Field", [("path", path), ("from", from), ("addend", addend)]);
            }
            Symbol::Enum { name, variant } => {
                let (name, variant) = (self.text(name), self.text(variant));
                return emit.record("Symbol::Enum", [("name", name), ("variant", variant)]);
            }
            Symbol::Size(path) => ("Size", path),
            Symbol::Exists(path) => ("Exists", path),
            Symbol::BitShift(path) => ("BitShift", path),
            Symbol::BitMask(path) => ("BitMask", path),
            Symbol::Params(name) => ("Params", name),
            Symbol::Const(name) => ("Const", name),
        };
        emit.call(&format!("Symbol::{kind}"), [self.text(name)])
    }

    fn dest(&self, dest: Dest<TokenStream>) -> TokenStream {
        match dest {
            Dest::Label(name) => self.emit.method("dest", [self::name(self.emit, name)]),
            Dest::Rel(distance) => self.emit.call("Dest::Rel", [self.emit.int(i128::from(distance))]),
        }
    }

    fn callee(&self, callee: Callee<TokenStream>) -> TokenStream {
        let emit = self.emit;
        match callee {
            Callee::Helper(id) => emit.call("Callee::Helper", [emit.int(i128::from(id))]),
            Callee::HelperRust(rust) => {
                let id = emit.method("unsigned", [emit.call("rt::int", [rust])]);
                emit.call("Callee::Helper", [id])
            }
            Callee::Local(dest) => emit.call("Callee::Local", [self.dest(dest)]),
            Callee::KfuncId(id) => emit.call("Callee::Kfunc", [emit.int(i128::from(id))]),
            Callee::Kfunc(name) => {
                let symbol = emit.call("Symbol::Kfunc", [self.text(name)]);
                let callee = emit.call("Callee::Kfunc", [emit.int(0)]);
                self.with_symbol(symbol, callee)
            }
        }
    }

    fn wide(&self, wide: Wide<TokenStream>) -> TokenStream {
        let emit = self.emit;
        let signed = |sum| self.imm(sum, Limit::Signed32);
        let offset = |sum| self.number(sum, Field::Unsigned);
        match wide {
            Wide::Value(sum) => emit.call("Imm64::Value", [self.number(sum, Field::Wide)]),
            Wide::Map(name) => {
                let symbol = emit.call("Symbol::Map", [self.text(name)]);
                let imm = emit.call("Imm64::MapFd", [emit.int(0)]);
                self.with_symbol(symbol, imm)
            }
            Wide::MapOffset(name, sum) => {
                let symbol = emit.call("Symbol::Map", [self.text(name)]);
                let imm = emit.record("Imm64::MapValue", [("fd", emit.int(0)), ("offset", offset(sum))]);
                self.with_symbol(symbol, imm)
            }
            Wide::MapFd(fd) => emit.call("Imm64::MapFd", [signed(fd)]),
            Wide::MapValue(fd, sum) => {
                emit.record("Imm64::MapValue", [("fd", signed(fd)), ("offset", offset(sum))])
            }
            Wide::BtfVar(id) => emit.call("Imm64::BtfVar", [signed(id)]),
            Wide::CodeAddr(dest) => emit.call("Imm64::CodeAddr", [self.dest(dest)]),
            Wide::MapIdx(index) => emit.call("Imm64::MapIdx", [signed(index)]),
            Wide::MapValueIdx(index, sum) => {
                emit.record("Imm64::MapValueIdx", [("index", signed(index)), ("offset", offset(sum))])
            }
        }
    }
}
