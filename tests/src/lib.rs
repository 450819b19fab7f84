//! Harness of the kernel tests: what a test of a tracing tool needs to make sockets and to check
//! the rows about them.
//!
//! - [`runner`] runs each test in a process of its own;
//! - [`netns`], [`mntns`], [`cgroup`], [`scratch`] give it private namespaces, cgroups and files;
//! - [`actor`] starts processes with names of their own, [`stage`] connects two of them,
//!   [`traffic`] has them make connections and returns what a correct tool has to report;
//! - [`bulk`] makes connections by the thousand, of every kind;
//! - [`loss`] makes connections lose packets, [`wire`] answers a SYN at a moment of the test's
//!   choice, [`segment`] sends packets that no socket would send;
//! - [`cli`] runs tcptools and waits for its rows, [`rows`] reads them, [`peer`] runs the same
//!   tools of libbpf-tools;
//! - [`bytes`] has the calls that move bytes;
//! - [`rights`] reads the privileges of a process;
//! - [`requirements`] checks what the machine has, [`leak`] what a test or a tool leaves behind.
//!
//! A function of the harness panics if it fails, as an assertion of the test would, and shows what
//! it saw.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "used by the tests of this package alone")]

pub mod actor;
pub mod bulk;
pub mod bytes;
pub mod cgroup;
pub mod cli;
pub mod deadline;
pub mod leak;
pub mod loss;
pub mod mntns;
pub mod netns;
pub mod nftables;
pub mod peer;
pub mod requirements;
pub mod rights;
pub mod rows;
pub mod runner;
pub mod scratch;
pub mod segment;
pub mod stage;
pub mod traffic;
pub mod wire;

mod actor_process;
mod netlink;
mod proc_net;
