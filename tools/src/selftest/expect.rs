//! What rows have to say, and where they differ.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

/// What a row has to say.
#[derive(Clone, Debug, Default)]
pub struct Row(Vec<(&'static str, Expected)>);

/// What a key has to have.
#[derive(Clone, Debug)]
enum Expected {
    /// This value.
    Is(Value),
    /// This value, or null.
    Maybe(Value),
    /// A number in this range, both ends included.
    Between(u64, u64),
}

impl Row {
    /// This value.
    #[must_use]
    pub fn is(self, key: &'static str, value: impl Into<Value>) -> Self {
        self.with(key, Expected::Is(value.into()))
    }

    /// This value, or null where it cannot be known.
    #[must_use]
    pub fn maybe(self, key: &'static str, value: impl Into<Value>) -> Self {
        self.with(key, Expected::Maybe(value.into()))
    }

    /// Null.
    #[must_use]
    pub fn unknown(self, key: &'static str) -> Self {
        self.is(key, Value::Null)
    }

    /// The same, but every single value may be null.
    #[must_use]
    pub fn all_maybe(self) -> Self {
        let row = self.0.into_iter().map(|(key, expected)| match expected {
            Expected::Is(value) => (key, Expected::Maybe(value)),
            other => (key, other),
        });
        Self(row.collect())
    }

    /// A number from `low` to `high`.
    #[must_use]
    pub fn between(self, key: &'static str, low: u64, high: u64) -> Self {
        self.with(key, Expected::Between(low, high))
    }

    /// A number of nanoseconds from `least` to `most`.
    #[must_use]
    pub fn lasts(self, key: &'static str, least: Duration, most: Duration) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.between(key, ns(least), ns(most))
    }

    /// A number of nanoseconds above 0 and at most `most`.
    #[must_use]
    pub fn takes(self, key: &'static str, most: Duration) -> Self {
        self.lasts(key, Duration::from_nanos(1), most)
    }

    /// A later expectation for a key replaces the earlier one.
    fn with(mut self, key: &'static str, expected: Expected) -> Self {
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, expected));
        self
    }

    /// Where a row differs: the key, what is expected, and what the row has.
    fn differences<'a>(
        &'a self,
        row: &'a Map<String, Value>,
    ) -> impl Iterator<Item = (&'static str, &'a Expected, Option<&'a Value>)> {
        self.0.iter().filter_map(|(key, expected)| {
            let seen = row.get(*key);
            (!seen.is_some_and(|seen| expected.matches(seen))).then_some((*key, expected, seen))
        })
    }

    /// The first difference.
    fn compare(&self, row: &Map<String, Value>) -> Result<(), String> {
        match self.differences(row).next() {
            None => Ok(()),
            Some((key, expected, Some(seen))) => Err(format!("{key}: expected {expected}, seen {seen}")),
            Some((key, expected, None)) => Err(format!("{key}: expected {expected}, but the key is missing")),
        }
    }
}

impl Expected {
    fn matches(&self, seen: &Value) -> bool {
        match self {
            Self::Is(value) => seen == value,
            Self::Maybe(value) => seen == value || seen.is_null(),
            Self::Between(low, high) => seen.as_u64().is_some_and(|seen| (*low..=*high).contains(&seen)),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) | Self::Maybe(value) => value.fmt(f),
            Self::Between(low, high) => write!(f, "{low} to {high}"),
        }
    }
}

/// `pid 17, comm "curl"`
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, expected)) in self.0.iter().enumerate() {
            write!(f, "{}{key} {expected}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Compares the lines that a tool has printed with the rows that it had to print, in any order. The
/// error is the first difference. Every row has to have exactly these keys, and what `common` says
/// about those of them that it knows.
pub(super) fn compare(expected: &[Row], common: &Row, keys: &[&str], printed: &str) -> Result<(), String> {
    let parse = |line| match serde_json::from_str(line) {
        Ok(Value::Object(row)) => Ok((line, row)),
        _ => Err(format!("a line that is not a JSON object: {line}")),
    };
    let rows: Vec<(&str, Map<String, Value>)> = printed.lines().map(parse).collect::<Result<_, _>>()?;
    let mut rest: Vec<&(&str, Map<String, Value>)> = rows.iter().collect();
    for row in expected {
        // If none matches, the nearest is the one that should have.
        let nearest = rest.iter().enumerate().min_by_key(|(_, (_, seen))| row.differences(seen).count());
        let Some((at, _)) = nearest else { return Err(format!("no row with {row}")) };
        row.compare(&rest.swap_remove(at).1)?;
    }
    if let Some((line, _)) = rest.first() {
        return Err(format!("a row too many: {line}"));
    }
    for (_, row) in &rows {
        if let Some(key) = keys.iter().find(|key| !row.contains_key(**key)) {
            return Err(format!("{key}: the key is missing"));
        }
        if let Some(key) = row.keys().find(|key| !keys.contains(&key.as_str())) {
            return Err(format!("{key}: an undocumented key"));
        }
        let known = common.0.iter().filter(|(key, _)| row.contains_key(*key)).cloned().collect();
        Row(known).compare(row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["pid", "kind", "ns", "netns"];

    fn expected() -> [Row; 2] {
        [
            Row::default().is("pid", 1).is("kind", "C").between("ns", 10, 20),
            Row::default().maybe("pid", 2).is("kind", "A").between("ns", 10, 20),
        ]
    }

    const PRINTED: &str = "{\"pid\":1,\"kind\":\"C\",\"ns\":10,\"netns\":7}\n\
                           {\"pid\":2,\"kind\":\"A\",\"ns\":15,\"netns\":7}\n";

    #[test]
    fn the_right_rows_in_any_order() {
        let common = Row::default().is("netns", 7).is("not there", 1);
        for pid in ["2", "null"] {
            let accepted = format!(r#"{{"pid":{pid},"kind":"A","ns":20,"netns":7}}"#);
            let rows = format!("{accepted}\n{}\n", r#"{"pid":1,"kind":"C","ns":10,"netns":7}"#);
            assert_eq!(compare(&expected(), &common, &KEYS, &rows), Ok(()));
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let error = |rows: &str, common| compare(&expected(), &common, &KEYS, rows).expect_err("they differ");
        let with = |old: &str, new: &str| error(&PRINTED.replace(old, new), Row::default());
        assert_eq!(with("\"pid\":1", "\"pid\":3"), "pid: expected 1, seen 3");
        assert_eq!(with("\"pid\":1", "\"pid\":null"), "pid: expected 1, seen null");
        assert_eq!(with("\"pid\":2", "\"pid\":3"), "pid: expected 2, seen 3");
        assert_eq!(with("\"ns\":15", "\"ns\":21"), "ns: expected 10 to 20, seen 21");
        assert_eq!(with("\"ns\":15", "\"ns\":\"x\""), "ns: expected 10 to 20, seen \"x\"");
        assert_eq!(with("\"ns\":15", "\"time\":15"), "ns: expected 10 to 20, but the key is missing");
        assert_eq!(with(",\"netns\":7}\n", "}\n"), "netns: the key is missing");
        assert_eq!(with("\"netns\":7}\n", "\"netns\":7,\"x\":1}\n"), "x: an undocumented key");
        let first = PRINTED.split_inclusive('\n').next().expect("a line");
        assert_eq!(error(first, Row::default()), "no row with pid 2, kind \"A\", ns 10 to 20");
        assert_eq!(
            error(&format!("{PRINTED}{{\"pid\":9}}\n"), Row::default()),
            "a row too many: {\"pid\":9}"
        );
        assert_eq!(error(PRINTED, Row::default().is("ns", 10)), "ns: expected 10, seen 15");
        for wrong in ["no row", "[1]", "{", "{\"a\":", "17"] {
            assert_eq!(error(wrong, Row::default()), format!("a line that is not a JSON object: {wrong}"));
        }
    }

    #[test]
    fn a_later_expectation_replaces_an_earlier_one() {
        assert_eq!(Row::default().is("pid", 1).unknown("pid").to_string(), "pid null");
    }
}
