//! Tokens, of text and of Rust alike.

use std::fmt;

/// A token and its place.
#[derive(Clone, Debug)]
pub struct Token<S, V> {
    /// The token itself.
    pub kind: Kind<V>,
    /// The token's place, in the caller's type.
    pub span: S,
    /// Whether this token and the next one are operators without a space between them.
    pub joint: bool,
}

/// The kinds of tokens. `V` is a piece of Rust; tokens of text have none.
#[derive(Clone, Debug)]
pub enum Kind<V> {
    /// A word: a register, a keyword or a name.
    Word(String),
    /// A number.
    Int {
        /// The number's value.
        value: u64,
        /// The number as it was written.
        text: String,
    },
    /// One of [`OPERATORS`].
    Op(&'static str),
    /// `{…}`: a value from Rust, and its text.
    Rust(V, String),
    /// `..…`: a fragment from Rust, and its text.
    Spread(V, String),
    /// The end of a statement: `;` or, in text, a newline.
    End,
    /// A word that starts with a digit but is not a number.
    BadNumber(NumberError),
    /// Any other token, as text.
    Other(String),
}

impl<V> Kind<V> {
    /// The token's description in messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Word(text) | Self::Int { text, .. } | Self::Other(text) => format!("`{text}`"),
            Self::Rust(_, text) => format!("`{{{text}}}`"),
            Self::Spread(_, text) => format!("`..{text}`"),
            Self::Op(op) => format!("`{op}`"),
            Self::End => "the end of the statement".to_owned(),
            Self::BadNumber(_) => "a number".to_owned(),
        }
    }
}

/// The operators. A longer operator comes before any operator that it starts with.
pub const OPERATORS: [&str; 29] = [
    "<<=", ">>=", "+=", "-=", "*=", "/=", "%=", "|=", "&=", "^=", "==", "!=", "<=", ">=", "<", ">", "=", "&",
    "+", "-", "*", "(", ")", "[", "]", ",", ".", ":", "#",
];

/// The longest operator that `text` starts with.
#[must_use]
pub fn operator(text: &str) -> Option<&'static str> {
    OPERATORS.iter().copied().find(|op| text.starts_with(op))
}

/// Why a word is not a number.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NumberError {
    /// It does not fit 64 bits.
    TooLong(String),
    /// It contains a character that is not a digit, or no digit. Numbers have no suffix.
    Malformed(String),
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(text) => write!(f, "`{}` does not fit in 64 bits", Short(text)),
            Self::Malformed(text) => {
                write!(
                    f,
                    "`{}` is not a number; there are 12, 0x12, 0b11 and 0o12, without a suffix",
                    Short(text)
                )
            }
        }
    }
}

impl std::error::Error for NumberError {}

/// Text shortened for a message.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_CHARS: usize = 40;
        match self.0.char_indices().nth(MAX_CHARS) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

/// Reads a number as Rust writes it: decimal, `0x`, `0o`, `0b`, with `_` between digits.
///
/// # Errors
/// If `text` is not a number, or does not fit 64 bits.
pub fn number(text: &str) -> Result<u64, NumberError> {
    let (radix, digits) = match text.get(..2) {
        Some("0x" | "0X") => (16, &text[2..]),
        Some("0o") => (8, &text[2..]),
        Some("0b") => (2, &text[2..]),
        _ => (10, text),
    };
    let mut value = Some(0u64);
    let mut any = false;
    for c in digits.chars().filter(|&c| c != '_') {
        let digit = c.to_digit(radix).ok_or_else(|| NumberError::Malformed(text.to_owned()))?;
        any = true;
        value = value.and_then(|v| v.checked_mul(u64::from(radix))?.checked_add(u64::from(digit)));
    }
    if !any {
        return Err(NumberError::Malformed(text.to_owned()));
    }
    value.ok_or_else(|| NumberError::TooLong(text.to_owned()))
}

/// A statement's tokens as text, in the language's spacing: `r6 = *(u64 *)(r1 + 0)`.
#[must_use]
pub fn text<S, V>(tokens: &[Token<S, V>]) -> String {
    let mut out = String::new();
    let mut before: Option<&Kind<V>> = None;
    let mut unary = false;
    for token in tokens {
        if let Some(before) = before
            && spaced(before, unary, &token.kind)
        {
            out.push(' ');
        }
        // A sign belongs to the number after it, unless there is a value before it.
        unary = matches!(token.kind, Kind::Op("-" | "+")) && !before.is_some_and(is_value);
        match &token.kind {
            Kind::Word(text) | Kind::Int { text, .. } | Kind::Other(text) => out.push_str(text),
            Kind::Op(op) => out.push_str(op),
            Kind::Rust(_, text) => {
                out.push('{');
                out.push_str(text);
                out.push('}');
            }
            Kind::Spread(_, text) => {
                out.push_str("..");
                out.push_str(text);
            }
            Kind::End => out.push(';'),
            Kind::BadNumber(_) => out.push('?'),
        }
        before = Some(&token.kind);
    }
    out
}

/// Whether `+` or `-` after this token is an operator and not a sign.
fn is_value<V>(kind: &Kind<V>) -> bool {
    match kind {
        Kind::Word(word) => !matches!(word.as_str(), "goto" | "gotol" | "call" | "pc"),
        Kind::Int { .. } | Kind::Rust(..) | Kind::Op(")" | "]") => true,
        _ => false,
    }
}

/// Whether there is a space between two tokens; `unary` means that the first one is a sign.
fn spaced<V>(before: &Kind<V>, unary: bool, after: &Kind<V>) -> bool {
    match (before, after) {
        (Kind::Op("(" | "[" | "." | "#"), _)
        | (_, Kind::Op(")" | "[" | "]" | "," | "." | ":" | "#") | Kind::End)
        | (Kind::Op("*"), Kind::Op("(")) => false,
        (Kind::Op(")"), Kind::Word(word)) => matches!(word.as_str(), "goto" | "ll"),
        (Kind::Op(")"), next) => !matches!(next, Kind::Op("(") | Kind::Rust(..)),
        (Kind::Word(word), Kind::Op(op)) => match word.as_str() {
            // `s>>=`: the `s` belongs to the operator.
            "s" => false,
            "pc" => !matches!(*op, "+" | "-"),
            _ => *op != "(",
        },
        // `w{reg}`
        (Kind::Word(word), Kind::Rust(..)) => !matches!(word.as_str(), "r" | "w"),
        (Kind::Op("+" | "-"), _) => !unary,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lex::lex;

    #[test]
    fn no_operator_hides_behind_a_shorter_one() {
        for (i, op) in OPERATORS.iter().enumerate() {
            assert_eq!(operator(&format!("{op}x")), Some(*op));
            assert!(!OPERATORS[..i].iter().any(|before| op.starts_with(before)), "{op}");
        }
    }

    #[test]
    fn numbers_are_read_as_rust_writes_them() {
        for (text, value) in [
            ("0", 0),
            ("1_000", 1000),
            ("0xfF", 255),
            ("0b1_01", 5),
            ("0o17", 15),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(number(text), Ok(value));
        }
        for text in ["", "0x", "_", "0x_", "5u32", "1e3", "0b2", "1.5", "é"] {
            assert_eq!(number(text), Err(NumberError::Malformed(text.to_owned())));
        }
        for text in ["18446744073709551616", "0x10000000000000000", &"9".repeat(10_000)] {
            let error = number(text).unwrap_err();
            assert_eq!(error, NumberError::TooLong(text.to_owned()));
            assert!(error.to_string().len() < 100, "a message is short");
        }
    }

    #[test]
    fn a_statement_is_written_in_one_way() {
        for (written, expected) in [
            ("r6=*(u64*)(r1+0)", "r6 = *(u64 *)(r1 + 0)"),
            ("lock  * ( u32 * ) ( r1 - 4 ) ^= w2", "lock *(u32 *)(r1 - 4) ^= w2"),
            ("r1=(s8) r2", "r1 = (s8)r2"),
            ("r1 = - 5 ll", "r1 = -5 ll"),
            ("r1=-r1", "r1 = -r1"),
            ("if r1 s >= -7 goto pc + 3", "if r1 s>= -7 goto pc+3"),
            ("goto + 3", "goto +3"),
            ("r0 = * (u8 *) skb [ r3 + 4 ]", "r0 = *(u8 *)skb[r3 + 4]"),
            ("r1 = a . b - a . c [ 2 ] + 4", "r1 = a.b - a.c[2] + 4"),
            ("if r1 == enum( a . b )goto out", "if r1 == enum(a.b) goto out"),
            ("r0=cmpxchg_64( r1+0 ,r0,r2 )", "r0 = cmpxchg_64(r1 + 0, r0, r2)"),
            ("out :", "out:"),
        ] {
            assert_eq!(text(&lex(written).0), expected);
        }
    }
}
