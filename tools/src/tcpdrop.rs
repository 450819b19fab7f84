//! tcpdrop: a row for each TCP packet that the kernel drops, with the reason and the way there.

mod reasons;

use std::fmt::Write as _;
use std::time::Duration;

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use btf::{Index, Wanted};
use clap::{Arg, ArgMatches, Command, value_parser};
use loader::Loaded;
use programs::open_sockets;
use programs::tcpdrop::{self, Event, Options};
use rows::escape::Escaped;
use rows::time::{Clock, Zone};
use rows::{Column, Format, Page, Value};

use self::reasons::{Asked, Reasons};
use crate::account::read_stats;
use crate::address;
use crate::args::{Shared, switch};
use crate::failure::Failure;
use crate::filters;
use crate::kallsyms::{self, Kallsyms, Nameless};
use crate::open_sockets::{OpenSockets, Tuple};
use crate::selftest::{Check, Row, Rows};
use crate::stderr;
use crate::tool::{Lack, Moment, Session, Shortfall, Tool};

/// The tool.
pub struct Tcpdrop;

impl Tool for Tcpdrop {
    fn name(&self) -> &'static str {
        "tcpdrop"
    }

    fn about(&self) -> &'static str {
        "TCP packets that the kernel drops, with the reason and the kernel's stack"
    }

    fn flags(&self, command: Command) -> Command {
        command
            .arg(switch("no-stack", "Where in the kernel, and not the whole stack"))
            .arg(
                Arg::new("reason")
                    .long("reason")
                    .value_name("NAMES")
                    .value_parser(|text: &str| Asked::parse(text))
                    .help("Only these reasons, separated by commas, such as NO_SOCKET,TCP_CSUM"),
            )
            .arg(switch("purged", "Also what is left in a socket's queue when it is closed (QUEUE_PURGE)"))
            .arg(switch("owner", "Find out whose sockets are, for PID; --pid does so too"))
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

    fn selftest(&self) -> Check {
        let rows = Rows::OfTalk(|talk| {
            let (from, to) = (talk.refused.local(), talk.refused.remote());
            let row = Row::default()
                .is("ip", 4)
                .is("saddr", from.ip().to_string())
                .is("sport", from.port())
                .is("daddr", to.ip().to_string())
                .is("dport", to.port())
                .is("flags", "SYN")
                .unknown("state");
            // Before 5.17 the kernel has no reasons.
            let old = loader::kernel::version().is_ok_and(|version| (version.major, version.minor) < (5, 17));
            vec![if old { row.maybe("reason", "NO_SOCKET") } else { row.is("reason", "NO_SOCKET") }]
        });
        Check { args: &[], rows }
    }

    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session> {
        let mut filter = filters::read(matches);
        for id in ["netns-id", "pid-netns"] {
            filter.netns = filter.netns.or(matches.get_one(id).copied());
        }
        let Asked(reasons) = matches.get_one("reason").cloned().unwrap_or_default();
        let options = Options {
            owners: matches.get_flag("owner") || filter.pid.is_some(),
            purged: matches.get_flag("purged") || reasons.iter().any(reasons::is_purge),
            stack: !matches.get_flag("no-stack"),
            reasons,
            filter,
            max_sockets: shared.max_sockets,
            ring_bytes: shared.ring_bytes,
        };
        Box::new(Drops {
            options,
            format: shared.format,
            reasons: Reasons::default(),
            kallsyms: Kallsyms::default(),
            nameless: false,
            pending: Vec::new(),
            asked: 0,
            hidden: 0,
            shortfall: Shortfall::default(),
            held: None,
        })
    }
}

/// Events that wait for names at most. As many as come at once are looked up together, and more come while that is done.
const BATCH: usize = 8192;

/// For so long the names are looked for before the ring is looked at again.
const SLICE: Duration = Duration::from_millis(2);

struct Drops {
    options: Options,
    format: Format,
    reasons: Reasons,
    kallsyms: Kallsyms,
    /// The kernel's code has no names here.
    nameless: bool,
    pending: Vec<Drop>,
    /// The names of so many of them are being looked for.
    asked: usize,
    /// Packets purged from a closed socket's queue.
    hidden: u64,
    shortfall: Shortfall,
    held: Option<OpenSockets>,
}

/// A drop and the stack at it.
struct Drop {
    event: Event,
    stack: Vec<u64>,
}

impl Session for Drops {
    fn object(&self, target: &Target) -> Result<Object, AsmError> {
        tcpdrop::object(&self.options, target)
    }

    fn seeds(&self) -> &'static [&'static str] {
        if self.options.owners { &[open_sockets::HOOK] } else { &[] }
    }

    fn hold(&mut self, held: OpenSockets) {
        self.held = Some(held);
    }

    fn columns(&self) -> Vec<Column> {
        // Parts of what the table joins.
        let part = |heading, key| Column::new(heading, 0).key(key).in_table_if(false, self.format);
        vec![
            Column::new("TIME", 8).key("ts"),
            Column::new("PID", 7).key("pid"),
            part("COMM", "comm"),
            Column::new("IP", 2).key("ip"),
            Column::new("SADDR:SPORT", 20).table_only(),
            Column::new(">", 1).table_only(),
            Column::new("DADDR:DPORT", 20).table_only(),
            part("SADDR", "saddr"),
            part("SPORT", "sport"),
            part("DADDR", "daddr"),
            part("DPORT", "dport"),
            Column::new("STATE (FLAGS)", 20).table_only(),
            part("STATE", "state"),
            part("FLAGS", "flags"),
            Column::new("REASON (CODE)", if self.options.stack { 0 } else { 24 }).table_only(),
            part("REASON", "reason"),
            part("CODE", "reason_code"),
            // In the table the first frame of the stack tells it.
            Column::new("LOCATION", 0).key("location").in_table_if(!self.options.stack, self.format),
            part("STACK", "stack"),
            Column::json_only("netns"),
        ]
    }

    fn names(&self, wanted: &mut Wanted) {
        Reasons::names(wanted);
    }

    fn resolve(&mut self, index: &Index<'_>) -> Result<(), Failure> {
        self.reasons = Reasons::read(index).map_err(Failure::failed)?;
        self.options.reasons.iter().try_for_each(|reason| self.reasons.check(reason)).map_err(Failure::Usage)
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        match Kallsyms::open() {
            Ok(kallsyms) => self.kallsyms = kallsyms,
            Err(why) => self.no_names(&why),
        }
        Ok(())
    }

    fn lacks(&mut self) -> Vec<Lack> {
        let mut lacks = Vec::new();
        if let Err(why) = kallsyms::readable() {
            lacks.push(Lack { what: format!("the names of functions: {why}"), help: why.cure() });
        }
        if self.reasons.is_empty() {
            lacks.push(Lack { what: "reasons, which kernels have since 5.17".to_owned(), help: None });
        }
        lacks
    }

    fn report(&mut self, loaded: &Loaded, _now: Moment, _page: &mut dyn Page) -> Result<(), Failure> {
        self.hidden += read_stats(loaded)?.hidden;
        Ok(())
    }

    fn closing_note(&self) -> Option<String> {
        (self.hidden > 0).then(|| {
            format!(
                "{} packets left in the queues of closed sockets not shown; --purged shows them",
                self.hidden
            )
        })
    }

    fn shortfall(&self) -> Shortfall {
        self.shortfall
    }

    fn event(&mut self, record: &[u8], clock: Clock, page: &mut dyn Page) -> Option<()> {
        let event = Event::decode(record)?;
        self.pending.push(Drop { event, stack: Event::stack(record).collect() });
        while self.pending.len() >= BATCH && !self.settle(clock, page) {}
        Some(())
    }

    fn settle(&mut self, clock: Clock, page: &mut dyn Page) -> bool {
        loop {
            match self.learn() {
                Ok(true) => {}
                Ok(false) => return false,
                Err(why) => {
                    self.no_names(&why);
                    self.asked = self.pending.len();
                }
            }
            let rest = self.pending.split_off(std::mem::take(&mut self.asked));
            for drop in std::mem::replace(&mut self.pending, rest) {
                self.show(&drop, clock, page);
            }
            if self.pending.is_empty() {
                return true;
            }
        }
    }
}

impl Drops {
    fn no_names(&mut self, why: &Nameless) {
        stderr::say("tcptools: tcpdrop", &no_names(why));
        self.nameless = true;
    }

    /// Goes on to find the names for those that are pending; whether they are known for as many as were asked about.
    fn learn(&mut self) -> Result<bool, Nameless> {
        if !self.kallsyms.is_asked() {
            self.asked = self.pending.len();
            let frames =
                self.pending.iter().flat_map(|drop| drop.stack.iter().copied().chain([drop.event.location]));
            if self.nameless || !self.kallsyms.ask(frames)? {
                return Ok(true);
            }
        }
        self.kallsyms.step(SLICE)
    }

    fn show(&mut self, drop: &Drop, clock: Clock, page: &mut dyn Page) {
        let mut event = drop.event;
        if self.purged(drop) {
            self.hidden += 1;
            self.shortfall.unshown += 1;
            return;
        }
        self.recall(&mut event);
        let known = event.transport != 0;
        let state = event
            .state()
            .map_or(Value::Unknown, |state| state.name().map_or(Value::Number(state.0.into()), Value::Word));
        let flags = flags(event.flags);
        let flags = Value::Text(&flags).if_known(known);
        let reason = self.reasons.name(event.reason).map_or(Value::Unknown, Value::Text);
        let code = Value::Number(event.reason.into()).if_known(event.reason != 0);
        let location = self.symbol(self.location(drop));
        let frames = self.frames(drop);
        let nameless = frames.iter().any(|frame| self.kallsyms.symbol(*frame).is_none());
        self.shortfall.unnamed += u64::from(self.options.stack && (frames.is_empty() || nameless));
        let texts: Vec<String> = match self.format {
            Format::Table => Vec::new(),
            _ => frames.iter().map(|frame| self.symbol(*frame)).collect(),
        };
        let [source, destination] = [(event.saddr, event.sport), (event.daddr, event.dport)]
            .map(|(address, port)| joined(event.family, address, known.then_some(port)));
        page.row(&[
            Value::Wall(clock.wall(event.ts)),
            Value::Number(event.pid.into()).if_known(event.pid != 0),
            Value::Comm(&event.comm).if_known(event.pid != 0),
            address::version(event.family),
            Value::Text(&source),
            Value::Word(">"),
            Value::Text(&destination),
            address::ip(event.family, event.saddr),
            Value::Number(u16::from_be(event.sport).into()).if_known(known),
            address::ip(event.family, event.daddr),
            Value::Number(u16::from_be(event.dport).into()).if_known(known),
            Value::Text(&pair(state, flags)),
            state,
            flags,
            Value::Text(&pair(reason, code)).if_known(event.reason != 0),
            reason,
            code,
            Value::Text(&location),
            Value::List(&texts).if_known(self.options.stack),
            Value::Number(event.netns.into()).if_known(event.netns != 0),
        ]);
        if self.options.stack {
            for frame in frames {
                page.line(format_args!("\t{}", Escaped(self.symbol(*frame).as_bytes())));
            }
            page.line(format_args!(""));
        }
    }

    /// Whether the packet was left in the queue of a socket that was closed, by where it was freed. Kernels that call it
    /// QUEUE_PURGE do not even send it; those before 6.7 give no reason, or none in particular.
    fn purged(&self, drop: &Drop) -> bool {
        const PURGES: [&str; 4] =
            ["sk_stream_kill_queues", "inet_sock_destruct", "skb_queue_purge", "__skb_queue_purge"];
        !self.options.purged
            && self.reasons.is_unspecific(drop.event.reason)
            && self.kallsyms.symbol(self.location(drop)).is_some_and(|symbol| PURGES.contains(&symbol.name()))
    }

    /// Names the owner of a socket that was open before and that the kernel's table does not know.
    fn recall(&self, event: &mut Event) {
        let Some(held) = &self.held else { return };
        if event.pid != 0 || event.state == 0 {
            return;
        }
        let (source, destination) = ((event.saddr, event.sport), (event.daddr, event.dport));
        let (local, remote) = if event.sent == 0 { (destination, source) } else { (source, destination) };
        if let Some((owner, _)) = held.owner(event.netns, Tuple::of_event(event.family, local, remote)) {
            (event.pid, event.comm) = (owner.pid, owner.comm);
        }
    }

    /// The frames from the one on that dropped the packet.
    fn frames<'d>(&self, drop: &'d Drop) -> &'d [u64] {
        /// The frames below it are few.
        const NEAR: usize = 8;
        let stack = &drop.stack;
        // Its address is in the stack, unless something replaces return addresses.
        let first = stack.iter().position(|frame| *frame == drop.event.location).unwrap_or_else(|| {
            let last = stack.iter().take(NEAR).rposition(|frame| self.is_tracing(*frame));
            last.map_or(0, |last| last + 1)
        });
        let rest = stack.get(first..).unwrap_or_default();
        let below = rest.iter().take_while(|frame| self.is_tracing(**frame)).count();
        rest.get(below..).unwrap_or_default()
    }

    /// Where the packet was dropped. Some kernels (5.10 on arm64) name a place in the function that frees packets; then it is
    /// where that was called from, if there is a stack to tell.
    fn location(&self, drop: &Drop) -> u64 {
        let named = drop.event.location;
        let caller = self.is_tracing(named).then(|| self.frames(drop).first().copied()).flatten();
        caller.unwrap_or(named)
    }

    fn is_tracing(&self, address: u64) -> bool {
        self.kallsyms.symbol(address).is_some_and(|symbol| is_tracing(symbol.name()))
    }

    fn symbol(&self, address: u64) -> String {
        self.kallsyms.symbol(address).map_or_else(|| "[unknown]".to_owned(), |symbol| symbol.to_string())
    }
}

/// What is said where the kernel's code has no names.
pub fn no_names(why: &Nameless) -> String {
    format!("functions have no names here: {why}")
}

/// Whether a function stands between the one that drops a packet and this tool's program.
fn is_tracing(name: &str) -> bool {
    const PREFIXES: [&str; 6] =
        ["bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", "kfree_skb", "sk_skb_reason_drop"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// `SYN|ACK`, in the order of the bits.
fn flags(byte: u8) -> String {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set: Vec<_> = (0..8).filter(|bit| byte >> bit & 1 != 0).map(|bit| NAMES[bit]).collect();
    set.join("|")
}

/// `192.0.2.1:22`, `[2001:db8::1]:22`, and `192.0.2.1:-` where the port (in network order) is not known.
fn joined(family: u16, bytes: [u8; 16], port: Option<u16>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match address::ip_addr(family, bytes) {
        None => write!(text, "-"),
        Some(ip) if ip.is_ipv4() => write!(text, "{ip}"),
        Some(ip) => write!(text, "[{ip}]"),
    };
    let _ = match port {
        Some(port) => write!(text, ":{}", u16::from_be(port)),
        None => write!(text, ":-"),
    };
    text
}

/// `ESTABLISHED (ACK)`, `NO_SOCKET (3)`
fn pair(first: Value<'_>, second: Value<'_>) -> String {
    let [first, second] = [first, second].map(|value| value.text(&Zone::utc()));
    format!("{first} ({second})")
}

#[cfg(test)]
mod tests {
    use programs::tcp::{AF_INET, AF_INET6};

    use super::*;

    #[test]
    fn flags_in_the_order_of_the_bits() {
        assert_eq!(flags(0), "");
        assert_eq!(flags(0x12), "SYN|ACK");
        assert_eq!(flags(0xff), "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR");
    }

    #[test]
    fn endpoints() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[192, 0, 2, 1]);
        assert_eq!(joined(AF_INET, bytes, Some(22_u16.to_be())), "192.0.2.1:22");
        assert_eq!(joined(AF_INET, bytes, None), "192.0.2.1:-");
        assert_eq!(joined(AF_INET6, [0; 16], Some(0)), "[::]:0");
    }

    #[test]
    fn what_is_not_known_of_a_pair() {
        assert_eq!(pair(Value::Unknown, Value::Text("SYN")), "- (SYN)");
        assert_eq!(pair(Value::Word("CLOSE"), Value::Unknown), "CLOSE (-)");
        assert_eq!(pair(Value::Word("CLOSE"), Value::Text("")), "CLOSE ()");
    }

    #[test]
    fn functions_of_tracing() {
        for ours in ["bpf_prog_6deef7357e7b4530_kfree_skb", "bpf_trace_run4", "kfree_skb_reason", "kfree_skb"]
        {
            assert!(is_tracing(ours), "{ours}");
        }
        for theirs in ["tcp_v4_rcv", "nf_hook_slow", "__kfree_skb_x"] {
            assert!(!is_tracing(theirs), "{theirs}");
        }
    }
}
