//! The table: columns for people.

use crate::column::{Align, Cells, Column};
use crate::time::Zone;

/// The widths that the columns of the present table have grown to.
#[derive(Default)]
pub(crate) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Begins a table, with the line of its headings.
    pub(crate) fn heading(&mut self, columns: &[Column], buffer: &mut Vec<u8>) {
        self.widths.clear();
        self.line(columns, buffer, |column, _, text| {
            text.extend_from_slice(column.heading().unwrap_or_default().as_bytes());
        });
    }

    pub(crate) fn row(&mut self, row: &dyn Cells, zone: &Zone, buffer: &mut Vec<u8>) {
        self.line(row.columns(), buffer, |_, index, text| row.value(index).write_text(text, zone));
    }

    /// A line: for each column that the table has, what `write` appends.
    fn line(
        &mut self,
        columns: &[Column],
        buffer: &mut Vec<u8>,
        write: impl Fn(&Column, usize, &mut Vec<u8>),
    ) {
        self.widths.resize(columns.len(), 0);
        let mut line = Line { buffer, padding: 0 };
        for (index, (column, width)) in columns.iter().zip(&mut self.widths).enumerate() {
            if column.heading().is_some() {
                line.cell(column, width, |text| write(column, index, text));
            }
        }
        buffer.push(b'\n');
    }
}

/// A line that is being written. Padding is written only when a cell follows, so lines do not end
/// in spaces.
struct Line<'a> {
    buffer: &'a mut Vec<u8>,
    padding: usize,
}

impl Line<'_> {
    /// A cell, which is what `write` appends.
    fn cell(&mut self, column: &Column, width: &mut usize, write: impl FnOnce(&mut Vec<u8>)) {
        let Self { buffer, padding } = self;
        pad(buffer, buffer.len(), *padding);
        let start = buffer.len();
        write(buffer);
        let length = cut(buffer, start, column.max_length);
        // A value wider than its column widens the column for all rows to come, so that they line
        // up again.
        *width = column.width.max(length).max(*width);
        let missing = *width - length;
        *padding = match column.align {
            Align::Left => missing + 1,
            Align::Right => {
                pad(buffer, start, missing);
                1
            }
        };
    }
}

/// Inserts `missing` spaces.
fn pad(buffer: &mut Vec<u8>, at: usize, missing: usize) {
    if at == buffer.len() {
        buffer.resize(at + missing, b' ');
    } else {
        buffer.splice(at..at, std::iter::repeat_n(b' ', missing));
    }
}

/// Cuts the text that begins at `start` to `longest` characters, and returns how many it has.
fn cut(buffer: &mut Vec<u8>, start: usize, longest: usize) -> usize {
    let cell = buffer.get(start..).unwrap_or_default();
    if cell.is_ascii() {
        let length = cell.len().min(longest);
        buffer.truncate(start + length);
        return length;
    }
    // Values are text.
    let text = str::from_utf8(cell).unwrap_or_default();
    let (length, end) = match text.char_indices().nth(longest) {
        Some((end, _)) => (longest, end),
        None => (text.chars().count(), text.len()),
    };
    buffer.truncate(start + end);
    length
}
