//! The grammar of the assembler: one parser, used by the `bpf!` macro at compile time and by the text assembler at run time.
//!
//! Tokens come from either side ([`lex`] for text, the macro crate for Rust tokens), carry a span of the caller's own type, and
//! may be pieces of Rust of the caller's own type. [`parse`] makes statements of them; what a statement turns into is again the
//! caller's business.

#![forbid(unsafe_code)]

pub mod ast;
pub mod error;
pub mod helpers;
pub mod lex;
pub mod limit;
pub mod ops;
pub mod parse;
pub mod token;
