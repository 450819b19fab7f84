//! tcpsubnet: bytes sent to subnets, interval by interval.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use ipnet::IpNet;
use programs::tcpsubnet::{self, MAX_COMPARED, Options};
use programs::{subnet, trie};
use rows::time::{LocalDate, LocalTime};
use rows::{Column, Columns, Format, RowSink, Value};

use super::values;
use crate::cli::args::{self, switch};
use crate::cli::filters;
use crate::cli::settings::Settings;
use crate::failure::Failure;
use crate::selftest::check::{Check, Scenario};
use crate::selftest::expect::Row;
use crate::tool::{MapContent, MapSource, Plan, Preexisting, Report, Schedule, Session, Tool};

pub static TOOL: Tool = Tool { name: "tcpsubnet", about: "Bytes sent to subnets", args, plan, selftest };

/// Subnets without a command line: loopback, the private networks, and the rest of IPv4.
const DEFAULT: &str = "127.0.0.1/32,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,0.0.0.0/0";

/// The kernel allocates an entry for each at the start.
const MAX_SUBNETS: usize = 10_000;

fn args(command: Command) -> Command {
    command
        .arg(
            Arg::new("subnets")
                .value_name("SUBNETS")
                .num_args(1..)
                .default_value(DEFAULT)
                .value_parser(subnets)
                .help("Subnets, separated by commas; bytes count for the first one that contains the remote address"),
        )
        .arg(
            Arg::new("interval")
                .long("interval")
                .short('i')
                .value_name("SECONDS")
                .default_value("1")
                .value_parser(args::interval())
                .help("Seconds from one report to the next"),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .short('f')
                .value_name("UNIT")
                .default_value("B")
                .value_parser(PossibleValuesParser::new(["b", "k", "m", "B", "K", "M"]))
                .help("Unit of the table and JSON: bits, Kbit, Mbit, bytes, KB or MB"),
        )
        .arg(switch("sort", "Sort by bytes, not in the order of SUBNETS"))
        .arg(args::json().short('J').help("One JSON object per report, in the unit of -f"))
}

fn selftest() -> Check {
    // One report, at the end. Bytes sent by one side count for the other side's address.
    let scenario = Scenario::Conversation(|conversation| {
        let mut entries = serde_json::json!({});
        for side in [&conversation.client, &conversation.server] {
            entries[format!("{}/32", side.remote().ip())] = side.sent.into();
        }
        vec![Row::default().is("entries", entries)]
    });
    Check { args: &["--interval", "3600", "127.0.0.2/32,127.0.0.3/32,0.0.0.0/0"], scenario }
}

fn plan(matches: &ArgMatches, settings: &Settings) -> Result<Plan, Failure> {
    let subnets = matches.get_many("subnets").into_iter().flatten();
    let (texts, subnets): (Vec<String>, Vec<IpNet>) =
        subnets.flat_map(|Subnets(subnets)| subnets.iter().cloned()).unzip();
    check(&texts, &subnets)?;
    let contents = if subnets.len() > MAX_COMPARED {
        let entries = trie::entries(&subnets).into_iter();
        entries.map(|(map, key, value)| MapContent { map, key, value: value.to_vec() }).collect()
    } else {
        Vec::new()
    };
    let interval: u32 = *matches.get_one("interval").expect("it has a default");
    let session = Subnet {
        headings: headings(settings.format),
        before: vec![0; texts.len()],
        texts,
        format: settings.format,
        unit: Unit::of(matches.get_one::<String>("format").expect("it has a default")),
        sort: matches.get_flag("sort"),
    };
    let options = Options { filter: filters::read(matches), subnets, max_sockets: settings.max_sockets };
    Ok(Plan {
        schedule: Some(Schedule { interval: Duration::from_secs(interval.into()), reports: None }),
        maps: MapSource::Read(tcpsubnet::MAP),
        contents,
        preexisting: Preexisting::Table,
        local_time: true,
        ..Plan::new(move |target| tcpsubnet::object(&options, target), session)
    })
}

/// Every subnet has one row, so none may be named twice.
fn check(texts: &[String], subnets: &[IpNet]) -> Result<(), Failure> {
    if texts.len() > MAX_SUBNETS {
        return Err(Failure::Usage(format!("at most {MAX_SUBNETS} subnets")));
    }
    let mut known = HashSet::new();
    for (subnet, text) in subnets.iter().zip(texts) {
        if !known.insert(subnet::canonical(*subnet)) {
            return Err(Failure::Usage(format!("`{text}` is named twice")));
        }
    }
    Ok(())
}

/// A list of subnets, each also as it was typed.
#[derive(Clone, Debug, PartialEq)]
struct Subnets(Vec<(String, IpNet)>);

fn subnets(text: &str) -> Result<Subnets, String> {
    let subnet = |word: &str| {
        let word = word.trim();
        let subnet = word.parse().map_err(|_| {
            format!(
                "`{word}` is not a subnet: expected ADDRESS/PREFIX, such as 192.0.2.0/24 or 2001:db8::/32"
            )
        })?;
        Ok((word.to_owned(), subnet))
    };
    text.split(',').map(subnet).collect::<Result<_, _>>().map(Subnets)
}

/// The unit that bytes are shown in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unit {
    /// Whether it counts bits.
    bits: bool,
    /// This many bits or bytes are one unit.
    size: u64,
}

impl Unit {
    /// The unit that a letter stands for.
    fn of(letter: &str) -> Self {
        let size = match letter {
            "k" | "K" => 1 << 10,
            "m" | "M" => 1 << 20,
            _ => 1,
        };
        Self { bits: matches!(letter, "b" | "k" | "m"), size }
    }

    fn amount(self, bytes: u64) -> u64 {
        if self.bits { bytes.saturating_mul(8) } else { bytes }
    }

    /// Whole units.
    fn floored(self, bytes: u64) -> Value<'static> {
        Value::Number(self.amount(bytes) / self.size)
    }

    /// Units, with fractions.
    fn exactly(self, bytes: u64) -> Value<'static> {
        let amount = self.amount(bytes);
        if self.size == 1 {
            return Value::Number(amount);
        }
        Value::Quotient { of: amount, by: self.size }
    }
}

/// A subnet and the bytes sent to it. JSON has one row per report, [`Interval`]; the other formats
/// have one per subnet.
struct SubnetRow<'a> {
    wall: i128,
    subnet: &'a str,
    bytes: u64,
    unit: Unit,
}

fn table<'a>() -> Columns<SubnetRow<'a>> {
    Columns::new()
        .column(Column::new("SUBNET", 21), |row: &SubnetRow<'a>| Value::Text(row.subnet))
        .column(Column::new("BYTES", 6).right(), |row| row.unit.floored(row.bytes))
}

fn csv<'a>() -> Columns<SubnetRow<'a>> {
    Columns::new()
        .column(Column::new("TS", 0), |row: &SubnetRow<'a>| values::nanoseconds(row.wall.unsigned_abs()))
        .column(Column::new("SUBNET", 0), |row| Value::Text(row.subnet))
        .column(Column::new("BYTES", 0), |row| Value::Number(row.bytes))
}

/// A report as one JSON object.
struct Interval<'a> {
    date: String,
    time: String,
    entries: Vec<(&'a str, Value<'a>)>,
    wall: i128,
    elapsed: Duration,
}

fn json<'a>() -> Columns<Interval<'a>> {
    Columns::new()
        .column(Column::json_only("date"), |row: &Interval<'a>| Value::Text(&row.date))
        .column(Column::json_only("time"), |row| Value::Text(&row.time))
        .column(Column::json_only("entries"), |row| Value::Object(&row.entries))
        .column(Column::json_only("ts"), |row| Value::wall(row.wall))
        .column(Column::json_only("interval_ns"), |row| values::nanoseconds(row.elapsed.as_nanos()))
}

fn headings(format: Format) -> Vec<Column> {
    match format {
        Format::Table => table().headings().to_vec(),
        Format::Csv => csv().headings().to_vec(),
        Format::Json => json().headings().to_vec(),
    }
}

struct Subnet {
    headings: Vec<Column>,
    /// The subnets as they were typed.
    texts: Vec<String>,
    format: Format,
    unit: Unit,
    sort: bool,
    /// The counters at the last report, by index of the subnet.
    before: Vec<u64>,
}

impl Subnet {
    /// Indexes of the subnets that bytes were sent to since the last report, and the bytes.
    fn since_last(&mut self, entries: &[(&[u8], &[u8])]) -> Vec<(usize, u64)> {
        let mut grown = Vec::new();
        for (key, values) in entries {
            let index = key.first_chunk().map_or(0, |key| u32::from_ne_bytes(*key)) as usize;
            let cpus = values.as_chunks().0.iter().map(|value| u64::from_ne_bytes(*value));
            let now: u64 = cpus.sum();
            if let Some(before) = self.before.get_mut(index)
                && now > *before
            {
                grown.push((index, now - *before));
                *before = now;
            }
        }
        let by_bytes = |bytes| Reverse(if self.sort { bytes } else { 0 });
        grown.sort_unstable_by_key(|(index, bytes)| (by_bytes(*bytes), *index));
        grown
    }
}

impl Session for Subnet {
    fn headings(&self) -> &[Column] {
        &self.headings
    }

    fn begins_with_headings(&self) -> bool {
        false
    }

    fn report(&mut self, report: &Report<'_>, rows: &mut dyn RowSink) {
        let grown = self.since_last(&report.entries);
        let Self { texts, unit, .. } = self;
        let grown =
            grown.into_iter().map(|(index, bytes)| (texts.get(index).map_or("-", String::as_str), bytes));
        let (date, time) =
            (LocalDate::new(report.wall, report.zone), LocalTime::new(report.wall, report.zone));
        if self.format == Format::Json {
            let interval = Interval {
                date: date.to_string(),
                time: time.to_string(),
                entries: grown.map(|(subnet, bytes)| (subnet, unit.exactly(bytes))).collect(),
                wall: report.wall,
                elapsed: report.elapsed,
            };
            return rows.row(&json().row(&interval));
        }
        rows.line(format_args!("[{date} {time}]"));
        let columns = if self.format == Format::Table { table() } else { csv() };
        for (subnet, bytes) in grown {
            rows.row(&columns.row(&SubnetRow { wall: report.wall, subnet, bytes, unit: *unit }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnet_lists() {
        let read = subnets("10.0.0.0/8, 2001:db8::/32,1.2.3.4/24").expect("three subnets");
        let texts: Vec<_> = read.0.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, ["10.0.0.0/8", "2001:db8::/32", "1.2.3.4/24"], "as they were typed");
        assert_eq!(subnets(DEFAULT).map(|subnets| subnets.0.len()), Ok(5));
        for wrong in
            ["", ",", "10.0.0.0", "1.2.3.4/33", "::/129", "10/8", "a/8", "10.0.0.0/8,", "10.0.0.0/-1"]
        {
            assert!(subnets(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn units() {
        let shown = |letter, bytes| (Unit::of(letter).floored(bytes), Unit::of(letter).exactly(bytes));
        let both = |number| (Value::Number(number), Value::Number(number));
        let decimal = |whole, of, by| (Value::Number(whole), Value::Quotient { of, by });
        assert_eq!(shown("B", 2000), both(2000));
        assert_eq!(shown("b", 2000), both(16000));
        assert_eq!(shown("K", 2000), decimal(1, 2000, 1 << 10));
        assert_eq!(shown("k", 2000), decimal(15, 16_000, 1 << 10));
        assert_eq!(shown("M", 3 << 19), decimal(1, 3 << 19, 1 << 20));
        assert_eq!(shown("m", 3 << 16), decimal(1, 3 << 19, 1 << 20));
    }
}
