//! tcpconnlat: a row for each connect, with the time until it was answered.

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use clap::{Arg, ArgMatches, Command};
use programs::tcpconnlat::{self, Event, Options};
use rows::time::{Clock, SinceFirst};
use rows::{Column, Format, Page, Value};

use crate::address;
use crate::args::{self, Shared, switch};
use crate::filters;
use crate::selftest::{Check, Rows};
use crate::tool::{Session, Tool};

/// The tool.
pub struct Tcpconnlat;

impl Tool for Tcpconnlat {
    fn name(&self) -> &'static str {
        "tcpconnlat"
    }

    fn about(&self) -> &'static str {
        "Latency of outgoing TCP connects: from the SYN to the answer"
    }

    fn flags(&self, command: Command) -> Command {
        command
            .arg(switch("timestamp", "Show seconds since the first row").short('t'))
            .arg(switch("lport", "Show the local port").short('L'))
            .arg(switch("failed", "Also connects that came to nothing, with an OUTCOME column"))
            .arg(
                Arg::new("min")
                    .value_name("MIN_MS")
                    .value_parser(milliseconds)
                    .help("Only connects that took at least so many milliseconds"),
            )
    }

    fn selftest(&self) -> Check {
        let rows = Rows::OfTalk(|talk| {
            [(&talk.client, "established", talk.connect), (&talk.refused, "refused", talk.refusal)]
                .map(|(side, outcome, most)| side.row().is("outcome", outcome).takes("latency_ns", most))
                .into()
        });
        Check { args: &[], rows }
    }

    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session> {
        let failed = matches.get_flag("failed");
        Box::new(ConnLat {
            options: Options {
                filter: filters::read(matches),
                min_ns: matches.get_one("min").copied().unwrap_or(0),
                failed: failed || shared.format == Format::Json,
                max_sockets: shared.max_sockets,
                ring_bytes: shared.ring_bytes,
            },
            timestamp: matches.get_flag("timestamp"),
            lport: matches.get_flag("lport"),
            outcome: failed,
            since: SinceFirst::default(),
        })
    }
}

/// Milliseconds as nanoseconds.
fn milliseconds(text: &str) -> Result<u64, String> {
    args::nanoseconds(text, 6).ok_or_else(|| "a time is a number of milliseconds, 0 or more".to_owned())
}

struct ConnLat {
    options: Options,
    timestamp: bool,
    lport: bool,
    outcome: bool,
    since: SinceFirst,
}

impl Session for ConnLat {
    fn object(&self, target: &Target) -> Result<Object, AsmError> {
        tcpconnlat::object(&self.options, target)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::json_only("ts"),
            Column::new("TIME(s)", 9).shown_if(self.timestamp),
            Column::new("PID", 7).key("pid"),
            Column::new("COMM", 12).cut().key("comm"),
            Column::new("IP", 2).key("ip"),
            Column::new("SADDR", 16).key("laddr"),
            Column::new("LPORT", 6).key("lport").shown_if(self.lport),
            Column::new("DADDR", 16).key("raddr"),
            Column::new("DPORT", 5).key("rport"),
            Column::new("LAT(ms)", if self.outcome { 8 } else { 0 }).key("latency_ns"),
            Column::new("OUTCOME", 0).key("outcome").shown_if(self.outcome),
            Column::json_only("netns"),
        ]
    }

    fn event(&mut self, record: &[u8], clock: Clock, page: &mut dyn Page) -> Option<()> {
        let event = Event::decode(record)?;
        page.row(&[
            Value::Wall(clock.wall(event.ts)),
            self.since.seconds(event.ts, 3),
            Value::Number(event.pid.into()).if_known(event.pid != 0),
            Value::Comm(&event.comm).if_known(event.pid != 0),
            address::version(event.family),
            address::ip_if_any(event.family, event.laddr),
            address::port(event.lport),
            address::ip_if_any(event.family, event.raddr),
            address::port(event.rport),
            Value::Millis { ns: event.latency, digits: 2, at_least: false },
            event.outcome().map_or(Value::Unknown, |outcome| Value::Word(outcome.name())),
            Value::Number(event.netns.into()).if_known(event.netns != 0),
        ]);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_compare_with_are_exact() {
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
