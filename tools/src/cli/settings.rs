//! The options that all tools share, read from a command line and grouped by who needs them.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use bpfasm::target::{Access, Target};
use clap::ArgMatches;
use rows::Format;

use super::form::Form;
use crate::host::table_size;

/// What a tool's programs and rows depend on.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How rows are written.
    pub format: Format,
    /// `-v`: some tools have other columns then.
    pub verbose: bool,
    /// Bytes of the buffer that events travel through.
    pub ring_bytes: u32,
    /// Entries of the tables of sockets.
    pub max_sockets: u32,
}

impl Settings {
    /// Reads them. Tables have their smallest size unless the command line gives one.
    pub fn read(matches: &ArgMatches) -> Self {
        Self {
            format: match (matches.get_flag("json"), matches.get_flag("csv")) {
                (true, _) => Format::Json,
                (_, true) => Format::Csv,
                _ => Format::Table,
            },
            verbose: matches.get_count("verbose") > 0,
            ring_bytes: *matches.get_one("ring-size").expect("it has a default"),
            max_sockets: max_sockets(matches).unwrap_or(table_size::MIN),
        }
    }

    /// Reads them for a run on this host: without `--max-sockets`, tables are sized by the number
    /// of open sockets.
    pub fn for_this_host(matches: &ArgMatches) -> Self {
        let max_sockets = max_sockets(matches).unwrap_or_else(table_size::for_open_sockets);
        Self { max_sockets, ..Self::read(matches) }
    }
}

fn max_sockets(matches: &ArgMatches) -> Option<u32> {
    matches.get_one("max-sockets").copied()
}

/// How programs are loaded on this host.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// A file with the running kernel's type information.
    pub btf: Option<PathBuf>,
    /// How programs read kernel memory; `None`: the best that works.
    pub access: Option<Access>,
    /// Whether events go through perf buffers, as before 5.8.
    pub perf: bool,
    /// Whether open sockets are listed through /proc, as before 5.8.
    pub no_iter: bool,
    /// Bytes of a perf buffer.
    pub ring_bytes: u32,
    /// `-v`: print what is done.
    pub verbose: bool,
    /// `-vv`: print the verifier's statistics.
    pub verifier_stats: bool,
}

impl LoadOptions {
    pub fn read(matches: &ArgMatches) -> Self {
        Self {
            btf: matches.get_one("btf").cloned(),
            access: matches.get_one("access").copied(),
            perf: matches.get_flag("perf"),
            no_iter: matches.get_flag("no-iter"),
            ring_bytes: *matches.get_one("ring-size").expect("it has a default"),
            verbose: matches.get_count("verbose") > 0,
            verifier_stats: matches.get_count("verbose") > 1,
        }
    }
}

/// When a run ends, and what it does besides printing rows.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// The run ends after this time.
    pub duration: Option<Duration>,
    /// The run ends after this many rows.
    pub count: Option<u64>,
    /// Print the account at the end.
    pub stats: bool,
    /// A lost event makes the run fail.
    pub strict: bool,
    /// Keep privileges after attaching.
    pub no_sandbox: bool,
    /// Run the selftest first.
    pub selftest: bool,
}

impl RunOptions {
    pub fn read(matches: &ArgMatches) -> Self {
        Self {
            duration: matches.get_one("duration").copied(),
            count: matches.get_one("count").copied(),
            stats: matches.get_flag("stats"),
            strict: matches.get_flag("strict"),
            no_sandbox: matches.get_flag("no-sandbox"),
            selftest: matches.get_flag("selftest"),
        }
    }
}

/// What `--ebpf` prints.
#[derive(Clone, Debug)]
pub struct EbpfOptions {
    /// The form.
    pub form: Form,
    /// The kernel that programs are printed for; `None`: the running one.
    pub target: Option<Target>,
    /// A file with that kernel's type information.
    pub btf: Option<PathBuf>,
}

impl EbpfOptions {
    /// Reads them, if `--ebpf` is given.
    pub fn read(matches: &ArgMatches) -> Option<Self> {
        Some(Self {
            form: *matches.get_one("ebpf")?,
            target: matches.get_one("target").cloned(),
            btf: matches.get_one("btf").cloned(),
        })
    }
}

/// The options that decide how a run works on this host, not what it shows, for another run of this
/// program.
pub fn host_args(settings: &Settings, load: &LoadOptions, run: &RunOptions) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: &dyn Display| args.push(format!("--{name}={value}").into());
    option("ring-size", &settings.ring_bytes);
    option("max-sockets", &settings.max_sockets);
    if let Some(access) = load.access {
        option("access", &if access == Access::Typed { "typed" } else { "probed" });
    }
    args.extend(load.perf.then(|| "--perf".into()));
    args.extend(load.no_iter.then(|| "--no-iter".into()));
    args.extend(run.no_sandbox.then(|| "--no-sandbox".into()));
    if let Some(file) = &load.btf {
        let mut option = OsString::from("--btf=");
        option.push(file);
        args.push(option);
    }
    args
}
