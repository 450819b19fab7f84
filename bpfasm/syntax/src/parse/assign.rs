//! Statements that start with a register.

use super::operand::Operand;
use super::{Parsed, Parser};
use crate::ast::{Arg, Given, Insn, Sum, Wide};
use crate::error::Problem;
use crate::limit::Limit;
use crate::ops::{AluOp, AtomicOp, Reg, Size, SwapKind, Width};
use crate::token::Kind;

const ASSIGNING: &str = "= += -= *= /= %= |= &= ^= <<= >>= s>>= s/= s%=";
const LOADED: &str = "u8 u16 u32 u64 s8 s16 s32";

impl<S: Copy, V: Clone> Parser<'_, S, V> {
    pub(super) fn assignment(&mut self) -> Parsed<Insn<V>, S> {
        let left = self.register()?;
        if self.is_op("=") && !self.runs_on(0) {
            self.next();
            return self.assigned(left);
        }
        let what = "an operator, one of = += -= *= /= %= |= &= ^= <<= >>= s>>= s/= s%=";
        let Some(op) = self.operator(&AluOp::ALL) else { return Err(self.unknown_operator(what, ASSIGNING)) };
        let src = self.arg(left.width, left.name(), Limit::Imm(left.width))?;
        Ok(Insn::Alu { width: left.width, op, dst: left.reg, src })
    }

    /// What follows `r1 =`.
    fn assigned(&mut self, left: Operand<V>) -> Parsed<Insn<V>, S> {
        let width = left.width;
        if self.register_ahead(0) {
            let src = Arg::Reg(self.register_of(width, left.name())?.reg);
            return Ok(Insn::Mov { width, dst: left.reg, src });
        }
        match self.peek() {
            Some(Kind::Op("-")) if self.register_ahead(1) => {
                self.next();
                self.same_register(&left, "`rN = -rN`")?;
                Ok(Insn::Neg { width, dst: left.reg })
            }
            Some(Kind::Op("(")) => self.sign_extended(left),
            Some(Kind::Op("*")) => self.load(left),
            Some(Kind::Word(word)) => {
                if let Some((kind, size)) = swap(word) {
                    return self.swapped(left, kind, size);
                }
                if self.is_op_at(1, "(") {
                    if let Some(&(op, _)) = AtomicOp::FETCH.iter().find(|row| row.1 == word) {
                        return self.fetched(left, op);
                    }
                    if let Some(&(op, size, _)) = AtomicOp::EXCHANGE.iter().find(|row| row.2 == word) {
                        return self.exchanged(left, op, size);
                    }
                }
                match self.wide_keyword(word) {
                    Some(make) => self.wide(left, make),
                    None => self.constant(left),
                }
            }
            _ => self.constant(left),
        }
    }

    /// `r1 = 5`, `r1 = 5 ll`, `r1 = {…}`
    fn constant(&mut self, left: Operand<V>) -> Parsed<Insn<V>, S> {
        let start = self.position();
        let sum = self.sum()?;
        if self.peek_word() == Some("ll") {
            self.check(&sum, start, Limit::Wide)?;
            return self.wide_end(left, Wide::Value(sum));
        }
        let width = left.width;
        let src = self.sum_arg(sum, start, Limit::Imm(width))?;
        Ok(Insn::Mov { width, dst: left.reg, src })
    }

    /// `r1 = (s8)r2`
    fn sign_extended(&mut self, left: Operand<V>) -> Parsed<Insn<V>, S> {
        self.next();
        let forms = if left.width == Width::W64 { "s8 s16 s32" } else { "s8 s16" };
        let found = self.peek_word().unwrap_or_default();
        let from = match (Size::from_name(found), left.width) {
            (Some((from @ (Size::B1 | Size::B2), true)), _) | (Some((from @ Size::B4, true)), Width::W64) => {
                from
            }
            _ if found.is_empty() => return Err(self.expected("a type")),
            _ => return Err(self.error(Problem::Type { found: found.to_owned(), forms })),
        };
        self.next();
        self.expect_op(")", "`)`")?;
        let src = self.register_of(left.width, left.name())?.reg;
        Ok(Insn::MovSx { width: left.width, from, dst: left.reg, src })
    }

    /// `r1 = be16 r1`
    fn swapped(&mut self, left: Operand<V>, kind: SwapKind, size: Size) -> Parsed<Insn<V>, S> {
        if left.width == Width::W32 {
            let place = "a byte swap";
            return Err(self.error_at(left.at, Problem::Half { found: left.name(), place }));
        }
        self.next();
        self.same_register(&left, "`rN = be16 rN`")?;
        Ok(Insn::Swap { kind, size, dst: left.reg })
    }

    /// `r1 = *(u16 *)(r2 + 8)`, `r0 = *(u16 *)skb[12]`
    fn load(&mut self, left: Operand<V>) -> Parsed<Insn<V>, S> {
        self.next();
        self.expect_op("(", "`(u32 *)`")?;
        let (size, signed, at) = self.type_name(LOADED)?;
        let found = || if signed { size.signed() } else { size.unsigned() }.to_owned();
        if self.take_word("skb") {
            if signed || size == Size::B8 {
                return Err(self.error_at(at, Problem::Type { found: found(), forms: "u8 u16 u32" }));
            }
            return self.packet(left, size);
        }
        if size == Size::B8 && signed {
            return Err(self.error_at(at, Problem::Type { found: found(), forms: LOADED }));
        }
        if left.width == Width::W32 && (size == Size::B8 || signed) {
            return Err(
                self.error_at(at, Problem::Type { found: found(), forms: "u8 u16 u32 with a w register" })
            );
        }
        let from = self.address()?;
        Ok(Insn::Load { size, signed, dst: left.reg, from })
    }

    /// `[12]`, `[r3]`, `[r3 + 12]` after `skb`.
    fn packet(&mut self, left: Operand<V>, size: Size) -> Parsed<Insn<V>, S> {
        if !matches!((&left.reg, left.width), (Given::Written(Reg::R0), _)) {
            return Err(self.error_at(left.at, Problem::SameRegister { form: "`r0 = *(u16 *)skb[…]`" }));
        }
        self.expect_op("[", "`[`")?;
        let index = if self.register_ahead(0) { Some(self.whole_register("`skb`")?) } else { None };
        let off = if index.is_some() && !self.is_op("+") && !self.is_op("-") {
            Sum { symbol: None, written: 0, rust: Vec::new() }
        } else {
            self.number_within(Limit::Signed32)?
        };
        self.expect_op("]", "`]`")?;
        Ok(Insn::LoadPacket { size, index, off })
    }

    /// `r2 = atomic_fetch_add((u64 *)(r1 + 0), r2)`
    fn fetched(&mut self, left: Operand<V>, op: AtomicOp) -> Parsed<Insn<V>, S> {
        self.next();
        self.next();
        self.expect_op("(", "`(u32 *)` or `(u64 *)`")?;
        let (size, width) = self.atomic_type()?;
        self.width_of(&left, width, size)?;
        let at = self.address()?;
        self.expect_op(",", "`,`")?;
        self.same_register(&left, "`rN = atomic_fetch_add((u64 *)(rM + OFF), rN)`")?;
        self.expect_op(")", "`)`")?;
        Ok(Insn::Atomic { size, op, at, src: left.reg })
    }

    /// `r2 = xchg_64(r1 + 0, r2)`, `r0 = cmpxchg_64(r1 + 0, r0, r2)`
    fn exchanged(&mut self, left: Operand<V>, op: AtomicOp, size: Size) -> Parsed<Insn<V>, S> {
        let width = if size == Size::B8 { Width::W64 } else { Width::W32 };
        self.width_of(&left, width, size)?;
        self.next();
        self.next();
        let at = self.address_inside()?;
        self.expect_op(",", "`,`")?;
        let src = if op == AtomicOp::Cmpxchg {
            let form = "`r0 = cmpxchg_64(rM + OFF, r0, rN)`";
            if !matches!(left.reg, Given::Written(Reg::R0)) {
                return Err(self.error_at(left.at, Problem::SameRegister { form }));
            }
            self.same_register(&left, form)?;
            self.expect_op(",", "`,`")?;
            self.register_of(width, left.name())?.reg
        } else {
            self.same_register(&left, "`rN = xchg_64(rM + OFF, rN)`")?;
            left.reg
        };
        self.expect_op(")", "`)`")?;
        Ok(Insn::Atomic { size, op, at, src })
    }

    /// Checks that the register of an atomic operation is as wide as its memory. `{…}` can be
    /// either.
    fn width_of(&self, left: &Operand<V>, width: Width, size: Size) -> Parsed<(), S> {
        let bare = matches!(left.reg, Given::Rust(_));
        if left.width == width || bare {
            return Ok(());
        }
        let found = left.name();
        Err(self.error_at(
            left.at,
            if size == Size::B8 {
                Problem::Half { found, place: "`u64`" }
            } else {
                Problem::Whole { found, place: "`u32`" }
            },
        ))
    }

    /// The keyword of a wide load, if the next token can be its operand.
    fn wide_keyword(&self, word: &str) -> Option<Keyword> {
        let keyword =
            Keyword::ALL.into_iter().find_map(|(keyword, text)| (text == word).then_some(keyword))?;
        let operand = match self.peek_at(1) {
            Some(Kind::Int { .. } | Kind::Rust(..) | Kind::Op("-" | "+")) => true,
            Some(Kind::Word(_)) => keyword.takes_name(),
            _ => false,
        };
        operand.then_some(keyword)
    }

    fn wide(&mut self, left: Operand<V>, keyword: Keyword) -> Parsed<Insn<V>, S> {
        self.next();
        let wide = match keyword {
            Keyword::Map => Wide::Map(self.name("a map's name")?),
            Keyword::MapValue => {
                let name = self.name("a map's name")?;
                Wide::MapOffset(name, self.value_offset()?)
            }
            Keyword::MapFd => Wide::MapFd(self.number_within(Limit::Signed32)?),
            Keyword::MapValueFd => {
                let fd = self.single(Limit::Signed32)?;
                Wide::MapValue(fd, self.value_offset()?)
            }
            Keyword::BtfVar => Wide::BtfVar(self.number_within(Limit::Signed32)?),
            Keyword::CodeAddr => Wide::CodeAddr(self.dest(Limit::Signed32)?),
            Keyword::MapIdx => Wide::MapIdx(self.number_within(Limit::Signed32)?),
            Keyword::MapValueIdx => {
                let index = self.single(Limit::Signed32)?;
                Wide::MapValueIdx(index, self.value_offset()?)
            }
        };
        self.wide_end(left, wide)
    }

    /// `+ OFF`, or nothing.
    fn value_offset(&mut self) -> Parsed<Sum<V>, S> {
        if self.is_op("+") {
            self.number_within(Limit::Unsigned32)
        } else {
            Ok(Sum { symbol: None, written: 0, rust: Vec::new() })
        }
    }

    fn wide_end(&mut self, left: Operand<V>, imm: Wide<V>) -> Parsed<Insn<V>, S> {
        if self.peek_word() != Some("ll") {
            return Err(self.error(Problem::MissingLl));
        }
        if left.width == Width::W32 {
            return Err(
                self.error_at(left.at, Problem::Half { found: left.name(), place: "a 64-bit immediate" })
            );
        }
        self.next();
        Ok(Insn::LoadImm64 { dst: left.reg, imm })
    }
}

/// `be16`: the swap and the size.
fn swap(word: &str) -> Option<(SwapKind, Size)> {
    SwapKind::ALL.into_iter().find_map(|(kind, text)| {
        let size = match word.strip_prefix(text)? {
            "16" => Size::B2,
            "32" => Size::B4,
            "64" => Size::B8,
            _ => return None,
        };
        Some((kind, size))
    })
}

/// The keywords of wide loads.
#[derive(Clone, Copy)]
enum Keyword {
    Map,
    MapValue,
    MapFd,
    MapValueFd,
    BtfVar,
    CodeAddr,
    MapIdx,
    MapValueIdx,
}

impl Keyword {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Map, "map"),
        (Self::MapValue, "map_value"),
        (Self::MapFd, "map_fd"),
        (Self::MapValueFd, "map_value_fd"),
        (Self::BtfVar, "btf_var"),
        (Self::CodeAddr, "code_addr"),
        (Self::MapIdx, "map_idx"),
        (Self::MapValueIdx, "map_value_idx"),
    ];

    fn takes_name(self) -> bool {
        matches!(self, Self::Map | Self::MapValue | Self::CodeAddr)
    }
}
