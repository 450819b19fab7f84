//! tcpstates: a row for each change of state of a TCP socket.

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use clap::{ArgMatches, Command};
use programs::open_sockets;
use programs::tcp::State;
use programs::tcpstates::{self, Event, Options};
use rows::time::{Clock, SinceFirst};
use rows::{Column, Format, Page, Value};

use crate::address;
use crate::args::{self, Shared, TableFlags, switch};
use crate::failure::Failure;
use crate::filters;
use crate::journal::Journal;
use crate::open_sockets::{OpenSockets, Tuple};
use crate::selftest::{Check, Row, Rows};
use crate::tool::{Session, Tool};

/// The tool.
pub struct Tcpstates;

impl Tool for Tcpstates {
    fn name(&self) -> &'static str {
        "tcpstates"
    }

    fn about(&self) -> &'static str {
        "Changes of TCP state, with the time spent in the state before"
    }

    fn flags(&self, command: Command) -> Command {
        command
            .args(args::table_args())
            .arg(filters::local_port().short('L'))
            .arg(filters::remote_port().short('D'))
            .arg(switch("journal", "Also send each change to the systemd journal").short('Y'))
    }

    fn selftest(&self) -> Check {
        let rows = Rows::OfTalk(|talk| {
            let change = |row: Row, from: &str, to: &str| row.is("oldstate", from).is("newstate", to);
            let (client, server, refused) = (&talk.client, &talk.server, &talk.refused);
            let open = |row: Row| row.lasts("span_ns", talk.open.0, talk.open.1);
            // Before 6.18 the first change out of LISTEN comes before the addresses do.
            let unborn = server.row().all_maybe();
            vec![
                change(client.row(), "CLOSE", "SYN_SENT"),
                change(client.row(), "SYN_SENT", "ESTABLISHED").takes("span_ns", talk.connect),
                change(open(client.row()), "ESTABLISHED", "FIN_WAIT1"),
                change(client.row(), "FIN_WAIT1", "FIN_WAIT2"),
                change(client.row(), "FIN_WAIT2", "CLOSE"),
                change(unborn, "LISTEN", "SYN_RECV"),
                change(server.row_of_anybody(), "SYN_RECV", "ESTABLISHED"),
                change(open(server.row_of_anybody()), "ESTABLISHED", "CLOSE_WAIT"),
                change(server.row(), "CLOSE_WAIT", "LAST_ACK"),
                change(server.row(), "LAST_ACK", "CLOSE"),
                change(refused.row(), "CLOSE", "SYN_SENT"),
                change(refused.row(), "SYN_SENT", "CLOSE").takes("span_ns", talk.refusal),
            ]
        });
        Check { args: &[], rows }
    }

    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session> {
        Box::new(States {
            options: Options {
                filter: filters::read(matches),
                max_sockets: shared.max_sockets,
                ring_bytes: shared.ring_bytes,
            },
            format: shared.format,
            table: args::read_table(matches),
            to_journal: matches.get_flag("journal"),
            journal: None,
            since: SinceFirst::default(),
            held: None,
        })
    }
}

struct States {
    options: Options,
    format: Format,
    table: TableFlags,
    to_journal: bool,
    journal: Option<Journal>,
    since: SinceFirst,
    held: Option<OpenSockets>,
}

impl States {
    /// Names the owner of a socket that was open before and that the kernel's table does not know.
    fn recall(&mut self, event: &mut Event) {
        let Some(held) = &mut self.held else { return };
        let tuple = Tuple::of_event(event.family, (event.laddr, event.lport), (event.raddr, event.rport));
        if event.is_birth() {
            held.forget(event.netns, tuple);
        }
        if let (0, Some((owner, _))) = (event.pid, held.owner(event.netns, tuple)) {
            (event.pid, event.comm) = (owner.pid, owner.comm);
        }
        if event.newstate() == State::CLOSE {
            held.forget(event.netns, tuple);
        }
    }
}

/// The socket's own address. A listener may be bound to "any"; a connection has its addresses, before 6.18, only after its
/// first change.
pub fn local_address(event: &Event) -> Value<'static> {
    if event.newstate() == State::LISTEN || event.newstate() == State::CLOSE {
        address::ip(event.family, event.laddr)
    } else {
        address::ip_if_any(event.family, event.laddr)
    }
}

impl Session for States {
    fn object(&self, target: &Target) -> Result<Object, AsmError> {
        tcpstates::object(&self.options, target)
    }

    fn seeds(&self) -> &'static [&'static str] {
        &[open_sockets::HOOK]
    }

    fn hold(&mut self, held: OpenSockets) {
        self.held = Some(held);
    }

    fn columns(&self) -> Vec<Column> {
        let TableFlags { time, timestamp, wide } = self.table;
        let (comm, address) = if wide { (16, 39) } else { (10, 15) };
        vec![
            Column::new("TIME", 8).key("ts").shown_if(time),
            Column::new("TIME(s)", 9).shown_if(timestamp),
            Column::new("SKADDR", 16).key("skaddr"),
            Column::new("C-PID", 5).key("pid"),
            Column::new("C-COMM", comm).cut().key("comm"),
            Column::new("IP", 2).key("ip").in_table_if(wide, self.format),
            Column::new("LADDR", address).key("laddr"),
            Column::new("LPORT", 5).key("lport"),
            Column::new("RADDR", address).key("raddr"),
            Column::new("RPORT", 5).key("rport"),
            Column::new("OLDSTATE", 11).key("oldstate"),
            Column::new("->", 2).table_only(),
            Column::new("NEWSTATE", 11).key("newstate"),
            Column::new("MS", 0).key("span_ns"),
            Column::json_only("netns"),
        ]
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        if self.to_journal {
            self.journal = Some(Journal::connect().map_err(Failure::Failed)?);
        }
        Ok(())
    }

    fn closing_note(&self) -> Option<String> {
        let unsent = self.journal.as_ref().map_or(0, Journal::unsent);
        (unsent > 0).then(|| format!("the journal did not take {unsent} changes"))
    }

    fn event(&mut self, record: &[u8], clock: Clock, page: &mut dyn Page) -> Option<()> {
        let mut event = Event::decode(record)?;
        self.recall(&mut event);
        if let Some(journal) = &mut self.journal {
            journal.send(&event, clock);
        }
        let state = |state: State| state.name().map_or(Value::Number(state.0.into()), Value::Word);
        page.row(&[
            Value::Wall(clock.wall(event.ts)),
            self.since.seconds(event.ts, 6),
            Value::Address(event.skaddr),
            Value::Number(event.pid.into()).if_known(event.pid != 0),
            Value::Comm(&event.comm).if_known(event.pid != 0),
            address::version(event.family),
            local_address(&event),
            address::port(event.lport),
            address::ip_if_any(event.family, event.raddr),
            address::port(event.rport),
            state(event.oldstate()),
            Value::Word("->"),
            state(event.newstate()),
            event.span_ns().map_or(Value::Unknown, |ns| Value::Millis { ns, digits: 3, at_least: false }),
            Value::Number(event.netns.into()).if_known(event.netns != 0),
        ]);
        Some(())
    }
}
