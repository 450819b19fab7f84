//! tcptracer: a row for each TCP connection that a process opens, accepts or closes.

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use clap::{Arg, ArgMatches, Command, value_parser};
use programs::filter::Filter;
use programs::tcptracer::{self, Event, Kind, Options};
use rows::time::{Clock, SinceFirst};
use rows::{Column, Page, Value};

use crate::address;
use crate::args::{Shared, switch};
use crate::containers;
use crate::failure::Failure;
use crate::filters;
use crate::selftest::{Check, Rows};
use crate::tool::{Session, Tool};

/// The tool.
pub struct Tcptracer;

impl Tool for Tcptracer {
    fn name(&self) -> &'static str {
        "tcptracer"
    }

    fn about(&self) -> &'static str {
        "TCP connections as processes open, accept and close them"
    }

    fn flags(&self, command: Command) -> Command {
        command
            .arg(switch("timestamp", "Show seconds since the first row; with -v nanoseconds").short('t'))
            .arg(switch("print-uid", "Show the user of the process").short('U'))
            .arg(
                filters::pid()
                    .value_parser(value_parser!(u32).range(0..=i64::from(i32::MAX)))
                    .help("Only connects, accepts and closes by this process; 0: by any"),
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

    fn selftest(&self) -> Check {
        let rows = Rows::OfTalk(|talk| {
            let (client, server) = (&talk.client, &talk.server);
            [(client, "connect"), (server, "accept"), (client, "close"), (server, "close")]
                .map(|(side, kind)| side.row().is("type", kind).is("uid", talk.uid))
                .into()
        });
        Check { args: &[], rows }
    }

    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session> {
        let filter = filters::read(matches);
        Box::new(Tracer {
            options: Options {
                filter: Filter { pid: filter.pid.filter(|pid| *pid != 0), ..filter },
                containers: containers::read(matches),
                uid: matches.get_one("uid").copied(),
                max_sockets: shared.max_sockets,
                ring_bytes: shared.ring_bytes,
            },
            timestamp: matches.get_flag("timestamp"),
            print_uid: matches.get_flag("print-uid"),
            verbose: shared.verbose,
            since: SinceFirst::default(),
        })
    }
}

struct Tracer {
    options: Options,
    timestamp: bool,
    print_uid: bool,
    verbose: bool,
    since: SinceFirst,
}

impl Session for Tracer {
    fn object(&self, target: &Target) -> Result<Object, AsmError> {
        tcptracer::object(&self.options, target)
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        containers::check(&self.options.containers)
    }

    fn columns(&self) -> Vec<Column> {
        let (time, kind) = if self.verbose {
            (Column::new("TIME(ns)", 14), Column::new("TYPE", 12))
        } else {
            (Column::new("TIME(s)", 9), Column::new("T", 2))
        };
        vec![
            Column::json_only("ts"),
            time.shown_if(self.timestamp),
            Column::new("UID", 6).shown_if(self.print_uid),
            kind,
            Column::json_only("type"),
            Column::new("PID", 6).key("pid"),
            Column::new("COMM", 16).key("comm"),
            Column::json_only("uid"),
            Column::new("IP", 2).key("ip"),
            Column::new("SADDR", 16),
            Column::new("DADDR", 16),
            Column::new("SPORT", 6),
            Column::new("DPORT", 6),
            Column::json_only("laddr"),
            Column::json_only("lport"),
            Column::json_only("raddr"),
            Column::json_only("rport"),
            Column::new("NETNS", 8)
                .key("netns")
                .shown_if(self.verbose && self.options.filter.netns.is_none()),
        ]
    }

    fn event(&mut self, record: &[u8], clock: Clock, page: &mut dyn Page) -> Option<()> {
        let event = Event::decode(record)?;
        let (letter, word) = match event.kind()? {
            Kind::Connect => ("C", "connect"),
            Kind::Accept => ("A", "accept"),
            Kind::Close => ("X", "close"),
        };
        let time = if self.verbose {
            Value::Signed(self.since.nanoseconds(event.ts))
        } else {
            self.since.seconds(event.ts, 3)
        };
        let known = event.pid != 0;
        let uid = Value::Number(event.uid.into()).if_known(known);
        page.row(&[
            Value::Wall(clock.wall(event.ts)),
            time,
            uid,
            Value::Word(if self.verbose { word } else { letter }),
            Value::Word(word),
            Value::Number(event.pid.into()).if_known(known),
            Value::Comm(&event.comm).if_known(known),
            uid,
            address::version(event.family),
            address::bracketed(event.family, event.laddr),
            address::bracketed(event.family, event.raddr),
            address::port(event.lport),
            address::port(event.rport),
            address::ip(event.family, event.laddr),
            address::port(event.lport),
            address::ip(event.family, event.raddr),
            address::port(event.rport),
            Value::Number(event.netns.into()).if_known(event.netns != 0),
        ]);
        Some(())
    }
}
