//! What was measured, in a form that every way of showing it takes.

pub mod json;
pub mod markdown;
pub mod svg;
pub mod text;

use std::fmt;

use crate::conditions::Conditions;

/// A value of a table.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number, with so many digits behind the point.
    Number(f64, usize),
    /// Not measured, or not known.
    Unknown,
}

impl Cell {
    /// A number, or [`Cell::Unknown`].
    pub fn number(value: Option<f64>, digits: usize) -> Self {
        value.filter(|value| value.is_finite()).map_or(Self::Unknown, |value| Self::Number(value, digits))
    }

    /// A whole number.
    pub fn count(value: u64) -> Self {
        Self::Number(value as f64, 0)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            // Little is not nothing.
            Self::Number(value, digits) if *value > 0.0 && *value < 0.5 * least(*digits) => {
                f.pad(&format!("<{:.digits$}", least(*digits)))
            }
            Self::Number(value, digits) => f.pad(&grouped(&format!("{value:.digits$}"))),
            Self::Unknown => f.pad("-"),
        }
    }
}

/// The least above 0 that so many digits show.
fn least(digits: usize) -> f64 {
    (0..digits).fold(1.0, |least, _| least / 10.0)
}

/// `1234567.5` as `1,234,567.5`.
fn grouped(number: &str) -> String {
    let (sign, rest) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (whole, fraction) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    let digits: Vec<char> = whole.chars().collect();
    let groups: Vec<String> = digits.rchunks(3).rev().map(|group| group.iter().collect()).collect();
    format!("{sign}{}{fraction}", groups.join(","))
}

/// How a chart shows its numbers.
#[derive(Clone, PartialEq, Debug)]
pub enum Chart {
    /// A bar for each name, and a line at what is to be reached.
    Bars {
        /// What is measured, with its unit.
        axis: String,
        /// Names and values.
        bars: Vec<(String, f64)>,
        /// What is to be reached, if anything.
        goal: Option<f64>,
    },
    /// Cost against size, both in powers of ten.
    Lines {
        /// What grows.
        size: String,
        /// What it costs, with its unit.
        cost: String,
        /// A name, and its points.
        lines: Vec<(String, Vec<(f64, f64)>)>,
    },
}

/// A measurement.
#[derive(Clone, PartialEq, Debug)]
pub struct Figure {
    /// For file names.
    pub id: &'static str,
    /// A heading.
    pub title: String,
    /// How it was measured, in a sentence or two.
    pub about: String,
    /// The heads of the columns.
    pub columns: Vec<String>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<Cell>>,
    /// The picture, where there is one.
    pub chart: Option<Chart>,
}

impl Figure {
    /// Without rows.
    pub fn new(id: &'static str, title: &str, about: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { id, title: title.to_owned(), about: about.to_owned(), columns, rows: Vec::new(), chart: None }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }
}

/// All of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Machine, kernel, date, version: names and values.
    pub conditions: Conditions,
    /// Peers that were not measured: name and reason.
    pub left_out: Vec<(String, String)>,
    /// The headline: what the README shows.
    pub headline: Figure,
    /// Everything else.
    pub figures: Vec<Figure>,
    /// Whether the machine was emulated: only ratios count then.
    pub emulated: bool,
}

impl Report {
    /// All figures, the headline first if it has anything to say.
    pub fn all(&self) -> impl Iterator<Item = &Figure> {
        Some(&self.headline).filter(|headline| headline.columns.len() > 1).into_iter().chain(&self.figures)
    }

    /// Machine, kernel and date in one line.
    pub fn caption(&self) -> String {
        let values: Vec<&str> = self.conditions.iter().map(|(_, value)| value.as_str()).collect();
        values.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(Cell::Number(1_234_567.5, 1).to_string(), "1,234,567.5");
        assert_eq!(Cell::Number(-1234.0, 0).to_string(), "-1,234");
        assert_eq!(Cell::Number(0.002, 1).to_string(), "<0.1");
        assert_eq!([0.0, 0.06].map(|value| Cell::Number(value, 1).to_string()), ["0.0", "0.1"]);
        assert_eq!(Cell::Number(0.25, 2).to_string(), "0.25");
        assert_eq!(Cell::count(999).to_string(), "999");
        assert_eq!(Cell::number(None, 1).to_string(), "-");
        assert_eq!(Cell::number(Some(f64::NAN), 1), Cell::Unknown);
        assert_eq!(format!("{:>5}", Cell::count(7)), "    7");
    }
}
