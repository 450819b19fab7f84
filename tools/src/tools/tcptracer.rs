//! tcptracer: a row for each TCP connection that a process opens, accepts or closes.

use clap::{Arg, ArgMatches, Command, value_parser};
use programs::filter::Filter;
use programs::tcptracer::{self, Event, Kind, Options};
use rows::time::SinceFirst;
use rows::{Column, Columns, RowSink, Value};

use super::timed::Timed;
use super::values;
use crate::address;
use crate::cli::args::switch;
use crate::cli::settings::Settings;
use crate::cli::{containers, filters};
use crate::failure::Failure;
use crate::selftest::check::{Check, Scenario};
use crate::tool::{Context, Plan, Session, Tool};

pub static TOOL: Tool = Tool {
    name: "tcptracer",
    about: "TCP connections as processes open, accept and close them",
    args,
    plan,
    selftest,
};

fn args(command: Command) -> Command {
    command
        .arg(switch("timestamp", "Show seconds since the first row; with -v nanoseconds").short('t'))
        .arg(switch("print-uid", "Show the user of the process").short('U'))
        .arg(
            filters::pid()
                .value_parser(value_parser!(u32).range(0..=i64::from(i32::MAX)))
                .help("Only connects, accepts and closes by this process; 0: by any process"),
        )
        .arg(
            Arg::new("uid")
                .short('u')
                .long("uid")
                .value_name("UID")
                .value_parser(value_parser!(u32))
                .help("Only connects, accepts and closes by processes of this user"),
        )
        .arg(filters::netns().short('N'))
        .args(containers::args())
}

fn selftest() -> Check {
    let scenario = Scenario::Conversation(|conversation| {
        let (client, server) = (&conversation.client, &conversation.server);
        [(client, "connect"), (server, "accept"), (client, "close"), (server, "close")]
            .map(|(side, kind)| side.row().is("type", kind).is("uid", conversation.uid))
            .into()
    });
    Check { args: &[], scenario }
}

fn plan(matches: &ArgMatches, settings: &Settings) -> Result<Plan, Failure> {
    let filter = filters::read(matches);
    let containers = containers::read(matches);
    let columns = columns(
        matches.get_flag("timestamp"),
        matches.get_flag("print-uid"),
        settings.verbose,
        settings.verbose && filter.netns.is_none(),
    );
    let options = Options {
        filter: Filter { pid: filter.pid.filter(|pid| *pid != 0), ..filter },
        containers: containers.clone(),
        uid: matches.get_one("uid").copied(),
        max_sockets: settings.max_sockets,
        ring_bytes: settings.ring_bytes,
    };
    let session = Tracer { columns, first: SinceFirst::default() };
    Ok(Plan { containers, ..Plan::new(move |target| tcptracer::object(&options, target), session) })
}

/// An event of a kind that is known.
struct Row {
    timed: Timed<Event>,
    kind: Kind,
}

impl Row {
    fn word(&self) -> Value<'static> {
        Value::Word(match self.kind {
            Kind::Connect => "connect",
            Kind::Accept => "accept",
            Kind::Close => "close",
        })
    }

    fn letter(&self) -> Value<'static> {
        Value::Word(match self.kind {
            Kind::Connect => "C",
            Kind::Accept => "A",
            Kind::Close => "X",
        })
    }

    fn uid(&self) -> Value<'static> {
        Value::Number(self.timed.event.uid.into()).if_known(self.timed.event.pid != 0)
    }
}

fn columns(timestamp: bool, uid: bool, verbose: bool, netns: bool) -> Columns<Row> {
    let columns = Columns::new().column(Column::json_only("ts"), |row: &Row| row.timed.wall());
    let columns = if verbose {
        columns.column(Column::new("TIME(ns)", 14).shown_if(timestamp), |row| row.timed.nanoseconds())
    } else {
        columns.column(Column::new("TIME(s)", 9).shown_if(timestamp), |row| row.timed.seconds(3))
    };
    let columns = columns.column(Column::new("UID", 6).shown_if(uid), Row::uid);
    let columns = if verbose {
        columns.column(Column::new("TYPE", 12), Row::word)
    } else {
        columns.column(Column::new("T", 2), Row::letter)
    };
    columns
        .column(Column::json_only("type"), Row::word)
        .column(Column::new("PID", 6).key("pid"), |row| values::pid(row.timed.event.pid))
        .column(Column::new("COMM", 16).key("comm"), |row| {
            values::comm(row.timed.event.pid, &row.timed.event.comm)
        })
        .column(Column::json_only("uid"), Row::uid)
        .column(Column::new("IP", 2).key("ip"), |row| address::version(row.timed.event.family))
        .column(Column::new("SADDR", 16), |Row { timed: Timed { event, .. }, .. }| {
            address::bracketed(event.family, event.laddr)
        })
        .column(Column::new("DADDR", 16), |Row { timed: Timed { event, .. }, .. }| {
            address::bracketed(event.family, event.raddr)
        })
        .column(Column::new("SPORT", 6), |row| address::port(row.timed.event.lport))
        .column(Column::new("DPORT", 6), |row| address::port(row.timed.event.rport))
        .column(Column::json_only("laddr"), |Row { timed: Timed { event, .. }, .. }| {
            address::ip(event.family, event.laddr)
        })
        .column(Column::json_only("lport"), |row| address::port(row.timed.event.lport))
        .column(Column::json_only("raddr"), |Row { timed: Timed { event, .. }, .. }| {
            address::ip(event.family, event.raddr)
        })
        .column(Column::json_only("rport"), |row| address::port(row.timed.event.rport))
        .column(Column::new("NETNS", 8).key("netns").shown_if(netns), |row| {
            values::netns(row.timed.event.netns)
        })
}

struct Tracer {
    columns: Columns<Row>,
    first: SinceFirst,
}

impl Session for Tracer {
    fn headings(&self) -> &[Column] {
        self.columns.headings()
    }

    fn event(&mut self, record: &[u8], context: &mut Context<'_>, rows: &mut dyn RowSink) -> Option<()> {
        let event = Event::decode(record)?;
        let kind = event.kind()?;
        let timed = Timed::new(event, event.ts, context, &mut self.first);
        rows.row(&self.columns.row(&Row { timed, kind }));
        Some(())
    }
}
