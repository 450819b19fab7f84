//! Comma-separated values (RFC 4180, with a line feed alone at the end of a line).

use crate::column::{Cells, Column};
use crate::time::Zone;

#[derive(Default)]
pub(crate) struct Csv {
    cell: Vec<u8>,
}

/// The line of headings.
pub(crate) fn heading(columns: &[Column], buffer: &mut Vec<u8>) {
    let shown = columns.iter().filter(|column| column.in_csv());
    for (at, heading) in shown.filter_map(Column::heading).enumerate() {
        field(buffer, at, heading.as_bytes());
    }
    buffer.push(b'\n');
}

impl Csv {
    pub(crate) fn row(&mut self, row: &dyn Cells, zone: &Zone, buffer: &mut Vec<u8>) {
        let shown = row.columns().iter().enumerate().filter(|(_, column)| column.in_csv());
        for (at, (index, _)) in shown.enumerate() {
            self.cell.clear();
            row.value(index).write_text(&mut self.cell, zone);
            field(buffer, at, &self.cell);
        }
        buffer.push(b'\n');
    }
}

/// Appends the field with this index to its line, quoted if needed (RFC 4180 section 2, rules 6 and
/// 7).
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
