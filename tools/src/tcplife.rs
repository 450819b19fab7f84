//! tcplife: a row for each TCP connection that ends.

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use clap::{ArgMatches, Command};
use programs::open_sockets;
use programs::tcplife::{self, Event, Options, Role};
use rows::time::{Clock, SinceFirst};
use rows::{Column, Format, Page, Value};

use crate::address;
use crate::args::{self, Shared, TableFlags, switch};
use crate::filters;
use crate::open_sockets::{OpenSockets, Tuple};
use crate::selftest::{Check, Rows};
use crate::tool::{Session, Tool};

/// The tool.
pub struct Tcplife;

impl Tool for Tcplife {
    fn name(&self) -> &'static str {
        "tcplife"
    }

    fn about(&self) -> &'static str {
        "Lifespan of TCP sessions: owner, addresses, bytes each way, duration"
    }

    fn flags(&self, command: Command) -> Command {
        command
            .args(args::table_args())
            .arg(filters::local_port().short('L'))
            .arg(filters::remote_port().short('D'))
            .arg(switch(
                "existing",
                "Also connections that were open at the start; MS is then a lower bound: >12.34",
            ))
            .arg(switch("failed", "Also connections that were never established, with an OUTCOME column"))
    }

    fn selftest(&self) -> Check {
        let rows = Rows::OfTalk(|talk| {
            let [client, server] =
                [(&talk.client, "active"), (&talk.server, "passive")].map(|(side, role)| {
                    side.row()
                        .is("role", role)
                        .is("tx_bytes", side.sent)
                        .is("rx_bytes", side.received)
                        .is("outcome", "closed")
                        .is("existing", false)
                        .lasts("duration_ns", talk.open.0, talk.open.1)
                });
            let client = client.takes("handshake_ns", talk.connect);
            vec![client, server.unknown("handshake_ns")]
        });
        Check { args: &[], rows }
    }

    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session> {
        Box::new(Life {
            options: Options {
                filter: filters::read(matches),
                existing: matches.get_flag("existing"),
                failed: matches.get_flag("failed"),
                max_sockets: shared.max_sockets,
                ring_bytes: shared.ring_bytes,
            },
            format: shared.format,
            table: args::read_table(matches),
            since: SinceFirst::default(),
            held: None,
        })
    }
}

struct Life {
    options: Options,
    format: Format,
    table: TableFlags,
    since: SinceFirst,
    held: Option<OpenSockets>,
}

impl Life {
    /// Completes what the kernel's table does not know of a connection that was open before.
    fn recall(&self, event: &mut Event) {
        let known = event.role() != Role::Unknown || event.existing != 0;
        let Some(held) = self.held.as_ref().filter(|_| !known) else { return };
        let tuple = Tuple::of_event(event.family, (event.laddr, event.lport), (event.raddr, event.rport));
        if let Some((owner, at)) = held.owner(event.netns, tuple) {
            (event.established, event.existing) = (at, 1);
            if event.pid == 0 {
                (event.pid, event.comm) = (owner.pid, owner.comm);
            }
        }
    }
}

impl Session for Life {
    fn object(&self, target: &Target) -> Result<Object, AsmError> {
        tcplife::object(&self.options, target)
    }

    fn seeds(&self) -> &'static [&'static str] {
        if self.options.existing { &[open_sockets::HOOK] } else { &[] }
    }

    fn hold(&mut self, held: OpenSockets) {
        self.held = Some(held);
    }

    fn columns(&self) -> Vec<Column> {
        let TableFlags { time, timestamp, wide } = self.table;
        let (comm, address, kib) = if wide { (16, 39, 6) } else { (10, 15, 5) };
        vec![
            Column::new("TIME", 8).key("ts").shown_if(time),
            Column::new("TIME(s)", 9).shown_if(timestamp),
            Column::new("PID", 5).key("pid"),
            Column::new("COMM", comm).cut().key("comm"),
            Column::new("IP", 2).key("ip").in_table_if(wide, self.format),
            Column::new("LADDR", address).key("laddr"),
            Column::new("LPORT", 5).key("lport"),
            Column::new("RADDR", address).key("raddr"),
            Column::new("RPORT", 5).key("rport"),
            Column::new("TX_KB", kib).right().key("tx_bytes"),
            Column::new("RX_KB", kib).right().key("rx_bytes"),
            Column::new("MS", if self.options.failed { 8 } else { 0 }).key("duration_ns"),
            Column::new("OUTCOME", 0).key("outcome").shown_if(self.options.failed),
            Column::json_only("handshake_ns"),
            Column::json_only("role"),
            Column::json_only("existing"),
            Column::json_only("netns"),
        ]
    }

    fn event(&mut self, record: &[u8], clock: Clock, page: &mut dyn Page) -> Option<()> {
        let mut event = Event::decode(record)?;
        self.recall(&mut event);
        let existing = event.existing != 0;
        page.row(&[
            Value::Wall(clock.wall(event.ts)),
            self.since.seconds(event.ts, 6),
            Value::Number(event.pid.into()).if_known(event.pid != 0),
            Value::Comm(&event.comm).if_known(event.pid != 0),
            address::version(event.family),
            address::ip_if_any(event.family, event.laddr),
            address::port(event.lport),
            address::ip_if_any(event.family, event.raddr),
            address::port(event.rport),
            Value::Bytes(event.tx_bytes()),
            Value::Bytes(event.rx_bytes()),
            event.duration_ns().map_or(Value::Unknown, |ns| Value::Millis {
                ns,
                digits: 2,
                at_least: existing,
            }),
            event.outcome().map_or(Value::Unknown, |outcome| Value::Word(outcome.name())),
            event.handshake_ns().map_or(Value::Unknown, Value::Number),
            match event.role() {
                Role::Active => Value::Word("active"),
                Role::Passive => Value::Word("passive"),
                Role::Unknown => Value::Unknown,
            },
            // Of a connection that nobody saw begin, and that no walk found, it cannot be told.
            Value::Flag(existing).if_known(existing || event.role() != Role::Unknown),
            Value::Number(event.netns.into()).if_known(event.netns != 0),
        ]);
        Some(())
    }
}
