//! Where rows go: a format, and a destination for the text.

use std::fmt;
use std::io::{self, Write};

use crate::column::{Cells, Column};
use crate::format::Format;
use crate::time::Zone;
use crate::{csv, json, table};

/// What a tool writes its rows to.
pub trait RowSink {
    /// Writes a row.
    fn row(&mut self, row: &dyn Cells);

    /// Writes a line that is not a row. Only the table has such lines.
    fn line(&mut self, text: fmt::Arguments<'_>);

    /// Begins another table, with these headings. Does nothing in CSV and JSON.
    fn heading(&mut self, columns: &[Column]);

    /// Begins a new screen, if the table goes to a terminal.
    fn clear(&mut self);
}

/// Renders a row into a buffer, whole.
enum Renderer {
    Table(table::Table),
    Csv(csv::Csv),
    Json(json::Json),
}

/// Rows in one format, written to `W`.
pub struct Output<W> {
    renderer: Renderer,
    zone: Zone,
    buffer: Vec<u8>,
    sink: W,
    /// The error of a write that happened before [`Output::flush`] could return it.
    failed: Option<io::Error>,
    terminal: bool,
}

/// Once the buffer has this many bytes, it is written without waiting for [`Output::flush`].
const MAX_BUFFERED: usize = 1 << 16;

/// Moves a terminal's cursor to the first line and erases the screen (ECMA-48: CUP, ED).
const CLEAR_SCREEN: &[u8] = b"\x1b[H\x1b[2J";

impl<W: Write> RowSink for Output<W> {
    fn row(&mut self, row: &dyn Cells) {
        match &mut self.renderer {
            Renderer::Table(table) => table.row(row, &self.zone, &mut self.buffer),
            Renderer::Csv(csv) => csv.row(row, &self.zone, &mut self.buffer),
            Renderer::Json(json) => json.row(row, &mut self.buffer),
        }
        if self.buffer.len() >= MAX_BUFFERED && self.failed.is_none() {
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

    fn heading(&mut self, columns: &[Column]) {
        if let Renderer::Table(table) = &mut self.renderer {
            table.heading(columns, &mut self.buffer);
        }
    }

    fn clear(&mut self) {
        if matches!(self.renderer, Renderer::Table(_)) && self.terminal {
            self.buffer.extend_from_slice(CLEAR_SCREEN);
        }
    }
}

impl<W: Write> Output<W> {
    /// Rows in this format. Times of day are shown in `zone`.
    pub fn new(format: Format, zone: Zone, sink: W) -> Self {
        let renderer = match format {
            Format::Table => Renderer::Table(table::Table::default()),
            Format::Csv => Renderer::Csv(csv::Csv::default()),
            Format::Json => Renderer::Json(json::Json::default()),
        };
        Self { renderer, zone, buffer: Vec::new(), sink, failed: None, terminal: false }
    }

    /// Whether `sink` is a terminal.
    #[must_use]
    pub fn terminal(self, terminal: bool) -> Self {
        Self { terminal, ..self }
    }

    /// Writes the line of headings that CSV begins with. The other formats have none.
    pub fn csv_heading(&mut self, columns: &[Column]) {
        if let Renderer::Csv(_) = self.renderer {
            csv::heading(columns, &mut self.buffer);
        }
    }

    /// Gives the destination back. What was not flushed is dropped.
    pub fn into_sink(self) -> W {
        self.sink
    }

    /// Writes all rows so far, so that the reader has whole lines.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = match self.failed.take() {
            Some(error) => Err(error),
            None => self.sink.write_all(&self.buffer),
        };
        self.buffer.clear();
        written.and_then(|()| self.sink.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Columns, Value};

    /// What is shown in the tests: values of several kinds.
    #[derive(Clone)]
    struct Sample {
        pid: u64,
        comm: [u8; 16],
        addr: &'static str,
    }

    fn sample(comm: &[u8], addr: &'static str) -> Sample {
        let mut padded = [0; 16];
        padded[..comm.len()].copy_from_slice(comm);
        Sample { pid: 42, comm: padded, addr }
    }

    fn columns() -> Columns<Sample> {
        Columns::new()
            .column(Column::new("PID", 5).key("pid"), |row: &Sample| Value::Number(row.pid))
            .column(Column::new("COMM", 6).cut().key("comm"), |row| Value::Comm(&row.comm))
            .column(Column::new("ADDR", 9).key("addr"), |row| {
                Value::Ip(row.addr.parse().expect("an address"))
            })
            .column(Column::new("->", 2).table_only(), |_| Value::Word("->"))
            .column(Column::new("TX_KB", 5).right().key("tx_bytes"), |_| Value::Bytes(2047))
            .column(Column::json_only("secret"), |_| Value::Flag(true))
            .column(Column::new("HIDDEN", 5).shown_if(false), |_| panic!("no format shows it"))
            .column(Column::new("MS", 0).key("ns"), |_| Value::Millis {
                ns: 1_500_000,
                digits: 2,
                at_least: false,
            })
    }

    fn written(format: Format, write: impl FnOnce(&mut Output<Vec<u8>>)) -> String {
        let mut output = Output::new(format, Zone::utc(), Vec::new());
        write(&mut output);
        output.flush().expect("a Vec takes everything");
        String::from_utf8(output.sink).expect("UTF-8")
    }

    fn rendered<R>(format: Format, columns: &Columns<R>, rows: &[R]) -> String {
        written(format, |output| {
            output.csv_heading(columns.headings());
            output.heading(columns.headings());
            for row in rows {
                output.row(&columns.row(row));
            }
        })
    }

    /// A burst of rows is written in whole rows as it comes, and an error of the destination is
    /// reported by `flush`.
    #[test]
    fn large_output_is_written_early() {
        struct Limited(usize);
        impl Write for Limited {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                assert_eq!(bytes.last(), Some(&b'\n'));
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let columns = Columns::new().column(Column::new("PID", 99), |(): &()| Value::Word("some text"));
        let mut output = Output::new(Format::Table, Zone::utc(), Limited(3 * MAX_BUFFERED));
        for _ in 0..MAX_BUFFERED {
            output.row(&columns.row(&()));
            assert!(output.failed.is_some() || output.buffer.len() < MAX_BUFFERED);
        }
        assert_eq!(output.flush().expect_err("full").kind(), io::ErrorKind::StorageFull);
        assert!(output.buffer.is_empty() && output.flush().is_ok());
    }

    /// A row alone waits for `flush`. Once a write has failed, nothing is written any more.
    #[test]
    fn little_output_waits_for_flush() {
        struct Refusing(usize);
        impl Write for Refusing {
            fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(io::ErrorKind::StorageFull.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let columns = Columns::new().column(Column::new("PID", 99), |(): &()| Value::Word("some text"));
        let mut output = Output::new(Format::Table, Zone::utc(), Refusing(0));
        output.row(&columns.row(&()));
        assert_eq!((output.sink.0, output.buffer.is_empty()), (0, false));
        let rows = 4 * MAX_BUFFERED / output.buffer.len();
        for _ in 0..rows {
            output.row(&columns.row(&()));
        }
        assert_eq!(output.sink.0, 1);
        assert!(output.flush().is_err());
    }

    /// Characters are counted, not bytes.
    #[test]
    fn text_is_cut_between_characters() {
        let columns = Columns::new()
            .column(Column::new("NAME", 4).cut(), |text: &&str| Value::Text(text))
            .column(Column::new("N", 1), |_| Value::Number(1));
        let text = rendered(Format::Table, &columns, &["äöüßé", "é"]);
        assert_eq!(text, "NAME N\näöüß 1\né    1\n");
    }

    #[test]
    fn table_pads_cuts_and_grows() {
        let rows = [
            sample(b"nginx", "127.0.0.1"),
            sample(b"longername", "2001:db8::1"),
            sample(b"nginx", "127.0.0.1"),
        ];
        let expected = "\
PID   COMM   ADDR      -> TX_KB MS
42    nginx  127.0.0.1 ->     1 1.50
42    longer 2001:db8::1 ->     1 1.50
42    nginx  127.0.0.1   ->     1 1.50
";
        let text = rendered(Format::Table, &columns(), &rows);
        assert_eq!(text, expected, "rows after a wide one stay aligned with it");
    }

    #[test]
    fn csv_quotes_what_needs_it_and_leaves_ornaments_out() {
        let text = rendered(Format::Csv, &columns(), &[sample(b"a,\"b", "::1")]);
        assert_eq!(text, "PID,COMM,ADDR,TX_KB,MS\n42,\"a,\"\"b\",::1,1,1.50\n");
    }

    #[test]
    fn json_has_raw_units_and_every_key() {
        let expected = r#"{"pid":42,"comm":"a\"b","addr":"::1","tx_bytes":2047,"secret":true,"ns":1500000}"#;
        assert_eq!(rendered(Format::Json, &columns(), &[sample(b"a\"b", "::1")]).trim_end(), expected);
    }

    #[test]
    fn unknown_is_a_dash_or_null() {
        let column = |heading, key| Column::new(heading, 5).key(key);
        let columns = Columns::new()
            .column(column("PID", "pid"), |(): &()| Value::Unknown)
            .column(column("MS", "ns"), |()| Value::Unknown);
        assert!(rendered(Format::Table, &columns, &[()]).ends_with("\n-     -\n"));
        assert!(rendered(Format::Csv, &columns, &[()]).ends_with("\n-,-\n"));
        assert_eq!(rendered(Format::Json, &columns, &[()]), "{\"pid\":null,\"ns\":null}\n");
    }

    #[test]
    fn an_object_without_members_is_an_object() {
        let columns = Columns::new().column(Column::new("PID", 5), |(): &()| Value::Unknown);
        assert_eq!(rendered(Format::Json, &columns, &[()]), "{}\n");
    }

    #[test]
    fn lines_and_headings_are_for_people() {
        let subnets = Columns::new()
            .column(Column::new("SUBNET", 12).key("subnet"), |(): &()| Value::Text("192.0.2.0/24"))
            .column(Column::new("BYTES", 6).right(), |()| Value::Number(856));
        let write = |output: &mut Output<Vec<u8>>| {
            output.csv_heading(columns().headings());
            output.line(format_args!("[10:04:50]"));
            output.heading(subnets.headings());
            output.row(&subnets.row(&()));
            output.clear();
        };
        let table = "[10:04:50]\nSUBNET        BYTES\n192.0.2.0/24    856\n";
        assert_eq!(written(Format::Table, write), table);
        assert_eq!(written(Format::Json, write), "{\"subnet\":\"192.0.2.0/24\"}\n");
        assert_eq!(written(Format::Csv, write), "PID,COMM,ADDR,TX_KB,MS\n192.0.2.0/24,856\n");
        let mut output = Output::new(Format::Table, Zone::utc(), Vec::new()).terminal(true);
        output.clear();
        assert_eq!(output.buffer, CLEAR_SCREEN);
    }

    /// A table that begins anew has the widths of its own columns, not those of the table before.
    #[test]
    fn each_table_has_its_own_widths() {
        let columns = columns();
        let text = written(Format::Table, |output| {
            for addr in ["2001:db8::1", "127.0.0.1"] {
                output.heading(columns.headings());
                output.row(&columns.row(&sample(b"nginx", addr)));
            }
        });
        assert!(text.ends_with("ADDR      -> TX_KB MS\n42    nginx  127.0.0.1 ->     1 1.50\n"), "{text}");
    }

    #[test]
    fn lists_and_objects_are_json() {
        struct Entry {
            names: Vec<String>,
            members: Vec<(&'static str, Value<'static>)>,
        }
        let columns = Columns::new()
            .column(Column::json_only("stack"), |row: &Entry| Value::List(&row.names))
            .column(Column::json_only("entries"), |row| Value::Object(&row.members));
        let entry = Entry {
            names: vec!["a\"b".to_owned(), "c".to_owned()],
            members: vec![("x", Value::Number(1)), ("y", Value::Quotient { of: 2000, by: 1024 })],
        };
        let expected = "{\"stack\":[\"a\\\"b\",\"c\"],\"entries\":{\"x\":1,\"y\":1.953125}}\n";
        assert_eq!(rendered(Format::Json, &columns, &[entry]), expected);
    }
}
