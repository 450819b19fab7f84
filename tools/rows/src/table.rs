//! Columns for people.

use crate::time::Zone;
use crate::{Align, Column, Value};

pub(crate) struct Table {
    columns: Vec<Column>,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns }
    }

    pub(crate) fn columns(&mut self, columns: Vec<Column>) {
        self.columns = columns;
    }

    pub(crate) fn header(&mut self, buffer: &mut Vec<u8>) {
        let mut line = Line { buffer, padding: 0 };
        for column in &mut self.columns {
            if let Some(heading) = column.heading {
                line.cell(column, |text| text.extend_from_slice(heading.as_bytes()));
            }
        }
        buffer.push(b'\n');
    }

    pub(crate) fn row(&mut self, values: &[Value<'_>], zone: &Zone, buffer: &mut Vec<u8>) {
        let mut line = Line { buffer, padding: 0 };
        for (column, value) in self.columns.iter_mut().zip(values) {
            if column.heading.is_some() {
                line.cell(column, |text| value.write_text(text, zone));
            }
        }
        buffer.push(b'\n');
    }
}

/// A line that is being written: padding is only written when something follows.
struct Line<'a> {
    buffer: &'a mut Vec<u8>,
    padding: usize,
}

impl Line<'_> {
    /// A cell, which is what `write` appends.
    fn cell(&mut self, column: &mut Column, write: impl FnOnce(&mut Vec<u8>)) {
        let Self { buffer, padding } = self;
        pad(buffer, buffer.len(), *padding);
        let start = buffer.len();
        write(buffer);
        let length = cut(buffer, start, column.longest);
        // A value wider than its column makes the column wider from here on, so that what follows lines up again.
        column.width = column.width.max(length);
        let missing = column.width - length;
        *padding = match column.align {
            Align::Left => missing + 1,
            Align::Right => {
                pad(buffer, start, missing);
                1
            }
        };
    }
}

/// Puts so many spaces in.
fn pad(buffer: &mut Vec<u8>, at: usize, missing: usize) {
    if at == buffer.len() {
        buffer.resize(at + missing, b' ');
    } else {
        buffer.splice(at..at, std::iter::repeat_n(b' ', missing));
    }
}

/// Leaves no more than `longest` characters of what begins at `start`; how many there are.
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
