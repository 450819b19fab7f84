//! Columns for people.

use super::{Align, Column, Value};
use crate::time::Zone;

pub(super) struct Table {
    columns: Vec<Column>,
    cell: String,
}

impl Table {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, cell: String::new() }
    }

    pub(super) fn columns(&mut self, columns: Vec<Column>) {
        self.columns = columns;
    }

    pub(super) fn header(&mut self, buffer: &mut Vec<u8>) {
        let mut line = Line::default();
        for column in &mut self.columns {
            if let Some(heading) = column.heading {
                line.cell(heading, column, buffer);
            }
        }
        buffer.push(b'\n');
    }

    pub(super) fn row(&mut self, values: &[Value<'_>], zone: &Zone, buffer: &mut Vec<u8>) {
        let mut line = Line::default();
        for (column, value) in self.columns.iter_mut().zip(values) {
            if column.heading.is_some() {
                self.cell.clear();
                value.write_text(&mut self.cell, zone);
                line.cell(&self.cell, column, buffer);
            }
        }
        buffer.push(b'\n');
    }
}

/// A line that is being written: padding is only written when something follows.
#[derive(Default)]
struct Line {
    padding: usize,
}

impl Line {
    fn cell(&mut self, text: &str, column: &mut Column, buffer: &mut Vec<u8>) {
        let end = text.char_indices().nth(column.longest).map_or(text.len(), |(index, _)| index);
        let text = &text[..end];
        let length = text.chars().count();
        // A value wider than its column makes the column wider from here on, so that what follows lines up again.
        column.width = column.width.max(length);
        let missing = column.width - length;
        let (before, after) = match column.align {
            Align::Left => (0, missing),
            Align::Right => (missing, 0),
        };
        buffer.resize(buffer.len() + self.padding + before, b' ');
        buffer.extend_from_slice(text.as_bytes());
        self.padding = after + 1;
    }
}
