//! The `bpf!` macro. It turns Rust tokens into the tokens of the language (`tokens`), parses them
//! (`bpfasm_syntax`), and emits calls of `bpfasm::rt` (`lower`, `emit`). The documentation of
//! `bpfasm` describes the language.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod emit;
mod lower;
mod tokens;

use proc_macro::{Span, TokenStream};

/// Assembles a piece of a BPF program, written in the syntax of LLVM's assembler and the kernel's
/// verifier. Evaluates to a `bpfasm::Fragment`.
///
/// The documentation of the `bpfasm` crate describes the language. Errors of syntax are compile
/// errors at the wrong token.
#[proc_macro]
pub fn bpf(input: TokenStream) -> TokenStream {
    let tokens = tokens::convert(input);
    let end = tokens.last().map_or_else(Span::call_site, |token| token.span);
    match bpfasm_syntax::parse::parse(&tokens, end) {
        Ok(statements) => lower::block(statements),
        Err(errors) => emit::errors(&errors),
    }
}
