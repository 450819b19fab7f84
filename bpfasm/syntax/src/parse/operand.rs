//! Registers, constants, symbols, addresses, destinations.

use super::{Parsed, Parser};
use crate::ast::{Address, Arg, Dest, Given, Name, Register, Sum, Symbol};
use crate::error::Problem;
use crate::limit::Limit;
use crate::ops::{Reg, Size, Width};
use crate::token::Kind;

/// A register as it stands in a statement.
pub(super) struct Operand<V> {
    pub(super) reg: Register<V>,
    pub(super) width: Width,
    /// Where it stands.
    pub(super) at: usize,
}

impl<V> Operand<V> {
    /// How a message calls it.
    pub(super) fn name(&self) -> &'static str {
        match (&self.reg, self.width) {
            (Given::Written(reg), width) => reg.name(width),
            (Given::Rust(_), Width::W64) => "r{…}",
            (Given::Rust(_), Width::W32) => "w{…}",
        }
    }
}

/// `r10` is 10 and `r11` is no register, but looks like one.
enum Looks {
    Like(Reg, Width),
    Unlike,
    Wrong,
}

fn looks(word: &str) -> Looks {
    let (width, digits) = match word.split_at_checked(1) {
        Some(("r", digits)) => (Width::W64, digits),
        Some(("w", digits)) => (Width::W32, digits),
        _ => return Looks::Unlike,
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Looks::Unlike;
    }
    Reg::ALL
        .into_iter()
        .find(|reg| reg.name(width) == word)
        .map_or(Looks::Wrong, |reg| Looks::Like(reg, width))
}

impl<S: Copy, V: Clone> Parser<'_, S, V> {
    /// Whether a register stands here, `r1`, `w1`, `r{…}` or `w{…}`. A bare `{…}` may be one as well.
    pub(super) fn register_ahead(&self, ahead: usize) -> bool {
        match self.word_at(ahead) {
            Some("r" | "w") => matches!(self.peek_at(ahead + 1), Some(Kind::Rust(..))),
            Some(word) => !self.is_op_at(ahead + 1, ".") && !matches!(looks(word), Looks::Unlike),
            None => false,
        }
    }

    /// Takes a register; `{…}` counts as one of 64 bits.
    pub(super) fn register(&mut self) -> Parsed<Operand<V>, S> {
        let at = self.position();
        let (reg, width, len) = match (self.peek(), self.peek_at(1)) {
            (Some(Kind::Rust(value, _)), _) => (Given::Rust(value.clone()), Width::W64, 1),
            (Some(Kind::Word(word)), Some(Kind::Rust(value, _))) if word == "w" => {
                (Given::Rust(value.clone()), Width::W32, 2)
            }
            (Some(Kind::Word(word)), Some(Kind::Rust(value, _))) if word == "r" => {
                (Given::Rust(value.clone()), Width::W64, 2)
            }
            (Some(Kind::Word(word)), _) => match looks(word) {
                Looks::Like(reg, width) => (Given::Written(reg), width, 1),
                Looks::Unlike | Looks::Wrong => return Err(self.error(Problem::Register(word.clone()))),
            },
            _ => return Err(self.expected("a register")),
        };
        for _ in 0..len {
            self.next();
        }
        Ok(Operand { reg, width, at })
    }

    /// Takes a register of this width; `{…}` is of any.
    pub(super) fn register_of(&mut self, width: Width, left: &'static str) -> Parsed<Operand<V>, S> {
        let bare = matches!(self.peek(), Some(Kind::Rust(..)));
        let mut operand = self.register()?;
        if bare {
            operand.width = width;
        }
        if operand.width == width {
            Ok(operand)
        } else {
            Err(self.error_from(operand.at, Problem::MixedWidths { left, right: operand.name() }))
        }
    }

    /// Takes a register that must be a whole one.
    pub(super) fn whole_register(&mut self, place: &'static str) -> Parsed<Register<V>, S> {
        let operand = self.register()?;
        if operand.width == Width::W64 {
            Ok(operand.reg)
        } else {
            Err(self.error_from(operand.at, Problem::Half { found: operand.name(), place }))
        }
    }

    /// Takes a register that must be the same as `first`; two pieces of Rust must be the same text.
    pub(super) fn same_register(&mut self, first: &Operand<V>, form: &'static str) -> Parsed<(), S> {
        let second = self.register_of(first.width, first.name())?;
        match (&first.reg, &second.reg) {
            (Given::Written(a), Given::Written(b)) if a == b => Ok(()),
            (Given::Rust(_), Given::Rust(_)) if self.rust_text(first.at) == self.rust_text(second.at) => {
                Ok(())
            }
            _ => Err(self.error_from(second.at, Problem::SameRegister { form })),
        }
    }

    /// The text of the piece of Rust that is the register at this token.
    fn rust_text(&self, at: usize) -> Option<&str> {
        self.tokens.get(at..)?.iter().take(2).find_map(|token| match &token.kind {
            Kind::Rust(_, text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Takes the right side of an operation: a register of the same width, or a constant that fits.
    pub(super) fn arg(&mut self, width: Width, left: &'static str, limit: Limit) -> Parsed<Arg<V>, S> {
        if self.register_ahead(0) {
            return Ok(Arg::Reg(self.register_of(width, left)?.reg));
        }
        let start = self.position();
        let sum = self.sum()?;
        self.sum_arg(sum, start, limit)
    }

    /// `{…}` alone may be a register.
    pub(super) fn sum_arg(&self, sum: Sum<V>, start: usize, limit: Limit) -> Parsed<Arg<V>, S> {
        self.check(&sum, start, limit)?;
        match (&sum.symbol, sum.written, sum.rust.as_slice(), self.position() - start) {
            (None, 0, [(false, value)], 1) => Ok(Arg::Either(value.clone())),
            _ => Ok(Arg::Const(sum)),
        }
    }

    /// A sum that is all written out must fit; what Rust adds is checked when it is known, and a symbol by the loader.
    pub(super) fn check(&self, sum: &Sum<V>, start: usize, limit: Limit) -> Parsed<(), S> {
        let limit = if sum.symbol.is_some() { Limit::Signed32 } else { limit };
        if sum.rust.is_empty() && !limit.fits(sum.written) {
            return Err(self.error_from(start, Problem::Range { value: sum.written, limit }));
        }
        Ok(())
    }

    /// Takes a sum and checks what is written out.
    pub(super) fn sum_within(&mut self, limit: Limit) -> Parsed<Sum<V>, S> {
        // A plus before the number is no part of it.
        let start = self.position() + usize::from(self.is_op("+"));
        let sum = self.sum()?;
        self.check(&sum, start, limit)?;
        Ok(sum)
    }

    /// Takes a sum without a symbol.
    pub(super) fn number_within(&mut self, limit: Limit) -> Parsed<Sum<V>, S> {
        let start = self.position();
        let sum = self.sum_within(limit)?;
        if sum.symbol.is_some() {
            return Err(self.error_from(
                start,
                Problem::Expected {
                    what: "a number, which no symbol can fill here",
                    found: "a symbol".to_owned(),
                },
            ));
        }
        Ok(sum)
    }

    /// Takes terms as long as `+` or `-` follow.
    pub(super) fn sum(&mut self) -> Parsed<Sum<V>, S> {
        let mut sum = Sum { symbol: None, written: 0, rust: Vec::new() };
        let negative = self.sign().unwrap_or(false);
        self.term(&mut sum, negative)?;
        while let Some(negative) = self.sign() {
            self.term(&mut sum, negative)?;
        }
        Ok(sum)
    }

    /// Takes one term, without what may follow it.
    pub(super) fn single(&mut self, limit: Limit) -> Parsed<Sum<V>, S> {
        let start = self.position();
        let mut sum = Sum { symbol: None, written: 0, rust: Vec::new() };
        let negative = self.sign().unwrap_or(false);
        self.term(&mut sum, negative)?;
        self.check(&sum, start, limit)?;
        Ok(sum)
    }

    /// Takes a sign; true is minus.
    fn sign(&mut self) -> Option<bool> {
        if self.take_op("-") {
            Some(true)
        } else if self.take_op("+") {
            Some(false)
        } else {
            None
        }
    }

    fn term(&mut self, sum: &mut Sum<V>, negative: bool) -> Parsed<(), S> {
        match self.peek() {
            Some(Kind::Int { value, .. }) => {
                let value = i128::from(*value);
                // A number has at most 64 bits, so as many as memory holds cannot overflow; saturation costs nothing.
                sum.written = sum.written.saturating_add(if negative { -value } else { value });
                self.next();
            }
            Some(Kind::Rust(value, _)) => {
                sum.rust.push((negative, value.clone()));
                self.next();
            }
            Some(Kind::Word(_)) => {
                let start = self.position();
                let symbol = self.symbol()?;
                match (&mut sum.symbol, symbol, negative) {
                    (none @ None, symbol, false) => *none = Some(symbol),
                    (
                        Some(Symbol::Field { from: from @ None, .. }),
                        Symbol::Field { path, from: None },
                        true,
                    ) => {
                        *from = Some(path);
                    }
                    _ => return Err(self.error_from(start, Problem::SecondSymbol)),
                }
            }
            _ => return Err(self.expected("a constant")),
        }
        let numbers = sum.written != 0 || !sum.rust.is_empty();
        if numbers && sum.symbol.as_ref().is_some_and(|symbol| !matches!(symbol, Symbol::Field { .. })) {
            return Err(self.error_from(self.position().saturating_sub(1), Problem::Addend));
        }
        Ok(())
    }

    /// Takes a symbol. The next token is a word.
    fn symbol(&mut self) -> Parsed<Symbol<V>, S> {
        let Some(word) = self.peek_word() else { return Err(self.expected("a symbol")) };
        if self.is_op_at(1, "(") {
            let make: fn(Name<V>) -> Symbol<V> = match word {
                "sizeof" => Symbol::Size,
                "exists" => Symbol::Exists,
                "shift" => Symbol::BitShift,
                "mask" => Symbol::BitMask,
                "params" => return self.params(),
                "enum" => return self.enumerator(),
                _ => return Err(self.error(Problem::Name(word.to_owned()))),
            };
            self.next();
            self.next();
            let path = self.path()?;
            self.expect_op(")", "`)`")?;
            return Ok(make(path));
        }
        match (word, self.peek_at(1)) {
            ("const", Some(Kind::Word(_) | Kind::Rust(..))) => {
                self.next();
                Ok(Symbol::Const(self.name("a constant's name")?))
            }
            ("field", Some(Kind::Rust(..))) => {
                self.next();
                Ok(Symbol::Field { path: self.name("a path")?, from: None })
            }
            (_, Some(Kind::Op("." | "["))) => Ok(Symbol::Field { path: self.path()?, from: None }),
            _ if self.register_ahead(0) => Err(self.expected("a constant")),
            _ => Err(self.error(Problem::Name(word.to_owned()))),
        }
    }

    /// `params(name)`
    fn params(&mut self) -> Parsed<Symbol<V>, S> {
        self.next();
        self.next();
        let name = self.name("a function's name")?;
        self.expect_op(")", "`)`")?;
        Ok(Symbol::Params(name))
    }

    /// `enum(name.VARIANT)`
    fn enumerator(&mut self) -> Parsed<Symbol<V>, S> {
        self.next();
        self.next();
        let name = self.name("an enum's name")?;
        self.expect_op(".", "`.` and the enumerator")?;
        let variant = self.name("an enumerator")?;
        self.expect_op(")", "`)`")?;
        Ok(Symbol::Enum { name, variant })
    }

    /// `sock.__sk_common.skc_dport`, `in6_addr.in6_u.u6_addr32[0]`
    fn path(&mut self) -> Parsed<Name<V>, S> {
        let mut path = match self.name("a struct's name")? {
            Given::Written(path) => path,
            rust @ Given::Rust(_) => return Ok(rust),
        };
        loop {
            if self.take_op(".") {
                match self.peek_word() {
                    Some(word) => {
                        path.push('.');
                        path.push_str(word);
                        self.next();
                    }
                    None => return Err(self.expected("a member's name")),
                }
            } else if self.take_op("[") {
                match self.peek() {
                    Some(Kind::Int { value, .. }) => {
                        path.push_str(&format!("[{value}]"));
                        self.next();
                    }
                    _ => return Err(self.expected("an index")),
                }
                self.expect_op("]", "`]`")?;
            } else {
                return Ok(Given::Written(path));
            }
        }
    }

    /// Takes a name, written out or from Rust.
    pub(super) fn name(&mut self, what: &'static str) -> Parsed<Name<V>, S> {
        let name = match self.peek() {
            Some(Kind::Word(word)) => Given::Written(word.clone()),
            Some(Kind::Rust(value, _)) => Given::Rust(value.clone()),
            _ => return Err(self.expected(what)),
        };
        self.next();
        Ok(name)
    }

    /// `(r1 + 8)`; the parenthesis is still to come.
    pub(super) fn address(&mut self) -> Parsed<Address<V>, S> {
        self.expect_op("(", "`(rN + OFF)`")?;
        let address = self.address_inside()?;
        self.expect_op(")", "`)`")?;
        Ok(address)
    }

    /// `r1 + 8`
    pub(super) fn address_inside(&mut self) -> Parsed<Address<V>, S> {
        let base = self.whole_register("an address")?;
        if !self.is_op("+") && !self.is_op("-") {
            return Err(self.expected("`+ OFF` or `- OFF`"));
        }
        Ok(Address { base, off: self.sum_within(Limit::Offset)? })
    }

    /// `u16 *)`, with the type's name and where it stands.
    pub(super) fn type_name(&mut self, forms: &'static str) -> Parsed<(Size, bool, usize), S> {
        let at = self.position();
        let Some(word) = self.peek_word() else { return Err(self.expected("a type")) };
        let Some((size, signed)) = Size::from_name(word) else {
            return Err(self.error(Problem::Type { found: word.to_owned(), forms }));
        };
        self.next();
        self.expect_op("*", "`*)`")?;
        self.expect_op(")", "`)`")?;
        Ok((size, signed, at))
    }

    /// `u64 *)`, and the width of the registers that go with it.
    pub(super) fn atomic_type(&mut self) -> Parsed<(Size, Width), S> {
        let forms = "u32 u64";
        match self.type_name(forms)? {
            (Size::B4, false, _) => Ok((Size::B4, Width::W32)),
            (Size::B8, false, _) => Ok((Size::B8, Width::W64)),
            (size, signed, at) => {
                let found = if signed { size.signed() } else { size.unsigned() };
                Err(self.error_at(at, Problem::Type { found: found.to_owned(), forms }))
            }
        }
    }

    /// Takes a destination: `+3`, `pc+3`, a label.
    pub(super) fn dest(&mut self, limit: Limit) -> Parsed<Dest<V>, S> {
        let signed = |parser: &Self, ahead| parser.is_op_at(ahead, "+") || parser.is_op_at(ahead, "-");
        if self.peek_word() == Some("pc") && signed(self, 1) {
            self.next();
        }
        if signed(self, 0) {
            let start = self.position();
            let negative = self.sign().unwrap_or(false);
            let Some(Kind::Int { value, .. }) = self.peek() else {
                return Err(self.expected("a number of slots"));
            };
            let value = if negative { -i128::from(*value) } else { i128::from(*value) };
            self.next();
            return match limit.fits(value).then(|| i32::try_from(value)) {
                Some(Ok(distance)) => Ok(Dest::Rel(distance)),
                _ => Err(self.error_from(start, Problem::Range { value, limit })),
            };
        }
        Ok(Dest::Label(self.name("a label, `+N` or `-N`")?))
    }
}
