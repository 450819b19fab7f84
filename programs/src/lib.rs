//! The BPF programs of the tools, and the events that they send.
//!
//! Each tool has a folder: `mod.rs` with its options, maps and programs, `event.rs` with the event
//! they send. A new tool is a new folder, its `pub mod` line here, and its line in `fuzz`. All
//! other modules are shared: each holds fragments of programs about one subject.
//!
//! Nothing here needs a kernel. An [`Object`] is built from options and a description of the
//! target, and can be listed, checked and executed anywhere.
//!
//! # Where to look
//!
//! | subject | modules |
//! |---|---|
//! | attaching | [`hook`], [`state_change`] (the tracepoint most tools use), [`accept`] |
//! | reading | [`sock`], [`endpoints`], [`packet`], [`outcome`], [`stream`] |
//! | remembering | [`table`] (sockets), [`flows`] (sums), [`open_sockets`] (sockets from before the start) |
//! | who | [`owner`], [`owner_hooks`], [`actor`] (the process that acts now) |
//! | choosing | [`filter`], [`subnet`], [`trie`], [`cgroup`], [`containers`] |
//! | sending | [`emit`], [`kernel_stack`]; [`stats`] counts what became of each event |
//! | whole tools | [`state_tool`]: everything but the program on state changes |
//!
//! # Registers and stack
//!
//! A program is put together from fragments that know nothing of each other. They fit because all
//! of them keep to one convention:
//!
//! | register | holds |
//! |---|---|
//! | `r6` | the socket (with typed access: a `struct tcp_sock *` after [`sock::Sock::tcp`]) |
//! | `r7` | this CPU's [`stats::Stats`], after [`stats::open`] |
//! | `r8` | the socket's table entry, or 0, after [`table::lookup`] |
//! | `r9` | the program's context |
//! | `r0`–`r5` | scratch: every fragment may clobber them, as every helper call does |
//!
//! `r6` to `r9` survive helper calls, so a fragment never has to save them; its documentation says
//! if it clobbers one nevertheless. Data that does not fit a register has a fixed place on the
//! stack, see [`stack_layout`].
//!
//! Labels belong to the fragment that defines them. A fragment that leaves its own block takes the
//! label to jump to as an argument; by custom, `out` ends the program, and `filtered` counts the
//! event as filtered first.

#![forbid(unsafe_code)]
// A doc comment is here if it says something.
#![allow(missing_docs)]

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

/// What every program declares to the kernel, which offers most helpers only to GPL-compatible
/// programs.
pub const LICENSE: &str = "Dual MIT/GPL";

/// The object of a tool without constants.
#[must_use]
pub fn object(name: &'static str, hooks: Vec<Hook>, maps: Vec<MapDef>) -> Object {
    Object { name: name.into(), license: LICENSE.into(), hooks, maps, consts: Vec::new() }
}
