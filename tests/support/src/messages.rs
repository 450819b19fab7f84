//! Compares the messages that tests provoke with their documentation in `tools/ERRORS.md`.
//!
//! Each section of that file belongs to one crate. A test in that crate provokes all messages it
//! can and calls [`check`]. The test fails if a message has no entry, and if an entry matches no
//! message.

use std::collections::BTreeSet;
use std::fs;

use crate::{names, project};

/// Words in an entry that stand for a varying part of the message.
const PLACEHOLDERS: [&str; 9] = ["PATH", "NAME", "NAMES", "N", "ERROR", "TEXT", "OPTION", "WHY", "PLACE"];

/// A documented message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The heading above it.
    pub section: String,
    /// The message with placeholders, without the name of the program in front.
    pub message: String,
    /// How the run continues: exit status `2` or `1`, or `goes on`.
    pub outcome: String,
}

/// Reads all entries.
///
/// # Panics
/// If a row does not have four cells with text, or a message has two entries.
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
        let [messages, when, cure, outcome] = cells[..] else { panic!("expected four cells: {line}") };
        assert!(!when.is_empty() && !cure.is_empty(), "{line}");
        assert!(["2", "1", "goes on"].contains(&outcome), "{line}");
        for message in format!("`{messages}").split("<br>").map(code) {
            entries.push(Entry { section: section.clone(), message, outcome: outcome.to_owned() });
        }
    }
    let distinct: BTreeSet<_> = entries.iter().map(|entry| &entry.message).collect();
    assert_eq!(distinct.len(), entries.len(), "a message has two entries");
    entries
}

/// The text of a Markdown code span, which one or several backticks enclose.
fn code(span: &str) -> String {
    let span = span.trim();
    let fence = &span[..span.len() - span.trim_start_matches('`').len()];
    let inner = span.strip_prefix(fence).and_then(|span| span.strip_suffix(fence));
    inner.filter(|_| !fence.is_empty()).unwrap_or_else(|| panic!("not a code span: {span}")).trim().to_owned()
}

/// Whether a message fits a pattern with placeholders.
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

/// The fixed parts of a pattern: before, between and behind its placeholders. A pattern without
/// placeholders is one piece.
fn pieces(pattern: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let is_word = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-');
    for part in pattern.split_inclusive(|char| !is_word(char)) {
        let word = part.trim_end_matches(|char| !is_word(char));
        if PLACEHOLDERS.contains(&word) {
            pieces.push(part[word.len()..].to_owned());
        } else {
            pieces.last_mut().expect("there is at least one piece").push_str(part);
        }
    }
    pieces
}

/// The entry that fits a message. If several fit, the one with the longest fixed parts.
fn find<'e>(entries: &'e [Entry], message: &str) -> Option<&'e Entry> {
    let line = message.lines().next().unwrap_or_default();
    let fits = entries.iter().filter(|entry| matches(&entry.message, line));
    fits.max_by_key(|entry| pieces(&entry.message).iter().map(String::len).sum::<usize>())
}

/// Compares these sections with the messages that were provoked, each with its outcome. `elsewhere`
/// names entries that only a running kernel can provoke, each with the kernel test that does so.
///
/// # Panics
/// If a message has no entry, an entry matches no message, or a kernel test does not exist.
pub fn check(sections: &[&str], provoked: &[(String, &str)], elsewhere: &[(&str, &str)]) {
    let entries: Vec<Entry> =
        entries().into_iter().filter(|entry| sections.contains(&&*entry.section)).collect();
    let mut seen = BTreeSet::new();
    for (message, outcome) in provoked {
        let entry = find(&entries, message);
        let entry = entry.unwrap_or_else(|| panic!("tools/ERRORS.md has no entry for: {message}"));
        assert_eq!(entry.outcome, *outcome, "{message}");
        seen.insert(entry);
    }
    let tests = names::all();
    for (message, test) in elsewhere {
        let entry = entries.iter().find(|entry| entry.message == *message);
        seen.insert(entry.unwrap_or_else(|| panic!("tools/ERRORS.md has no entry `{message}`")));
        assert!(tests.contains(*test), "the test {test} does not exist; it should provoke: {message}");
    }
    let unprovoked: Vec<_> =
        entries.iter().filter(|entry| !seen.contains(entry)).map(|entry| &entry.message).collect();
    assert!(unprovoked.is_empty(), "no test provokes these messages: {unprovoked:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_matches_any_text() {
        assert!(matches("create map `NAME`: ERROR", "create map `conns`: no (os error 1)"));
        assert!(!matches("create map `NAME`: ERROR", "make map `conns`: no"));
        assert_eq!(code("``` a `b` ```"), "a `b`");
        assert!(matches("no tool", "no tool") && !matches("no tool", "no tools"));
        assert!(matches("N lost, --strict", "7 lost, --strict") && !matches("N lost", "7 lost, x"));
        assert_eq!(
            pieces("NO_SOCKET and NAME"),
            ["NO_SOCKET and ", ""],
            "part of a word is not a placeholder"
        );
    }
}
