//! tcpconnlat: a row for each connect, with the time until it was answered.

use clap::{Arg, ArgMatches, Command};
use programs::tcpconnlat::{self, Event, Options};
use rows::time::SinceFirst;
use rows::{Column, Columns, Format, RowSink, Value};

use super::timed::Timed;
use super::values;
use crate::address;
use crate::cli::args::{self, switch};
use crate::cli::filters;
use crate::cli::settings::Settings;
use crate::failure::Failure;
use crate::selftest::check::{Check, Scenario};
use crate::tool::{Context, Plan, Session, Tool};

pub static TOOL: Tool = Tool {
    name: "tcpconnlat",
    about: "Latency of outgoing TCP connects: from the SYN to the answer",
    args,
    plan,
    selftest,
};

fn args(command: Command) -> Command {
    command
        .arg(switch("timestamp", "Show seconds since the first row").short('t'))
        .arg(switch("lport", "Show the local port").short('L'))
        .arg(switch("failed", "Also show failed connects, with an OUTCOME column"))
        .arg(
            Arg::new("min")
                .value_name("MIN_MS")
                .value_parser(milliseconds)
                .help("Only connects that took at least this many milliseconds"),
        )
}

fn selftest() -> Check {
    let scenario = Scenario::Conversation(|conversation| {
        [
            (&conversation.client, "established", conversation.connect),
            (&conversation.refused, "refused", conversation.refusal),
        ]
        .map(|(side, outcome, most)| side.row().is("outcome", outcome).takes("latency_ns", most))
        .into()
    });
    Check { args: &[], scenario }
}

fn plan(matches: &ArgMatches, settings: &Settings) -> Result<Plan, Failure> {
    let failed = matches.get_flag("failed");
    let options = Options {
        filter: filters::read(matches),
        min_ns: matches.get_one("min").copied().unwrap_or(0),
        failed: failed || settings.format == Format::Json,
        max_sockets: settings.max_sockets,
        ring_bytes: settings.ring_bytes,
    };
    let columns = columns(matches.get_flag("timestamp"), matches.get_flag("lport"), failed);
    let session = ConnLat { columns, first: SinceFirst::default() };
    Ok(Plan::new(move |target| tcpconnlat::object(&options, target), session))
}

/// Milliseconds as nanoseconds.
fn milliseconds(text: &str) -> Result<u64, String> {
    args::nanoseconds(text, 6).ok_or_else(|| "expected a number of milliseconds, 0 or more".to_owned())
}

type Row = Timed<Event>;

fn columns(timestamp: bool, lport: bool, outcome: bool) -> Columns<Row> {
    Columns::new()
        .column(Column::json_only("ts"), |row: &Row| row.wall())
        .column(Column::new("TIME(s)", 9).shown_if(timestamp), |row| row.seconds(3))
        .column(Column::new("PID", 7).key("pid"), |row| values::pid(row.event.pid))
        .column(Column::new("COMM", 12).cut().key("comm"), |row| values::comm(row.event.pid, &row.event.comm))
        .column(Column::new("IP", 2).key("ip"), |row| address::version(row.event.family))
        .column(Column::new("SADDR", 16).key("laddr"), |Row { event, .. }| {
            address::ip_if_any(event.family, event.laddr)
        })
        .column(Column::new("LPORT", 6).key("lport").shown_if(lport), |row| address::port(row.event.lport))
        .column(Column::new("DADDR", 16).key("raddr"), |Row { event, .. }| {
            address::ip_if_any(event.family, event.raddr)
        })
        .column(Column::new("DPORT", 5).key("rport"), |row| address::port(row.event.rport))
        .column(Column::new("LAT(ms)", if outcome { 8 } else { 0 }).key("latency_ns"), |row| Value::Millis {
            ns: row.event.latency,
            digits: 2,
            at_least: false,
        })
        .column(Column::new("OUTCOME", 0).key("outcome").shown_if(outcome), |row| {
            row.event.outcome().map_or(Value::Unknown, |outcome| Value::Word(outcome.name()))
        })
        .column(Column::json_only("netns"), |row| values::netns(row.event.netns))
}

struct ConnLat {
    columns: Columns<Row>,
    first: SinceFirst,
}

impl Session for ConnLat {
    fn headings(&self) -> &[Column] {
        self.columns.headings()
    }

    fn event(&mut self, record: &[u8], context: &mut Context<'_>, rows: &mut dyn RowSink) -> Option<()> {
        let event = Event::decode(record)?;
        rows.row(&self.columns.row(&Row::new(event, event.ts, context, &mut self.first)));
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_ms_is_exact() {
        for (text, ns) in
            [("0", 0), ("1", 1_000_000), ("0.0005", 500), ("10.000001", 10_000_001), ("1e3", 1_000_000_000)]
        {
            assert_eq!(milliseconds(text), Ok(ns), "{text}");
        }
        for wrong in ["", "-1", "-0.001", "abc", "1ms", "nan", "inf", "1e300", "0x10"] {
            assert!(milliseconds(wrong).is_err(), "{wrong:?}");
        }
    }
}
