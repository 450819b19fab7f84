//! The grammar of the assembler: one parser, used by the `bpf!` macro at compile time and by the
//! text assembler at run time.
//!
//! The tokens come from [`lex`] for text, or from the macro crate for Rust tokens. The caller
//! chooses the type of their spans, and the type of the pieces of Rust among them. [`parse`] makes
//! statements of the tokens, and the caller turns statements into instructions or into code.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod ast;
pub mod error;
pub mod helpers;
pub mod lex;
pub mod limit;
pub mod ops;
pub mod parse;
pub mod token;
