//! Rings that overflow: each event is either a row or counted as lost.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kernel_tests::bulk::{self, Listener};
use kernel_tests::cli::Output;
use kernel_tests::deadline::{WAIT_LIMIT, slowness, wait_until};
use kernel_tests::loss::{Counters, drop_received};
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::rights::Capability;
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::segment::Segment;
use nix::sys::signal::Signal;

use super::{assert_accounted, start};
use crate::cli::needs_perf_buffers;

pub const TESTS: &[Test] = &[
    test("accounting::tool_stopped_tcpconnlat", || overflow("tcpconnlat", Reader::Stopped)),
    test("accounting::tool_stopped_tcpdrop", || overflow("tcpdrop", Reader::Stopped)),
    test("accounting::tool_stopped_tcplife", || overflow("tcplife", Reader::Stopped)),
    test("accounting::tool_stopped_tcpretrans", || overflow("tcpretrans", Reader::Stopped)),
    test("accounting::tool_stopped_tcpstates", || overflow("tcpstates", Reader::Stopped)),
    test("accounting::tool_stopped_tcptracer", || overflow("tcptracer", Reader::Stopped)),
    test("accounting::output_blocked_tcpconnlat", || overflow("tcpconnlat", Reader::Blocked)),
    test("accounting::output_blocked_tcpdrop", || overflow("tcpdrop", Reader::Blocked)),
    test("accounting::output_blocked_tcplife", || overflow("tcplife", Reader::Blocked)),
    test("accounting::output_blocked_tcpretrans", || overflow("tcpretrans", Reader::Blocked)),
    test("accounting::output_blocked_tcpstates", || overflow("tcpstates", Reader::Blocked)),
    test("accounting::output_blocked_tcptracer", || overflow("tcptracer", Reader::Blocked)),
    test("accounting::perf_buffers_tcpconnlat", || overflow("tcpconnlat", Reader::PerfStopped)),
    test("accounting::perf_buffers_tcpdrop", || overflow("tcpdrop", Reader::PerfStopped)),
    test("accounting::perf_buffers_tcplife", || overflow("tcplife", Reader::PerfStopped)),
    test("accounting::perf_buffers_tcpretrans", || overflow("tcpretrans", Reader::PerfStopped)),
    test("accounting::perf_buffers_tcpstates", || overflow("tcpstates", Reader::PerfStopped)),
    test("accounting::perf_buffers_tcptracer", || overflow("tcptracer", Reader::PerfStopped)),
    test("accounting::a_burst_of_drops_at_default_sizes", a_burst_of_drops_at_default_sizes)
        .alone(Alone::Time),
];

/// A tool that sends each event to user space.
struct Sender {
    tool: &'static str,
    /// Makes something happen this many times; returns how many events that is.
    load: fn(u64) -> u64,
    /// More events than fit into a small ring and a full pipe.
    times: u64,
}

const SENDERS: &[Sender] = &[
    Sender { tool: "tcpconnlat", load: connections, times: 700 },
    Sender { tool: "tcpdrop", load: drops, times: 700 },
    Sender { tool: "tcplife", load: |times| 2 * connections(times), times: 400 },
    Sender { tool: "tcpretrans", load: retransmissions, times: 700 },
    Sender { tool: "tcpstates", load: |times| 10 * connections(times) + 2, times: 120 },
    Sender { tool: "tcptracer", load: |times| 4 * connections(times), times: 200 },
];

/// The tools that send no events. They add up their figures in the kernel.
pub const ADD_UP_IN_THE_KERNEL: &[&str] = &["tcpsubnet", "tcptop"];

/// Whether a tool sends each event to user space.
pub fn sends_events(tool: &str) -> bool {
    SENDERS.iter().any(|sender| sender.tool == tool)
}

/// Why a ring overflows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The tool is stopped, and continued later.
    Stopped,
    /// The same with perf buffers.
    PerfStopped,
    /// The tool's output is not read: the pipe fills, and the tool waits.
    Blocked,
}

fn connections(count: u64) -> u64 {
    let listener = Listener::open();
    (0..count).for_each(|_| listener.connect().close());
    listener.wait_closed();
    count
}

/// Segments with a wrong checksum, which get no answer.
fn drops(count: u64) -> u64 {
    let [from, to] = [4321, 81].map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    Segment { intact: false, ..Segment::syn(from, to) }.send_times(count);
    count
}

/// Connections whose peers drop all packets, so that data is retransmitted until they are closed.
fn retransmissions(at_least: u64) -> u64 {
    let before = Counters::now();
    let mut ends = bulk::open(at_least.min(250) as usize);
    for end in &mut ends {
        drop_received(&end.server);
        end.client.write_all(b"x").expect("send");
    }
    wait_until("retransmissions", WAIT_LIMIT, || match Counters::now().since(before).segments {
        seen if seen >= at_least => Ok(()),
        seen => Err(seen),
    });
    // Reset the connections: FINs would be retransmitted too.
    for end in ends {
        for stream in [end.client, end.server] {
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
        }
    }
    Counters::now().since(before).segments
}

fn overflow(tool: &str, reader: Reader) -> Outcome {
    let Sender { load, times, .. } =
        SENDERS.iter().find(|sender| sender.tool == tool).expect("a tool of SENDERS");
    if tool == "tcpdrop" {
        needs(Feature::ProbeReads)?;
    }
    if reader == Reader::PerfStopped {
        needs_perf_buffers()?;
    }
    let netns = bulk::new_netns();
    let perf: &[&str] = if reader == Reader::PerfStopped { &["--perf"] } else { &[] };
    let mut running = start(tool, &[&["--ring-size", "4096", "--strict"], perf].concat(), &netns);
    if reader != Reader::Blocked {
        running.signal(Signal::SIGSTOP);
    }
    let mut events = load(*times);
    if reader != Reader::Blocked {
        running.signal(Signal::SIGCONT);
    }
    let is_warning = |line: &&str| line.contains("events are being lost") && line.contains("--ring-size");
    running.wait_for("a warning", |seen| seen.stderr_since_attached().iter().any(is_warning));
    // The tool continues and empties the ring, so the next event is a row.
    let lost_at_most = events;
    events += load(1);
    let output = running.stop();
    let account = assert_accounted(output.assert_code(1), events);
    assert!(account["lost_ring"] > 0 && account["lost_map"] == 0, "{account:?}\n{output}");
    assert!(account["lost_ring"] < lost_at_most, "{account:?}\n{output}");
    assert_eq!(
        output.stderr_since_attached().iter().filter(|line| is_warning(line)).count(),
        1,
        "one warning\n{output}"
    );
    assert_strict(&output, account["lost_ring"] + account["missed"]);
    Ok(())
}

/// The last line has the number of lost events, and says that `--strict` makes this a failure.
#[track_caller]
fn assert_strict(output: &Output, lost: u64) {
    let last = output.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("--strict") && last.split(' ').any(|word| word == lost.to_string()),
        "{lost}\n{output}"
    );
}

/// Six thousand packets without a pause, with stacks whose functions must all be looked up.
fn a_burst_of_drops_at_default_sizes() -> Outcome {
    // How many events per second the reader can handle depends on the machine; an emulated one is
    // slow.
    let burst = 6000 / u64::from(slowness());
    needs(Feature::ProbeReads)?;
    needs(Feature::ToolHas(Capability::Syslog))?;
    let netns = bulk::new_netns();
    let mut tool = start("tcpdrop", &["--strict"], &netns);
    tool.read_during(|| drops(burst));
    let output = tool.stop();
    let account = assert_accounted(output.assert_code(0), burst);
    assert_eq!((account["lost_ring"], account["unnamed"]), (0, 0), "{account:?}");
    Ok(())
}
