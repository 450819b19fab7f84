//! What rows have to say, and where they do not.
//!
//! Rows are compared as they are written, value by value: a parser for them would be a hundred times as large as what finds a
//! value in one.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// What has to stand in a row.
#[derive(Clone, Debug, Default)]
pub struct Row(Vec<(&'static str, Want)>);

#[derive(Clone, Debug)]
enum Want {
    /// This, as JSON.
    Is(String),
    /// That, or not known.
    Maybe(String),
    /// A number, the ends included.
    Between(u64, u64),
}

impl Row {
    /// Exactly this.
    #[must_use]
    pub fn is(self, key: &'static str, value: impl Into<Value>) -> Self {
        self.with(key, Want::Is(value.into().to_string()))
    }

    /// This where it can be known.
    #[must_use]
    pub fn maybe(self, key: &'static str, value: impl Into<Value>) -> Self {
        self.with(key, Want::Maybe(value.into().to_string()))
    }

    /// Not known.
    #[must_use]
    pub fn unknown(self, key: &'static str) -> Self {
        self.is(key, Value::Null)
    }

    /// All of it where it can be known.
    #[must_use]
    pub fn all_maybe(self) -> Self {
        let wants = self.0.into_iter().map(|(key, want)| match want {
            Want::Is(value) => (key, Want::Maybe(value)),
            other => (key, other),
        });
        Self(wants.collect())
    }

    /// A number from `low` to `high`.
    #[must_use]
    pub fn between(self, key: &'static str, low: u64, high: u64) -> Self {
        self.with(key, Want::Between(low, high))
    }

    /// Nanoseconds from `least` to `most`.
    #[must_use]
    pub fn lasts(self, key: &'static str, least: Duration, most: Duration) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.between(key, ns(least), ns(most))
    }

    /// Some time, at most this.
    #[must_use]
    pub fn takes(self, key: &'static str, most: Duration) -> Self {
        self.lasts(key, Duration::from_nanos(1), most)
    }

    /// A later want for a key replaces the earlier one.
    fn with(mut self, key: &'static str, want: Want) -> Self {
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, want));
        self
    }

    /// What differs in a row.
    fn differences<'a>(&'a self, row: &'a str) -> impl Iterator<Item = (&'static str, &'a Want, &'a str)> {
        self.0.iter().filter_map(|(key, want)| {
            let seen = value(row, key).unwrap_or("nothing");
            (!want.holds(seen)).then_some((*key, want, seen))
        })
    }

    /// The first of that.
    fn compare(&self, row: &str) -> Result<(), String> {
        match self.differences(row).next() {
            None => Ok(()),
            Some((key, want, seen)) => Err(format!("{key}: expected {want}, seen {seen}")),
        }
    }
}

impl Want {
    fn holds(&self, seen: &str) -> bool {
        match self {
            Self::Is(value) => seen == value,
            Self::Maybe(value) => seen == value || seen == "null",
            Self::Between(low, high) => seen.parse().is_ok_and(|seen| (*low..=*high).contains(&seen)),
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) | Self::Maybe(value) => f.write_str(value),
            Self::Between(low, high) => write!(f, "{low} to {high}"),
        }
    }
}

/// `pid 17, comm "curl"`
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, want)) in self.0.iter().enumerate() {
            write!(f, "{}{key} {want}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The value of a key in a row, which is a JSON object on one line.
fn value<'a>(row: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = row.strip_prefix('{')?;
    loop {
        let (name, behind) = rest.split_at_checked(end(rest, ':')?)?;
        let behind = behind.strip_prefix(':')?;
        let (value, behind) = behind.split_at_checked(end(behind, ',').or_else(|| end(behind, '}'))?)?;
        if name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) == Some(key) {
            return Some(value);
        }
        rest = behind.strip_prefix(',')?;
    }
}

/// Where this sign stands first, outside of strings and of what is in brackets.
fn end(text: &str, sign: char) -> Option<usize> {
    let (mut depth, mut string, mut escaped) = (0_u32, false, false);
    for (at, byte) in text.char_indices() {
        if string {
            (string, escaped) = (escaped || byte != '"', !escaped && byte == '\\');
        } else if depth == 0 && byte == sign {
            return Some(at);
        } else {
            match byte {
                '"' => string = true,
                '{' | '[' => depth += 1,
                '}' | ']' => depth = depth.checked_sub(1)?,
                _ => {}
            }
        }
    }
    None
}

/// Whether the rows are those that are wanted, in any order, and no others; else the first difference. `common` holds for each
/// row under the keys that it has.
pub(super) fn compare(wanted: &[Row], common: &Row, seen: &str) -> Result<(), String> {
    let mut rest: Vec<&str> = seen.lines().collect();
    for want in wanted {
        // Where none is right, the one that comes nearest is meant.
        let nearest = rest.iter().enumerate().min_by_key(|(_, row)| want.differences(row).count());
        let Some((at, _)) = nearest else { return Err(format!("no row with {want}")) };
        want.compare(rest.swap_remove(at))?;
    }
    if let Some(row) = rest.first() {
        return Err(format!("a row too many: {row}"));
    }
    for row in seen.lines() {
        let known = common.0.iter().filter(|(key, _)| value(row, key).is_some()).cloned().collect();
        Row(known).compare(row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> [Row; 2] {
        [
            Row::default().is("pid", 1).is("kind", "C").between("ns", 10, 20),
            Row::default().maybe("pid", 2).is("kind", "A").between("ns", 10, 20),
        ]
    }

    #[test]
    fn the_right_rows_in_any_order() {
        let common = Row::default().is("netns", 7).is("not there", 1);
        for pid in ["2", "null"] {
            let accepted = format!(r#"{{"pid":{pid},"kind":"A","ns":20,"netns":7,"more":1}}"#);
            let rows = format!("{accepted}\n{}\n", r#"{"pid":1,"kind":"C","ns":10,"netns":7}"#);
            assert_eq!(compare(&wanted(), &common, &rows), Ok(()));
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let right = "{\"pid\":1,\"kind\":\"C\",\"ns\":10}\n{\"pid\":2,\"kind\":\"A\",\"ns\":15}\n";
        let said = |rows: &str, common: Row| compare(&wanted(), &common, rows).expect_err("they differ");
        let with = |old: &str, new: &str| said(&right.replace(old, new), Row::default());
        assert_eq!(with("\"pid\":1", "\"pid\":3"), "pid: expected 1, seen 3");
        assert_eq!(with("\"pid\":1", "\"pid\":null"), "pid: expected 1, seen null");
        assert_eq!(with("\"pid\":2", "\"pid\":3"), "pid: expected 2, seen 3");
        assert_eq!(with("\"ns\":15", "\"ns\":21"), "ns: expected 10 to 20, seen 21");
        assert_eq!(with("\"ns\":15", "\"ns\":\"x\""), "ns: expected 10 to 20, seen \"x\"");
        assert_eq!(with("\"ns\":15", "\"time\":15"), "ns: expected 10 to 20, seen nothing");
        let first = right.split_inclusive('\n').next().expect("a line");
        assert_eq!(said(first, Row::default()), "no row with pid 2, kind \"A\", ns 10 to 20");
        assert_eq!(said(&format!("{right}{{\"pid\":9}}\n"), Row::default()), "a row too many: {\"pid\":9}");
        let common = Row::default().is("ns", 10);
        assert_eq!(said(right, common), "ns: expected 10, seen 15");
        assert!(said("no row\n", Row::default()).ends_with("seen nothing"));
    }

    #[test]
    fn a_later_want_replaces_an_earlier_one() {
        assert_eq!(Row::default().is("pid", 1).unknown("pid").to_string(), "pid null");
    }

    #[test]
    fn values_of_all_kinds() {
        let row = r#"{"a":1,"b":"x,\"}:\\","c":{"a":2,"d":[3,4]},"e":["f","}"],"g":null}"#;
        for (key, wanted) in [
            ("a", Some("1")),
            ("b", Some(r#""x,\"}:\\""#)),
            ("c", Some(r#"{"a":2,"d":[3,4]}"#)),
            ("d", None),
            ("e", Some(r#"["f","}"]"#)),
            ("f", None),
            ("g", Some("null")),
        ] {
            assert_eq!(value(row, key), wanted, "{key}");
        }
        for wrong in ["", "{", "{}", "[1]", "{\"a\":", "{\"a\":1", "{\"a\"", "}", "{\"a\":\"1}"] {
            assert_eq!(value(wrong, "a"), None, "{wrong}");
        }
    }
}
