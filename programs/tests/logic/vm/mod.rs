//! A kernel in miniature: programs of an object are executed by `rbpf` with a real kernel's struct
//! layouts, scripted helpers, and everything poisoned that the kernel does not promise.

pub mod check;
pub mod code;
pub mod kernel;
pub mod machine;
mod map;
pub mod memory;
mod tests;
