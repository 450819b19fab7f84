//! tcpstates: a row for each change of a socket's TCP state.

mod journal_entry;

use clap::{ArgMatches, Command};
use programs::tcp::State;
use programs::tcpstates::{self, Event, Options};
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
use crate::selftest::expect;
use crate::tool::{Context, Plan, Preexisting, Session, Tool};

pub static TOOL: Tool = Tool {
    name: "tcpstates",
    about: "Changes of TCP state, with the time spent in the state before",
    args,
    plan,
    selftest,
};

fn args(command: Command) -> Command {
    command
        .args(args::table_args())
        .arg(filters::local_port().short('L'))
        .arg(filters::remote_port().short('D'))
        .arg(switch("journal", "Also send each change to the systemd journal").short('Y'))
}

fn selftest() -> Check {
    let scenario = Scenario::Conversation(|conversation| {
        let change = |row: expect::Row, from: &str, to: &str| row.is("oldstate", from).is("newstate", to);
        let (client, server, refused) = (&conversation.client, &conversation.server, &conversation.refused);
        let open = |row: expect::Row| row.lasts("span_ns", conversation.open.0, conversation.open.1);
        // Before 6.18 the kernel sets the addresses of an accepted socket after its first change of
        // state.
        let without_addresses = server.row().all_maybe();
        vec![
            change(client.row(), "CLOSE", "SYN_SENT"),
            change(client.row(), "SYN_SENT", "ESTABLISHED").takes("span_ns", conversation.connect),
            change(open(client.row()), "ESTABLISHED", "FIN_WAIT1"),
            change(client.row(), "FIN_WAIT1", "FIN_WAIT2"),
            change(client.row(), "FIN_WAIT2", "CLOSE"),
            change(without_addresses, "LISTEN", "SYN_RECV"),
            change(server.row_maybe_owned(), "SYN_RECV", "ESTABLISHED"),
            change(open(server.row_maybe_owned()), "ESTABLISHED", "CLOSE_WAIT"),
            change(server.row(), "CLOSE_WAIT", "LAST_ACK"),
            change(server.row(), "LAST_ACK", "CLOSE"),
            change(refused.row(), "CLOSE", "SYN_SENT"),
            change(refused.row(), "SYN_SENT", "CLOSE").takes("span_ns", conversation.refusal),
        ]
    });
    Check { args: &[], scenario }
}

fn plan(matches: &ArgMatches, settings: &Settings) -> Result<Plan, Failure> {
    let options = Options {
        filter: filters::read(matches),
        max_sockets: settings.max_sockets,
        ring_bytes: settings.ring_bytes,
    };
    let columns = columns(args::read_table(matches), settings.format);
    let session = States { columns, first: SinceFirst::default(), open_sockets: None };
    Ok(Plan {
        preexisting: Preexisting::TableOrList,
        journal: matches.get_flag("journal"),
        ..Plan::new(move |target| tcpstates::object(&options, target), session)
    })
}

/// The local address. A listener may be bound to any address. Before 6.18 an accepted socket has no
/// addresses at its first change of state.
fn local_address(event: &Event) -> Value<'static> {
    if event.newstate() == State::LISTEN || event.newstate() == State::CLOSE {
        address::ip(event.family, event.laddr)
    } else {
        address::ip_if_any(event.family, event.laddr)
    }
}

type Row = Timed<Event>;

fn columns(table: TableFlags, format: Format) -> Columns<Row> {
    let TableFlags { time, timestamp, wide } = table;
    let (comm, address) = if wide { (16, 39) } else { (10, 15) };
    Columns::new()
        .column(Column::new("TIME", 8).key("ts").shown_if(time), |row: &Row| row.wall())
        .column(Column::new("TIME(s)", 9).shown_if(timestamp), |row| row.seconds(6))
        .column(Column::new("SKADDR", 16).key("skaddr"), |row| Value::Address(row.event.skaddr))
        .column(Column::new("C-PID", 5).key("pid"), |row| values::pid(row.event.pid))
        .column(Column::new("C-COMM", comm).cut().key("comm"), |row| {
            values::comm(row.event.pid, &row.event.comm)
        })
        .column(Column::new("IP", 2).key("ip").in_table_if(wide, format), |row| {
            address::version(row.event.family)
        })
        .column(Column::new("LADDR", address).key("laddr"), |row| local_address(&row.event))
        .column(Column::new("LPORT", 5).key("lport"), |row| address::port(row.event.lport))
        .column(Column::new("RADDR", address).key("raddr"), |Row { event, .. }| {
            address::ip_if_any(event.family, event.raddr)
        })
        .column(Column::new("RPORT", 5).key("rport"), |row| address::port(row.event.rport))
        .column(Column::new("OLDSTATE", 11).key("oldstate"), |row| values::state(row.event.oldstate()))
        .column(Column::new("->", 2).table_only(), |_| Value::Word("->"))
        .column(Column::new("NEWSTATE", 11).key("newstate"), |row| values::state(row.event.newstate()))
        .column(Column::new("MS", 0).key("span_ns"), |row| {
            row.event.span_ns().map_or(Value::Unknown, |ns| Value::Millis { ns, digits: 3, at_least: false })
        })
        .column(Column::json_only("netns"), |row| values::netns(row.event.netns))
}

struct States {
    columns: Columns<Row>,
    first: SinceFirst,
    open_sockets: Option<OpenSockets>,
}

impl States {
    /// Fills in the owner of a socket that was open before the run, if the kernel's table does not
    /// have it.
    fn complete(&mut self, event: &mut Event) {
        let Some(open) = &mut self.open_sockets else { return };
        let tuple = Tuple::of_event(event.family, (event.laddr, event.lport), (event.raddr, event.rport));
        if event.is_birth() {
            open.forget(event.netns, tuple);
        }
        if let (0, Some((owner, _))) = (event.pid, open.owner(event.netns, tuple)) {
            (event.pid, event.comm) = (owner.pid, owner.comm);
        }
        if event.newstate() == State::CLOSE {
            open.forget(event.netns, tuple);
        }
    }
}

impl Session for States {
    fn headings(&self) -> &[Column] {
        self.columns.headings()
    }

    fn set_open_sockets(&mut self, sockets: OpenSockets) {
        self.open_sockets = Some(sockets);
    }

    fn event(&mut self, record: &[u8], context: &mut Context<'_>, rows: &mut dyn RowSink) -> Option<()> {
        let mut event = Event::decode(record)?;
        self.complete(&mut event);
        let clock = context.clock;
        if let Some(journal) = &mut context.journal {
            journal.send(|text, as_root| journal_entry::write(text, &event, clock, as_root));
        }
        rows.row(&self.columns.row(&Row::new(event, event.ts, context, &mut self.first)));
        Some(())
    }
}
