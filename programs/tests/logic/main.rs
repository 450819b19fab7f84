//! The programs, without a kernel: what each does on every branch, and that a change to any of them
//! makes a test fail.

#![forbid(unsafe_code)]

mod complete;
mod emit;
mod ending;
mod equivalents;
mod filter;
mod fingerprint;
mod golden;
mod lab;
mod links;
mod made_up;
mod mutants;
mod owner;
mod owner_hooks;
mod renamed;
mod spec;
mod specimens;
mod streams;
mod tcpconnlat;
mod tcpdrop;
mod tcplife;
mod tcpretrans;
mod tcpstates;
mod tcpsubnet;
mod tcptop;
mod tcptracer;
mod tool;
mod verdicts;
mod vm;
