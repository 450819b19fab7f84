//! Splits text into tokens.

use std::convert::Infallible;

use crate::token::{Kind, Token, number, operator};

/// A place in a text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
}

/// A token of text. Text cannot contain pieces of Rust.
pub type TextToken = Token<Position, Infallible>;

/// Splits `text` into tokens; also returns the place of its end.
#[must_use]
pub fn lex(text: &str) -> (Vec<TextToken>, Position) {
    let mut lexer =
        Lexer { rest: text, at: Position { line: 1, column: 1 }, line_empty: true, tokens: Vec::new() };
    lexer.run();
    (lexer.tokens, lexer.at)
}

struct Lexer<'a> {
    rest: &'a str,
    at: Position,
    /// Whether only spaces were read since the last newline.
    line_empty: bool,
    tokens: Vec<TextToken>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(c) = self.rest.chars().next() {
            let at = self.at;
            if c == '\n' {
                self.skip(1);
                self.push(Kind::End, at);
                self.line_empty = true;
            } else if c.is_whitespace() {
                self.skip(c.len_utf8());
            } else if self.rest.starts_with("//") || (c == '#' && self.line_empty) {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                let end = self.rest.find("*/").map_or(self.rest.len(), |end| end + 2);
                self.skip(end);
            } else {
                self.line_empty = false;
                let (kind, len) = next(self.rest, c);
                self.skip(len);
                let joint =
                    matches!(kind, Kind::Op(_) | Kind::Other(_)) && self.rest.starts_with(is_operator_part);
                self.push(kind, at);
                if let Some(last) = self.tokens.last_mut() {
                    last.joint = joint;
                }
            }
        }
    }

    fn push(&mut self, kind: Kind<Infallible>, span: Position) {
        self.tokens.push(Token { kind, span, joint: false });
    }

    /// Skips `len` bytes and counts their lines and columns.
    fn skip(&mut self, len: usize) {
        let (passed, rest) = self.rest.split_at(len);
        for c in passed.chars() {
            if c == '\n' {
                self.at.line = self.at.line.saturating_add(1);
                self.at.column = 1;
            } else {
                self.at.column = self.at.column.saturating_add(1);
            }
        }
        self.rest = rest;
    }
}

/// The token that `rest` starts with, and its length in bytes.
fn next(rest: &str, first: char) -> (Kind<Infallible>, usize) {
    let word_char = |c: char| c.is_alphanumeric() || c == '_';
    if word_char(first) {
        let len = rest.find(|c| !word_char(c)).unwrap_or(rest.len());
        let word = &rest[..len];
        let kind = if first.is_ascii_digit() {
            match number(word) {
                Ok(value) => Kind::Int { value, text: word.to_owned() },
                Err(error) => Kind::BadNumber(error),
            }
        } else if word.is_ascii() {
            Kind::Word(word.to_owned())
        } else {
            Kind::Other(word.to_owned())
        };
        return (kind, len);
    }
    if first == ';' {
        return (Kind::End, 1);
    }
    match operator(rest) {
        Some(op) => (Kind::Op(op), op.len()),
        None => (Kind::Other(first.to_string()), first.len_utf8()),
    }
}

/// Whether this character can be a part of an operator, valid or not.
fn is_operator_part(c: char) -> bool {
    c.is_ascii_punctuation() && !"_;()[]{}\"'`\\".contains(c)
}
