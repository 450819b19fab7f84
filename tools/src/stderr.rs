//! Standard error: whole lines, harmless whatever is named in them. That nobody takes them is no reason to stop.

use std::fmt;
use std::io::{self, Write as _};

use rows::escape::Message;

/// Says something in the name of a tool, or of `tcptools` itself.
pub fn say(name: &str, text: &str) {
    line(format_args!("{name}: {}", Message(text)));
}

/// Says something that has more lines than one, such as the verifier's log.
pub fn say_all(name: &str, text: &str) {
    let mut lines = text.lines();
    let mut all = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        all += "\n  ";
        all += line.strip_prefix("  ").unwrap_or(line);
    }
    say(name, &all);
}

/// Writes a line that holds nothing of others.
pub fn line(text: fmt::Arguments<'_>) {
    // At once, so that lines of several processes do not mix.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
