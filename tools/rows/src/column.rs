//! Columns, each with the function that produces its value.

use crate::format::Format;
use crate::value::Value;

/// On which side a cell of the table is padded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Align {
    /// Spaces follow the text.
    Left,
    /// Spaces precede the text.
    Right,
}

/// How a column is shown: its names, and its width in the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// The heading in the table and in CSV; `None` if only JSON has the column.
    heading: Option<&'static str>,
    /// The key in JSON; `None` if JSON does not have the column.
    key: Option<&'static str>,
    csv: bool,
    pub(crate) width: usize,
    /// Longer text is cut in the table.
    pub(crate) max_length: usize,
    pub(crate) align: Align,
}

impl Column {
    /// A column of the table and of CSV. A value wider than `width` characters widens the table.
    pub const fn new(heading: &'static str, width: usize) -> Self {
        Self {
            heading: Some(heading),
            key: None,
            csv: true,
            width,
            max_length: usize::MAX,
            align: Align::Left,
        }
    }

    /// A column that only JSON has. The key is as for [`Column::key`].
    pub const fn json_only(key: &'static str) -> Self {
        assert!(is_key(key));
        Self { heading: None, key: Some(key), csv: false, width: 0, max_length: 0, align: Align::Left }
    }

    /// Also in JSON, under this key.
    ///
    /// # Panics
    /// If the key has other characters than small letters, digits and `_`.
    pub const fn key(mut self, key: &'static str) -> Self {
        assert!(is_key(key));
        self.key = Some(key);
        self
    }

    /// Aligned to the right, as numbers are.
    pub const fn right(mut self) -> Self {
        self.align = Align::Right;
        self
    }

    /// Text longer than the width is cut in the table, not in CSV and JSON.
    pub const fn cut(mut self) -> Self {
        self.max_length = self.width;
        self
    }

    /// Not in CSV: a column that joins others for people, or an ornament such as `->`.
    pub const fn table_only(mut self) -> Self {
        self.csv = false;
        self
    }

    /// In the table and in CSV only if `shown`; in JSON always.
    pub const fn shown_if(mut self, shown: bool) -> Self {
        if !shown {
            self.heading = None;
        }
        self
    }

    /// In the table only if `shown`; in CSV and JSON always.
    pub const fn in_table_if(self, shown: bool, format: Format) -> Self {
        self.shown_if(shown || !matches!(format, Format::Table))
    }

    /// The heading in the table, if the table has the column.
    pub const fn heading(&self) -> Option<&'static str> {
        self.heading
    }

    /// Whether CSV has the column.
    pub const fn in_csv(&self) -> bool {
        self.csv && self.heading.is_some()
    }

    /// The key in JSON, if JSON has the column.
    pub const fn json_key(&self) -> Option<&'static str> {
        self.key
    }
}

/// Whether a key needs no escapes in JSON.
const fn is_key(key: &str) -> bool {
    let (key, mut at) = (key.as_bytes(), 0);
    while at < key.len() {
        if !matches!(key[at], b'a'..=b'z' | b'0'..=b'9' | b'_') {
            return false;
        }
        at += 1;
    }
    at > 0
}

/// Produces the value of a column from a row.
pub type ValueOf<R> = for<'r> fn(&'r R) -> Value<'r>;

/// The columns of rows of type `R`.
///
/// A column and its value are given together, so neither can exist without the other, and the order
/// of the columns cannot differ from the order of the values.
///
/// ```
/// use rows::{Column, Columns, Value};
///
/// struct Listener {
///     port: u16,
/// }
///
/// let columns = Columns::new()
///     .column(Column::new("PORT", 5).key("port"), |row: &Listener| Value::Number(row.port.into()));
/// ```
#[derive(Clone)]
pub struct Columns<R> {
    // Filled by `Columns::column` alone, one of each per call.
    columns: Vec<Column>,
    values: Vec<ValueOf<R>>,
}

impl<R> Default for Columns<R> {
    fn default() -> Self {
        Self { columns: Vec::new(), values: Vec::new() }
    }
}

impl<R> Columns<R> {
    /// No columns yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a column and the function that produces its value. A column that no format shows is
    /// left out.
    #[must_use]
    pub fn column(mut self, column: Column, value: ValueOf<R>) -> Self {
        if column.heading.is_some() || column.key.is_some() {
            self.columns.push(column);
            self.values.push(value);
        }
        self
    }

    /// The columns without their values, for a heading.
    pub fn headings(&self) -> &[Column] {
        &self.columns
    }

    /// A row to be written.
    pub fn row<'a>(&'a self, row: &'a R) -> impl Cells + 'a {
        Row { columns: self, row }
    }
}

/// A row together with its columns. A renderer asks only for the values that its format shows.
pub trait Cells {
    /// The columns.
    fn columns(&self) -> &[Column];

    /// The value in the column with this index.
    fn value(&self, index: usize) -> Value<'_>;
}

struct Row<'a, R> {
    columns: &'a Columns<R>,
    row: &'a R,
}

impl<R> Cells for Row<'_, R> {
    fn columns(&self) -> &[Column] {
        &self.columns.columns
    }

    fn value(&self, index: usize) -> Value<'_> {
        match self.columns.values.get(index) {
            Some(value) => value(self.row),
            None => Value::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_joined_column_is_not_in_the_table() {
        let shown =
            |shown, format| Column::new("A", 1).key("a").in_table_if(shown, format).heading().is_some();
        assert!(!shown(false, Format::Table));
        for format in [Format::Csv, Format::Json] {
            assert!(shown(false, format) && shown(true, format));
        }
        assert!(shown(true, Format::Table));
    }

    #[test]
    fn keys_need_no_escapes() {
        assert!(is_key("tx_bytes2"));
        for wrong in ["", "a\"", "A", "a b", "é", "a\\"] {
            assert!(!is_key(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_index_beyond_the_columns_is_unknown() {
        let columns = Columns::new().column(Column::new("A", 1), |(): &()| Value::Number(1));
        let row = columns.row(&());
        assert_eq!((row.value(0), row.value(1)), (Value::Number(1), Value::Unknown));
    }
}
