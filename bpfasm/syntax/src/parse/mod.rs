//! Tokens to statements.

mod assign;
mod operand;
mod statement;

use std::collections::HashSet;

use crate::ast::{Given, Statement, StatementKind};
use crate::error::{Problem, SyntaxError};
use crate::token::{Kind, Token, text};

/// Parses a block. After something wrong it goes on behind the next end of a statement, so that all errors of a block show at
/// once. `end` is the place after the last token.
///
/// # Errors
/// All that is wrong, at least one thing, in the order of the text.
pub fn parse<S: Copy, V: Clone>(
    tokens: &[Token<S, V>],
    end: S,
) -> Result<Vec<Statement<S, V>>, Vec<SyntaxError<S>>> {
    let mut parser = Parser { tokens, at: 0, end };
    let mut statements = Vec::new();
    let mut errors = Vec::new();
    let mut labels = HashSet::new();
    while parser.at < tokens.len() {
        if matches!(parser.peek(), Some(Kind::End)) {
            parser.at += 1;
            continue;
        }
        match parser.statement() {
            Ok(statement) => {
                if let StatementKind::Label(Given::Written(name)) = &statement.kind
                    && !labels.insert(name.clone())
                {
                    let (start, end) = (statement.span, statement.span);
                    errors.push(SyntaxError { start, end, problem: Problem::DuplicateLabel(name.clone()) });
                }
                statements.push(statement);
            }
            Err(error) => {
                errors.push(error);
                while parser.at < tokens.len() && !matches!(parser.peek(), Some(Kind::End)) {
                    parser.at += 1;
                }
            }
        }
    }
    if errors.is_empty() { Ok(statements) } else { Err(errors) }
}

pub(crate) type Parsed<T, S> = Result<T, SyntaxError<S>>;

/// A place in the tokens.
pub(crate) struct Parser<'a, S, V> {
    tokens: &'a [Token<S, V>],
    at: usize,
    end: S,
}

impl<'a, S: Copy, V: Clone> Parser<'a, S, V> {
    fn statement(&mut self) -> Parsed<Statement<S, V>, S> {
        let start = self.at;
        let span = self.span();
        let kind = self.statement_kind()?;
        let end = self.at;
        if !matches!(kind, StatementKind::Label(_)) {
            self.statement_end()?;
        }
        let text = text(self.tokens.get(start..end).unwrap_or_default());
        Ok(Statement { kind, span, text })
    }

    fn statement_end(&mut self) -> Parsed<(), S> {
        match self.peek() {
            None => Ok(()),
            Some(Kind::End) => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(self.expected("`;`")),
        }
    }

    // The cursor. Nothing below moves it unless it says so.

    /// The kind of the current token.
    pub(crate) fn peek(&self) -> Option<&'a Kind<V>> {
        self.peek_at(0)
    }

    pub(crate) fn peek_at(&self, ahead: usize) -> Option<&'a Kind<V>> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    pub(crate) fn span(&self) -> S {
        self.tokens.get(self.at).map_or(self.end, |token| token.span)
    }

    /// Goes one token on.
    pub(crate) fn next(&mut self) {
        self.at += 1;
    }

    pub(crate) fn peek_word(&self) -> Option<&'a str> {
        self.word_at(0)
    }

    pub(crate) fn word_at(&self, ahead: usize) -> Option<&'a str> {
        match self.peek_at(ahead) {
            Some(Kind::Word(word)) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn is_op(&self, op: &str) -> bool {
        self.is_op_at(0, op)
    }

    pub(crate) fn is_op_at(&self, ahead: usize, op: &str) -> bool {
        matches!(self.peek_at(ahead), Some(Kind::Op(here)) if *here == op)
    }

    /// Whether the operator here is only the start of a longer one that does not exist, as `>` is in `><`. A sign, a star or a
    /// parenthesis after it starts an operand.
    pub(crate) fn runs_on(&self, ahead: usize) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| token.joint)
            && !matches!(self.peek_at(ahead + 1), Some(Kind::Op("-" | "+" | "*" | "(")))
    }

    /// Goes past `op` if it is there.
    pub(crate) fn take_op(&mut self, op: &str) -> bool {
        let there = self.is_op(op);
        self.at += usize::from(there);
        there
    }

    /// Takes one of a table's operators, which may start with the word `s`. A longer run of operators is another operator.
    pub(crate) fn operator<T: Copy>(&mut self, table: &[(T, &'static str)]) -> Option<T> {
        let signed = self.peek_word() == Some("s");
        let Some(Kind::Op(op)) = self.peek_at(usize::from(signed)) else { return None };
        let found = table.iter().find_map(|&(value, text)| {
            let rest = if signed { text.strip_prefix('s')? } else { text };
            (rest == *op).then_some(value)
        })?;
        if self.runs_on(usize::from(signed)) {
            return None;
        }
        self.next();
        if signed {
            self.next();
        }
        Some(found)
    }

    /// Goes past `word` if it is there.
    pub(crate) fn take_word(&mut self, word: &str) -> bool {
        let there = self.peek_word() == Some(word);
        self.at += usize::from(there);
        there
    }

    /// Goes past `op`, which must be there.
    pub(crate) fn expect_op(&mut self, op: &'static str, what: &'static str) -> Parsed<(), S> {
        if self.take_op(op) { Ok(()) } else { Err(self.expected(what)) }
    }

    // Errors.

    pub(crate) fn error(&self, problem: Problem) -> SyntaxError<S> {
        self.error_from(self.at, problem)
    }

    /// An error about the tokens from `start` to the one before the current; at least about the first.
    pub(crate) fn error_from(&self, start: usize, problem: Problem) -> SyntaxError<S> {
        let last = self.at.saturating_sub(1).max(start);
        let span = |at: usize| self.tokens.get(at).map_or(self.end, |token| token.span);
        SyntaxError { start: span(start), end: span(last), problem }
    }

    /// An error about one token that was passed.
    pub(crate) fn error_at(&self, at: usize, problem: Problem) -> SyntaxError<S> {
        let mut error = self.error_from(at, problem);
        error.end = error.start;
        error
    }

    /// The current token is not what should stand here.
    pub(crate) fn expected(&self, what: &'static str) -> SyntaxError<S> {
        if let Some(Kind::BadNumber(error)) = self.peek() {
            return self.error(Problem::Number(error.clone()));
        }
        let found = self.peek().map_or_else(|| "the end".to_owned(), Kind::describe);
        self.error(Problem::Expected { what, found })
    }

    /// The operators from here to the next space are none of `forms`.
    pub(crate) fn unknown_operator(&self, what: &'static str, forms: &'static str) -> SyntaxError<S> {
        let signed = usize::from(self.peek_word() == Some("s"));
        let mut end = self.at + signed;
        let mut found = if signed > 0 { "s".to_owned() } else { String::new() };
        while let Some(Token { kind: kind @ (Kind::Op(_) | Kind::Other(_)), joint, .. }) =
            self.tokens.get(end)
        {
            match kind {
                Kind::Op(op) => found.push_str(op),
                Kind::Other(other) => found.push_str(other),
                _ => {}
            }
            end += 1;
            if !joint {
                break;
            }
        }
        if found.is_empty() || (signed > 0 && end == self.at + signed) {
            return self.expected(what);
        }
        let span = |at: usize| self.tokens.get(at).map_or(self.end, |token| token.span);
        SyntaxError {
            start: span(self.at),
            end: span(end.saturating_sub(1)),
            problem: Problem::Operator { found, forms },
        }
    }

    /// The number of the current token.
    pub(crate) fn position(&self) -> usize {
        self.at
    }
}
