//! tcptop: the connections that carry most bytes, interval by interval.

use std::cmp::Reverse;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use programs::tcp::AF_INET;
use programs::tcptop::{self, FLOWS, Flow, Options, Traffic};
use rows::time::LocalTime;
use rows::{Column, Columns, Format, RowSink, Value};

use super::values;
use crate::address;
use crate::cli::args::{self, switch};
use crate::cli::settings::Settings;
use crate::cli::{containers, filters};
use crate::failure::Failure;
use crate::selftest::check::{Check, Scenario};
use crate::tool::{MapSource, Plan, Preexisting, Report, Schedule, Session, Tool};

pub static TOOL: Tool = Tool {
    name: "tcptop",
    about: "Bytes sent and received by connection and process, busiest first",
    args,
    plan,
    selftest,
};

fn args(command: Command) -> Command {
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
        .arg(switch("nosummary", "Do not show the line with the time and the load").short('S'))
        .arg(
            Arg::new("sort")
                .long("sort")
                .short('s')
                .value_name("BY")
                .default_value("all")
                .value_parser(PossibleValuesParser::new(["all", "sent", "received"]))
                .help("Sort by"),
        )
        .arg(
            Arg::new("rows")
                .long("rows")
                .short('r')
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..))
                .help("Show only the first N rows of a report"),
        )
        .args(containers::args())
}

fn selftest() -> Check {
    // One report, at the end.
    let scenario = Scenario::Conversation(|conversation| {
        [&conversation.client, &conversation.server]
            .map(|side| side.row().is("rx_bytes", side.received).is("tx_bytes", side.sent))
            .into()
    });
    Check { args: &["3600"], scenario }
}

fn plan(matches: &ArgMatches, settings: &Settings) -> Result<Plan, Failure> {
    let containers = containers::read(matches);
    let options = Options {
        filter: filters::read(matches),
        containers: containers.clone(),
        max_sockets: settings.max_sockets,
    };
    let interval: u32 = *matches.get_one("interval").expect("it has a default");
    let table = settings.format == Format::Table;
    let summary = table && !matches.get_flag("nosummary");
    let session = Top {
        columns: columns(),
        table,
        clear: !matches.get_flag("noclear"),
        summary,
        sort: match matches.get_one("sort").map(String::as_str) {
            Some("sent") => |traffic| traffic.sent,
            Some("received") => |traffic| traffic.received,
            _ => |traffic| traffic.sent.saturating_add(traffic.received),
        },
        max_rows: matches.get_one("rows").map_or(usize::MAX, |rows: &u32| *rows as usize),
    };
    Ok(Plan {
        schedule: Some(Schedule {
            interval: Duration::from_secs(interval.into()),
            reports: matches.get_one("reports").copied(),
        }),
        maps: MapSource::Alternating { slot: FLOWS, maps: tcptop::INTERVAL_MAPS },
        preexisting: Preexisting::Table,
        load_average: summary,
        local_time: summary,
        containers,
        ..Plan::new(move |target| tcptop::object(&options, target), session)
    })
}

/// A connection of a process, and what it carried in an interval.
struct Row {
    flow: Flow,
    traffic: Traffic,
    wall: i128,
    elapsed: Duration,
}

impl Row {
    /// `sock_common.skc_family`
    fn family(&self) -> u16 {
        u16::try_from(self.traffic.family).unwrap_or(0)
    }

    fn pid(&self) -> Value<'_> {
        values::pid(self.flow.pid)
    }

    fn comm(&self) -> Value<'_> {
        values::comm(self.flow.pid, &self.traffic.comm)
    }
}

/// The columns of CSV and JSON. The table has those of [`table`].
fn columns() -> Columns<Row> {
    Columns::new()
        .column(Column::new("TS", 0).key("ts"), |row: &Row| values::nanoseconds(row.wall.unsigned_abs()))
        .column(Column::json_only("interval_ns"), |row| values::nanoseconds(row.elapsed.as_nanos()))
        .column(Column::new("PID", 0).key("pid"), Row::pid)
        .column(Column::new("COMM", 0).key("comm"), Row::comm)
        .column(Column::new("IP", 0).key("ip"), |row| address::version(row.family()))
        .column(Column::new("LADDR", 0).key("laddr"), |row| address::ip(row.family(), row.flow.laddr))
        .column(Column::new("LPORT", 0).key("lport"), |row| address::port(row.flow.lport))
        .column(Column::new("RADDR", 0).key("raddr"), |row| address::ip(row.family(), row.flow.raddr))
        .column(Column::new("RPORT", 0).key("rport"), |row| address::port(row.flow.rport))
        .column(Column::new("RX_KB", 0).key("rx_bytes"), |row| Value::Bytes(row.traffic.received))
        .column(Column::new("TX_KB", 0).key("tx_bytes"), |row| Value::Bytes(row.traffic.sent))
        .column(Column::json_only("netns"), |row| values::netns(row.traffic.netns))
}

/// The table of one address family.
fn table(laddr: &'static str, raddr: &'static str, width: usize) -> Columns<Row> {
    Columns::new()
        .column(Column::new("PID", 7), Row::pid)
        .column(Column::new("COMM", 12).cut(), Row::comm)
        .column(Column::new(laddr, width), |row| {
            address::endpoint(row.family(), row.flow.laddr, row.flow.lport)
        })
        .column(Column::new(raddr, width), |row| {
            address::endpoint(row.family(), row.flow.raddr, row.flow.rport)
        })
        .column(Column::new("RX_KB", 6).right(), |row| Value::Bytes(row.traffic.received))
        .column(Column::new("TX_KB", 6).right(), |row| Value::Bytes(row.traffic.sent))
}

struct Top {
    columns: Columns<Row>,
    /// Whether the format is the table.
    table: bool,
    clear: bool,
    summary: bool,
    /// Rows are sorted by this, largest first.
    sort: fn(&Traffic) -> u64,
    /// A report has at most this many rows.
    max_rows: usize,
}

impl Top {
    /// The rows of a report, busiest first.
    fn rows(&self, report: &Report<'_>) -> Vec<Row> {
        let row = |(flow, traffic): &(&[u8], &[u8])| {
            let (flow, traffic) = (Flow::decode(flow)?, Traffic::decode(traffic)?);
            Some(Row { flow, traffic, wall: report.wall, elapsed: report.elapsed })
        };
        let mut rows: Vec<Row> = report.entries.iter().filter_map(row).collect();
        // The flow makes the order of rows with as many bytes the same each time.
        rows.sort_by_cached_key(|Row { flow, traffic, .. }| {
            (Reverse((self.sort)(traffic)), flow.pid, flow.laddr, flow.lport, flow.raddr, flow.rport)
        });
        rows.truncate(self.max_rows);
        rows
    }

    /// Writes a report for people: one table for IPv4, and one for IPv6.
    fn write_tables(&self, report: &Report<'_>, rows: &[Row], sink: &mut dyn RowSink) {
        if self.clear {
            sink.clear();
        } else {
            sink.line(format_args!(""));
        }
        if self.summary {
            let load = report.load_average.as_deref().unwrap_or("-");
            sink.line(format_args!("{} loadavg: {load}\n", LocalTime::new(report.wall, report.zone)));
        }
        let (v4, v6): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.family() == AF_INET);
        if !v4.is_empty() {
            write_table(&table("LADDR", "RADDR", 21), &v4, sink);
        }
        if !v6.is_empty() {
            sink.line(format_args!(""));
            write_table(&table("LADDR6", "RADDR6", 32), &v6, sink);
        }
    }
}

fn write_table(columns: &Columns<Row>, rows: &[&Row], sink: &mut dyn RowSink) {
    sink.heading(columns.headings());
    for row in rows {
        sink.row(&columns.row(row));
    }
}

impl Session for Top {
    fn headings(&self) -> &[Column] {
        self.columns.headings()
    }

    fn begins_with_headings(&self) -> bool {
        false
    }

    fn report(&mut self, report: &Report<'_>, sink: &mut dyn RowSink) {
        let rows = self.rows(report);
        if self.table {
            self.write_tables(report, &rows, sink);
        } else {
            for row in &rows {
                sink.row(&self.columns.row(row));
            }
        }
    }
}
