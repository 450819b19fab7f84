//! What `bpf!` expands to calls of. Nothing here is meant to be called by hand.

use std::borrow::Borrow;

use bpfasm_syntax::limit::Limit;

use crate::error::AsmError;
use crate::fragment::Fragment;
use crate::insn::{Dest, Insn, Operand, Reg};
use crate::source::Source;
use crate::symbol::{Symbol, Text};

pub use std::option::Option::{None, Some};

/// An integer from Rust. It is checked against the place where it stands, never cut.
#[diagnostic::on_unimplemented(message = "`{Self}` is no integer", label = "an integer is expected here")]
pub trait Int {
    /// Its value.
    fn value(self) -> i128;
}

/// `{…}` alone on a right side: an integer or a register.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither an integer nor a register",
    label = "an integer or a `Reg` is expected here"
)]
pub trait Value {
    /// What it is as an operand.
    fn place(self, block: &mut Block, limit: Limit) -> Operand;
}

/// What `..` takes; see "Labels and fragments" at the crate's root.
#[diagnostic::on_unimplemented(message = "`{Self}` is no fragment", label = "a `Fragment` is expected here")]
pub trait Splice {
    /// It, if there is one.
    fn fragment(self) -> Option<impl Borrow<Fragment>>;
}

impl Splice for Fragment {
    fn fragment(self) -> Option<impl Borrow<Fragment>> {
        Some(self)
    }
}

/// To be used again.
impl Splice for &Fragment {
    fn fragment(self) -> Option<impl Borrow<Fragment>> {
        Some(self)
    }
}

/// Nothing, for an option that is not asked for.
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

/// The value of an integer whose width Rust does not promise. Were it ever wider than this one, it would fit nowhere.
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

/// A register; here so that a value of another type is an error about that value.
#[must_use]
pub const fn reg(reg: Reg) -> Reg {
    reg
}

/// A label's, a map's or a field's name.
pub fn name(name: impl Into<Text>) -> Text {
    name.into()
}

/// A fragment that is being written, and where the current statement is.
#[derive(Debug)]
pub struct Block {
    fragment: Fragment,
    file: &'static str,
    source: Option<Source>,
}

impl Block {
    /// An empty one, of a file, with so many statements to come.
    #[must_use]
    pub fn new(file: &'static str, statements: usize) -> Self {
        Self { fragment: Fragment::with_capacity(statements), file, source: None }
    }

    /// What follows was written in this file.
    pub fn file(&mut self, file: &'static str) {
        self.file = file;
    }

    /// Starts a statement.
    pub fn at(&mut self, line: u32, text: &'static str) {
        self.source = Some(Source { file: self.file, line, text });
    }

    /// The statement's instruction has this symbol.
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

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Fragment {
        self.fragment
    }

    /// `{…}` alone on a right side.
    pub fn operand(&mut self, limit: Limit, value: impl Value) -> Operand {
        value.place(self, limit)
    }

    /// A number for a field of 32 bits.
    pub fn imm(&mut self, limit: Limit, value: i128) -> i32 {
        limit.field(value).unwrap_or_else(|| self.range(limit, value))
    }

    /// A number for an offset.
    pub fn off(&mut self, value: i128) -> i16 {
        i16::try_from(value).unwrap_or_else(|_| self.range(Limit::Offset, value))
    }

    /// A number of 32 bits without a sign.
    pub fn unsigned(&mut self, value: i128) -> u32 {
        u32::try_from(value).unwrap_or_else(|_| self.range(Limit::Unsigned32, value))
    }

    /// A wide constant; a negative one is its two's complement.
    pub fn wide(&mut self, value: i128) -> u64 {
        u64::try_from(value)
            .or_else(|_| i64::try_from(value).map(i64::cast_unsigned))
            .unwrap_or_else(|_| self.range(Limit::Wide, value))
    }

    /// Remembers what is wrong, which linking reports; another value stands in for it until then.
    fn range<T: Default>(&mut self, limit: Limit, value: i128) -> T {
        self.fragment.wrong(AsmError::Range { value, limit, source: self.source });
        T::default()
    }
}
