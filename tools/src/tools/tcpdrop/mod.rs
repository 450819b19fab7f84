//! tcpdrop: a row for each TCP packet that the kernel drops, with the reason and the kernel's
//! stack.

mod reasons;
mod row;
mod stack;

use clap::{Arg, ArgMatches, Command, value_parser};
use programs::tcpdrop::{self, Event, Options};
use rows::escape::Escaped;
use rows::{Column, Columns, Format, RowSink};

use self::reasons::{Reasons, RequestedReasons};
use self::row::{Row, columns};
use self::stack::Stack;
use crate::cli::args::switch;
use crate::cli::filters;
use crate::cli::settings::Settings;
use crate::failure::Failure;
use crate::host::open_sockets::{OpenSockets, Tuple};
use crate::host::symbols::Symbols;
use crate::selftest::check::{Check, Scenario};
use crate::selftest::expect;
use crate::tool::{Context, KernelTypes, Limitation, Plan, Preexisting, Report, RowShortfall, Session, Tool};

pub static TOOL: Tool = Tool {
    name: "tcpdrop",
    about: "TCP packets that the kernel drops, with the reason and the kernel's stack",
    args,
    plan,
    selftest,
};

fn args(command: Command) -> Command {
    command
        .arg(switch("no-stack", "Show the drop location only, not the stack"))
        .arg(
            Arg::new("reason")
                .long("reason")
                .value_name("NAMES")
                .value_parser(|text: &str| RequestedReasons::parse(text))
                .help("Only these reasons, separated by commas, such as NO_SOCKET,TCP_CSUM"),
        )
        .arg(switch("purged", "Also show packets left in the queue of a closed socket (QUEUE_PURGE)"))
        .arg(switch("owner", "Track socket owners to fill PID (implied by --pid)"))
        .arg(
            Arg::new("netns-id")
                .long("netns-id")
                .value_name("INODE")
                .value_parser(value_parser!(u32).range(1..))
                .conflicts_with_all(["pid-netns", "netns"])
                .help("Only this network namespace, by its inode"),
        )
        .arg(
            Arg::new("pid-netns")
                .long("pid-netns")
                .value_name("PID")
                .value_parser(|text: &str| filters::namespace_of(text))
                .conflicts_with("netns")
                .help("Only the network namespace that this process is in now"),
        )
}

fn selftest() -> Check {
    let scenario = Scenario::Conversation(|conversation| {
        let (from, to) = (conversation.refused.local(), conversation.refused.remote());
        let row = expect::Row::default()
            .is("ip", 4)
            .is("saddr", from.ip().to_string())
            .is("sport", from.port())
            .is("daddr", to.ip().to_string())
            .is("dport", to.port())
            .is("flags", "SYN")
            .unknown("state");
        // Kernels before 5.17 have no reasons.
        let old = loader::kernel::version().is_ok_and(|version| (version.major, version.minor) < (5, 17));
        vec![if old { row.maybe("reason", "NO_SOCKET") } else { row.is("reason", "NO_SOCKET") }]
    });
    Check { args: &[], scenario }
}

fn plan(matches: &ArgMatches, settings: &Settings) -> Result<Plan, Failure> {
    let mut filter = filters::read(matches);
    for id in ["netns-id", "pid-netns"] {
        filter.netns = filter.netns.or(matches.get_one(id).copied());
    }
    let RequestedReasons(reasons) = matches.get_one("reason").cloned().unwrap_or_default();
    let options = Options {
        owners: matches.get_flag("owner") || filter.pid.is_some(),
        purged: matches.get_flag("purged") || reasons.iter().any(reasons::is_purge),
        stack: !matches.get_flag("no-stack"),
        reasons,
        filter,
        max_sockets: settings.max_sockets,
        ring_bytes: settings.ring_bytes,
    };
    let preexisting = if options.owners { Preexisting::TableOrList } else { Preexisting::Ignored };
    let session = Drops {
        columns: columns(options.stack, settings.format),
        row: Row::default(),
        options: options.clone(),
        table: settings.format == Format::Table,
        reasons: Reasons::default(),
        pending: Vec::new(),
        requested: 0,
        hidden: 0,
        shortfall: RowShortfall::default(),
        open_sockets: None,
    };
    Ok(Plan {
        preexisting,
        symbols: true,
        enums: reasons::ENUMS,
        ..Plan::new(move |target| tcpdrop::object(&options, target), session)
    })
}

/// At most this many events wait for function names. Names are looked up for as many events as
/// possible at once, because each search reads the whole of `/proc/kallsyms`.
const MAX_PENDING: usize = 8192;

struct Drops {
    columns: Columns<Row>,
    /// The present row. Its buffers are used again for the next one.
    row: Row,
    options: Options,
    /// Whether the format is the table.
    table: bool,
    reasons: Reasons,
    /// Events that wait for function names.
    pending: Vec<Drop>,
    /// The names that the first of them need have been requested.
    requested: usize,
    /// Packets purged from a closed socket's queue.
    hidden: u64,
    shortfall: RowShortfall,
    open_sockets: Option<OpenSockets>,
}

/// A drop and the stack at it.
struct Drop {
    event: Event,
    wall: i128,
    frames: Vec<u64>,
}

impl Session for Drops {
    fn headings(&self) -> &[Column] {
        self.columns.headings()
    }

    fn set_kernel_types(&mut self, types: &KernelTypes) -> Result<(), Failure> {
        self.reasons = Reasons::new(types);
        self.options.reasons.iter().try_for_each(|reason| self.reasons.check(reason)).map_err(Failure::Usage)
    }

    fn set_open_sockets(&mut self, sockets: OpenSockets) {
        self.open_sockets = Some(sockets);
    }

    fn limitations(&self) -> Vec<Limitation> {
        let what = "reasons, which kernels have since 5.17".to_owned();
        if self.reasons.is_empty() { vec![Limitation { what, help: None }] } else { Vec::new() }
    }

    fn event(&mut self, record: &[u8], context: &mut Context<'_>, rows: &mut dyn RowSink) -> Option<()> {
        let event = Event::decode(record)?;
        let wall = context.clock.wall(event.ts);
        self.pending.push(Drop { event, wall, frames: Event::stack(record).collect() });
        while self.pending.len() >= MAX_PENDING && !self.flush_pending(context, rows) {}
        Some(())
    }

    fn flush_pending(&mut self, context: &mut Context<'_>, rows: &mut dyn RowSink) -> bool {
        let symbols = &mut *context.symbols;
        loop {
            if !symbols.is_searching() {
                self.requested = self.pending.len();
                let addresses = self.pending.iter();
                symbols.request(
                    addresses.flat_map(|drop| drop.frames.iter().copied().chain([drop.event.location])),
                );
            }
            if !symbols.search() {
                return false;
            }
            let rest = self.pending.split_off(std::mem::take(&mut self.requested));
            for drop in std::mem::replace(&mut self.pending, rest) {
                self.write(&drop, symbols, rows);
            }
            if self.pending.is_empty() {
                return true;
            }
        }
    }

    fn report(&mut self, report: &Report<'_>, _rows: &mut dyn RowSink) {
        self.hidden += report.counters.hidden;
    }

    fn row_shortfall(&self) -> RowShortfall {
        self.shortfall
    }

    fn closing_note(&self) -> Option<String> {
        (self.hidden > 0).then(|| {
            format!(
                "{} packets left in the queues of closed sockets are not shown (--purged shows them)",
                self.hidden
            )
        })
    }
}

impl Drops {
    /// Writes a drop, with its stack.
    fn write(&mut self, drop: &Drop, symbols: &Symbols, rows: &mut dyn RowSink) {
        let stack = Stack::new(&drop.frames, drop.event.location, symbols);
        if self.is_purged(&drop.event, &stack) {
            self.hidden += 1;
            self.shortfall.unshown += 1;
            return;
        }
        let mut event = drop.event;
        self.fill_owner(&mut event);
        let with_stack = self.options.stack;
        self.shortfall.unnamed += u64::from(with_stack && !stack.is_named());
        let reason = self.reasons.name(event.reason);
        let frames = (with_stack && !self.table).then_some(&stack);
        self.row.fill(event, drop.wall, reason, stack.location(), frames);
        rows.row(&self.columns.row(&self.row));
        if with_stack {
            for frame in stack.frames() {
                rows.line(format_args!("\t{}", Escaped(frame.to_string().as_bytes())));
            }
            rows.line(format_args!(""));
        }
    }

    /// Whether the packet was left in the queue of a socket that was closed. Programs do not even
    /// send a packet with the reason QUEUE_PURGE. Kernels before 6.7 have no such reason, so the
    /// function that freed the packet has to tell.
    fn is_purged(&self, event: &Event, stack: &Stack<'_>) -> bool {
        const PURGES: [&str; 4] =
            ["sk_stream_kill_queues", "inet_sock_destruct", "skb_queue_purge", "__skb_queue_purge"];
        !self.options.purged
            && self.reasons.is_unspecific(event.reason)
            && stack.location().function().is_some_and(|function| PURGES.contains(&function))
    }

    /// Fills in the owner of a socket that was open before the run, if the kernel's table does not
    /// have it.
    fn fill_owner(&self, event: &mut Event) {
        let Some(open) = &self.open_sockets else { return };
        if event.pid != 0 || event.state == 0 {
            return;
        }
        let (source, destination) = ((event.saddr, event.sport), (event.daddr, event.dport));
        let (local, remote) = if event.sent == 0 { (destination, source) } else { (source, destination) };
        if let Some((owner, _)) = open.owner(event.netns, Tuple::of_event(event.family, local, remote)) {
            (event.pid, event.comm) = (owner.pid, owner.comm);
        }
    }
}
