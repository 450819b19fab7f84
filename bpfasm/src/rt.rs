//! The functions that the expansion of `bpf!` calls. Not part of the public interface.

use std::borrow::Borrow;

use bpfasm_syntax::limit::Limit;

use crate::error::AsmError;
use crate::fragment::Fragment;
use crate::insn::{Dest, Insn, Operand, Reg};
use crate::source::Source;
use crate::symbol::{Symbol, Text};

pub use std::option::Option::{None, Some};

/// An integer from Rust. It is checked against the range of its place and never truncated.
#[diagnostic::on_unimplemented(message = "`{Self}` is not an integer", label = "an integer is expected here")]
pub trait Int {
    /// The integer's value.
    fn value(self) -> i128;
}

/// The value of `{…}` as a whole second operand: an integer or a register.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither an integer nor a register",
    label = "an integer or a `Reg` is expected here"
)]
pub trait Value {
    /// The value as an operand. An integer outside of `limit` is recorded as an error of the block.
    fn place(self, block: &mut Block, limit: Limit) -> Operand;
}

/// The types that `..` accepts; see "Labels and fragments" at the crate's root.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a fragment",
    label = "a `Fragment` is expected here"
)]
pub trait Splice {
    /// The fragment, unless it is an option that is `None`.
    fn fragment(self) -> Option<impl Borrow<Fragment>>;
}

impl Splice for Fragment {
    fn fragment(self) -> Option<impl Borrow<Fragment>> {
        Some(self)
    }
}

/// A fragment that is used several times.
impl Splice for &Fragment {
    fn fragment(self) -> Option<impl Borrow<Fragment>> {
        Some(self)
    }
}

/// `None` adds nothing, for an option that is switched off.
impl Splice for Option<Fragment> {
    fn fragment(self) -> Option<impl Borrow<Fragment>> {
        self
    }
}

macro_rules! ints {
    ($convert:path: $($int:ty)*) => {
        $(
            impl Int for $int {
                fn value(self) -> i128 {
                    $convert(self)
                }
            }

            impl Value for $int {
                fn place(self, block: &mut Block, limit: Limit) -> Operand {
                    Operand::Imm(block.imm(limit, self.value()))
                }
            }
        )*
    };
}

ints!(i128::from: i8 i16 i32 i64 u8 u16 u32 u64);
ints!(native: isize usize);

/// The value of an integer whose width depends on the machine. If it had more than 128 bits, it
/// would not fit any place anyway.
fn native(value: impl TryInto<i128>) -> i128 {
    value.try_into().unwrap_or(i128::MAX)
}

impl Value for Reg {
    fn place(self, _: &mut Block, _: Limit) -> Operand {
        Operand::Reg(self)
    }
}

/// An integer's value.
pub fn int(value: impl Int) -> i128 {
    value.value()
}

/// Returns its argument. With this call, the compiler reports a value of another type at the value
/// itself.
#[must_use]
pub const fn reg(reg: Reg) -> Reg {
    reg
}

/// The name of a label, a map or a field.
pub fn name(name: impl Into<Text>) -> Text {
    name.into()
}

/// A fragment that is being written, and the place of the current statement.
#[derive(Debug)]
pub struct Block {
    fragment: Fragment,
    file: &'static str,
    source: Option<Source>,
}

impl Block {
    /// An empty block of a file, with memory for this many statements.
    #[must_use]
    pub fn new(file: &'static str, statements: usize) -> Self {
        Self { fragment: Fragment::with_capacity(statements), file, source: None }
    }

    /// Sets the file of the statements that follow.
    pub fn file(&mut self, file: &'static str) {
        self.file = file;
    }

    /// Starts a statement at this line, with this text.
    pub fn at(&mut self, line: u32, text: &'static str) {
        self.source = Some(Source { file: self.file, line, text });
    }

    /// Sets the symbol of the statement's instruction.
    pub fn symbol(&mut self, symbol: Symbol) {
        self.fragment.symbol(symbol);
    }

    /// A label as a destination.
    pub fn dest(&mut self, name: impl Into<Text>) -> Dest {
        self.fragment.dest(name)
    }

    /// Ends a statement that is an instruction.
    pub fn insn(&mut self, insn: Insn) {
        self.fragment.push(insn, None, self.source);
    }

    /// Ends a statement that is a label.
    pub fn label(&mut self, name: impl Into<Text>) {
        self.fragment.label(name, self.source);
    }

    /// Ends a statement that is a fragment.
    pub fn splice(&mut self, inner: impl Splice) {
        if let Some(inner) = inner.fragment() {
            self.fragment.splice(inner);
        }
    }

    /// The finished fragment.
    #[must_use]
    pub fn finish(self) -> Fragment {
        self.fragment
    }

    /// The value of `{…}` as a whole second operand.
    pub fn operand(&mut self, limit: Limit, value: impl Value) -> Operand {
        value.place(self, limit)
    }

    /// A number for a field of 32 bits that accepts the range of `limit`.
    pub fn imm(&mut self, limit: Limit, value: i128) -> i32 {
        limit.field(value).unwrap_or_else(|| self.range(limit, value))
    }

    /// A number for an offset of 16 bits.
    pub fn off(&mut self, value: i128) -> i16 {
        i16::try_from(value).unwrap_or_else(|_| self.range(Limit::Offset, value))
    }

    /// A number for a field of 32 bits without a sign.
    pub fn unsigned(&mut self, value: i128) -> u32 {
        u32::try_from(value).unwrap_or_else(|_| self.range(Limit::Unsigned32, value))
    }

    /// A wide constant. A negative one becomes its two's complement.
    pub fn wide(&mut self, value: i128) -> u64 {
        u64::try_from(value)
            .or_else(|_| i64::try_from(value).map(i64::cast_unsigned))
            .unwrap_or_else(|_| self.range(Limit::Wide, value))
    }

    /// Records the error for linking to report, and returns 0 in place of the value.
    fn range<T: Default>(&mut self, limit: Limit, value: i128) -> T {
        self.fragment.record_error(AsmError::Range { value, limit, source: self.source });
        T::default()
    }
}
