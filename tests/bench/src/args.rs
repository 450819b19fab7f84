//! The command line.

use std::path::PathBuf;

use crate::fault::{Fault, Result};

/// The text of `--help`.
pub const USAGE: &str = "\
Usage: cargo bench-tools [--short] [--only FIGURE,...] [--json FILE] [--page FILE] [--emulated] [--update-docs]
Run as root. Compares tcptools with the same tools of libbpf-tools, bpftrace and BCC, if they are installed and run here.
  --short        take about a minute, and fail if something has become much slower or larger
  --only LIST    measure only these: size start storm steady refused lossy stream parts programs sockets subnets ports rings
                 (size alone needs no root)
  --json FILE    also write all numbers to a file
  --page FILE    also write the tables to a file, as Markdown
  --emulated     this machine is emulated: show ratios, because absolute figures mean little
  --update-docs  write tests/bench/results (tables, numbers, charts) and the measured block of the README
Builds tcptools first, unless $TCPTOOLS is its path.";

/// The names that `--only` takes.
pub const FIGURES: [&str; 13] = [
    "size", "start", "storm", "steady", "refused", "lossy", "stream", "parts", "programs", "sockets",
    "subnets", "ports", "rings",
];

/// The parsed command line.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Args {
    pub help: bool,
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

impl Args {
    /// Parses the words after the program's name.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| Fault::new(format!("{word} needs a value")));
            match word.as_str() {
                "-h" | "--help" => args.help = true,
                "--short" => args.short = true,
                "--only" => args.only = value()?.split(',').map(str::to_owned).collect(),
                "--json" => args.json = Some(value()?.into()),
                "--page" => args.page = Some(value()?.into()),
                "--emulated" => args.emulated = true,
                "--update-docs" => args.update_docs = true,
                _ => return Err(Fault::new(format!("unknown option {word}"))),
            }
        }
        if let Some(unknown) = args.only.iter().find(|name| !FIGURES.contains(&name.as_str())) {
            return Err(Fault::new(format!("unknown figure {unknown}; known are {}", FIGURES.join(", "))));
        }
        if args.update_docs && (args.short || args.emulated || !args.only.is_empty()) {
            return Err(Fault::new("--update-docs needs a complete run on a real machine"));
        }
        if args.short && (!args.only.is_empty() || args.json.is_some() || args.page.is_some()) {
            return Err(Fault::new("--short cannot be combined with --only, --json or --page"));
        }
        Ok(args)
    }

    /// Whether a figure is to be measured.
    pub fn wants(&self, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args> {
        Args::parse(words.split_ascii_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_parsed_or_refused() {
        assert_eq!(parse(""), Ok(Args::default()));
        let args = parse("--only start,storm --json x").unwrap();
        assert!(args.wants("storm") && !args.wants("rings"));
        assert_eq!(args.json, Some("x".into()));
        let args = parse("--emulated --page x.md").unwrap();
        assert!(args.emulated && args.page == Some("x.md".into()));
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
    }
}
