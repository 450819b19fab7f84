//! Rows in, text out.
//!
//! A tool names its columns once and then hands over a row of values at a time, in the same order. Which columns a format
//! shows, and how it writes a value, is decided here: the table rounds for people, JSON has raw units.

#![forbid(unsafe_code)]

mod csv;
mod digits;
pub mod escape;
mod json;
mod table;
pub mod time;
mod value;

use std::fmt;
use std::io::{self, Write};

pub use self::json::quoted;
pub use self::value::Value;
use crate::time::Zone;

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Columns for people.
    Table,
    /// RFC 4180, lines ended by LF as these tools always did.
    Csv,
    /// One object per line.
    Json,
}

/// On which side a column is padded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Padded on the right.
    Left,
    /// Padded on the left.
    Right,
}

/// A column: where it is shown, and how wide.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its heading, in the table and in CSV; `None` where it is only in JSON.
    heading: Option<&'static str>,
    /// Its key in JSON; `None` where it is not there.
    key: Option<&'static str>,
    csv: bool,
    width: usize,
    longest: usize,
    align: Align,
}

impl Column {
    /// A column of the table and of CSV.
    pub const fn new(heading: &'static str, width: usize) -> Self {
        Self { heading: Some(heading), key: None, csv: true, width, longest: usize::MAX, align: Align::Left }
    }

    /// A member of the JSON object that no table shows.
    pub const fn json_only(key: &'static str) -> Self {
        Self { heading: None, key: Some(key), csv: false, width: 0, longest: 0, align: Align::Left }
    }

    /// Also a member of the JSON object.
    pub const fn key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    /// Whether it shows a local time, which all tools call by this name.
    pub fn is_time_of_day(&self) -> bool {
        self.heading == Some("TIME")
    }

    /// Padded on the left.
    pub const fn right(mut self) -> Self {
        self.align = Align::Right;
        self
    }

    /// Cut in the table when it is longer than its width.
    pub const fn cut(mut self) -> Self {
        self.longest = self.width;
        self
    }

    /// Not in CSV: an ornament of the table.
    pub const fn table_only(mut self) -> Self {
        self.csv = false;
        self
    }

    /// Shown only if `wanted`, but in JSON all the same.
    pub const fn shown_if(mut self, wanted: bool) -> Self {
        if !wanted {
            self.heading = None;
        }
        self
    }

    /// Whether CSV has it.
    pub const fn in_csv(&self) -> bool {
        self.csv && self.heading.is_some()
    }

    /// Its key in JSON, if it is there.
    pub const fn json_key(&self) -> Option<&'static str> {
        self.key
    }

    /// Shown in the table only if `wanted`; in CSV and JSON all the same.
    pub const fn in_table_if(self, wanted: bool, format: Format) -> Self {
        self.shown_if(wanted || !matches!(format, Format::Table))
    }
}

/// What a tool writes on.
pub trait Page {
    /// A row: a value for each column.
    fn row(&mut self, values: &[Value<'_>]);

    /// A line that is no row. Only the table has such.
    fn line(&mut self, text: fmt::Arguments<'_>);

    /// From here on rows have these columns, and in the table these headings, which are written now.
    fn table(&mut self, columns: Vec<Column>);

    /// Begins a new screen, where the table goes to a terminal.
    fn clear(&mut self);
}

/// Renders rows into a buffer; a row is in the buffer whole or not at all.
enum Renderer {
    Table(table::Table),
    Csv(csv::Csv),
    Json(json::Json),
}

/// Where rows go.
pub struct Output<W> {
    renderer: Renderer,
    zone: Zone,
    buffer: Vec<u8>,
    sink: W,
    /// What the sink said when it did not take what was too much to keep.
    failed: Option<io::Error>,
    terminal: bool,
}

/// As much text is kept at most before it is handed over without being asked for.
const KEPT: usize = 1 << 16;

/// Erases a terminal's screen and goes to its first line (ECMA-48: CUP, ED).
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

impl<W: Write> Page for Output<W> {
    fn row(&mut self, values: &[Value<'_>]) {
        match &mut self.renderer {
            Renderer::Table(table) => table.row(values, &self.zone, &mut self.buffer),
            Renderer::Csv(csv) => csv.row(values, &self.zone, &mut self.buffer),
            Renderer::Json(json) => json.row(values, &mut self.buffer),
        }
        if self.buffer.len() >= KEPT && self.failed.is_none() {
            self.failed = self.sink.write_all(&self.buffer).err();
            self.buffer.clear();
        }
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        if let Renderer::Table(_) = self.renderer {
            // Writing to a Vec cannot fail.
            let _ = writeln!(self.buffer, "{text}");
        }
    }

    fn table(&mut self, columns: Vec<Column>) {
        match &mut self.renderer {
            Renderer::Table(table) => {
                table.columns(columns);
                table.header(&mut self.buffer);
            }
            Renderer::Csv(csv) => csv.columns(columns),
            Renderer::Json(json) => json.columns(columns),
        }
    }

    fn clear(&mut self) {
        if matches!(self.renderer, Renderer::Table(_)) && self.terminal {
            self.buffer.extend_from_slice(CLEAR);
        }
    }
}

impl<W: Write> Output<W> {
    /// Rows with these columns, written to `sink`.
    pub fn new(format: Format, columns: Vec<Column>, zone: Zone, sink: W) -> Self {
        let renderer = match format {
            Format::Table => Renderer::Table(table::Table::new(columns)),
            Format::Csv => Renderer::Csv(csv::Csv::new(columns)),
            Format::Json => Renderer::Json(json::Json::new(columns)),
        };
        Self { renderer, zone, buffer: Vec::new(), sink, failed: None, terminal: false }
    }

    /// Whether `sink` is a terminal.
    pub fn terminal(self, terminal: bool) -> Self {
        Self { terminal, ..self }
    }

    /// The line of headings, where the format has one; in the table only if `wanted`.
    pub fn header(&mut self, wanted: bool) {
        match &mut self.renderer {
            Renderer::Table(table) if wanted => table.header(&mut self.buffer),
            Renderer::Csv(csv) => csv.header(&mut self.buffer),
            Renderer::Table(_) | Renderer::Json(_) => {}
        }
    }

    /// What was written on.
    pub fn into_sink(self) -> W {
        self.sink
    }

    /// Hands over all rows so far, so that whoever reads has whole lines.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = match self.failed.take() {
            Some(error) => Err(error),
            None if self.buffer.is_empty() => Ok(()),
            None => self.sink.write_all(&self.buffer),
        };
        self.buffer.clear();
        written.and_then(|()| self.sink.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        vec![
            Column::new("PID", 5).key("pid"),
            Column::new("COMM", 6).cut().key("comm"),
            Column::new("ADDR", 9).key("addr"),
            Column::new("->", 2).table_only(),
            Column::new("TX_KB", 5).right().key("tx_bytes"),
            Column::json_only("secret"),
            Column::new("MS", 0).key("ns"),
        ]
    }

    /// A burst of rows is handed over in whole rows as it comes, and what the sink does not take is said when asked.
    #[test]
    fn much_is_not_kept() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                assert_eq!(bytes.last(), Some(&b'\n'));
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let columns = vec![Column::new("PID", 99)];
        let mut output = Output::new(Format::Table, columns, Zone::utc(), Full(3 * KEPT));
        for _ in 0..KEPT {
            output.row(&[Value::Word("some text")]);
            assert!(output.failed.is_some() || output.buffer.len() < KEPT);
        }
        assert_eq!(output.flush().expect_err("full").kind(), io::ErrorKind::StorageFull);
        assert!(output.buffer.is_empty() && output.flush().is_ok());
    }

    fn rendered(format: Format, rows: &[[Value<'_>; 7]]) -> String {
        shown(format, |output| {
            output.header(true);
            for row in rows {
                output.row(row);
            }
        })
    }

    fn shown(format: Format, write: impl FnOnce(&mut Output<Vec<u8>>)) -> String {
        let mut output = Output::new(format, columns(), Zone::utc(), Vec::new());
        write(&mut output);
        output.flush().expect("a Vec takes everything");
        String::from_utf8(output.sink).expect("UTF-8")
    }

    fn row(comm: &'static [u8; 16], addr: &str) -> [Value<'static>; 7] {
        [
            Value::Number(42),
            Value::Comm(comm),
            Value::Ip(addr.parse().expect("an address")),
            Value::Word("->"),
            Value::Bytes(2047),
            Value::Flag(true),
            Value::Millis { ns: 1_500_000, digits: 2, at_least: false },
        ]
    }

    #[test]
    fn table_pads_cuts_and_grows() {
        let rows = [
            row(b"nginx\0\0\0\0\0\0\0\0\0\0\0", "127.0.0.1"),
            row(b"longername\0\0\0\0\0\0", "2001:db8::1"),
            row(b"nginx\0\0\0\0\0\0\0\0\0\0\0", "127.0.0.1"),
        ];
        let expected = "\
PID   COMM   ADDR      -> TX_KB MS
42    nginx  127.0.0.1 ->     1 1.50
42    longer 2001:db8::1 ->     1 1.50
42    nginx  127.0.0.1   ->     1 1.50
";
        assert_eq!(rendered(Format::Table, &rows), expected, "rows after a wide one stay aligned with it");
    }

    #[test]
    fn csv_quotes_what_needs_it_and_leaves_ornaments_out() {
        let rows = [row(b"a,\"b\0\0\0\0\0\0\0\0\0\0\0\0", "::1")];
        assert_eq!(rendered(Format::Csv, &rows), "PID,COMM,ADDR,TX_KB,MS\n42,\"a,\"\"b\",::1,1,1.50\n");
    }

    #[test]
    fn json_has_raw_units_and_everything() {
        let rows = [row(b"a\"b\0\0\0\0\0\0\0\0\0\0\0\0\0", "::1")];
        let expected = r#"{"pid":42,"comm":"a\"b","addr":"::1","tx_bytes":2047,"secret":true,"ns":1500000}"#;
        assert_eq!(rendered(Format::Json, &rows).trim_end(), expected);
    }

    #[test]
    fn unknown_is_a_dash_or_null() {
        let rows = [[Value::Unknown; 7]];
        assert!(rendered(Format::Table, &rows).ends_with("\n-     -      -         -      - -\n"));
        assert!(rendered(Format::Csv, &rows).ends_with("\n-,-,-,-,-\n"));
        assert!(rendered(Format::Json, &rows).contains(r#""pid":null"#));
    }

    #[test]
    fn a_page_has_lines_and_tables_for_people_only() {
        let write = |output: &mut Output<Vec<u8>>| {
            output.header(false);
            output.line(format_args!("[10:04:50]"));
            output.table(vec![Column::new("SUBNET", 12).key("subnet"), Column::new("BYTES", 6).right()]);
            output.row(&[Value::Text("192.0.2.0/24"), Value::Number(856)]);
            output.clear();
        };
        let table = "[10:04:50]\nSUBNET        BYTES\n192.0.2.0/24    856\n";
        assert_eq!(shown(Format::Table, write), table);
        assert_eq!(shown(Format::Json, write), "{\"subnet\":\"192.0.2.0/24\"}\n");
        assert_eq!(shown(Format::Csv, write), "PID,COMM,ADDR,TX_KB,MS\n192.0.2.0/24,856\n");
        let mut output = Output::new(Format::Table, columns(), Zone::utc(), Vec::new()).terminal(true);
        output.clear();
        assert_eq!(output.buffer, CLEAR);
    }

    #[test]
    fn lists_and_objects_are_json() {
        let names = ["a\"b".to_owned(), "c".to_owned()];
        let members = [("x", Value::Number(1)), ("y", Value::Quotient { of: 2000, by: 1024 })];
        let columns = vec![Column::json_only("stack"), Column::json_only("entries")];
        let mut output = Output::new(Format::Json, columns, Zone::utc(), Vec::new());
        output.row(&[Value::List(&names), Value::Object(&members)]);
        let expected = "{\"stack\":[\"a\\\"b\",\"c\"],\"entries\":{\"x\":1,\"y\":1.953125}}\n";
        assert_eq!(String::from_utf8_lossy(&output.buffer), expected);
    }
}
