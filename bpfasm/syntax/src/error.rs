//! Errors of syntax.

use std::fmt;

use crate::limit::Limit;
use crate::token::NumberError;

/// An error, and the tokens that it is about.
#[derive(Clone, Debug)]
pub struct SyntaxError<S> {
    /// The place of the first token.
    pub start: S,
    /// The place of the last token.
    pub end: S,
    /// The error itself.
    pub problem: Problem,
}

/// The errors of a statement. `Display` prints it in one line and lists the accepted forms.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// A token is not the expected one.
    Expected {
        /// The expected token or form.
        what: &'static str,
        /// The token found, in backquotes.
        found: String,
    },
    /// The operator does not exist in this kind of statement.
    Operator {
        /// The operator found.
        found: String,
        /// The operators that exist.
        forms: &'static str,
    },
    /// No statement starts with this token.
    Statement(String),
    /// A register that does not exist: `r11`.
    Register(String),
    /// Registers of different widths: `r1 += w2`.
    MixedWidths {
        /// The register on the left.
        left: &'static str,
        /// The register on the right.
        right: &'static str,
    },
    /// The lower half of a register in place of a whole one: `r1 = *(u8 *)(w2 + 0)`.
    Half {
        /// The register found.
        found: &'static str,
        /// What it should serve as.
        place: &'static str,
    },
    /// A whole register in place of a lower half: `r2 = xchg32_32(r1 + 0, r2)`.
    Whole {
        /// The register found.
        found: &'static str,
        /// What it should serve as.
        place: &'static str,
    },
    /// Two places of the form must name the same register.
    SameRegister {
        /// The form, in backquotes.
        form: &'static str,
    },
    /// A type that does not exist, or that this statement does not accept.
    Type {
        /// The type found.
        found: String,
        /// The types that the statement accepts.
        forms: &'static str,
    },
    /// A constant does not fit its place.
    Range {
        /// The constant's value.
        value: i128,
        /// The range of its place.
        limit: Limit,
    },
    /// A token that starts like a number is not a number.
    Number(NumberError),
    /// A helper that does not exist: `call bpf_no_such`.
    Helper {
        /// The name that the statement calls.
        name: String,
        /// The helper with the most similar name.
        near: Option<&'static str>,
    },
    /// A wide load does not end with `ll`.
    MissingLl,
    /// A name in place of a constant.
    Name(String),
    /// A block defines the same label twice.
    DuplicateLabel(String),
    /// A number is added to a symbol that is not a field.
    Addend,
    /// An instruction has two symbols.
    SecondSymbol,
    /// A store has a symbol as its constant; a store's symbol can only be its offset.
    StoredSymbol,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected { what, found } => write!(f, "expected {what}, found {found}"),
            Self::Operator { found, forms } => {
                write!(f, "`{found}` is not an operator here; there are {forms}")
            }
            Self::Statement(found) => write!(
                f,
                "no statement starts with {found}; there are `rN = …`, `wN += …`, `*(u32 *)(rN + OFF) = …`, `lock *(…) += …`, \
                 `if … goto L`, `goto L`, `gotol L`, `call …`, `exit`, `label:` and, in bpf!, `..fragment`"
            ),
            Self::Register(name) => {
                write!(f, "unknown register `{name}`; there are r0 to r10 and w0 to w10")
            }
            Self::MixedWidths { left, right } => {
                write!(
                    f,
                    "`{left}` and `{right}` in one statement; both sides are r registers or both are w registers"
                )
            }
            Self::Half { found, place } => write!(f, "`{found}` is half a register; {place} takes r0 to r10"),
            Self::Whole { found, place } => {
                write!(f, "`{found}` is a whole register; {place} takes w0 to w10")
            }
            Self::SameRegister { form } => write!(f, "this must be the same register: {form}"),
            Self::Type { found, forms } => write!(f, "`{found}` is not a type here; there are {forms}"),
            Self::Range { value, limit } => write!(f, "{value} does not fit: {limit}"),
            Self::Number(error) => write!(f, "{error}"),
            Self::Helper { name, near: Some(near) } => {
                write!(f, "unknown helper `{name}`; did you mean `{near}`?")
            }
            Self::Helper { name, near: None } => {
                write!(f, "unknown helper `{name}`; a kernel function is called with `call kfunc NAME`")
            }
            Self::MissingLl => {
                write!(f, "a 64-bit immediate ends with `ll`: `rN = map NAME ll`, `rN = C ll`")
            }
            Self::Name(name) => write!(
                f,
                "`{name}` is not a constant; there are numbers, fields `{name}.member`, sizeof(…), exists(…), shift(…), mask(…), \
                 enum(…), params(…), `const {name}` and, in bpf!, `{{{name}}}` for a Rust value"
            ),
            Self::DuplicateLabel(name) => write!(f, "the label `{name}` is already defined in this block"),
            Self::Addend => write!(f, "only a field takes an addend: `sock.sk_protocol + 4`"),
            Self::SecondSymbol => {
                write!(
                    f,
                    "an instruction takes one symbol; only the difference of two fields, `a.b - a.c`, counts as one"
                )
            }
            Self::StoredSymbol => {
                write!(f, "a store's symbol fills its offset; move this one into a register and store that")
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Display for SyntaxError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl<S: fmt::Debug> std::error::Error for SyntaxError<S> {}
