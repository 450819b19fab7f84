//! The `bpf!` macro: Rust tokens in, calls of `bpfasm::rt` out. The language is described at the root of `bpfasm`.

#![forbid(unsafe_code)]

mod emit;
mod lower;
mod tokens;

use proc_macro::{Span, TokenStream};

/// A piece of a BPF program, in the text of LLVM's assembler and the kernel's verifier. Evaluates to a `bpfasm::Fragment`.
///
/// See the `bpfasm` crate for the language.
#[proc_macro]
pub fn bpf(input: TokenStream) -> TokenStream {
    let tokens = tokens::convert(input);
    let end = tokens.last().map_or_else(Span::call_site, |token| token.span);
    match bpfasm_syntax::parse::parse(&tokens, end) {
        Ok(statements) => lower::block(statements),
        Err(errors) => emit::errors(&errors),
    }
}
