//! What all tools take from the command line. Parsing only: nothing here looks at the host.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bpfasm::target::{Access, Target};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rows::Format;

use crate::ebpf::Form;
use crate::room;
use crate::target::parse_target;

/// Options that every tool has.
#[derive(Clone, Debug)]
pub struct Shared {
    /// How rows are written.
    pub format: Format,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Stop after this many rows.
    pub count: Option<u64>,
    /// Print the account at the end.
    pub stats: bool,
    /// Any loss is a failure.
    pub strict: bool,
    /// Print the programs instead of running them.
    pub ebpf: Option<Form>,
    /// The kernel to print them for, when not the running one.
    pub target: Option<Target>,
    /// Type information of the running kernel, for one that brings none.
    pub btf: Option<PathBuf>,
    /// Say what is done.
    pub verbose: bool,
    /// Say what the verifier made of each program.
    pub verified: bool,
    /// Keep capabilities and system calls that the run needs no longer.
    pub no_sandbox: bool,
    /// Bytes of the ring that events travel through.
    pub ring_bytes: u32,
    /// Sockets the table has room for.
    pub max_sockets: u32,
    /// Check first that the tool tells the truth here.
    pub selftest: bool,
    /// Read the kernel in this way only.
    pub access: Option<Access>,
    /// Send events through perf buffers, as before 5.8.
    pub perf: bool,
    /// Find open sockets in /proc, as before 5.8.
    pub no_iter: bool,
}

const DEFAULT_RING: &str = "1M";

/// A flag without a value.
pub fn switch(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).action(ArgAction::SetTrue).help(help)
}

/// Adds the options that every tool has.
pub fn shared(command: Command) -> Command {
    // A tool that has another name for it brings its own.
    let own_rows = command.get_arguments().any(|own| own.get_id() == "count");
    command
        .args_override_self(true)
        .infer_long_args(true)
        .next_help_heading("All tools")
        .arg(
            Arg::new("duration")
                .long("duration")
                .value_name("SECONDS")
                .value_parser(seconds)
                .help("Stop after this time"),
        )
        .args((!own_rows).then(|| rows().long("count")))
        .arg(switch("stats", "At the end, print what became of every event on stderr"))
        .arg(switch("strict", "Exit with 1 if an event was lost"))
        .arg(
            Arg::new("ring-size")
                .long("ring-size")
                .value_name("BYTES")
                .default_value(DEFAULT_RING)
                .value_parser(ring_size)
                .help("Room for events on their way: a power of two, with K or M"),
        )
        .arg(
            Arg::new("max-sockets")
                .long("max-sockets")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..=16_777_216))
                .help("Room for open sockets [default: 16384, or four times those that are open]"),
        )
        .args(ebpf_args())
        .arg(switch("selftest", "First check that the tool tells the truth here, and do not start if not"))
        .arg(switch(
            "no-sandbox",
            "Once attached, keep the capabilities and system calls that are needed no more",
        ))
        .arg(
            Arg::new("verbose")
                .long("verbose")
                .short('v')
                .action(ArgAction::Count)
                .help("Say what is done, on stderr; twice: also what the verifier made of each program"),
        )
        // The last three are for tests: what a run falls back to on other kernels.
        .arg(switch("perf", "Send events through perf buffers").hide(true))
        .arg(switch("no-iter", "Find open sockets in /proc").hide(true))
        .arg(Arg::new("access").long("access").hide(true).value_parser(
            PossibleValuesParser::new(["typed", "probed"]).map(|word| match word.as_str() {
                "typed" => Access::Typed,
                _ => Access::Probed,
            }),
        ))
}

/// How many rows are wanted; without a name yet.
pub fn rows() -> Arg {
    Arg::new("count")
        .value_name("ROWS")
        .value_parser(value_parser!(u64).range(1..))
        .help("Stop after this many rows")
}

/// The options about the programs themselves, which `tcptools` has also without a tool.
pub fn ebpf_args() -> [Arg; 3] {
    [
        Arg::new("ebpf")
            .long("ebpf")
            .value_name("FORM")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("listing")
            .value_parser(PossibleValuesParser::new(Form::WORDS).try_map(|word| Form::from_word(&word)))
            .help("Print the BPF programs that these options load, and exit"),
        Arg::new("target")
            .long("target")
            .value_name("KERNEL")
            .requires("ebpf")
            .value_parser(parse_target)
            .help("With --ebpf: for another kernel, such as 6.1-x86_64-typed or 5.10-aarch64-probed-perf"),
        btf(),
    ]
}

/// Type information of the running kernel.
pub fn btf() -> Arg {
    Arg::new("btf")
        .long("btf")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Type information of the kernel, when not in /sys/kernel/btf: raw BTF or an ELF file")
}

/// Reads the options that every tool has.
pub fn read_shared(matches: &ArgMatches) -> Shared {
    Shared {
        format: match (matches.get_flag("json"), matches.get_flag("csv")) {
            (true, _) => Format::Json,
            (_, true) => Format::Csv,
            _ => Format::Table,
        },
        duration: matches.get_one("duration").copied(),
        count: matches.get_one("count").copied(),
        stats: matches.get_flag("stats"),
        strict: matches.get_flag("strict"),
        ebpf: matches.get_one("ebpf").copied(),
        target: matches.get_one::<Target>("target").cloned(),
        btf: matches.get_one("btf").cloned(),
        verbose: matches.get_count("verbose") > 0,
        verified: matches.get_count("verbose") > 1,
        no_sandbox: matches.get_flag("no-sandbox"),
        ring_bytes: *matches.get_one("ring-size").expect("it has a default"),
        max_sockets: asked_room(matches).unwrap_or(room::LEAST),
        selftest: matches.get_flag("selftest"),
        access: matches.get_one("access").copied(),
        perf: matches.get_flag("perf"),
        no_iter: matches.get_flag("no-iter"),
    }
}

/// Those of the options that say how to run on this host, not what is wanted of it, for another run.
pub fn of_host(shared: &Shared) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut option =
        |name: &str, value: &dyn std::fmt::Display| args.push(format!("--{name}={value}").into());
    option("ring-size", &shared.ring_bytes);
    option("max-sockets", &shared.max_sockets);
    if let Some(access) = shared.access {
        option("access", &if access == Access::Typed { "typed" } else { "probed" });
    }
    args.extend(shared.perf.then(|| "--perf".into()));
    args.extend(shared.no_iter.then(|| "--no-iter".into()));
    args.extend(shared.no_sandbox.then(|| "--no-sandbox".into()));
    if let Some(file) = &shared.btf {
        let mut option = OsString::from("--btf=");
        option.push(file);
        args.push(option);
    }
    args
}

/// `--max-sockets`, if it is given.
pub fn asked_room(matches: &ArgMatches) -> Option<u32> {
    matches.get_one("max-sockets").copied()
}

/// `-T`, `-t`, `-w` and `-s`: what the table of an event tool shows.
pub fn table_args() -> [Arg; 4] {
    [
        switch("time", "Show the time of day").short('T'),
        switch("timestamp", "Show seconds since the first row").short('t'),
        switch("wide", "Wide columns, for IPv6").short('w'),
        csv().short('s'),
    ]
}

/// What of that is asked for; the format is in [`Shared`].
#[derive(Clone, Copy, Debug)]
pub struct TableFlags {
    /// The time of day.
    pub time: bool,
    /// Seconds since the first row.
    pub timestamp: bool,
    /// Wide columns.
    pub wide: bool,
}

/// Reads [`table_args`].
pub fn read_table(matches: &ArgMatches) -> TableFlags {
    TableFlags {
        time: matches.get_flag("time"),
        timestamp: matches.get_flag("timestamp"),
        wide: matches.get_flag("wide"),
    }
}

/// `--csv`; a tool may give it a historic letter.
pub fn csv() -> Arg {
    switch("csv", "Comma-separated values")
}

/// `--json`; a tool may give it a historic letter.
pub fn json() -> Arg {
    switch("json", "One JSON object per line, in raw units").conflicts_with("csv")
}

/// Adds those that the tool has not defined itself, with letters of its own.
pub fn add_missing(mut command: Command, args: impl IntoIterator<Item = Arg>) -> Command {
    for arg in args {
        if !command.get_arguments().any(|own| own.get_id() == arg.get_id()) {
            command = command.arg(arg);
        }
    }
    command
}

/// Seconds between two reports: a whole number above 0.
pub fn interval() -> clap::builder::RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..)
}

/// A number of which `10^scale` nanoseconds are one, such as `1`, `.5` or `2.5e3`, as nanoseconds. What is finer is left out;
/// `None` for what is no number, below zero, or longer than some 500 years.
pub fn nanoseconds(text: &str, scale: u8) -> Option<u64> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i16>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = || whole.bytes().chain(part.bytes());
    if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let counted =
        isize::try_from(whole.len()).ok()?.checked_add(isize::from(scale) + isize::from(exponent))?;
    digits()
        .chain(std::iter::repeat(b'0'))
        .take(usize::try_from(counted).unwrap_or(0))
        .try_fold(0, |number: u64, digit| number.checked_mul(10)?.checked_add((digit - b'0').into()))
}

fn seconds(text: &str) -> Result<Duration, String> {
    nanoseconds(text, 9)
        .map(Duration::from_nanos)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a time is a number of seconds above 0".to_owned())
}

fn ring_size(text: &str) -> Result<u32, String> {
    let (digits, shift) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 10),
        None => text.strip_suffix(['m', 'M']).map_or((text, 0), |digits| (digits, 20)),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| bytes.is_power_of_two() && (4096..=1 << 30).contains(bytes))
        .ok_or_else(|| "a ring has a power of two of bytes, from 4K to 1024M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes() {
        assert_eq!(ring_size("4096"), Ok(4096));
        assert_eq!(ring_size("512K"), Ok(512 << 10));
        assert_eq!(ring_size("1024m"), Ok(1 << 30));
        for wrong in ["", "0", "K", "4095", "3M", "2048M", "1G", "-4096", "99999999999"] {
            assert!(ring_size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times() {
        for (text, expected) in
            [("0.5", 500), (".5", 500), ("5.", 5000), ("12", 12_000), ("1.0009999999", 1000)]
        {
            assert_eq!(seconds(text).map(|duration| duration.as_millis()), Ok(expected), "{text:?}");
        }
        for (text, expected) in
            [("0.0012345", 1234), ("1e3", 1_000_000_000), ("12.5E-1", 1_250_000), ("0e999", 0), ("7e-99", 0)]
        {
            assert_eq!(nanoseconds(text, 6), Some(expected), "{text:?}");
        }
        for wrong in ["", ".", "e3", "1e", "1e99", "0", "0.0", "-1", "+1", "nan", "inf", "abc", "1.2.3", "1 "]
        {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn defaults_are_what_they_say() {
        assert_eq!(ring_size(DEFAULT_RING), Ok(1 << 20));
    }
}
