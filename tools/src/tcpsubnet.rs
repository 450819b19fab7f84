//! tcpsubnet: bytes sent to subnets, interval by interval.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use ipnet::IpNet;
use loader::{Loaded, Update};
use programs::tcpsubnet::{self, MAX_COMPARED, Options};
use programs::{open_sockets, subnet, trie};
use rows::time::{LocalDate, LocalTime, Zone};
use rows::{Column, Format, Page, Value};

use crate::args::{self, Shared, switch};
use crate::failure::Failure;
use crate::filters;
use crate::selftest::{Check, Row, Rows};
use crate::tool::{Moment, Schedule, Session, Tool};

/// The tool.
pub struct Tcpsubnet;

/// Subnets without a command line: those of private networks, and all the rest of IPv4.
const DEFAULT: &str = "127.0.0.1/32,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,0.0.0.0/0";

/// Room for this many is made in the kernel at the start.
const MAX_SUBNETS: usize = 10_000;

impl Tool for Tcpsubnet {
    fn name(&self) -> &'static str {
        "tcpsubnet"
    }

    fn about(&self) -> &'static str {
        "Bytes sent to subnets"
    }

    fn flags(&self, command: Command) -> Command {
        command
            .arg(
                Arg::new("subnets")
                    .value_name("SUBNETS")
                    .num_args(1..)
                    .default_value(DEFAULT)
                    .value_parser(subnets)
                    .help("Subnets, separated by commas; bytes belong to the first that holds the other end"),
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
                    .help("Bits, Kbit, Mbit, bytes, KB or MB"),
            )
            .arg(switch("sort", "Most bytes first, not in the order in which subnets are named"))
            .arg(args::json().short('J'))
    }

    fn selftest(&self) -> Check {
        // One report, at the end. Bytes are the other side's to whom they are sent.
        let rows = Rows::OfTalk(|talk| {
            let mut entries = serde_json::json!({});
            for side in [&talk.client, &talk.server] {
                entries[format!("{}/32", side.remote().ip())] = side.sent.into();
            }
            vec![Row::default().is("entries", entries)]
        });
        Check { args: &["--interval", "3600", "127.0.0.2/32,127.0.0.3/32,0.0.0.0/0"], rows }
    }

    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session> {
        let subnets = matches.get_many("subnets").into_iter().flatten();
        let (texts, subnets) = subnets.flat_map(|Subnets(subnets)| subnets.iter().cloned()).unzip();
        let interval: u32 = *matches.get_one("interval").expect("it has a default");
        Box::new(Subnet {
            options: Options { filter: filters::read(matches), subnets, max_sockets: shared.max_sockets },
            texts,
            format: shared.format,
            unit: Unit::of(matches.get_one::<String>("format").expect("it has a default")),
            sort: matches.get_flag("sort"),
            interval: Duration::from_secs(interval.into()),
            zone: Zone::default(),
            before: Vec::new(),
        })
    }
}

/// A list of subnets, each also as it was typed.
#[derive(Clone, Debug, PartialEq)]
struct Subnets(Vec<(String, IpNet)>);

fn subnets(text: &str) -> Result<Subnets, String> {
    let subnet = |word: &str| {
        let word = word.trim();
        let subnet = word.parse().map_err(|_| {
            format!(
                "`{word}` is no subnet, which is an address and a mask such as 192.0.2.0/24 or 2001:db8::/32"
            )
        })?;
        Ok((word.to_owned(), subnet))
    };
    text.split(',').map(subnet).collect::<Result<_, _>>().map(Subnets)
}

/// What bytes are shown as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unit {
    /// Bits, not bytes.
    bits: bool,
    /// How many of them make one.
    size: u64,
}

impl Unit {
    /// By its letter.
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

    /// Whole ones only.
    fn floored(self, bytes: u64) -> Value<'static> {
        Value::Number(self.amount(bytes) / self.size)
    }

    /// With the part of one that is left.
    fn exactly(self, bytes: u64) -> Value<'static> {
        let amount = self.amount(bytes);
        if self.size == 1 {
            return Value::Number(amount);
        }
        Value::Quotient { of: amount, by: self.size }
    }
}

struct Subnet {
    options: Options,
    /// As they were typed.
    texts: Vec<String>,
    format: Format,
    unit: Unit,
    sort: bool,
    interval: Duration,
    zone: Zone,
    /// The counters at the last report.
    before: Vec<u64>,
}

impl Subnet {
    /// Bytes since the last report, of each subnet that has some, by its number.
    fn since_last(&mut self, loaded: &Loaded) -> Result<Vec<(usize, u64)>, Failure> {
        let entries =
            loaded.map(tcpsubnet::MAP).map_err(Failure::failed)?.entries().map_err(Failure::failed)?;
        self.before.resize(self.texts.len(), 0);
        let mut grown = Vec::new();
        for (key, values) in entries.iter() {
            let number = key.first_chunk().map_or(0, |key| u32::from_ne_bytes(*key)) as usize;
            let cpus = values.as_chunks().0.iter().map(|value| u64::from_ne_bytes(*value));
            let now: u64 = cpus.sum();
            if let Some(before) = self.before.get_mut(number)
                && now > *before
            {
                grown.push((number, now - *before));
                *before = now;
            }
        }
        let most = |bytes| Reverse(if self.sort { bytes } else { 0 });
        grown.sort_unstable_by_key(|(number, bytes)| (most(*bytes), *number));
        Ok(grown)
    }

    fn text(&self, number: usize) -> &str {
        self.texts.get(number).map_or("-", String::as_str)
    }
}

impl Session for Subnet {
    fn object(&self, target: &Target) -> Result<Object, AsmError> {
        tcpsubnet::object(&self.options, target)
    }

    fn seeds(&self) -> &'static [&'static str] {
        &[open_sockets::HOOK]
    }

    fn asks_for_owners(&self) -> bool {
        false
    }

    fn columns(&self) -> Vec<Column> {
        match self.format {
            Format::Table => vec![Column::new("SUBNET", 21), Column::new("BYTES", 6).right()],
            Format::Csv => ["TS", "SUBNET", "BYTES"].map(|heading| Column::new(heading, 0)).into(),
            Format::Json => ["date", "time", "entries", "ts", "interval_ns"].map(Column::json_only).into(),
        }
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        self.zone = Zone::local();
        if self.texts.len() > MAX_SUBNETS {
            return Err(Failure::Usage(format!("more than {MAX_SUBNETS} subnets")));
        }
        let mut known = HashSet::new();
        for (subnet, text) in self.options.subnets.iter().zip(&self.texts) {
            if !known.insert(subnet::canonical(*subnet)) {
                return Err(Failure::Usage(format!("`{text}` is named twice; each subnet has one row")));
            }
        }
        Ok(())
    }

    fn fill(&mut self, loaded: &Loaded) -> Result<(), Failure> {
        if self.options.subnets.len() > MAX_COMPARED {
            for (map, key, value) in trie::entries(&self.options.subnets) {
                let map = loaded.map(map).map_err(Failure::failed)?;
                map.update(&key, &value, Update::Any).map_err(Failure::failed)?;
            }
        }
        Ok(())
    }

    fn schedule(&self) -> Option<Schedule> {
        Some(Schedule { interval: self.interval, reports: None })
    }

    fn report(&mut self, loaded: &Loaded, now: Moment, page: &mut dyn Page) -> Result<(), Failure> {
        let grown = self.since_last(loaded)?;
        let (date, time) = (LocalDate::new(now.wall, &self.zone), LocalTime::new(now.wall, &self.zone));
        let ns = |ns: u128| Value::Number(u64::try_from(ns).unwrap_or(u64::MAX));
        match self.format {
            Format::Table => {
                page.line(format_args!("[{date} {time}]"));
                for (number, bytes) in grown {
                    page.row(&[Value::Text(self.text(number)), self.unit.floored(bytes)]);
                }
            }
            Format::Csv => {
                for (number, bytes) in grown {
                    let ts = ns(now.wall.unsigned_abs());
                    page.row(&[ts, Value::Text(self.text(number)), Value::Number(bytes)]);
                }
            }
            Format::Json => {
                let entries: Vec<_> = grown
                    .into_iter()
                    .map(|(number, bytes)| (self.text(number), self.unit.exactly(bytes)))
                    .collect();
                page.row(&[
                    Value::Text(&date.to_string()),
                    Value::Text(&time.to_string()),
                    Value::Object(&entries),
                    Value::Wall(now.wall),
                    ns(now.elapsed.as_nanos()),
                ]);
            }
        }
        Ok(())
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
