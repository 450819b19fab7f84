//! How a run ends when it does not end well: one line on stderr and an exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;

use loader::LoadError;

use crate::advice::Advised;
use crate::stderr;

/// Why it ended.
#[derive(Debug)]
pub enum Failure {
    /// The command line was wrong: status 2.
    Usage(String),
    /// The tool could not do what was asked: status 1.
    Failed(String),
    /// The kernel did not take what the tool brings: status 1.
    Refused(Box<LoadError>),
    /// Whoever read the rows has gone: nothing to say, status 0.
    ClosedPipe,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(why) | Self::Failed(why) => f.write_str(why),
            Self::Refused(error) => Advised(error).fmt(f),
            Self::ClosedPipe => f.write_str("the reader has gone"),
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

    /// Standard output took no more.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(format!("standard output: {error}")),
        }
    }

    /// Says why, and gives the exit status.
    pub fn report(&self, name: &str) -> ExitCode {
        match self {
            Self::Usage(why) => {
                // Always one line: what is in it may have been typed.
                stderr::say(name, &why.replace('\n', r"\x0a"));
                ExitCode::from(2)
            }
            Self::Failed(_) | Self::Refused(_) => {
                stderr::say(name, &self.to_string());
                ExitCode::from(1)
            }
            Self::ClosedPipe => ExitCode::SUCCESS,
        }
    }
}
