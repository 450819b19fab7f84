//! Turns Rust tokens into tokens of the language.

use bpfasm_syntax::token::{Kind, Token, number, operator};
use proc_macro::{Delimiter, Group, Literal, Spacing, Span, TokenStream, TokenTree};

type RustToken = Token<Span, TokenStream>;

/// All tokens of a block as a flat list. Parentheses and brackets become operators; braces contain
/// Rust.
pub(crate) fn convert(input: TokenStream) -> Vec<RustToken> {
    let mut tokens = Vec::new();
    add(input, &mut tokens);
    tokens
}

fn add(input: TokenStream, tokens: &mut Vec<RustToken>) {
    let mut trees = input.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Ident(ident) => {
                let word = ident.to_string();
                let word = word.strip_prefix("r#").unwrap_or(&word).to_owned();
                tokens.push(token(Kind::Word(word), ident.span()));
            }
            TokenTree::Literal(literal) => self::literal(&literal, tokens),
            TokenTree::Group(group) => self::group(&group, tokens),
            TokenTree::Punct(first) => {
                let mut run = vec![first];
                while run.last().is_some_and(|punct| punct.spacing() == Spacing::Joint) {
                    match trees.peek() {
                        Some(TokenTree::Punct(next)) => {
                            run.push(next.clone());
                            trees.next();
                        }
                        _ => break,
                    }
                }
                let chars: String = run.iter().map(proc_macro::Punct::as_char).collect();
                if chars.starts_with("..") {
                    // Punctuation directly after the dots (`..&x`) belongs to the expression.
                    let mut rust: TokenStream = run.iter().skip(2).cloned().map(TokenTree::Punct).collect();
                    let ends = |tree: &TokenTree| matches!(tree, TokenTree::Punct(p) if p.as_char() == ';');
                    while let Some(tree) = trees.next_if(|tree| !ends(tree)) {
                        rust.extend([tree]);
                    }
                    let span = run.first().map_or_else(Span::call_site, proc_macro::Punct::span);
                    let text = source_text(&rust);
                    tokens.push(token(Kind::Spread(rust, text), span));
                } else {
                    self::run(&run, &chars, tokens);
                }
            }
        }
    }
}

/// Splits a run of punctuation into operators.
fn run(puncts: &[proc_macro::Punct], chars: &str, tokens: &mut Vec<RustToken>) {
    let mut at = 0;
    while let (Some(rest), Some(punct)) = (chars.get(at..), puncts.get(at)) {
        let first = punct.as_char();
        let (kind, len) = match operator(rest) {
            _ if first == ';' => (Kind::End, 1),
            Some(op) => (Kind::Op(op), op.len()),
            None => (Kind::Other(first.to_string()), 1),
        };
        at += len;
        let joint = chars.get(at..).is_some_and(|rest| !rest.is_empty() && !rest.starts_with(';'));
        tokens.push(Token { kind, span: punct.span(), joint });
        if at >= puncts.len() {
            break;
        }
    }
}

fn literal(literal: &Literal, tokens: &mut Vec<RustToken>) {
    let text = literal.to_string();
    // A literal from another macro may include its sign.
    let digits = match text.strip_prefix('-') {
        Some(digits) => {
            tokens.push(token(Kind::Op("-"), literal.span()));
            digits
        }
        None => &text,
    };
    let kind = if digits.starts_with(|c: char| c.is_ascii_digit()) {
        match number(digits) {
            Ok(value) => Kind::Int { value, text: digits.to_owned() },
            Err(error) => Kind::BadNumber(error),
        }
    } else {
        Kind::Other(text)
    };
    tokens.push(token(kind, literal.span()));
}

fn group(group: &Group, tokens: &mut Vec<RustToken>) {
    let (open, close) = match group.delimiter() {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::Brace => {
            let text = source_text(&group.stream());
            tokens.push(token(Kind::Rust(group.stream(), text), group.span()));
            return;
        }
        // The value of a `macro_rules!` variable.
        Delimiter::None => return add(group.stream(), tokens),
    };
    tokens.push(token(Kind::Op(open), group.span_open()));
    add(group.stream(), tokens);
    tokens.push(token(Kind::Op(close), group.span_close()));
}

fn token(kind: Kind<TokenStream>, span: Span) -> RustToken {
    Token { kind, span, joint: false }
}

/// A piece of Rust as text of one line.
fn source_text(rust: &TokenStream) -> String {
    rust.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
