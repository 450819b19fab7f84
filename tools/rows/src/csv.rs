//! Comma-separated values (RFC 4180, with a line feed alone at the end of a line).

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
        let shown = self.columns.iter().filter(|column| column.in_csv());
        for (at, heading) in shown.filter_map(|column| column.heading).enumerate() {
            field(buffer, at, heading.as_bytes());
        }
        buffer.push(b'\n');
    }

    pub(crate) fn row(&mut self, values: &[Value<'_>], zone: &Zone, buffer: &mut Vec<u8>) {
        let shown = self.columns.iter().zip(values).filter(|(column, _)| column.in_csv());
        for (at, (_, value)) in shown.enumerate() {
            self.cell.clear();
            value.write_text(&mut self.cell, zone);
            field(buffer, at, &self.cell);
        }
        buffer.push(b'\n');
    }
}

/// Appends the field with this number to its line, in quotes where it needs them (section 2, rules 6 and 7).
fn field(buffer: &mut Vec<u8>, at: usize, text: &[u8]) {
    if at > 0 {
        buffer.push(b',');
    }
    if !text.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) {
        return buffer.extend_from_slice(text);
    }
    buffer.push(b'"');
    for &byte in text {
        if byte == b'"' {
            buffer.push(b'"');
        }
        buffer.push(byte);
    }
    buffer.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn what_is_written_is_what_is_read() {
        let records: [&[&str]; 4] = [
            &["plain", "", "with space", "ä"],
            &[",", "a,b", "\"", "\"quoted\"", "a\"\"b"],
            &["\n", "a\r\nb", "\r", "tab\t"],
            &["#", "'", " leading", "-"],
        ];
        for record in records {
            let mut line = Vec::new();
            for (at, text) in record.iter().enumerate() {
                field(&mut line, at, text.as_bytes());
            }
            line.push(b'\n');
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_slice());
            let read: Vec<_> = reader.records().collect::<Result<_, _>>().expect("a record");
            assert_eq!(read, [csv::StringRecord::from(record.to_vec())]);
        }
    }
}
