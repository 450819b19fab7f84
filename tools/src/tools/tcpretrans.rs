//! tcpretrans: a row for each retransmission, or a count of them for each flow.

use std::fmt;

use clap::{ArgMatches, Command};
use nix::errno::Errno;
use programs::tcp::AF_INET6;
use programs::tcpretrans::{self, Event, FLOWS, Flow, Kind, Options, Tally};
use rows::time::SinceFirst;
use rows::{Column, Columns, Format, RowSink, Value};

use super::timed::Timed;
use super::values;
use crate::address;
use crate::cli::args::{self, switch};
use crate::cli::filters;
use crate::cli::settings::Settings;
use crate::failure::Failure;
use crate::host::open_sockets::{OpenSockets, Tuple};
use crate::selftest::check::{Check, Scenario};
use crate::tool::{Context, KernelTypes, MapSource, Plan, Preexisting, Report, Session, Tool};

pub static TOOL: Tool =
    Tool { name: "tcpretrans", about: "Retransmissions, by event or counted by flow", args, plan, selftest };

/// The tracepoint whose third argument, since 6.17, is the result of sending.
const RETRANSMIT: &str = "tcp_retransmit_skb";

fn args(command: Command) -> Command {
    command
        .arg(switch("sequence", "Show sequence numbers").short('s'))
        .arg(switch("lossprobe", "Show tail loss probes with L instead of R").short('l'))
        // The original tool has `--count` for this, so the option that other tools call `--count`
        // is `--rows` here.
        .arg(
            switch("flows", "Count by flow, and print the counts at the end")
                .long("count")
                .short('c')
                .conflicts_with_all(["failed", "owner"]),
        )
        .arg(args::rows().long("rows"))
        .arg(switch("failed", "Also show retransmissions that could not be sent, and why (kernel 6.17)"))
        .arg(switch("owner", "Show the process that owns the socket, in PID and COMM"))
}

fn selftest() -> Check {
    let scenario = Scenario::UnansweredConnect(|connect| {
        let row = connect.client.row().is("type", "R").is("state", "SYN_SENT").is("segments", 1).is("err", 0);
        (0..connect.retransmissions).map(|_| row.clone()).collect()
    });
    Check { args: &["--owner"], scenario }
}

fn plan(matches: &ArgMatches, settings: &Settings) -> Result<Plan, Failure> {
    let filter = filters::read(matches);
    let show_owner = matches.get_flag("owner");
    let options = Options {
        count: matches.get_flag("flows"),
        loss_probes: matches.get_flag("lossprobe"),
        failed: matches.get_flag("failed"),
        owners: show_owner || filter.pid.is_some(),
        filter,
        max_sockets: settings.max_sockets,
        ring_bytes: settings.ring_bytes,
    };
    let (count, failed) = (options.count, options.failed);
    let preexisting = if options.owners { Preexisting::TableOrList } else { Preexisting::Ignored };
    let object = move |target: &_| tcpretrans::object(&options, target);
    if count {
        let session = FlowCounts { columns: flow_columns(settings.format) };
        return Ok(Plan { preexisting, maps: MapSource::Read(FLOWS), ..Plan::new(object, session) });
    }
    let session = Retransmissions {
        columns: columns(show_owner, matches.get_flag("sequence"), failed, settings.format),
        first: SinceFirst::default(),
        failed,
        open_sockets: None,
    };
    Ok(Plan { preexisting, tracepoints: &[RETRANSMIT], ..Plan::new(object, session) })
}

/// A column that only CSV and JSON have. The table joins it with another.
fn part(heading: &'static str, key: &'static str, format: Format) -> Column {
    Column::new(heading, 0).key(key).in_table_if(false, format)
}

/// A retransmission.
struct Row {
    timed: Timed<Event>,
    /// The result of sending, if it is shown.
    result: String,
}

impl Row {
    /// The letter of the kind.
    fn letter(&self) -> Value<'static> {
        match self.timed.event.kind() {
            Some(Kind::Retransmit) => Value::Word("R"),
            Some(Kind::LossProbe) => Value::Word("L"),
            Some(Kind::SynAck) => Value::Word("S"),
            None => Value::Unknown,
        }
    }

    /// The letter of the kind, as an arrow between the endpoints.
    fn arrow(&self) -> Value<'static> {
        match self.timed.event.kind() {
            Some(Kind::Retransmit) => Value::Word("R>"),
            Some(Kind::LossProbe) => Value::Word("L>"),
            Some(Kind::SynAck) => Value::Word("S>"),
            None => Value::Unknown,
        }
    }
}

fn columns(owner: bool, sequence: bool, failed: bool, format: Format) -> Columns<Row> {
    let part = |heading, key| part(heading, key, format);
    Columns::new()
        .column(Column::new("TIME", 8).key("ts"), |row: &Row| row.timed.wall())
        .column(Column::new("PID", 7).key("pid"), |row| values::pid(row.timed.event.pid))
        .column(Column::new("COMM", 10).cut().key("comm").shown_if(owner), |row| {
            values::comm(row.timed.event.pid, &row.timed.event.comm)
        })
        .column(Column::new("IP", 2).key("ip"), |row| address::version(row.timed.event.family))
        .column(part("LADDR", "laddr"), |Row { timed: Timed { event, .. }, .. }| {
            address::ip(event.family, event.laddr)
        })
        .column(part("LPORT", "lport"), |row| address::port(row.timed.event.lport))
        .column(Column::new("LADDR:LPORT", 20).table_only(), |Row { timed: Timed { event, .. }, .. }| {
            address::endpoint(event.family, event.laddr, event.lport)
        })
        .column(Column::new("T>", 2).table_only(), Row::arrow)
        .column(Column::new("RADDR:RPORT", 20).table_only(), |Row { timed: Timed { event, .. }, .. }| {
            address::endpoint(event.family, event.raddr, event.rport)
        })
        .column(part("RADDR", "raddr"), |Row { timed: Timed { event, .. }, .. }| {
            address::ip(event.family, event.raddr)
        })
        .column(part("RPORT", "rport"), |row| address::port(row.timed.event.rport))
        .column(part("T", "type"), Row::letter)
        .column(Column::new("STATE", if sequence || failed { 12 } else { 0 }).key("state"), |row| {
            values::state(row.timed.event.state())
        })
        .column(Column::new("SEQ", if failed { 10 } else { 0 }).key("seq").shown_if(sequence), |row| {
            row.timed.event.seq().map_or(Value::Unknown, |seq| Value::Number(seq.into()))
        })
        .column(Column::json_only("segments"), |row| Value::Number(row.timed.event.segments.into()))
        .column(Column::new("ERR", 0).shown_if(failed), |row| Value::Text(&row.result))
        .column(Column::json_only("err"), |row| Value::Signed(row.timed.event.err().into()))
        .column(Column::json_only("netns"), |row| values::netns(row.timed.event.netns))
}

struct Retransmissions {
    columns: Columns<Row>,
    first: SinceFirst,
    failed: bool,
    open_sockets: Option<OpenSockets>,
}

impl Retransmissions {
    /// Fills in the owner of a socket that was open before the run, if the kernel's table does not
    /// have it. The owner of a SYN-ACK would be the listener's, which has other endpoints than the
    /// event.
    fn complete(&self, event: &mut Event) {
        let (Some(open), 0) = (&self.open_sockets, event.tracked) else { return };
        let tuple = Tuple::of_event(event.family, (event.laddr, event.lport), (event.raddr, event.rport));
        if let (0, Some((owner, _))) = (event.pid, open.owner(event.netns, tuple)) {
            (event.pid, event.comm) = (owner.pid, owner.comm);
        }
    }
}

impl Session for Retransmissions {
    fn headings(&self) -> &[Column] {
        self.columns.headings()
    }

    fn set_kernel_types(&mut self, types: &KernelTypes) -> Result<(), Failure> {
        let has_result = types.tracepoint_args.get(RETRANSMIT).is_some_and(|args| *args > 2);
        if self.failed && !has_result {
            return Err(Failure::failed(
                "--failed needs kernel 6.17 or newer: this kernel does not report retransmissions that it could not send",
            ));
        }
        Ok(())
    }

    fn set_open_sockets(&mut self, sockets: OpenSockets) {
        self.open_sockets = Some(sockets);
    }

    fn event(&mut self, record: &[u8], context: &mut Context<'_>, rows: &mut dyn RowSink) -> Option<()> {
        let mut event = Event::decode(record)?;
        self.complete(&mut event);
        let result = if self.failed { SendResult(event.err()).to_string() } else { String::new() };
        let timed = Timed::new(event, event.ts, context, &mut self.first);
        rows.row(&self.columns.row(&Row { timed, result }));
        Some(())
    }
}

/// The result of sending: 0, or the name of the error.
struct SendResult(i32);

impl fmt::Display for SendResult {
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

/// A flow, and the number of its retransmissions.
struct FlowRow {
    flow: Flow,
    tally: Tally,
    local: String,
    remote: String,
}

impl FlowRow {
    fn new(flow: Flow, tally: Tally) -> Self {
        let endpoint = |bytes, wire| {
            let ip = address::ip_addr(flow.family, bytes);
            ip.map_or_else(|| "-".to_owned(), |ip| format!("[{ip}]#{}", u16::from_be(wire)))
        };
        let (local, remote) = (endpoint(flow.laddr, flow.lport), endpoint(flow.raddr, flow.rport));
        Self { flow, tally, local, remote }
    }
}

fn flow_columns(format: Format) -> Columns<FlowRow> {
    let part = |heading, key| part(heading, key, format);
    Columns::new()
        .column(part("LADDR", "laddr"), |row: &FlowRow| address::ip(row.flow.family, row.flow.laddr))
        .column(part("LPORT", "lport"), |row| address::port(row.flow.lport))
        .column(Column::new("LADDR:LPORT", 20).table_only(), |row| Value::Text(&row.local))
        .column(Column::new("<->", 3).table_only(), |_| Value::Word("<->"))
        .column(Column::new("RADDR:RPORT", 20).table_only(), |row| Value::Text(&row.remote))
        .column(part("RADDR", "raddr"), |row| address::ip(row.flow.family, row.flow.raddr))
        .column(part("RPORT", "rport"), |row| address::port(row.flow.rport))
        .column(Column::new("RETRANSMITS", 10).right().key("retransmits"), |row| {
            Value::Number(row.tally.retransmits)
        })
        .column(Column::json_only("segments"), |row| Value::Number(row.tally.segments))
        .column(Column::json_only("netns"), |row| values::netns(row.flow.netns))
}

/// `-c`: counts by flow, printed at the end.
struct FlowCounts {
    columns: Columns<FlowRow>,
}

impl Session for FlowCounts {
    fn headings(&self) -> &[Column] {
        self.columns.headings()
    }

    fn begins_with_headings(&self) -> bool {
        false
    }

    fn report(&mut self, report: &Report<'_>, rows: &mut dyn RowSink) {
        let mut flows: Vec<FlowRow> = report
            .entries
            .iter()
            .filter_map(|(flow, tally)| Some(FlowRow::new(Flow::decode(flow)?, Tally::decode(tally)?)))
            .collect();
        flows.sort_unstable_by_key(|FlowRow { flow, tally, .. }| {
            (flow.family == AF_INET6, tally.retransmits, flow.laddr, flow.lport, flow.raddr, flow.rport)
        });
        // The headings of the original do not stand above their columns.
        rows.line(format_args!("{:<25} {:<25} {:<10}", "LADDR:LPORT", "RADDR:RPORT", "RETRANSMITS"));
        for row in &flows {
            rows.row(&self.columns.row(row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_names() {
        let shown = |err| SendResult(err).to_string();
        assert_eq!([0, 1, -1, -16].map(shown), ["0", "NET_XMIT_DROP", "EPERM", "EBUSY"]);
        assert_eq!([-100_000, 2, i32::MIN].map(shown), ["-100000", "2", "-2147483648"]);
    }
}
