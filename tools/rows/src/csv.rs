//! Comma-separated values.

use crate::time::Zone;
use crate::{Column, Value};

pub(crate) struct Csv {
    columns: Vec<Column>,
    cell: Vec<u8>,
}

impl Csv {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns, cell: Vec::new() }
    }

    pub(crate) fn columns(&mut self, columns: Vec<Column>) {
        self.columns = columns;
    }

    pub(crate) fn header(&mut self, buffer: &mut Vec<u8>) {
        let headings =
            self.columns.iter().filter(|column| column.in_csv()).filter_map(|column| column.heading);
        write(buffer, |writer| headings.into_iter().try_for_each(|heading| writer.write_field(heading)));
    }

    pub(crate) fn row(&mut self, values: &[Value<'_>], zone: &Zone, buffer: &mut Vec<u8>) {
        let cell = &mut self.cell;
        let shown = self.columns.iter().zip(values).filter(|(column, _)| column.in_csv());
        write(buffer, |writer| {
            for (_, value) in shown {
                cell.clear();
                value.write_text(cell, zone);
                writer.write_field(cell.as_slice())?;
            }
            Ok(())
        });
    }
}

/// Appends one record to `buffer`.
fn write(buffer: &mut Vec<u8>, fields: impl FnOnce(&mut csv::Writer<&mut Vec<u8>>) -> csv::Result<()>) {
    let mut writer = csv::WriterBuilder::new().buffer_capacity(256).from_writer(buffer);
    let written = fields(&mut writer).and_then(|()| writer.write_record(None::<&[u8]>));
    debug_assert!(written.is_ok(), "a Vec takes everything");
}
