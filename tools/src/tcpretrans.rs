//! tcpretrans: a row for each retransmission, or a count of them for each flow.

use std::fmt;

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use btf::{Index, Wanted};
use clap::{ArgMatches, Command};
use loader::Loaded;
use nix::errno::Errno;
use programs::open_sockets;
use programs::tcp::AF_INET6;
use programs::tcpretrans::{self, Event, Flow, Kind, Options, Tally};
use rows::time::Clock;
use rows::{Column, Format, Page, Value};

use crate::address;
use crate::args::{self, Shared, switch};
use crate::failure::Failure;
use crate::filters;
use crate::open_sockets::{OpenSockets, Tuple};
use crate::selftest::{Check, Rows};
use crate::tool::{Moment, Session, Tool};

/// The tool.
pub struct Tcpretrans;

impl Tool for Tcpretrans {
    fn name(&self) -> &'static str {
        "tcpretrans"
    }

    fn about(&self) -> &'static str {
        "Retransmissions, by event or counted by flow"
    }

    fn flags(&self, command: Command) -> Command {
        command
            .arg(switch("sequence", "Show sequence numbers").short('s'))
            .arg(switch("lossprobe", "Tell tail loss probes apart: L instead of R").short('l'))
            // `--count` has been this tool's own from its beginning, so what other tools call so has another name here.
            .arg(
                switch("flows", "Count by flow, and print the counts at the end")
                    .long("count")
                    .short('c')
                    .conflicts_with_all(["failed", "owner"]),
            )
            .arg(args::rows().long("rows"))
            .arg(switch("failed", "Also what could not be sent, and why (kernel 6.17)"))
            .arg(switch("owner", "Show whose the sockets are; --pid does without showing it"))
    }

    fn selftest(&self) -> Check {
        let rows = Rows::OfLoss(|loss| {
            let row =
                loss.client.row().is("type", "R").is("state", "SYN_SENT").is("segments", 1).is("err", 0);
            (0..loss.retransmissions).map(|_| row.clone()).collect()
        });
        Check { args: &["--owner"], rows }
    }

    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session> {
        let filter = filters::read(matches);
        let show_owner = matches.get_flag("owner");
        Box::new(Retransmissions {
            options: Options {
                count: matches.get_flag("flows"),
                loss_probes: matches.get_flag("lossprobe"),
                failed: matches.get_flag("failed"),
                owners: show_owner || filter.pid.is_some(),
                filter,
                max_sockets: shared.max_sockets,
                ring_bytes: shared.ring_bytes,
            },
            format: shared.format,
            sequence: matches.get_flag("sequence"),
            show_owner,
            held: None,
        })
    }
}

struct Retransmissions {
    options: Options,
    format: Format,
    sequence: bool,
    show_owner: bool,
    held: Option<OpenSockets>,
}

impl Retransmissions {
    /// Names the owner of a socket that was open before and that the kernel's table does not know. Of a SYN-ACK that would be a
    /// listener, which has other ends than the event.
    fn recall(&self, event: &mut Event) {
        let (Some(held), 0) = (&self.held, event.tracked) else { return };
        let tuple = Tuple::of_event(event.family, (event.laddr, event.lport), (event.raddr, event.rport));
        if let (0, Some((owner, _))) = (event.pid, held.owner(event.netns, tuple)) {
            (event.pid, event.comm) = (owner.pid, owner.comm);
        }
    }

    /// Both ends in one column for people, and as four for everything else.
    fn ends(&self, between: &'static str, width: usize) -> [Column; 7] {
        let part = |heading, key| Column::new(heading, 0).key(key).in_table_if(false, self.format);
        [
            part("LADDR", "laddr"),
            part("LPORT", "lport"),
            Column::new("LADDR:LPORT", 20).table_only(),
            Column::new(between, width).table_only(),
            Column::new("RADDR:RPORT", 20).table_only(),
            part("RADDR", "raddr"),
            part("RPORT", "rport"),
        ]
    }
}

/// The letter of a kind, and how the table points with it.
fn letter(kind: Option<Kind>) -> (Value<'static>, Value<'static>) {
    let (letter, pointing) = match kind {
        Some(Kind::Retransmit) => ("R", "R>"),
        Some(Kind::LossProbe) => ("L", "L>"),
        Some(Kind::SynAck) => ("S", "S>"),
        None => return (Value::Unknown, Value::Unknown),
    };
    (Value::Word(letter), Value::Word(pointing))
}

/// What became of a packet: 0, or the name of the error.
struct Outcome(i32);

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            // include/linux/netdevice.h
            1 => f.write_str("NET_XMIT_DROP"),
            err => match Errno::from_raw(err.wrapping_neg()) {
                Errno::UnknownErrno => write!(f, "{err}"),
                errno => write!(f, "{errno:?}"),
            },
        }
    }
}

impl Session for Retransmissions {
    fn object(&self, target: &Target) -> Result<Object, AsmError> {
        tcpretrans::object(&self.options, target)
    }

    fn seeds(&self) -> &'static [&'static str] {
        if self.options.owners { &[open_sockets::HOOK] } else { &[] }
    }

    fn hold(&mut self, held: OpenSockets) {
        self.held = Some(held);
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = Vec::new();
        if self.options.count {
            columns.extend(self.ends("<->", 3));
            columns.push(Column::new("RETRANSMITS", 10).right().key("retransmits"));
            columns.push(Column::json_only("segments"));
        } else {
            let more = self.sequence || self.options.failed;
            columns.extend([
                Column::new("TIME", 8).key("ts"),
                Column::new("PID", 7).key("pid"),
                Column::new("COMM", 10).cut().key("comm").shown_if(self.show_owner),
                Column::new("IP", 2).key("ip"),
            ]);
            columns.extend(self.ends("T>", 2));
            columns.extend([
                Column::new("T", 0).key("type").in_table_if(false, self.format),
                Column::new("STATE", if more { 12 } else { 0 }).key("state"),
                Column::new("SEQ", if self.options.failed { 10 } else { 0 })
                    .key("seq")
                    .shown_if(self.sequence),
                Column::json_only("segments"),
                Column::new("ERR", 0).shown_if(self.options.failed),
                Column::json_only("err"),
            ]);
        }
        columns.push(Column::json_only("netns"));
        columns
    }

    fn headings(&self) -> bool {
        !self.options.count
    }

    fn names(&self, wanted: &mut Wanted) {
        wanted.add(btf::Want::Tracepoint, RETRANSMIT);
    }

    fn resolve(&mut self, index: &Index<'_>) -> Result<(), Failure> {
        let tracepoint = index.tracepoint(RETRANSMIT).map_err(Failure::failed)?.found();
        let tells_failures = tracepoint.is_some_and(|tracepoint| tracepoint.args.len() > 2);
        if self.options.failed && !tells_failures {
            return Err(Failure::failed(
                "--failed: this kernel does not tell of what it could not send; 6.17 and later do",
            ));
        }
        Ok(())
    }

    fn report(&mut self, loaded: &Loaded, _now: Moment, page: &mut dyn Page) -> Result<(), Failure> {
        if !self.options.count {
            return Ok(());
        }
        let map = loaded.map(tcpretrans::FLOWS).map_err(Failure::failed)?;
        let entries = map.entries().map_err(Failure::failed)?;
        let mut flows: Vec<(Flow, Tally)> = entries
            .iter()
            .filter_map(|(flow, tally)| Some((Flow::decode(flow)?, Tally::decode(tally)?)))
            .collect();
        flows.sort_unstable_by_key(|(flow, tally)| {
            (flow.family == AF_INET6, tally.retransmits, flow.laddr, flow.lport, flow.raddr, flow.rport)
        });
        page.line(format_args!("{:<25} {:<25} {:<10}", "LADDR:LPORT", "RADDR:RPORT", "RETRANSMITS"));
        for (flow, tally) in flows {
            let [local, remote] =
                [(flow.laddr, flow.lport), (flow.raddr, flow.rport)].map(|(bytes, wire)| {
                    let ip = address::ip_addr(flow.family, bytes);
                    ip.map_or_else(|| "-".to_owned(), |ip| format!("[{ip}]#{}", u16::from_be(wire)))
                });
            page.row(&[
                address::ip(flow.family, flow.laddr),
                address::port(flow.lport),
                Value::Text(&local),
                Value::Word("<->"),
                Value::Text(&remote),
                address::ip(flow.family, flow.raddr),
                address::port(flow.rport),
                Value::Number(tally.retransmits),
                Value::Number(tally.segments),
                Value::Number(flow.netns.into()).if_known(flow.netns != 0),
            ]);
        }
        Ok(())
    }

    fn event(&mut self, record: &[u8], clock: Clock, page: &mut dyn Page) -> Option<()> {
        let mut event = Event::decode(record)?;
        self.recall(&mut event);
        let (kind, pointing) = letter(event.kind());
        let state = event.state();
        let outcome = if self.options.failed { Outcome(event.err()).to_string() } else { String::new() };
        page.row(&[
            Value::Wall(clock.wall(event.ts)),
            Value::Number(event.pid.into()).if_known(event.pid != 0),
            Value::Comm(&event.comm).if_known(event.pid != 0),
            address::version(event.family),
            address::ip(event.family, event.laddr),
            address::port(event.lport),
            address::endpoint(event.family, event.laddr, event.lport),
            pointing,
            address::endpoint(event.family, event.raddr, event.rport),
            address::ip(event.family, event.raddr),
            address::port(event.rport),
            kind,
            state.name().map_or(Value::Number(state.0.into()), Value::Word),
            event.seq().map_or(Value::Unknown, |seq| Value::Number(seq.into())),
            Value::Number(event.segments.into()),
            Value::Text(&outcome),
            Value::Signed(event.err().into()),
            Value::Number(event.netns.into()).if_known(event.netns != 0),
        ]);
        Some(())
    }
}

/// The tracepoint that may tell of errors.
const RETRANSMIT: &str = "tcp_retransmit_skb";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_names() {
        let shown = |err| Outcome(err).to_string();
        assert_eq!([0, 1, -1, -16].map(shown), ["0", "NET_XMIT_DROP", "EPERM", "EBUSY"]);
        assert_eq!([-100_000, 2, i32::MIN].map(shown), ["-100000", "2", "-2147483648"]);
    }
}
