//! What a run asks of the host besides the kernel's programs and maps.

pub mod journal;
pub mod kallsyms;
pub mod open_sockets;
pub mod symbols;
pub mod table_size;
