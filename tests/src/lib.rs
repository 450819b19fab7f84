//! Harness of the kernel tests: everything a test of a tracing tool needs so that it can ask for facts it created itself.
//!
//! - [`runner`] runs each test in a process of its own;
//! - [`netns`], [`mntns`], [`cgroup`], [`scratch`] give it private namespaces, cgroups and files;
//! - [`actor`] starts processes with names of their own, [`stage`] puts two of them opposite each other, [`traffic`] has
//!   them make connections and says what a right tool has to report;
//! - [`crowd`] makes connections by the thousand, of every kind;
//! - [`loss`] makes connections lose packets;
//! - [`wire`] answers a SYN itself, when the test says;
//!   them make connections and says what a right tool has to report; [`segment`] sends what no socket would;
//! - [`cli`] runs tcptools and waits for its rows, [`rows`] reads them, [`peer`] runs the same tools of libbpf-tools;
//! - [`bytes`] has the calls that move bytes;
//! - [`rights`] says what a process may do;
//! - [`gate`] says what the machine must have, [`leak`] what must not be left behind.
//!
//! A function of the harness panics when it cannot do its part, as an assertion of the test would, and shows what it saw.

#![forbid(unsafe_code)]

pub mod actor;
pub mod bytes;
pub mod cgroup;
pub mod cli;
pub mod crowd;
pub mod deadline;
pub mod gate;
pub mod leak;
pub mod loss;
pub mod mntns;
pub mod netns;
pub mod nftables;
pub mod peer;
pub mod rights;
pub mod rows;
pub mod runner;
pub mod scratch;
pub mod segment;
pub mod stage;
pub mod traffic;
pub mod wire;

mod listed;
mod netlink;
mod role;
