//! Errors that prevent a machine from being built or run. Failed tests are not errors, see
//! [`crate::outcome`].

use std::fmt;
use std::io;
use std::process::{Command, ExitStatus};

/// Each is one line, except for a failed program's output.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file or a process could not be used.
    Io {
        /// The action, such as `read /path`.
        doing: String,
        /// The reason.
        source: io::Error,
    },
    /// A program failed.
    Program {
        command: String,
        status: ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// `kernels.toml` has an error.
    Matrix(String),
    /// A line of `programs.txt` cannot be read.
    CostLine(String),
    /// No machine matches this word.
    NoSuchRun(String),
    /// A package that is neither in the index nor at its pinned path.
    NoPackage { package: String, suite: String },
    /// A package does not have a file that it should have.
    NotInPackage { file: String, package: String },
    /// This host's apt has no Debian archive configured.
    NoMirror,
    /// The benchmark succeeded but did not write this file.
    NotWritten(&'static str),
    /// Cargo succeeded but did not build this program.
    NotBuilt(&'static str),
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Program { command, status, stderr } => {
                write!(f, "{command}: {status}\n{}", stderr.trim_end())
            }
            Self::Matrix(fault) => write!(f, "kernels.toml: {fault}"),
            Self::CostLine(line) => write!(f, "programs.txt: cannot read `{line}`"),
            Self::NoSuchRun(word) => {
                write!(f, "no machine, architecture or variant matches `{word}` (--list shows the machines)")
            }
            Self::NoPackage { package, suite } => {
                write!(f, "{package} is no longer available from {suite}")
            }
            Self::NotInPackage { file, package } => write!(f, "{package} does not contain {file}"),
            Self::NoMirror => f.write_str("apt on this host has no Debian archive configured"),
            Self::NotWritten(name) => write!(f, "the benchmark did not write {name}"),
            Self::NotBuilt(name) => write!(f, "cargo did not build {name}"),
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

/// Adds the action to an error.
pub trait Doing<T> {
    /// `doing` is a verb and its object, such as `read /path`.
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
/// If it does not start or its exit status is not 0.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let shown = format!("{} {}", command.get_program().display(), words(command));
    let output = command.output().doing(format_args!("start {shown}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Program { command: shown, status: output.status, stderr })
}

fn words(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
