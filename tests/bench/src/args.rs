//! The command line.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

/// The names that `--only` takes.
pub const FIGURES: [&str; 13] = [
    "size", "start", "storm", "steady", "refused", "lossy", "stream", "parts", "programs", "sockets",
    "subnets", "ports", "rings",
];

/// The parsed command line.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Args {
    /// Only check for large regressions.
    pub short: bool,
    /// Names of figures; empty for all.
    pub only: Vec<String>,
    /// The file for the numbers.
    pub json: Option<PathBuf>,
    /// The file for the tables.
    pub page: Option<PathBuf>,
    pub emulated: bool,
    pub update_docs: bool,
}

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
    };
    Command::new("cargo bench-tools")
        .about("Compare tcptools with the same tools of libbpf-tools, bpftrace and BCC, if they run here (as root)")
        .after_help("Builds tcptools first, unless $TCPTOOLS is its path.")
        .arg(
            flag("short", "Take about a minute, and fail if something has become much slower or larger")
                .conflicts_with_all(["only", "json", "page", "update-docs"]),
        )
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("FIGURE,...")
                .value_delimiter(',')
                .value_parser(FIGURES)
                .help("Measure only these (size alone needs no root)"),
        )
        .arg(file("json", "Also write all numbers to a file"))
        .arg(file("page", "Also write the tables to a file, as Markdown"))
        .arg(flag("emulated", "This machine is emulated: show ratios, because absolute figures mean little"))
        .arg(
            flag("update-docs", "Write tests/bench/results and the measured block of the README")
                .conflicts_with_all(["only", "emulated"]),
        )
}

impl Args {
    /// Parses the words after the program's name.
    ///
    /// # Errors
    ///
    /// clap's, which prints itself (or the help) and knows its exit status.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, clap::Error> {
        let matches = command().no_binary_name(true).try_get_matches_from(words)?;
        Ok(Self {
            short: matches.get_flag("short"),
            only: matches.get_many::<String>("only").into_iter().flatten().cloned().collect(),
            json: matches.get_one("json").cloned(),
            page: matches.get_one("page").cloned(),
            emulated: matches.get_flag("emulated"),
            update_docs: matches.get_flag("update-docs"),
        })
    }

    /// Whether a figure is to be measured.
    pub fn wants(&self, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args, clap::Error> {
        Args::parse(words.split_ascii_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_parsed_or_refused() {
        assert_eq!(parse("").unwrap(), Args::default());
        let args = parse("--only start,storm --json x").unwrap();
        assert!(args.wants("storm") && !args.wants("rings"));
        assert_eq!(args.json, Some("x".into()));
        let args = parse("--emulated --page x.md").unwrap();
        assert!(args.emulated && args.page == Some("x.md".into()));
        assert!(parse("--short --emulated").unwrap().short);
        for wrong in [
            "--only",
            "--only tea",
            "--fast",
            "x",
            "--short --update-docs",
            "--only start --update-docs",
            "--short --json x",
            "--short --page x",
            "--emulated --update-docs",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let help = parse("--help").unwrap_err();
        assert_eq!(help.exit_code(), 0);
        assert!(FIGURES.iter().all(|figure| help.to_string().contains(figure)), "{help}");
    }
}
