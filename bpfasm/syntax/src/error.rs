//! What can be wrong with a statement.

use std::fmt;

use crate::limit::Limit;
use crate::token::NumberError;

/// Something wrong, and where.
#[derive(Clone, Debug)]
pub struct SyntaxError<S> {
    /// The first token it is about.
    pub start: S,
    /// The last one.
    pub end: S,
    /// What it is.
    pub problem: Problem,
}

/// What is wrong. `Display` says it in one line and names the forms there are.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// Something else should stand here.
    Expected {
        /// What should.
        what: &'static str,
        /// What does.
        found: String,
    },
    /// Not an operator of this kind of statement.
    Operator {
        /// What stands there.
        found: String,
        /// The operators there are.
        forms: &'static str,
    },
    /// No statement starts like this.
    Statement(String),
    /// `r11`
    Register(String),
    /// `r1 += w2`
    MixedWidths {
        /// The left side.
        left: &'static str,
        /// The right side.
        right: &'static str,
    },
    /// `r1 = *(u8 *)(w2 + 0)`
    Half {
        /// The register.
        found: &'static str,
        /// What it should serve as.
        place: &'static str,
    },
    /// `r2 = xchg32_32(r1 + 0, r2)`
    Whole {
        /// The register.
        found: &'static str,
        /// What it should serve as.
        place: &'static str,
    },
    /// Both places must name one register.
    SameRegister {
        /// Why.
        form: &'static str,
    },
    /// Not a type, or not one that this statement takes.
    Type {
        /// What stands there.
        found: String,
        /// The types there are.
        forms: &'static str,
    },
    /// A constant that does not fit.
    Range {
        /// The constant.
        value: i128,
        /// Where it should fit.
        limit: Limit,
    },
    /// A number that is not one.
    Number(NumberError),
    /// `call bpf_no_such`
    Helper {
        /// The name.
        name: String,
        /// A helper whose name is almost that.
        near: Option<&'static str>,
    },
    /// A wide load must end with `ll`.
    MissingLl,
    /// A name where a constant should stand.
    Name(String),
    /// The same label twice in a block.
    DuplicateLabel(String),
    /// Only a field has an addend.
    Addend,
    /// Two symbols in one instruction.
    SecondSymbol,
    /// A symbol that can only fill the constant, in a store.
    StoredSymbol,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected { what, found } => write!(f, "expected {what}, found {found}"),
            Self::Operator { found, forms } => write!(f, "`{found}` is no operator here; there are {forms}"),
            Self::Statement(found) => write!(
                f,
                "no statement starts with {found}; there are `rN = …`, `wN += …`, `*(u32 *)(rN + OFF) = …`, `lock *(…) += …`, \
                 `if … goto L`, `goto L`, `gotol L`, `call …`, `exit`, `label:` and, in bpf!, `..fragment`"
            ),
            Self::Register(name) => {
                write!(f, "there is no register `{name}`; there are r0 to r10 and w0 to w10")
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
            Self::Type { found, forms } => write!(f, "`{found}` is no type here; there are {forms}"),
            Self::Range { value, limit } => write!(f, "{value} does not fit: {limit}"),
            Self::Number(error) => write!(f, "{error}"),
            Self::Helper { name, near: Some(near) } => {
                write!(f, "there is no helper `{name}`; did you mean `{near}`?")
            }
            Self::Helper { name, near: None } => {
                write!(f, "there is no helper `{name}`; a kernel function is called with `call kfunc NAME`")
            }
            Self::MissingLl => {
                write!(f, "a 64-bit immediate ends with `ll`: `rN = map NAME ll`, `rN = C ll`")
            }
            Self::Name(name) => write!(
                f,
                "`{name}` is no constant; there are numbers, fields `{name}.member`, sizeof(…), exists(…), shift(…), mask(…), \
                 enum(…), params(…), `const {name}` and, in bpf!, `{{{name}}}` for a Rust value"
            ),
            Self::DuplicateLabel(name) => write!(f, "the label `{name}` is already defined in this block"),
            Self::Addend => write!(f, "only a field takes an addend: `sock.sk_protocol + 4`"),
            Self::SecondSymbol => {
                write!(
                    f,
                    "an instruction has room for one symbol; of two fields, only the difference `a.b - a.c` is one"
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
