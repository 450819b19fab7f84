//! tcplife: a row for each TCP connection that ends.

use clap::{ArgMatches, Command};
use programs::tcplife::{self, Event, Options, Role};
use rows::time::SinceFirst;
use rows::{Column, Columns, Format, RowSink, Value};

use super::timed::Timed;
use super::values;
use crate::address;
use crate::cli::args::{self, TableFlags, switch};
use crate::cli::filters;
use crate::cli::settings::Settings;
use crate::failure::Failure;
use crate::host::open_sockets::{OpenSockets, Tuple};
use crate::selftest::check::{Check, Scenario};
use crate::tool::{Context, Plan, Preexisting, Session, Tool};

pub static TOOL: Tool = Tool {
    name: "tcplife",
    about: "Lifespan of TCP sessions: owner, addresses, bytes each way, duration",
    args,
    plan,
    selftest,
};

fn args(command: Command) -> Command {
    command
        .args(args::table_args())
        .arg(filters::local_port().short('L'))
        .arg(filters::remote_port().short('D'))
        .arg(switch(
            "existing",
            "Also show connections that were open at the start; MS is then a lower bound: >12.34",
        ))
        .arg(switch("failed", "Also show connections that were never established, with an OUTCOME column"))
}

fn selftest() -> Check {
    let scenario = Scenario::Conversation(|conversation| {
        let [client, server] =
            [(&conversation.client, "active"), (&conversation.server, "passive")].map(|(side, role)| {
                side.row()
                    .is("role", role)
                    .is("tx_bytes", side.sent)
                    .is("rx_bytes", side.received)
                    .is("outcome", "closed")
                    .is("existing", false)
                    .lasts("duration_ns", conversation.open.0, conversation.open.1)
            });
        let client = client.takes("handshake_ns", conversation.connect);
        vec![client, server.unknown("handshake_ns")]
    });
    Check { args: &[], scenario }
}

fn plan(matches: &ArgMatches, settings: &Settings) -> Result<Plan, Failure> {
    let options = Options {
        filter: filters::read(matches),
        existing: matches.get_flag("existing"),
        failed: matches.get_flag("failed"),
        max_sockets: settings.max_sockets,
        ring_bytes: settings.ring_bytes,
    };
    let preexisting = if options.existing { Preexisting::TableOrList } else { Preexisting::Ignored };
    let columns = columns(args::read_table(matches), options.failed, settings.format);
    let session = Life { columns, first: SinceFirst::default(), open_sockets: None };
    Ok(Plan { preexisting, ..Plan::new(move |target| tcplife::object(&options, target), session) })
}

type Row = Timed<Event>;

fn columns(table: TableFlags, failed: bool, format: Format) -> Columns<Row> {
    let TableFlags { time, timestamp, wide } = table;
    let (comm, address, kib) = if wide { (16, 39, 6) } else { (10, 15, 5) };
    Columns::new()
        .column(Column::new("TIME", 8).key("ts").shown_if(time), |row: &Row| row.wall())
        .column(Column::new("TIME(s)", 9).shown_if(timestamp), |row| row.seconds(6))
        .column(Column::new("PID", 5).key("pid"), |row| values::pid(row.event.pid))
        .column(Column::new("COMM", comm).cut().key("comm"), |row| {
            values::comm(row.event.pid, &row.event.comm)
        })
        .column(Column::new("IP", 2).key("ip").in_table_if(wide, format), |row| {
            address::version(row.event.family)
        })
        .column(Column::new("LADDR", address).key("laddr"), |Row { event, .. }| {
            address::ip_if_any(event.family, event.laddr)
        })
        .column(Column::new("LPORT", 5).key("lport"), |row| address::port(row.event.lport))
        .column(Column::new("RADDR", address).key("raddr"), |Row { event, .. }| {
            address::ip_if_any(event.family, event.raddr)
        })
        .column(Column::new("RPORT", 5).key("rport"), |row| address::port(row.event.rport))
        .column(Column::new("TX_KB", kib).right().key("tx_bytes"), |row| Value::Bytes(row.event.tx_bytes()))
        .column(Column::new("RX_KB", kib).right().key("rx_bytes"), |row| Value::Bytes(row.event.rx_bytes()))
        .column(Column::new("MS", if failed { 8 } else { 0 }).key("duration_ns"), |Row { event, .. }| {
            event.duration_ns().map_or(Value::Unknown, |ns| Value::Millis {
                ns,
                digits: 2,
                at_least: event.existing != 0,
            })
        })
        .column(Column::new("OUTCOME", 0).key("outcome").shown_if(failed), |row| {
            row.event.outcome().map_or(Value::Unknown, |outcome| Value::Word(outcome.name()))
        })
        .column(Column::json_only("handshake_ns"), |row| {
            row.event.handshake_ns().map_or(Value::Unknown, Value::Number)
        })
        .column(Column::json_only("role"), |row| match row.event.role() {
            Role::Active => Value::Word("active"),
            Role::Passive => Value::Word("passive"),
            Role::Unknown => Value::Unknown,
        })
        .column(Column::json_only("existing"), |Row { event, .. }| {
            // Unknown if the beginning of the connection was not seen, and the connection was not
            // listed at the start.
            let existing = event.existing != 0;
            Value::Flag(existing).if_known(existing || event.role() != Role::Unknown)
        })
        .column(Column::json_only("netns"), |row| values::netns(row.event.netns))
}

struct Life {
    columns: Columns<Row>,
    first: SinceFirst,
    open_sockets: Option<OpenSockets>,
}

impl Life {
    /// Completes the event of a connection that was open before the run, if the kernel's table does
    /// not have it.
    fn complete(&self, event: &mut Event) {
        let known = event.role() != Role::Unknown || event.existing != 0;
        let Some(open) = self.open_sockets.as_ref().filter(|_| !known) else { return };
        let tuple = Tuple::of_event(event.family, (event.laddr, event.lport), (event.raddr, event.rport));
        if let Some((owner, at)) = open.owner(event.netns, tuple) {
            (event.established, event.existing) = (at, 1);
            if event.pid == 0 {
                (event.pid, event.comm) = (owner.pid, owner.comm);
            }
        }
    }
}

impl Session for Life {
    fn headings(&self) -> &[Column] {
        self.columns.headings()
    }

    fn set_open_sockets(&mut self, sockets: OpenSockets) {
        self.open_sockets = Some(sockets);
    }

    fn event(&mut self, record: &[u8], context: &mut Context<'_>, rows: &mut dyn RowSink) -> Option<()> {
        let mut event = Event::decode(record)?;
        self.complete(&mut event);
        rows.row(&self.columns.row(&Row::new(event, event.ts, context, &mut self.first)));
        Some(())
    }
}
