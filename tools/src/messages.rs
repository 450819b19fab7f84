//! Standard error: whole lines, in which nothing that others chose can be taken for something else.
//! A failed write to standard error is ignored: the run goes on without its messages.

use std::fmt;
use std::io::{self, Write as _};

use rows::escape::Message;

/// Prints a message in the name of a tool, or of `tcptools` itself.
pub fn print(name: &str, text: &str) {
    print_line(format_args!("{name}: {}", Message(text)));
}

/// Prints a message of several lines, such as the verifier's log. Lines after the first are
/// indented.
pub fn print_all(name: &str, text: &str) {
    let mut lines = text.lines();
    let mut all = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        all += "\n  ";
        all += line.strip_prefix("  ").unwrap_or(line);
    }
    print(name, &all);
}

/// Prints a line that has no text that others chose.
pub fn print_line(text: fmt::Arguments<'_>) {
    // In one write, so that lines of several processes do not mix.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// The messages of a run.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    /// The tool's name.
    pub name: &'static str,
    /// `-v`.
    pub verbose: bool,
}

impl Messages {
    /// Prints a message.
    pub fn always(&self, line: &str) {
        print_all(&format!("tcptools: {}", self.name), line);
    }

    /// Prints a message if `-v` is given.
    pub fn verbose(&self, line: &str) {
        if self.verbose {
            self.always(line);
        }
    }
}
