//! What must hold of any bytes: the bodies of the fuzz targets, see `tests/fuzz`.

// A property that does not hold is a panic, for whoever runs the target.
#![allow(clippy::missing_panics_doc)]

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::mem::offset_of;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use bpfasm::target::Target;
use clap::error::ErrorKind;
use programs::tcpdrop;
use rows::escape::Escaped;
use rows::time::{Clock, Zone};
use rows::{Column, Format, Output, Page, Value};

use crate::args;
use crate::failure::Failure;
use crate::target::{parse_target, target_words};
use crate::tool::{self, Moment, Session};

/// Command lines, with zeroes between the words. Each means something, for every kernel that it could run on, or is wrong in one
/// line; so it does when the tool looks at the host.
pub fn arguments(data: &[u8]) {
    let words: Vec<OsString> =
        data.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let tool = words.first().and_then(|word| word.to_str()).and_then(tool::find);
    let command = tool.map_or_else(crate::command, crate::tool_command);
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => return,
        Err(error) => return one_line(crate::said_by_clap(&error)),
    };
    let (tool, matches) = match (tool, matches.subcommand()) {
        (Some(tool), _) => (tool, &matches),
        (None, Some((name, matches))) => match tool::find(name) {
            Some(tool) => (tool, matches),
            None => return,
        },
        (None, None) => return,
    };
    let shared = args::read_shared(matches);
    let mut session = tool.session(matches, &shared);
    match session.prepare() {
        Ok(()) => {}
        // Something that the command line asks for is not on this host.
        Err(Failure::Failed(_)) => return,
        Err(failure) => return one_line(Err(failure)),
    }
    assert!(shared.duration.is_none_or(|duration| !duration.is_zero()));
    assert!(
        session.schedule().is_none_or(|schedule| !schedule.interval.is_zero() && schedule.reports != Some(0))
    );
    assert!(!session.columns().is_empty());
    for words in ["6.18-x86_64-typed-fexit", "5.10-aarch64-probed-perf-kprobe"] {
        let target = shared.target.clone().unwrap_or_else(|| described(words));
        assert_eq!(parse_target(&target_words(&target)).as_ref(), Ok(&target));
        let object = session.object(&target).expect("what the command line takes has a program");
        for program in object.hooks.iter().flat_map(|hook| &hook.attach_options) {
            assert!(program.program.insns.len() <= MOST_INSNS, "{} {data:?}", tool.name());
        }
    }
}

/// What old kernels take of a program (`BPF_MAXINSNS`).
const MOST_INSNS: usize = 4096;

fn described(words: &str) -> Target {
    parse_target(words).expect("a kernel")
}

/// Whether the command line was refused in one line that shows nothing but itself.
fn one_line(result: Result<(), Failure>) {
    let failure = result.expect_err("it was refused");
    let Failure::Usage(line) = failure else { panic!("{failure:?} is no matter of the command line") };
    assert!(!line.is_empty());
    let shown = rows::escape::Message(&line).to_string();
    assert!(shown.chars().all(|char| !char.is_control() || char == '\n'), "{shown:?}");
    assert!(shown.split('\n').skip(1).all(|line| line.starts_with("  ")), "{shown:?}");
}

/// Records of programs, shown by every tool: the first byte says by which and how, the next two how long a record is.
pub fn events(data: &[u8]) {
    let [which, length @ .., _] = data else { return };
    let (Some(length), true) = (length.first_chunk::<2>(), data.len() > 4) else { return };
    let length = usize::from(u16::from_le_bytes(*length)).clamp(1, 700);
    thread_local! {
        static SESSIONS: RefCell<Vec<(Box<dyn Session>, Format)>> = RefCell::new(sessions());
    }
    SESSIONS.with_borrow_mut(|sessions| {
        let which = usize::from(*which) % sessions.len();
        let (session, format) = &mut sessions[which];
        let clock = Clock::now().expect("clocks");
        let mut sheet = Sheet::new(*format, session.columns());
        for record in data[3..].chunks(length).take(8) {
            let before = sheet.rows;
            let is_event = session.event(&few_addresses(record, which), clock, &mut sheet).is_some();
            assert!(is_event || sheet.rows == before, "what is no event is no row");
        }
        while !session.settle(clock, &mut sheet) {}
        sheet.check();
    });
}

/// Each of these addresses that is asked for costs a look at `/proc/kallsyms`, so `tcpdrop` gets few.
fn few_addresses(record: &[u8], which: usize) -> Vec<u8> {
    let mut record = record.to_vec();
    if DROPS.contains(&which) {
        let ts = offset_of!(tcpdrop::Event, location);
        let words = record.iter_mut().enumerate();
        words
            .filter(|(at, _)| (ts..ts + 8).contains(at) || *at >= tcpdrop::Event::SIZE.into())
            .for_each(|(at, byte)| *byte = if at % 8 == 0 { *byte & 1 } else { 0 });
    }
    record
}

/// Command lines whose sessions show events; those of `tcpdrop` first.
const LINES: [&[&str]; 11] = [
    &["tcpdrop"],
    &["tcpdrop", "--owner", "--purged"],
    &["tcpconnlat", "--failed", "-t", "-L"],
    &["tcplife", "-T", "-t", "-w", "--failed"],
    &["tcplife", "--existing"],
    &["tcpretrans", "-s", "-l", "--owner"],
    &["tcpretrans", "--failed"],
    &["tcpstates", "-T", "-t"],
    &["tcpstates", "-w"],
    &["tcptracer", "-t", "-v"],
    &["tcptracer", "-U"],
];

const FORMATS: [&str; 3] = ["", "--csv", "--json"];

const DROPS: std::ops::Range<usize> = 0..2 * FORMATS.len();

fn sessions() -> Vec<(Box<dyn Session>, Format)> {
    let lines = LINES.iter().flat_map(|line| FORMATS.map(|format| [line, [format].as_slice()].concat()));
    lines
        .map(|line| {
            let tool = tool::find(line[0]).expect("a tool");
            let words = line.into_iter().filter(|word| !word.is_empty());
            let matches = crate::tool_command(tool).try_get_matches_from(words).expect("right usage");
            let shared = args::read_shared(&matches);
            (tool.session(&matches, &shared), shared.format)
        })
        .collect()
}

/// Entries of the table of `tcptop`, as its report shows them: the first byte says how.
pub fn report(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let format = FORMATS[usize::from(*which) % FORMATS.len()];
    let line = ["tcptop", "-C", "-S", format];
    let tool = tool::find("tcptop").expect("a tool");
    let matches =
        crate::tool_command(tool).try_get_matches_from(line.into_iter().filter(|word| !word.is_empty()));
    let matches = matches.expect("right usage");
    let top = crate::tcptop::Top::new(&matches, &args::read_shared(&matches));
    let mut sheet = Sheet::new(args::read_shared(&matches).format, top.columns());
    let (key, value) =
        (usize::from(programs::tcptop::Flow::SIZE), usize::from(programs::tcptop::Traffic::SIZE));
    let entries: Vec<_> =
        rest.chunks(key + value).map(|entry| entry.split_at(key.min(entry.len()))).collect();
    let whole = entries.iter().filter(|(_, traffic)| traffic.len() == value).count();
    let now = Moment { wall: i128::from(*which) << 56, elapsed: Duration::MAX, last: true };
    top.report_on(entries.into_iter(), now, &mut sheet);
    assert!(sheet.rows <= whole, "{} rows of {whole} entries", sheet.rows);
    sheet.check();
}

/// What a tool wrote, and how much of it should be rows.
struct Sheet {
    output: Output<Vec<u8>>,
    format: Format,
    columns: Vec<Column>,
    rows: usize,
    /// Other lines.
    lines: usize,
}

impl Sheet {
    fn new(format: Format, columns: Vec<Column>) -> Self {
        let output = Output::new(format, columns.clone(), Zone::utc(), Vec::new());
        Self { output, format, columns, rows: 0, lines: 0 }
    }

    /// Fails when a row is not one line, or its parts are not those of its columns.
    fn check(mut self) {
        self.output.flush().expect("a Vec takes everything");
        let text = String::from_utf8(self.output.into_sink()).expect("UTF-8");
        let lines = text.split_terminator('\n');
        let harmless = |char: char| {
            !char.is_control() && Escaped(char.encode_utf8(&mut [0; 4]).as_bytes()).to_string().len() < 5
        };
        match self.format {
            Format::Table => {
                assert_eq!(lines.clone().count(), self.rows + self.lines, "{text:?}");
                assert!(
                    lines.clone().all(|line| line.trim_start_matches('\t').chars().all(harmless)),
                    "{text:?}"
                );
            }
            Format::Csv => {
                let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
                let width = self.columns.iter().filter(|column| column.in_csv()).count();
                let mut rows = 0;
                for record in reader.records() {
                    let record = record.expect("each row has as many fields as the first");
                    assert_eq!(record.len(), width, "{text:?}");
                    assert!(record.iter().all(|field| field.chars().all(harmless)), "{text:?}");
                    rows += 1;
                }
                assert_eq!((rows, lines.count()), (self.rows, self.rows), "{text:?}");
            }
            Format::Json => {
                assert_eq!(lines.clone().count(), self.rows, "{text:?}");
                for line in lines {
                    let row: serde_json::Map<String, serde_json::Value> =
                        serde_json::from_str(line).expect("an object");
                    let keys: Vec<&str> = self.columns.iter().filter_map(Column::json_key).collect();
                    assert_eq!(row.len(), keys.len(), "{line}");
                    assert!(keys.iter().all(|key| row.contains_key(*key)), "{line}");
                    let strings = row.values().filter_map(|value| value.as_str());
                    assert!(strings.flat_map(str::chars).all(harmless), "{line}");
                }
            }
        }
    }
}

impl Page for Sheet {
    fn row(&mut self, values: &[Value<'_>]) {
        assert_eq!(values.len(), self.columns.len(), "a value for each column");
        self.rows += 1;
        self.output.row(values);
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.lines += 1;
        self.output.line(text);
    }

    fn table(&mut self, columns: Vec<Column>) {
        self.lines += 1;
        self.columns.clone_from(&columns);
        self.output.table(columns);
    }

    fn clear(&mut self) {}
}

/// `/proc/kallsyms`, behind the addresses that are looked for.
pub fn kallsyms(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let count = usize::from(count % 8);
    let Some((addresses, file)) = rest.split_at_checked(8 * count) else { return };
    let addresses = addresses.as_chunks().0.iter().map(|address| u64::from_le_bytes(*address));
    crate::kallsyms::find_in(file, addresses.collect());
}

/// Text of others, in a row. It holds nothing that is not seen, and each text reads as itself only.
pub fn text(data: &[u8]) {
    let shown = Escaped(data).to_string();
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert!(shown.len() <= 4 * data.len());
    let mut bytes = shown.bytes();
    let mut read = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            read.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'\\') => read.push(b'\\'),
            Some(b'x') => {
                let mut digit =
                    || bytes.next().and_then(|digit| char::from(digit).to_digit(16)).expect("a digit");
                read.push(u8::try_from(digit() << 4 | digit()).expect("two digits"));
            }
            other => panic!("{other:?} in {shown:?}"),
        }
    }
    assert_eq!(read, data, "{shown:?}");
}

/// An answer of `sock_diag`; the same bytes are also taken for a link in `/proc/PID/fd`.
pub fn sock_diag(data: &[u8]) {
    crate::open_sockets::fuzz::answer(data);
    if let Some(inode) = crate::open_sockets::fuzz::inode(&String::from_utf8_lossy(data)) {
        assert_eq!(crate::open_sockets::fuzz::inode(&format!("socket:[{inode}]")), Some(inode));
    }
}

#[cfg(test)]
mod tests {
    use test_support::fuzz;

    #[test]
    fn sock_diag() {
        fuzz::run("tools_sock_diag", 20_000, super::sock_diag);
    }

    #[test]
    fn arguments() {
        fuzz::run("tools_arguments", 300, super::arguments);
    }

    #[test]
    fn events() {
        fuzz::run("tools_events", 6000, super::events);
    }

    #[test]
    fn report() {
        fuzz::run("tools_report", 400, super::report);
    }

    #[test]
    fn kallsyms() {
        fuzz::run("tools_kallsyms", 10_000, super::kallsyms);
    }

    #[test]
    fn text() {
        fuzz::run("tools_text", 20_000, super::text);
    }
}
