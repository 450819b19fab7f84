//! The results of a run, independent of the output format.

pub mod json;
pub mod markdown;
pub mod svg;
pub mod text;

use std::fmt;

use crate::conditions::Conditions;

/// A value of a table.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    Text(String),
    /// A number, and how many digits to show after the point.
    Number(f64, usize),
    /// Not measured or not known.
    Unknown,
}

impl Cell {
    /// A number; [`Cell::Unknown`] for `None`, NaN and infinity.
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
            // A small number above 0 must not be shown as 0.
            Self::Number(value, digits) if *value > 0.0 && *value < 0.5 * least(*digits) => {
                f.pad(&format!("<{:.digits$}", least(*digits)))
            }
            Self::Number(value, digits) => f.pad(&grouped(&format!("{value:.digits$}"))),
            Self::Unknown => f.pad("-"),
        }
    }
}

/// The smallest number above 0 with this many digits after the point.
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

/// The data of a chart.
#[derive(Clone, PartialEq, Debug)]
pub enum Chart {
    /// A bar for each name, and a line at the goal.
    Bars {
        /// The quantity, with its unit.
        axis: String,
        /// Names and values.
        bars: Vec<(String, f64)>,
        /// The goal, if there is one.
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

/// A table with its explanation.
#[derive(Clone, PartialEq, Debug)]
pub struct Figure {
    /// The name in JSON and of the chart's file.
    pub id: &'static str,
    pub title: String,
    /// How it was measured.
    pub about: String,
    pub columns: Vec<String>,
    /// Each row has one cell per column.
    pub rows: Vec<Vec<Cell>>,
    pub chart: Option<Chart>,
}

impl Figure {
    /// A figure without rows and without a chart.
    pub fn new(id: &'static str, title: &str, about: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { id, title: title.to_owned(), about: about.to_owned(), columns, rows: Vec::new(), chart: None }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }
}

/// The results of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    pub conditions: Conditions,
    /// Peers that were not measured, and the reason.
    pub left_out: Vec<(String, String)>,
    /// The table in the README.
    pub headline: Figure,
    pub figures: Vec<Figure>,
    /// Whether the machine was emulated: then only ratios are meaningful.
    pub emulated: bool,
}

impl Report {
    /// All figures, the headline first unless it is empty.
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
