//! The options that all tools share, and helpers for those of a single tool. Parsing only: nothing
//! here looks at the host.

use std::path::PathBuf;
use std::time::Duration;

use bpfasm::target::Access;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::form::Form;
use super::target::parse_target;

const DEFAULT_RING: &str = "1M";

/// An option without a value.
pub fn switch(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).action(ArgAction::SetTrue).help(help)
}

/// Adds the options that every tool has.
pub fn shared(command: Command) -> Command {
    // `tcpretrans` calls it `--rows`.
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
        .arg(switch("stats", "Print the account of all events on stderr at the end"))
        .arg(switch("strict", "Exit with status 1 if an event was lost"))
        .arg(
            Arg::new("ring-size")
                .long("ring-size")
                .value_name("BYTES")
                .default_value(DEFAULT_RING)
                .value_parser(ring_size)
                .help("Size of the event buffer, if the tool has one: a power of two, with K or M"),
        )
        .arg(
            Arg::new("max-sockets")
                .long("max-sockets")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..=16_777_216))
                .help("Entries of the socket table [default: four times the open sockets, at least 16384 and at most 262144]"),
        )
        .args(ebpf_args())
        .arg(switch(
            "selftest",
            "Check the tool on test connections first, and start only if its rows are correct",
        ))
        .arg(switch("no-sandbox", "Do not drop privileges after attaching"))
        .arg(
            Arg::new("verbose")
                .long("verbose")
                .short('v')
                .action(ArgAction::Count)
                .help("Print on stderr what is attached and how; -vv: also the verifier's statistics"),
        )
        // For tests: the fallbacks of older kernels.
        .arg(switch("perf", "Send events through perf buffers").hide(true))
        .arg(switch("no-iter", "List open sockets through /proc").hide(true))
        .arg(Arg::new("access").long("access").hide(true).value_parser(
            PossibleValuesParser::new(["typed", "probed"]).map(|word| match word.as_str() {
                "typed" => Access::Typed,
                _ => Access::Probed,
            }),
        ))
}

/// After how many rows a run ends. The caller gives the option its long name.
pub fn rows() -> Arg {
    Arg::new("count")
        .value_name("ROWS")
        .value_parser(value_parser!(u64).range(1..))
        .help("Stop after this many rows")
}

/// The options that print programs. `tcptools` has them without a tool, too.
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

/// `--btf`.
pub fn btf() -> Arg {
    Arg::new("btf")
        .long("btf")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Type information of the running kernel if /sys/kernel/btf/vmlinux is missing: raw BTF or an ELF file")
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

/// Which of [`table_args`] are given, apart from the format.
#[derive(Clone, Copy, Debug)]
pub struct TableFlags {
    /// Show the time of day.
    pub time: bool,
    /// Show seconds since the first row.
    pub timestamp: bool,
    /// Show wide columns.
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

/// `--csv`, to which a tool may add the letter that the original has for it.
pub fn csv() -> Arg {
    switch("csv", "Comma-separated values")
}

/// `--json`, to which a tool may add the letter that the original has for it.
pub fn json() -> Arg {
    switch("json", "One JSON object per line, in raw units").conflicts_with("csv")
}

/// Adds the options that the tool has not defined itself.
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

/// Reads a number such as `1`, `.5` or `2.5e3` of units of `10^scale` nanoseconds, and returns
/// nanoseconds, rounded down. `None` if the text is not a number, is negative, or stands for more
/// than some 500 years.
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
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
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
        .ok_or_else(|| "expected a power of two from 4K to 1024M".to_owned())
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
