//! tcptop: the connections that carry most, interval by interval.

use std::cmp::Reverse;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use loader::Loaded;
use programs::open_sockets;
use programs::tcp::AF_INET;
use programs::tcptop::{self, FLOWS, Flow, INTERVAL_MAPS, Options, Traffic};
use rows::time::{LocalTime, Zone};
use rows::{Column, Format, Page, Value};

use crate::args::{self, Shared, switch};
use crate::failure::Failure;
use crate::selftest::{Check, Rows};
use crate::tool::{Moment, Schedule, Session, Tool};
use crate::{address, containers, filters};

/// The tool.
pub struct Tcptop;

impl Tool for Tcptop {
    fn name(&self) -> &'static str {
        "tcptop"
    }

    fn about(&self) -> &'static str {
        "Bytes sent and received by connection and process, most first"
    }

    fn flags(&self, command: Command) -> Command {
        command
            .arg(
                Arg::new("interval")
                    .value_name("SECONDS")
                    .default_value("1")
                    .value_parser(args::interval())
                    .help("Seconds from one report to the next"),
            )
            .arg(
                Arg::new("reports")
                    .value_name("REPORTS")
                    .value_parser(value_parser!(u64).range(1..))
                    .help("Stop after this many reports"),
            )
            .arg(switch("noclear", "Do not clear the screen").short('C'))
            .arg(switch("nosummary", "No line with the time and the load").short('S'))
            .arg(
                Arg::new("sort")
                    .long("sort")
                    .short('s')
                    .value_name("BY")
                    .default_value("all")
                    .value_parser(PossibleValuesParser::new(["all", "sent", "received"]))
                    .help("Most first of what"),
            )
            .arg(
                Arg::new("rows")
                    .long("rows")
                    .short('r')
                    .value_name("N")
                    .value_parser(value_parser!(u32).range(1..))
                    .help("Only this many rows in a report, the first"),
            )
            .args(containers::args())
    }

    fn selftest(&self) -> Check {
        // One report, at the end.
        let rows = Rows::OfTalk(|talk| {
            [&talk.client, &talk.server]
                .map(|side| side.row().is("rx_bytes", side.received).is("tx_bytes", side.sent))
                .into()
        });
        Check { args: &["3600"], rows }
    }

    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session> {
        Box::new(Top::new(matches, shared))
    }
}

/// A run of it.
pub struct Top {
    options: Options,
    format: Format,
    schedule: Schedule,
    clear: bool,
    summary: bool,
    /// What rows are sorted by.
    sort: fn(&Traffic) -> u64,
    /// Rows in a report, at most.
    rows: usize,
    zone: Zone,
    /// /proc/loadavg
    load: Option<File>,
    /// Which of the maps programs add to.
    turn: usize,
}

impl Top {
    /// What the command line asks for.
    pub fn new(matches: &ArgMatches, shared: &Shared) -> Self {
        let interval: u32 = *matches.get_one("interval").expect("it has a default");
        Self {
            options: Options {
                filter: filters::read(matches),
                containers: containers::read(matches),
                max_sockets: shared.max_sockets,
            },
            format: shared.format,
            schedule: Schedule {
                interval: Duration::from_secs(interval.into()),
                reports: matches.get_one("reports").copied(),
            },
            clear: !matches.get_flag("noclear"),
            summary: !matches.get_flag("nosummary"),
            sort: match matches.get_one("sort").map(String::as_str) {
                Some("sent") => |traffic| traffic.sent,
                Some("received") => |traffic| traffic.received,
                _ => |traffic| traffic.sent.saturating_add(traffic.received),
            },
            rows: matches.get_one("rows").map_or(usize::MAX, |rows: &u32| *rows as usize),
            zone: Zone::default(),
            load: None,
            turn: 0,
        }
    }

    /// What there was since the last report, most first.
    fn take(&mut self, loaded: &Loaded, last: bool) -> Result<Vec<(Flow, Traffic)>, Failure> {
        let map = |name| loaded.map(name).map_err(Failure::failed);
        let [this, other] = [self.turn, 1 - self.turn].map(|turn| INTERVAL_MAPS[turn]);
        if !last {
            // Nobody adds to the one that it replaces any more.
            map(FLOWS)?.set_inner(0, map(other)?).map_err(Failure::failed)?;
            self.turn = 1 - self.turn;
        }
        let entries = map(this)?.take_entries().map_err(Failure::failed)?;
        Ok(self.first(entries.iter()))
    }

    /// The rows of a report, most first.
    fn first<'a>(&self, entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(Flow, Traffic)> {
        let mut flows: Vec<_> = entries
            .filter_map(|(flow, traffic)| Some((Flow::decode(flow)?, Traffic::decode(traffic)?)))
            .collect();
        // What follows the amount makes the order the same each time.
        flows.sort_by_cached_key(|(flow, traffic)| {
            (Reverse((self.sort)(traffic)), flow.pid, flow.laddr, flow.lport, flow.raddr, flow.rport)
        });
        flows.truncate(self.rows);
        flows
    }

    /// A report on such entries of the map.
    #[cfg(any(test, fuzzing))]
    pub fn report_on<'a>(
        &self,
        entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        now: Moment,
        page: &mut dyn Page,
    ) {
        self.show(&self.first(entries), now, page);
    }

    /// Writes a report.
    fn show(&self, flows: &[(Flow, Traffic)], now: Moment, page: &mut dyn Page) {
        if self.format == Format::Table {
            if self.clear {
                page.clear();
            } else {
                page.line(format_args!(""));
            }
            if self.summary {
                // It ends with a newline of its own, so an empty line follows.
                let load = self.load().unwrap_or_else(|| "-\n".to_owned());
                page.line(format_args!("{} loadavg: {load}", LocalTime::new(now.wall, &self.zone)));
            }
            let (v4, v6): (Vec<_>, Vec<_>) =
                flows.iter().partition(|(_, traffic)| family(traffic) == AF_INET);
            if !v4.is_empty() {
                Self::table(page, ["LADDR", "RADDR"], 21, &v4);
            }
            if !v6.is_empty() {
                page.line(format_args!(""));
                Self::table(page, ["LADDR6", "RADDR6"], 32, &v6);
            }
            return;
        }
        let number = |number: u128| Value::Number(u64::try_from(number).unwrap_or(u64::MAX));
        for (flow, traffic) in flows {
            let [pid, comm] = who(flow, traffic);
            let family = family(traffic);
            page.row(&[
                number(now.wall.unsigned_abs()),
                number(now.elapsed.as_nanos()),
                pid,
                comm,
                address::version(family),
                address::ip(family, flow.laddr),
                address::port(flow.lport),
                address::ip(family, flow.raddr),
                address::port(flow.rport),
                Value::Bytes(traffic.received),
                Value::Bytes(traffic.sent),
                Value::Number(traffic.netns.into()).if_known(traffic.netns != 0),
            ]);
        }
    }

    /// The line of /proc/loadavg, as it is now.
    fn load(&self) -> Option<String> {
        // Five short fields; a read from the start makes the kernel write them anew.
        let mut line = [0; 128];
        let length = self.load.as_ref()?.read_at(&mut line, 0).ok()?;
        Some(String::from_utf8_lossy(line.get(..length)?).into_owned())
    }

    /// The table of a family, for people.
    fn table(page: &mut dyn Page, headings: [&'static str; 2], width: usize, flows: &[&(Flow, Traffic)]) {
        let [laddr, raddr] = headings;
        page.table(vec![
            Column::new("PID", 7),
            Column::new("COMM", 12).cut(),
            Column::new(laddr, width),
            Column::new(raddr, width),
            Column::new("RX_KB", 6).right(),
            Column::new("TX_KB", 6).right(),
        ]);
        for (flow, traffic) in flows {
            let [pid, comm] = who(flow, traffic);
            let family = family(traffic);
            page.row(&[
                pid,
                comm,
                address::endpoint(family, flow.laddr, flow.lport),
                address::endpoint(family, flow.raddr, flow.rport),
                Value::Bytes(traffic.received),
                Value::Bytes(traffic.sent),
            ]);
        }
    }
}

/// `sock_common.skc_family` as the kernel has it.
fn family(traffic: &Traffic) -> u16 {
    u16::try_from(traffic.family).unwrap_or(0)
}

/// Process and name.
fn who<'a>(flow: &Flow, traffic: &'a Traffic) -> [Value<'a>; 2] {
    [Value::Number(flow.pid.into()), Value::Comm(&traffic.comm)].map(|value| value.if_known(flow.pid != 0))
}

impl Session for Top {
    fn object(&self, target: &Target) -> Result<Object, AsmError> {
        tcptop::object(&self.options, target)
    }

    fn seeds(&self) -> &'static [&'static str] {
        &[open_sockets::HOOK]
    }

    fn asks_for_owners(&self) -> bool {
        false
    }

    /// Of CSV and JSON; the table has two, see [`Top::table`].
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::new("TS", 0).key("ts"),
            Column::json_only("interval_ns"),
            Column::new("PID", 0).key("pid"),
            Column::new("COMM", 0).key("comm"),
            Column::new("IP", 0).key("ip"),
            Column::new("LADDR", 0).key("laddr"),
            Column::new("LPORT", 0).key("lport"),
            Column::new("RADDR", 0).key("raddr"),
            Column::new("RPORT", 0).key("rport"),
            Column::new("RX_KB", 0).key("rx_bytes"),
            Column::new("TX_KB", 0).key("tx_bytes"),
            Column::json_only("netns"),
        ]
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        if self.summary && self.format == Format::Table {
            self.zone = Zone::local();
            self.load = File::open("/proc/loadavg").ok();
        }
        containers::check(&self.options.containers)
    }

    fn schedule(&self) -> Option<Schedule> {
        Some(self.schedule)
    }

    fn report(&mut self, loaded: &Loaded, now: Moment, page: &mut dyn Page) -> Result<(), Failure> {
        let flows = self.take(loaded, now.last)?;
        self.show(&flows, now, page);
        Ok(())
    }
}
