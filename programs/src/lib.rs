//! What runs in the kernel, and what it sends.
//!
//! Each tool has a folder: `mod.rs` with its options, maps and programs, `event.rs` with the event they send. What two tools
//! share is a fragment here: reading a socket ([`sock`]), whose it is ([`owner`]), which sockets are wanted ([`filter`]), the
//! account ([`stats`]) and the way out ([`emit`]).
//!
//! Nothing here needs a kernel: an [`Object`](bpfasm::Object) is built from options and a described target, and can be listed,
//! checked and executed anywhere.
//!
//! # Registers and stack
//!
//! Every program on a socket keeps to one convention, so that fragments fit together:
//!
//! | place | holds |
//! |---|---|
//! | `r6` | the socket (typed access: a `struct tcp_sock *` once [`sock::Sock::tcp`] has passed) |
//! | `r7` | this CPU's [`stats::Stats`] |
//! | `r8` | the socket's entry in the table, or 0 |
//! | `r9` | the context |
//! | `r0`–`r5` | free: any fragment may clobber them |
//! | the stack | see [`stack_layout`] |

#![forbid(unsafe_code)]

use bpfasm::object::{Hook, MapDef, Object};

pub mod accept;
pub mod actor;
pub mod cgroup;
pub mod containers;
pub mod emit;
pub mod endpoints;
pub mod filter;
pub mod flows;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hook;
pub mod kernel_stack;
pub mod layout;
pub mod map;
pub mod open_sockets;
pub mod outcome;
pub mod owner;
pub mod owner_hooks;
pub mod packet;
pub mod sock;
pub mod stack_layout;
pub mod state_change;
pub mod state_tool;
pub mod stats;
pub mod stop_flag;
pub mod stream;
pub mod subnet;
pub mod table;
pub mod tcp;
pub mod tcpconnlat;
pub mod tcpdrop;
pub mod tcplife;
pub mod tcpretrans;
pub mod tcpstates;
pub mod tcpsubnet;
pub mod tcptop;
pub mod tcptracer;
pub mod trie;

/// What every program declares to the kernel. Most helpers are for GPL-compatible programs only.
pub const LICENSE: &str = "Dual MIT/GPL";

/// A tool's object.
#[must_use]
pub fn object(name: &'static str, hooks: Vec<Hook>, maps: Vec<MapDef>) -> Object {
    Object { name: name.into(), license: LICENSE.into(), hooks, maps, consts: Vec::new() }
}
