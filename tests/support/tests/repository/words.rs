//! Words and phrases that make the project's English hard to read: each may occur only a few times.
//!
//! The limits are a tenth of what there was before the texts were rewritten. A phrase is also found
//! where a line of a comment or of a paragraph ends in the middle of it.

use crate::files::{TextFile, with_extensions};

/// A phrase, how often it may occur, and what to write in its place.
struct Phrase {
    name: &'static str,
    limit: usize,
    better: &'static str,
    is_at: fn(&[Word<'_>]) -> bool,
}

const PHRASES: [Phrase; 7] = [
    Phrase {
        name: "is no X",
        limit: 17,
        better: "`is not a X`",
        is_at: |words| {
            let [is, no, noun, ..] = words else { return false };
            let comparisons = ["longer", "more", "less", "fewer", "better", "worse"];
            is.is("is")
                && no.follows(is, "no")
                && noun.follows_directly(no)
                && !comparisons.iter().any(|comparison| noun.is(comparison))
        },
    },
    Phrase {
        name: "so many, so long",
        limit: 8,
        better: "`this many`, or the number",
        is_at: |words| {
            let [so, much, ..] = words else { return false };
            so.is("so") && (much.follows(so, "many") || much.follows(so, "long"))
        },
    },
    Phrase {
        name: "nobody",
        limit: 26,
        better: "`unknown`, `no process`, `no test`",
        is_at: |words| words[0].is("nobody"),
    },
    Phrase {
        name: "stead",
        limit: 12,
        better: "`fallback for`",
        is_at: |words| words[0].lower().ends_with("stead") && !words[0].is("instead"),
    },
    Phrase { name: "whoever", limit: 4, better: "`the process that`", is_at: |words| words[0].is("whoever") },
    Phrase {
        name: "What is not (as a subject)",
        limit: 2,
        better: "a noun: `Connects excluded by a filter`",
        is_at: |words| {
            let [what, is, not, ..] = words else { return false };
            what.text == "What" && is.follows(what, "is") && not.follows(is, "not")
        },
    },
    Phrase {
        name: "rung",
        limit: 0,
        better: "`attach option`",
        is_at: |words| words[0].is("rung") || words[0].is("rungs"),
    },
];

/// A run of letters, with what stands between it and the word before.
struct Word<'a> {
    text: &'a str,
    gap: &'a str,
    line: usize,
}

impl Word<'_> {
    fn lower(&self) -> String {
        self.text.to_ascii_lowercase()
    }

    fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is the next word of the same sentence: only blanks and comment marks stand
    /// between.
    fn follows_directly(&self, before: &Word<'_>) -> bool {
        self.line - before.line <= 1 && self.gap.chars().all(|c| c.is_whitespace() || "/!\\".contains(c))
    }

    fn follows(&self, before: &Word<'_>, word: &str) -> bool {
        self.is(word) && self.follows_directly(before)
    }
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let (mut line, mut end) = (1, 0);
    while let Some(begin) = text[end..].find(|c: char| c.is_alphabetic()).map(|at| end + at) {
        let gap = &text[end..begin];
        line += gap.matches('\n').count();
        end = text[begin..].find(|c: char| !c.is_alphabetic()).map_or(text.len(), |at| begin + at);
        words.push(Word { text: &text[begin..end], gap, line });
    }
    words
}

/// The words of each file, by its path.
fn words_of(files: &[TextFile]) -> Vec<(&str, Vec<Word<'_>>)> {
    files.iter().map(|file| (file.path.as_str(), words(&file.text))).collect()
}

/// Where a phrase occurs: `path:line`.
fn places(phrase: &Phrase, files: &[(&str, Vec<Word<'_>>)]) -> Vec<String> {
    let mut places = Vec::new();
    for (path, words) in files {
        let hits = (0..words.len()).filter(|&at| (phrase.is_at)(&words[at..]));
        places.extend(hits.map(|at| format!("{path}:{}", words[at].line)));
    }
    places
}

#[test]
fn hard_words_are_rare() {
    let mut files = with_extensions(&["rs", "md"]);
    // This file has to name them.
    files.retain(|file| file.path != "tests/support/tests/repository/words.rs");
    let files = words_of(&files);
    let mut complaints = Vec::new();
    for phrase in &PHRASES {
        let places = places(phrase, &files);
        if places.len() > phrase.limit {
            complaints.push(format!(
                "\"{}\" occurs {} times, at most {} are allowed; write {}:\n  {}",
                phrase.name,
                places.len(),
                phrase.limit,
                phrase.better,
                places.join("\n  ")
            ));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn phrases_are_found_across_lines_and_not_across_sentences() {
    let count = |name: &str, text: &str| {
        let phrase = PHRASES.iter().find(|phrase| phrase.name == name).expect("a phrase");
        let file = TextFile { path: "x.rs".to_owned(), text: text.to_owned() };
        places(phrase, &words_of(&[file])).len()
    };
    assert_eq!(
        count("is no X", "/// It is no\n/// tool. That is no longer so. Is it? No tool. An isno x."),
        1
    );
    assert_eq!(count("so many, so long", "so many or so\n//! long; so, many"), 2);
    assert_eq!(count("nobody", "Nobody as_nobody"), 2);
    assert_eq!(count("stead", "instead, Instead, in its stead, steady"), 1);
    assert_eq!(count("What is not (as a subject)", "What is not said. It tells what is not said."), 1);
    assert_eq!(count("rung", "a rung wrung rungs"), 2);
    let phrase = &PHRASES[2];
    let file = TextFile { path: "x.rs".to_owned(), text: "a\nb nobody".to_owned() };
    assert_eq!(places(phrase, &words_of(&[file])), ["x.rs:2"]);
}
