//! Properties that hold for any bytes: the bodies of the fuzz targets, see `tests/fuzz`.

// A property that does not hold is a panic, for the fuzzer to find.
#![allow(clippy::missing_panics_doc)]

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::mem::offset_of;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use bpfasm::target::Target;
use clap::error::ErrorKind;
use programs::stats::Stats;
use programs::tcpdrop;
use rows::escape::Escaped;
use rows::time::{Clock, Zone};
use rows::{Cells, Column, Format, Output, RowSink};

use crate::cli;
use crate::cli::command::{clap_answer, of_tool};
use crate::cli::settings::{EbpfOptions, RunOptions, Settings};
use crate::cli::target::{parse_target, target_words};
use crate::failure::Failure;
use crate::host::symbols::Symbols;
use crate::tool::{Context, Plan, Report};
use crate::tools;

/// Command lines, as words separated by zero bytes. Each is refused in one line, or has a plan
/// whose programs can be built for every kernel.
pub fn arguments(data: &[u8]) {
    let words: Vec<OsString> =
        data.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let tool = words.first().and_then(|word| word.to_str()).and_then(tools::find);
    let command = tool.map_or_else(cli::tcptools, of_tool);
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => return,
        Err(error) => return one_line(clap_answer(&error)),
    };
    let (tool, matches) = match (tool, matches.subcommand()) {
        (Some(tool), _) => (tool, &matches),
        (None, Some((name, matches))) => match tools::find(name) {
            Some(tool) => (tool, matches),
            None => return,
        },
        (None, None) => return,
    };
    let plan = match (tool.plan)(matches, &Settings::read(matches)) {
        Ok(plan) => plan,
        Err(failure) => return one_line(Err(failure)),
    };
    match cli::containers::check(&plan.containers) {
        // The host lacks something that the command line asks for.
        Ok(()) | Err(Failure::Failed(_)) => {}
        Err(failure) => return one_line(Err(failure)),
    }
    assert!(RunOptions::read(matches).duration.is_none_or(|duration| !duration.is_zero()));
    assert!(plan.schedule.is_none_or(|schedule| !schedule.interval.is_zero() && schedule.reports != Some(0)));
    assert!(!plan.session.headings().is_empty());
    for words in ["6.18-x86_64-typed-fexit", "5.10-aarch64-probed-perf-kprobe"] {
        let named = EbpfOptions::read(matches).and_then(|options| options.target);
        let target = named.unwrap_or_else(|| described(words));
        assert_eq!(parse_target(&target_words(&target)).as_ref(), Ok(&target));
        let object = (plan.object)(&target).expect("every plan has programs");
        for program in object.hooks.iter().flat_map(|hook| &hook.attach_options) {
            assert!(program.program.insns.len() <= BPF_MAXINSNS, "{} {data:?}", tool.name);
        }
    }
}

/// The longest program that old kernels accept (include/uapi/linux/bpf_common.h).
const BPF_MAXINSNS: usize = 4096;

fn described(words: &str) -> Target {
    parse_target(words).expect("a kernel")
}

/// Checks that a command line was refused in one line without control characters.
fn one_line(result: Result<(), Failure>) {
    let failure = result.expect_err("it was refused");
    let Failure::Usage(line) = failure else { panic!("{failure:?} is not about the command line") };
    assert!(!line.is_empty());
    let shown = rows::escape::Message(&line).to_string();
    assert!(shown.chars().all(|char| !char.is_control() || char == '\n'), "{shown:?}");
    assert!(shown.split('\n').skip(1).all(|line| line.starts_with("  ")), "{shown:?}");
}

/// A tool's command line, and its plan.
struct Planned {
    tool: &'static str,
    format: Format,
    plan: Plan,
}

const FORMATS: [&str; 3] = ["", "--csv", "--json"];

/// The plans of these command lines, in each format.
fn plans(lines: &[&[&str]]) -> Vec<Planned> {
    let lines = lines.iter().flat_map(|line| FORMATS.map(|format| [line, [format].as_slice()].concat()));
    lines
        .map(|line| {
            let tool = tools::find(line[0]).expect("a tool");
            let words = line.into_iter().filter(|word| !word.is_empty());
            let matches = of_tool(tool).try_get_matches_from(words).expect("right usage");
            let settings = Settings::read(&matches);
            let plan = (tool.plan)(&matches, &settings).expect("a plan");
            Planned { tool: tool.name, format: settings.format, plan }
        })
        .collect()
}

/// Command lines of tools that print a row per event.
const EVENT_LINES: &[&[&str]] = &[
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

/// Command lines of tools that print reports.
const REPORT_LINES: &[&[&str]] =
    &[&["tcptop", "-C", "-S"], &["tcptop"], &["tcpsubnet", "--sort", "-f", "K"], &["tcpretrans", "-c"]];

/// Records of programs, shown by every tool: the first byte says by which and how, the next two how
/// long a record is.
pub fn events(data: &[u8]) {
    let [which, length @ .., _] = data else { return };
    let (Some(length), true) = (length.first_chunk::<2>(), data.len() > 4) else { return };
    let length = usize::from(u16::from_le_bytes(*length)).clamp(1, 700);
    thread_local! {
        static STATE: RefCell<(Vec<Planned>, Symbols)> = RefCell::new((plans(EVENT_LINES), Symbols::open()));
    }
    STATE.with_borrow_mut(|(plans, symbols)| {
        let which = usize::from(*which) % plans.len();
        let Planned { tool, format, plan } = &mut plans[which];
        let clock = Clock::now().expect("clocks");
        let mut context = Context { clock, symbols, journal: None };
        let mut sink = CheckedSink::new(*format, plan.session.headings());
        for record in data[3..].chunks(length).take(8) {
            let before = sink.rows;
            let record = if *tool == "tcpdrop" { few_addresses(record) } else { record.to_vec() };
            let is_event = plan.session.event(&record, &mut context, &mut sink).is_some();
            assert!(is_event || sink.rows == before, "a record that is not an event has no row");
        }
        while !plan.session.flush_pending(&mut context, &mut sink) {}
        sink.check();
    });
}

/// Each different address costs a search through `/proc/kallsyms`, so `tcpdrop` gets few of them.
fn few_addresses(record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    let location = offset_of!(tcpdrop::Event, location);
    for (at, byte) in record.iter_mut().enumerate() {
        if (location..location + 8).contains(&at) || at >= tcpdrop::Event::SIZE.into() {
            *byte = if at % 8 == 0 { *byte & 1 } else { 0 };
        }
    }
    record
}

/// Entries of maps, shown by the tools that print reports: the first byte says by which and how,
/// the next two how long keys and values are.
pub fn report(data: &[u8]) {
    let [which, key, value, rest @ ..] = data else { return };
    let mut plans = plans(REPORT_LINES);
    let which = usize::from(*which) % plans.len();
    let Planned { tool, format, plan } = &mut plans[which];
    let (key, value) = match *tool {
        "tcptop" => (programs::tcptop::Flow::SIZE.into(), programs::tcptop::Traffic::SIZE.into()),
        "tcpretrans" => (programs::tcpretrans::Flow::SIZE.into(), programs::tcpretrans::Tally::SIZE.into()),
        _ => (usize::from(*key % 16), usize::from(*value % 64)),
    };
    let entries: Vec<_> =
        rest.chunks((key + value).max(1)).map(|entry| entry.split_at(key.min(entry.len()))).collect();
    let most = entries.len();
    let report = Report {
        wall: i128::from(data[0]) << 56,
        elapsed: Duration::MAX,
        entries,
        counters: Stats::decode(&[0; Stats::SIZE as usize]).expect("counters"),
        load_average: None,
        zone: &Zone::utc(),
    };
    let mut sink = CheckedSink::new(*format, plan.session.headings());
    plan.session.report(&report, &mut sink);
    assert!(sink.rows <= most.max(1), "{} rows of {most} entries", sink.rows);
    sink.check();
}

/// Writes rows, and counts what the text has to have.
struct CheckedSink {
    output: Output<Vec<u8>>,
    format: Format,
    columns: Vec<Column>,
    rows: usize,
    /// Lines that are not rows.
    lines: usize,
}

impl CheckedSink {
    fn new(format: Format, columns: &[Column]) -> Self {
        let output = Output::new(format, Zone::utc(), Vec::new());
        Self { output, format, columns: columns.to_vec(), rows: 0, lines: 0 }
    }

    /// Checks that each row is one line, whose parts are those of its columns.
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

impl RowSink for CheckedSink {
    fn row(&mut self, row: &dyn Cells) {
        self.rows += 1;
        self.output.row(row);
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.lines += 1 + text.to_string().matches('\n').count();
        self.output.line(text);
    }

    fn heading(&mut self, columns: &[Column]) {
        self.lines += 1;
        self.output.heading(columns);
    }

    fn clear(&mut self) {}
}

/// `/proc/kallsyms`, after the addresses to look for.
pub fn kallsyms(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let count = usize::from(count % 8);
    let Some((addresses, file)) = rest.split_at_checked(8 * count) else { return };
    let addresses = addresses.as_chunks().0.iter().map(|address| u64::from_le_bytes(*address));
    crate::host::kallsyms::find_in(file, addresses.collect());
}

/// Text that others chose, in a row. Every character of it is visible, and no two texts are shown
/// alike.
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
    crate::host::open_sockets::fuzz::answer(data);
    if let Some(inode) = crate::host::open_sockets::fuzz::inode(&String::from_utf8_lossy(data)) {
        assert_eq!(crate::host::open_sockets::fuzz::inode(&format!("socket:[{inode}]")), Some(inode));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use test_support::fuzz;

    #[test]
    fn every_tool_is_fuzzed() {
        let fuzzed: BTreeSet<&str> =
            super::EVENT_LINES.iter().chain(super::REPORT_LINES).map(|line| line[0]).collect();
        assert_eq!(fuzzed, crate::tool_names().collect());
    }

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
