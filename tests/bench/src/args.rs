//! The command line.

use std::path::PathBuf;

use crate::fault::{Fault, Result};

/// What `--help` says.
pub const USAGE: &str = "\
Usage: cargo bench-tools [--short] [--only FIGURE,...] [--json FILE] [--page FILE] [--emulated] [--update-docs]
Measures tcptools beside the same tools of libbpf-tools, bpftrace and BCC, as far as they are installed and run here. As root.
  --short        a minute or so, and fails when something has become grossly worse
  --only LIST    only these: size start storm steady refused lossy stream parts programs sockets subnets ports rings
  --json FILE    writes all numbers there as well
  --page FILE    writes the tables there as well, as Markdown
  --emulated     says that this machine is emulated: only ratios count, and they come first
  --update-docs  writes tests/bench/results (tables, numbers, charts) and the block of the README
tcptools is built first, unless $TCPTOOLS says where it is.";

/// The measurements by name.
pub const FIGURES: [&str; 13] = [
    "size", "start", "storm", "steady", "refused", "lossy", "stream", "parts", "programs", "sockets",
    "subnets", "ports", "rings",
];

/// What is asked for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Args {
    /// Print the usage.
    pub help: bool,
    /// The verdict only.
    pub short: bool,
    /// These figures; all when empty.
    pub only: Vec<String>,
    /// Where the numbers go.
    pub json: Option<PathBuf>,
    /// Where the tables go, as Markdown.
    pub page: Option<PathBuf>,
    /// Whether this machine is emulated.
    pub emulated: bool,
    /// Whether the documents are written.
    pub update_docs: bool,
}

impl Args {
    /// Reads the words after the program's name.
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
                _ => return Err(Fault::new(format!("no such option: {word}"))),
            }
        }
        if let Some(unknown) = args.only.iter().find(|name| !FIGURES.contains(&name.as_str())) {
            return Err(Fault::new(format!("no figure {unknown}; there are {}", FIGURES.join(", "))));
        }
        if args.update_docs && (args.short || args.emulated || !args.only.is_empty()) {
            return Err(Fault::new("--update-docs is for a whole run on a real machine"));
        }
        if args.short && (!args.only.is_empty() || args.json.is_some() || args.page.is_some()) {
            return Err(Fault::new("--short takes no other option"));
        }
        Ok(args)
    }

    /// Whether this one is to be measured.
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
    fn words_are_read_or_refused() {
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
