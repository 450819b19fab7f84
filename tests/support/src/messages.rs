//! The catalogue of messages, `tools/ERRORS.md`: read, and held against the messages that tests provoke.
//!
//! A section of it belongs to one crate, whose test calls [`check`] with all that it can make that crate say. Then an entry that
//! nothing provokes is a failure, and so is a message without an entry.

use std::collections::BTreeSet;
use std::fs;

use crate::{names, project};

/// Words that stand for what varies.
const PLACEHOLDERS: [&str; 9] = ["PATH", "NAME", "NAMES", "N", "ERROR", "TEXT", "OPTION", "WHY", "PLACE"];

/// A message and what is said of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The heading it stands under.
    pub section: String,
    /// The message, without the program's name in front, with placeholders.
    pub message: String,
    /// What the run ends with: `2`, `1`, or `goes on`.
    pub ends: String,
}

/// All of them.
///
/// # Panics
/// When a row has not four cells with something in them, or a message stands there twice.
#[must_use]
pub fn entries() -> Vec<Entry> {
    let text = fs::read_to_string(project("tools/ERRORS.md")).expect("tools/ERRORS.md");
    let (mut section, mut entries) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").map(str::trim).collect();
        let [messages, when, cure, ends] = cells[..] else { panic!("four cells: {line}") };
        assert!(!when.is_empty() && !cure.is_empty(), "{line}");
        assert!(["2", "1", "goes on"].contains(&ends), "{line}");
        for message in format!("`{messages}").split("<br>").map(code) {
            entries.push(Entry { section: section.clone(), message, ends: ends.to_owned() });
        }
    }
    let distinct: BTreeSet<_> = entries.iter().map(|entry| &entry.message).collect();
    assert_eq!(distinct.len(), entries.len(), "a message stands there twice");
    entries
}

/// What stands between backticks, one or several.
fn code(span: &str) -> String {
    let span = span.trim();
    let fence = &span[..span.len() - span.trim_start_matches('`').len()];
    let inner = span.strip_prefix(fence).and_then(|span| span.strip_suffix(fence));
    inner.filter(|_| !fence.is_empty()).unwrap_or_else(|| panic!("no message: {span}")).trim().to_owned()
}

/// Whether it is such a message.
fn matches(pattern: &str, message: &str) -> bool {
    let pieces = pieces(pattern);
    let [first, between @ .., last] = &pieces[..] else { return pattern == message };
    let Some(mut rest) = message.strip_prefix(&**first) else { return false };
    for piece in between {
        let Some((_, after)) = rest.split_once(&**piece) else { return false };
        rest = after;
    }
    rest.ends_with(&**last)
}

/// What stands before, between and behind the placeholders; one piece where there are none.
fn pieces(pattern: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let is_word = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-');
    for part in pattern.split_inclusive(|char| !is_word(char)) {
        let word = part.trim_end_matches(|char| !is_word(char));
        if PLACEHOLDERS.contains(&word) {
            pieces.push(part[word.len()..].to_owned());
        } else {
            pieces.last_mut().expect("one at least").push_str(part);
        }
    }
    pieces
}

/// The entry that a message is, of several that it could be the one that says most.
fn find<'e>(entries: &'e [Entry], message: &str) -> Option<&'e Entry> {
    let line = message.lines().next().unwrap_or_default();
    let fits = entries.iter().filter(|entry| matches(&entry.message, line));
    fits.max_by_key(|entry| pieces(&entry.message).iter().map(String::len).sum::<usize>())
}

/// Holds these sections against what was provoked, each with what the run ends with; and against kernel tests that provoke what
/// only a kernel does, by the message's entry and the test's name.
///
/// # Panics
/// When a message has no entry, an entry no provocation, or a test does not exist.
pub fn check(sections: &[&str], provoked: &[(String, &str)], elsewhere: &[(&str, &str)]) {
    let entries: Vec<Entry> =
        entries().into_iter().filter(|entry| sections.contains(&&*entry.section)).collect();
    let mut seen = BTreeSet::new();
    for (message, ends) in provoked {
        let entry = find(&entries, message);
        let entry = entry.unwrap_or_else(|| panic!("tools/ERRORS.md has no entry for: {message}"));
        assert_eq!(entry.ends, *ends, "{message}");
        seen.insert(entry);
    }
    let tests = names::all();
    for (message, test) in elsewhere {
        let entry = entries.iter().find(|entry| entry.message == *message);
        seen.insert(entry.unwrap_or_else(|| panic!("tools/ERRORS.md has no entry `{message}`")));
        assert!(tests.contains(*test), "there is no test {test}, which is to provoke: {message}");
    }
    let left: Vec<_> =
        entries.iter().filter(|entry| !seen.contains(entry)).map(|entry| &entry.message).collect();
    assert!(left.is_empty(), "nothing provokes: {left:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_anything() {
        assert!(matches("create map `NAME`: ERROR", "create map `conns`: no (os error 1)"));
        assert!(!matches("create map `NAME`: ERROR", "make map `conns`: no"));
        assert_eq!(code("``` a `b` ```"), "a `b`");
        assert!(matches("no tool", "no tool") && !matches("no tool", "no tools"));
        assert!(matches("N lost, --strict", "7 lost, --strict") && !matches("N lost", "7 lost, x"));
        assert_eq!(pieces("NO_SOCKET and NAME"), ["NO_SOCKET and ", ""], "a part of a word is none");
    }
}
