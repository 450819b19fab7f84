//! Builds the tokens of the macro's output.

use bpfasm_syntax::error::SyntaxError;
use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Makes tokens whose place, for error messages, is one token of the user's text. Names in them are
/// hygienic: they cannot collide with the user's variables.
#[derive(Clone, Copy)]
pub(crate) struct Emit {
    span: Span,
}

impl Emit {
    pub(crate) fn at(span: Span) -> Self {
        Self { span: Span::mixed_site().located_at(span) }
    }

    /// `::bpfasm::a::b`
    pub(crate) fn path(self, path: &str) -> TokenStream {
        let mut out = TokenStream::new();
        for part in std::iter::once("bpfasm").chain(path.split("::")) {
            out.extend(self.punct("::"));
            out.extend([TokenTree::Ident(Ident::new(part, self.span))]);
        }
        out
    }

    pub(crate) fn ident(self, name: &str) -> TokenStream {
        TokenTree::Ident(Ident::new(name, self.span)).into()
    }

    pub(crate) fn punct(self, text: &str) -> TokenStream {
        let last = text.chars().count().saturating_sub(1);
        text.chars()
            .enumerate()
            .map(|(i, c)| {
                let mut punct = Punct::new(c, if i == last { Spacing::Alone } else { Spacing::Joint });
                punct.set_span(self.span);
                TokenTree::Punct(punct)
            })
            .collect()
    }

    fn literal(self, mut literal: Literal) -> TokenStream {
        literal.set_span(self.span);
        TokenTree::Literal(literal).into()
    }

    pub(crate) fn string(self, text: &str) -> TokenStream {
        self.literal(Literal::string(text))
    }

    /// A number without a suffix; in parentheses if it is negative.
    pub(crate) fn int(self, value: i128) -> TokenStream {
        // A negative literal is two tokens to Rust.
        let digits = self.literal(Literal::i128_unsuffixed(value.saturating_abs()));
        if value < 0 { self.group(Delimiter::Parenthesis, [self.punct("-"), digits]) } else { digits }
    }

    pub(crate) fn bool(self, value: bool) -> TokenStream {
        self.ident(if value { "true" } else { "false" })
    }

    pub(crate) fn group(
        self,
        delimiter: Delimiter,
        parts: impl IntoIterator<Item = TokenStream>,
    ) -> TokenStream {
        let mut group = Group::new(delimiter, parts.into_iter().collect());
        group.set_span(self.span);
        TokenTree::Group(group).into()
    }

    /// `::bpfasm::path(a, b)`
    pub(crate) fn call(self, path: &str, args: impl IntoIterator<Item = TokenStream>) -> TokenStream {
        join([self.path(path), self.args(args)])
    }

    /// `block.name(a, b)`
    pub(crate) fn method(self, name: &str, args: impl IntoIterator<Item = TokenStream>) -> TokenStream {
        join([self.ident("block"), self.punct("."), self.ident(name), self.args(args)])
    }

    fn args(self, args: impl IntoIterator<Item = TokenStream>) -> TokenStream {
        self.group(Delimiter::Parenthesis, args.into_iter().map(|arg| join([arg, self.punct(",")])))
    }

    /// `::bpfasm::path { a: b, … }`
    pub(crate) fn record<const N: usize>(self, path: &str, fields: [(&str, TokenStream); N]) -> TokenStream {
        let fields = fields
            .into_iter()
            .map(|(name, value)| join([self.ident(name), self.punct(":"), value, self.punct(",")]));
        join([self.path(path), self.group(Delimiter::Brace, fields)])
    }
}

pub(crate) fn join<const N: usize>(parts: [TokenStream; N]) -> TokenStream {
    parts.into_iter().collect()
}

/// An expression of the macro's type, `Fragment`, with a `compile_error!` for each error.
pub(crate) fn errors(errors: &[SyntaxError<Span>]) -> TokenStream {
    let site = Emit::at(Span::call_site());
    let errors = errors.iter().flat_map(|error| {
        // The compiler underlines from the first token of `compile_error!` to its last, so these
        // two get the spans of the error's first and last token.
        let (start, end) = (Emit { span: error.start }, Emit { span: error.end });
        let message = end.group(Delimiter::Brace, [end.string(&error.problem.to_string())]);
        [
            join([start.punct("::"), start.ident("core"), start.punct("::"), start.ident("compile_error")]),
            start.punct("!"),
            message,
        ]
    });
    let fragment = site.call("Fragment::new", []);
    site.group(Delimiter::Brace, errors.chain([fragment]))
}
