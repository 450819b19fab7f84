//! What can keep a machine from being made or run. How its tests end is no error, see [`crate::outcome`].

use std::fmt;
use std::io;
use std::process::{Command, ExitStatus};

/// One line each, a program's last words excepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file or a process could not be used.
    Io {
        /// What was tried, `read /path`.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program ended badly.
    Program {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on standard error.
        said: String,
    },
    /// `kernels.toml` is not what it has to be.
    Matrix(String),
    /// A line of `programs.txt` is not what it has to be.
    CostLine(String),
    /// No machine is called so.
    NoSuchRun(String),
    /// A package that neither the index nor a pin leads to.
    NoPackage {
        /// The name or pattern.
        package: String,
        /// The Debian suite it was looked for in.
        suite: String,
    },
    /// A package lacks a file it should have.
    NotInPackage {
        /// What was looked for.
        file: String,
        /// Where.
        package: String,
    },
    /// The machine's apt has no Debian archive configured.
    NoMirror,
    /// The benchmark ended well and did not write this file.
    NotWritten(&'static str),
    /// cargo built something else than was asked for.
    NotBuilt(&'static str),
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Program { command, status, said } => write!(f, "{command}: {status}\n{}", said.trim_end()),
            Self::Matrix(fault) => write!(f, "kernels.toml: {fault}"),
            Self::CostLine(line) => write!(f, "programs.txt: cannot read `{line}`"),
            Self::NoSuchRun(word) => {
                write!(f, "no machine, kernel or variant is called `{word}` (--list shows them)")
            }
            Self::NoPackage { package, suite } => {
                write!(f, "{package} can no longer be had from {suite}")
            }
            Self::NotInPackage { file, package } => write!(f, "no {file} in {package}"),
            Self::NoMirror => f.write_str("apt of this machine has no Debian archive configured"),
            Self::NotWritten(name) => write!(f, "the benchmark wrote no {name}"),
            Self::NotBuilt(name) => write!(f, "cargo built no {name}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Says what was tried when it fails.
pub trait Doing<T> {
    /// `doing` is a verb and its object, `read /path`.
    fn doing(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|source| Error::Io { doing: doing.to_string(), source })
    }
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
///
/// When it does not start or does not end with 0.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let shown = format!("{} {}", command.get_program().display(), words(command));
    let output = command.output().doing(format_args!("start {shown}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Program { command: shown, status: output.status, said })
}

fn words(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
