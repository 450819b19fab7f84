//! Field paths: `sock.__sk_common.skc_dport`, `tcp_sock.rtt_min.s[0].v`.

use std::{fmt, str::FromStr};

/// The name of a type, then members and array elements. Anonymous structs and unions have no step
/// in a path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FieldPath {
    root: String,
    steps: Vec<Step>,
}

/// One step from a type towards the field.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// `.member`
    Member(String),
    /// `[element]`
    Element(u32),
}

/// Why a text is not a field path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathError {
    /// The whole text.
    pub text: String,
    /// The offset of the error in bytes.
    pub at: usize,
    /// The error at that offset.
    pub fault: PathFault,
}

/// The kinds of errors in field paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PathFault {
    /// A name is expected here: a letter or `_`, then letters, digits and `_`.
    NameExpected,
    /// Only `.` or `[` is allowed here.
    StepExpected,
    /// An element's index is expected here: decimal, below 2^32.
    NumberExpected,
    /// `]` is expected here.
    BracketExpected,
    /// The path has more than 64 steps.
    TooLong,
}

const MAX_STEPS: usize = 64;

impl FieldPath {
    /// Parses a path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let mut scan = Scan { text, at: 0 };
        let root = scan.name()?;
        let mut steps = Vec::new();
        while let Some(next) = scan.peek() {
            if steps.len() == MAX_STEPS {
                return Err(scan.fault(PathFault::TooLong));
            }
            match next {
                b'.' => {
                    scan.at += 1;
                    steps.push(Step::Member(scan.name()?));
                }
                b'[' => {
                    scan.at += 1;
                    steps.push(Step::Element(scan.number()?));
                    if scan.peek() != Some(b']') {
                        return Err(scan.fault(PathFault::BracketExpected));
                    }
                    scan.at += 1;
                }
                _ => return Err(scan.fault(PathFault::StepExpected)),
            }
        }
        Ok(Self { root, steps })
    }

    /// The name of the type that the path starts from, to be given to
    /// [`Wanted::strukt`](crate::Wanted::strukt).
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The steps from that type to the field.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The first `count` steps as text, for messages.
    pub(crate) fn prefix(&self, count: usize) -> String {
        let steps = self.steps.iter().take(count).cloned().collect();
        Self { root: self.root.clone(), steps }.to_string()
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)?;
        for step in &self.steps {
            match step {
                Step::Member(name) => write!(f, ".{name}")?,
                Step::Element(number) => write!(f, "[{number}]")?,
            }
        }
        Ok(())
    }
}

impl FromStr for FieldPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fault(&self, fault: PathFault) -> PathError {
        PathError { text: self.text.to_owned(), at: self.at, fault }
    }

    /// Takes the bytes that `accept` returns `true` for. These are ASCII, so they are valid text.
    fn run(&mut self, accept: impl Fn(&u8) -> bool) -> &'t str {
        let rest = self.text.get(self.at..).unwrap_or("");
        let len = rest.bytes().take_while(accept).count();
        self.at += len;
        rest.get(..len).unwrap_or("")
    }

    fn name(&mut self) -> Result<String, PathError> {
        match self.peek() {
            Some(b) if b.is_ascii_alphabetic() || b == b'_' => {
                Ok(self.run(|b| b.is_ascii_alphanumeric() || *b == b'_').to_owned())
            }
            _ => Err(self.fault(PathFault::NameExpected)),
        }
    }

    fn number(&mut self) -> Result<u32, PathError> {
        let start = self.at;
        let digits = self.run(u8::is_ascii_digit);
        digits.parse().map_err(|_| {
            self.at = start;
            self.fault(PathFault::NumberExpected)
        })
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = match self.fault {
            PathFault::NameExpected => "a name",
            PathFault::StepExpected => "`.` or `[`",
            PathFault::NumberExpected => "the number of an element",
            PathFault::BracketExpected => "`]`",
            PathFault::TooLong => "no more than 64 steps",
        };
        write!(f, "field path `{}`: expected {expected} at byte {}", self.text, self.at)
    }
}

impl std::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use super::{FieldPath, PathFault, Step};

    #[test]
    fn parses_and_prints() {
        for text in
            ["sock", "sock.__sk_common.skc_dport", "tcp_sock.rtt_min.s[0].v", "a[1][22].b", "a.b[4294967295]"]
        {
            assert_eq!(FieldPath::parse(text).expect(text).to_string(), text);
        }
        let path = FieldPath::parse("fdtable.fd[3]").expect("a path");
        assert_eq!(path.root(), "fdtable");
        assert_eq!(path.steps(), [Step::Member("fd".into()), Step::Element(3)]);
        assert_eq!(path.prefix(1), "fdtable.fd");
        let longest = format!("a{}", "[0]".repeat(64));
        assert_eq!(longest.parse::<FieldPath>().expect("64 steps").steps().len(), 64);
    }

    #[test]
    fn says_where_it_is_wrong() {
        use PathFault::{BracketExpected, NameExpected, NumberExpected, StepExpected, TooLong};
        let long = format!("a{}", "[0]".repeat(65));
        for (text, at, fault) in [
            ("", 0, NameExpected),
            (".a", 0, NameExpected),
            ("1a", 0, NameExpected),
            ("a.", 2, NameExpected),
            ("a..b", 2, NameExpected),
            ("a.[1]", 2, NameExpected),
            ("a b", 1, StepExpected),
            ("a->b", 1, StepExpected),
            ("a.b ", 3, StepExpected),
            ("ä", 0, NameExpected),
            ("aä", 1, StepExpected),
            ("a[", 2, NumberExpected),
            ("a[]", 2, NumberExpected),
            ("a[-1]", 2, NumberExpected),
            ("a[4294967296]", 2, NumberExpected),
            ("a[1", 3, BracketExpected),
            ("a[1x]", 3, BracketExpected),
            ("a[1]b", 4, StepExpected),
            (long.as_str(), 193, TooLong),
        ] {
            let error = FieldPath::parse(text).expect_err(text);
            assert_eq!((error.at, error.fault), (at, fault), "{text}");
        }
    }
}
