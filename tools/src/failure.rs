//! How a run fails: a message on stderr, and an exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;

use loader::LoadError;

use crate::messages;

/// Why a run failed.
#[derive(Debug)]
pub enum Failure {
    /// The command line was wrong: status 2.
    Usage(String),
    /// The tool could not do what was asked: status 1.
    Failed(String),
    /// The kernel refused the tool's programs or maps: status 1.
    Refused(Box<LoadError>),
    /// The reader of the rows has closed the pipe: no message, status 0.
    ClosedPipe,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(why) | Self::Failed(why) => f.write_str(why),
            Self::Refused(error) => error.fmt(f),
            Self::ClosedPipe => f.write_str("the reader has closed the pipe"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl Failure {
    /// The tool could not do what was asked, because of this.
    pub fn failed(why: impl fmt::Display) -> Self {
        Self::Failed(why.to_string())
    }

    /// Writing to standard output failed.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(format!("standard output: {error}")),
        }
    }

    /// Prints why, and returns the exit status.
    pub fn report(&self, name: &str) -> ExitCode {
        match self {
            Self::Usage(why) => {
                // Always one line, even if the text that was typed has several.
                messages::print(name, &why.replace('\n', r"\x0a"));
                ExitCode::from(2)
            }
            Self::Failed(_) | Self::Refused(_) => {
                messages::print(name, &self.to_string());
                ExitCode::from(1)
            }
            Self::ClosedPipe => ExitCode::SUCCESS,
        }
    }
}
