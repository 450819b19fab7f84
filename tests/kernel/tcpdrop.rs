//! tcpdrop: a row for each TCP packet that the kernel drops, with the reason of this kernel and the
//! stack.

mod filters;
mod formats;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::LazyLock;

use btf::{Btf, Index, Lookup, Wanted};
use kernel_tests::actor::Actor;
use kernel_tests::cli::{Output, Tool, run};
use kernel_tests::netns::Netns;
use kernel_tests::nftables::{self, Hook};
use kernel_tests::requirements::{Availability, Feature, needs, requires};
use kernel_tests::rights::Capability;
use kernel_tests::rows::DropRow;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::segment::{Segment, flag};
use kernel_tests::stage::{Pair, Stage, Via};
use kernel_tests::traffic;
use nix::errno::Errno;

pub const TESTS: &[&[Test]] = &[OWN, filters::TESTS, formats::TESTS];

const OWN: &[Test] = &[
    test("tcpdrop::closed_port", || with_symbols(|| closed_port(LOCALHOST_V4, &[]))),
    test("tcpdrop::closed_port_ipv6", || with_symbols(|| closed_port(LOCALHOST_V6, &[]))),
    test("tcpdrop::closed_port_by_probe_reads", || {
        with_symbols(|| closed_port(LOCALHOST_V4, &["--access", "probed"]))
    }),
    test("tcpdrop::closed_port_by_perf_buffers", || with_symbols(|| closed_port(LOCALHOST_V6, &["--perf"]))),
    test("tcpdrop::wrong_checksum", || with_probe_reads(|| wrong_checksum(LOCALHOST_V4))),
    test("tcpdrop::wrong_checksum_ipv6", || with_probe_reads(|| wrong_checksum(LOCALHOST_V6))),
    test("tcpdrop::netfilter", || with_symbols(|| netfilter(LOCALHOST_V4))),
    test("tcpdrop::netfilter_ipv6", || with_symbols(|| netfilter(LOCALHOST_V6))),
    test("tcpdrop::netfilter_drops_sent_packets", || with_probe_reads(netfilter_drops_sent_packets)),
    test("tcpdrop::data_to_a_closed_socket", || with_probe_reads(|| data_to_a_closed_socket(Via::V4))),
    test("tcpdrop::data_to_a_closed_socket_ipv6", || with_probe_reads(|| data_to_a_closed_socket(Via::V6))),
    test("tcpdrop::data_to_a_time_wait_socket", || with_probe_reads(data_to_a_time_wait_socket)),
    test("tcpdrop::data_out_of_the_window", || with_probe_reads(|| data_out_of_the_window(Via::V4, &[]))),
    test("tcpdrop::data_out_of_the_window_ipv6", || {
        with_probe_reads(|| data_out_of_the_window(Via::V6, &[]))
    }),
    test("tcpdrop::data_out_of_the_window_probed", || {
        with_probe_reads(|| data_out_of_the_window(Via::DualStackServer, &["--access", "probed"]))
    }),
    test("tcpdrop::extension_headers", || with_probe_reads(extension_headers)),
    test("tcpdrop::other_protocols_are_ignored", || with_probe_reads(other_protocols_are_ignored)),
    test("tcpdrop::purged_only_with_the_option", || with_probe_reads(purged_only_with_the_option)),
    test("tcpdrop::lockdown_is_explained", lockdown_is_explained),
];

/// A packet's data has no BTF type, so the tool needs probe reads.
fn with_probe_reads(test: fn() -> Outcome) -> Outcome {
    needs(Feature::ProbeReads)?;
    test()
}

/// The tool needs `CAP_SYSLOG` for the names of functions.
fn with_symbols(test: fn() -> Outcome) -> Outcome {
    needs(Feature::ToolHas(Capability::Syslog))?;
    with_probe_reads(test)
}

/// If a lockdown forbids probe reads, one line says so.
fn lockdown_is_explained() -> Outcome {
    if needs(Feature::ProbeReads).is_ok() {
        return requires(
            "a kernel locked down to keep its secrets",
            Availability::Optional,
            Some("it is not".to_owned()),
        );
    }
    let output = run(["tcpdrop"]);
    output.assert_code(1).assert_no_stdout();
    assert!(output.one_line().contains("lockdown=confidentiality"), "{output}");
    Ok(())
}

const LOCALHOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCALHOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Ports without listeners.
const CLOSED_PORT: u16 = 81;
const SOURCE_PORT: u16 = 4321;

fn index() -> &'static Index<'static> {
    static BTF: LazyLock<Btf> = LazyLock::new(|| Btf::kernel().expect("the kernel's BTF"));
    static INDEX: LazyLock<Index<'static>> = LazyLock::new(|| {
        BTF.index(&Wanted::new().enumeration("skb_drop_reason").tracepoint("kfree_skb")).expect("an index")
    });
    &INDEX
}

/// The first of these reasons that this kernel has, by name and number; the later ones are names of
/// older kernels for the same event. `None` on kernels without reasons.
fn reason(names: &[&str]) -> (Option<String>, Option<u32>) {
    let values = index().enum_values("skb_drop_reason").expect("an answer");
    let Lookup::Found(values) = values else { return (None, None) };
    let number = |name: &str| {
        let wanted = format!("SKB_DROP_REASON_{name}");
        values.iter().find(|(known, _)| *known == wanted).map(|(_, number)| *number)
    };
    let (name, number) = names
        .iter()
        .find_map(|name| Some((*name, number(name)?)))
        .unwrap_or_else(|| panic!("this kernel has none of {names:?}"));
    (Some(name.to_owned()), Some(u32::try_from(number).expect("a number")))
}

/// Whether the tracepoint has the receiving socket, as since 6.11.
fn has_receiving_socket() -> bool {
    match index().tracepoint("kfree_skb").expect("an answer") {
        Lookup::Found(tracepoint) => tracepoint.args.len() >= 4,
        Lookup::Absent(absent) => panic!("{absent}"),
    }
}

#[track_caller]
fn start(args: &[&str]) -> Tool {
    Tool::start("tcpdrop", &[&["--json"], args].concat())
}

/// Waits for this many rows of the namespace, and checks that there are no more.
#[track_caller]
fn finish(mut tool: Tool, netns: &Netns, count: usize) -> (Vec<DropRow>, Output) {
    tool.wait_rows(netns.inode(), count);
    let output = tool.stop();
    output.assert_code(0).assert_complete_lines();
    let rows = output.rows::<DropRow>(netns.inode());
    assert_eq!(rows.len(), count, "{output}");
    (rows, output)
}

/// The function of a frame or location.
fn function(place: &str) -> &str {
    place.split('+').next().unwrap_or_default()
}

/// The stack begins where the packet was dropped, and has no functions of tracing.
#[track_caller]
fn assert_stack(row: &DropRow, function_in_it: &str) {
    let stack = row.stack.as_ref().unwrap_or_else(|| panic!("no stack: {row:?}"));
    assert_eq!(stack.first(), Some(&row.location), "{row:?}");
    assert!(stack.iter().any(|frame| function(frame) == function_in_it), "no {function_in_it}: {row:?}");
    for frame in stack {
        let (_, offset) = frame.split_once("+0x").unwrap_or_else(|| panic!("no offset: {frame}"));
        let digits = offset.split(' ').next().unwrap_or_default();
        assert!(u64::from_str_radix(digits, 16).is_ok(), "{frame}");
        let tracing = ["bpf_", "__bpf_", "__traceiter_", "kfree_skb", "sk_skb_reason_drop"];
        assert!(!tracing.iter().any(|prefix| frame.starts_with(prefix)), "{row:?}");
    }
}

/// Checks the fields that every row has.
#[track_caller]
fn assert_packet(row: &DropRow, from: SocketAddr, to: SocketAddr, flags: &str) {
    let seen = (row.saddr, row.sport, row.daddr, row.dport, row.flags.as_deref(), row.ip);
    let ip = if from.is_ipv4() { 4 } else { 6 };
    assert_eq!(seen, (from.ip(), Some(from.port()), to.ip(), Some(to.port()), Some(flags), ip), "{row:?}");
}

#[track_caller]
fn assert_reason(row: &DropRow, names: &[&str]) {
    assert_eq!((row.reason.clone(), row.reason_code), reason(names), "{row:?}");
}

/// Checks the state, if the kernel gives the receiving socket.
#[track_caller]
fn assert_state(row: &DropRow, state: &str) {
    assert_eq!(row.state.as_deref(), has_receiving_socket().then_some(state), "{row:?}");
}

fn family(address: IpAddr) -> Outcome {
    if address.is_ipv6() { needs(Feature::Ipv6) } else { Ok(()) }
}

/// A real connect to a port without a listener.
fn closed_port(address: IpAddr, options: &[&str]) -> Outcome {
    if options.contains(&"--perf") {
        needs(Feature::PerfEvents)?;
    }
    family(address)?;
    let netns = Netns::enter_new();
    let tool = start(options);
    let to = SocketAddr::new(address, CLOSED_PORT);
    assert!(TcpStream::connect(to).is_err());
    let (rows, _) = finish(tool, &netns, 1);
    let from = SocketAddr::new(address, rows[0].sport.expect("a port"));
    assert_packet(&rows[0], from, to, "SYN");
    assert_reason(&rows[0], &["NO_SOCKET"]);
    assert_eq!((rows[0].state.as_ref(), rows[0].pid, rows[0].comm.as_ref()), (None, None, None));
    let receives = if address.is_ipv4() { "tcp_v4_rcv" } else { "tcp_v6_rcv" };
    assert_eq!(function(&rows[0].location), receives);
    assert_stack(&rows[0], receives);
    Ok(())
}

/// A segment with a wrong checksum to a port with a listener.
fn wrong_checksum(address: IpAddr) -> Outcome {
    family(address)?;
    let netns = Netns::enter_new();
    let listener = TcpListener::bind((address, 0)).expect("bind");
    let (from, to) = (SocketAddr::new(address, SOURCE_PORT), listener.local_addr().expect("an address"));
    let tool = start(&[]);
    Segment { intact: false, ..Segment::syn(from, to) }.send();
    let (rows, _) = finish(tool, &netns, 1);
    assert_packet(&rows[0], from, to, "SYN");
    assert_reason(&rows[0], &["TCP_CSUM"]);
    assert_eq!((rows[0].state.as_ref(), rows[0].pid), (None, None));
    Ok(())
}

/// Drops packets to [`CLOSED_PORT`], in the namespace that this process is in.
fn drop_at(hook: Hook) -> Outcome {
    let refused = nftables::drop_tcp_to(CLOSED_PORT, hook).err();
    // Depends on the kernel's configuration, not on its version.
    let absent = refused.map(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL | Errno::EPROTONOSUPPORT | Errno::EOPNOTSUPP | Errno::ENOENT) => error.to_string(),
        _ => panic!("a rule of nftables: {error}"),
    });
    requires("nftables", Availability::Optional, absent)
}

/// A rule that drops packets to a port when they are received.
fn netfilter(address: IpAddr) -> Outcome {
    family(address)?;
    let netns = Netns::enter_new();
    drop_at(Hook::Input)?;
    let tool = start(&[]);
    let (from, to) = (SocketAddr::new(address, SOURCE_PORT), SocketAddr::new(address, CLOSED_PORT));
    Segment::syn(from, to).send();
    let (rows, _) = finish(tool, &netns, 1);
    assert_packet(&rows[0], from, to, "SYN");
    assert_reason(&rows[0], &["NETFILTER_DROP"]);
    assert_stack(&rows[0], if address.is_ipv4() { "ip_local_deliver" } else { "ip6_input" });
    Ok(())
}

/// A rule that drops packets when they are sent: they belong to a socket with a state, whose port
/// is the source.
fn netfilter_drops_sent_packets() -> Outcome {
    let netns = Netns::enter_new();
    drop_at(Hook::Output)?;
    let to = SocketAddr::new(LOCALHOST_V4, CLOSED_PORT);
    let mut client = Actor::start("kt-client");
    for (option, wanted) in [("--remoteport", true), ("--localport", false)] {
        let mut tool = start(&[option, "81", "--no-stack"]);
        let conn = client.start_connect(to, None);
        tool.wait_rows(netns.inode(), usize::from(wanted));
        client.close(conn);
        let output = tool.stop();
        let rows = output.rows::<DropRow>(netns.inode());
        // The SYN may have been retransmitted meanwhile.
        assert_eq!(rows.is_empty(), !wanted, "{output}");
        for row in rows {
            assert_packet(&row, conn.local, to, "SYN");
            assert_reason(&row, &["NETFILTER_DROP"]);
            assert_eq!((row.state.as_deref(), row.stack), (Some("SYN_SENT"), None));
        }
    }
    Ok(())
}

/// Has a closed socket wait itself for the peer's FIN, as it does if the time limit is more than a
/// minute. With a shorter limit, a smaller object takes over once its own FIN is acknowledged, now
/// or 40 ms later, and all packets to that object are dropped without a specific reason, even the
/// FIN.
fn wait_as_sockets(netns: &Netns) {
    netns.set_sysctl("net/ipv4/tcp_fin_timeout", "120");
}

/// The peer sends to a socket that its process has closed.
fn data_to_a_closed_socket(via: Via) -> Outcome {
    family(if via == Via::V4 { LOCALHOST_V4 } else { LOCALHOST_V6 })?;
    let netns = Netns::enter_new();
    wait_as_sockets(&netns);
    let mut stage = Stage::new(via);
    let pair = stage.open();
    let tool = start(&[]);
    stage.client.close(pair.client);
    stage.server.send(pair.server, 5);
    let (rows, _) = finish(tool, &netns, 1);
    assert_packet(&rows[0], pair.server.local, pair.client.local, "PSH|ACK");
    assert_reason(&rows[0], &["TCP_ABORT_ON_DATA", "NOT_SPECIFIED"]);
    assert_state(&rows[0], "CLOSE");
    Ok(())
}

/// The same after a smaller object has taken over from the socket.
fn data_to_a_time_wait_socket() -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let pair = stage.open();
    let tool = start(&[]);
    stage.client.close(pair.client);
    stage.settle_fin(pair.client);
    stage.server.send(pair.server, 5);
    let (rows, _) = finish(tool, &netns, 1);
    assert_packet(&rows[0], pair.server.local, pair.client.local, "PSH|ACK");
    assert_reason(&rows[0], &["NOT_SPECIFIED"]);
    // The object is found by its addresses and is never passed to the receiving code as a socket.
    assert!(matches!(rows[0].state.as_deref(), None | Some("TIME_WAIT")), "{:?}", rows[0]);
    Ok(())
}

/// Segments with sequence numbers outside the window.
fn data_out_of_the_window(via: Via, options: &[&str]) -> Outcome {
    needs_traced_tcp_drop()?;
    family(if via == Via::V4 { LOCALHOST_V4 } else { LOCALHOST_V6 })?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(via);
    let pair = stage.open();
    let tool = start(options);
    send_out_of_window(pair, flag::ACK | flag::PSH);
    let (from, to) = (pair.client.local, pair.client.remote);
    let (rows, _) = finish(tool, &netns, 2);
    let known = [reason(&["TCP_INVALID_SEQUENCE"]), reason(&["TCP_OLD_SEQUENCE", "TCP_INVALID_SEQUENCE"])];
    for row in &rows {
        assert_packet(row, from, to, "PSH|ACK");
        assert_state(row, "ESTABLISHED");
        assert!(known.contains(&(row.reason.clone(), row.reason_code)), "{row:?}");
    }
    let invalid = |row: &DropRow| (row.reason.clone(), row.reason_code) == known[0];
    assert!(rows.iter().any(invalid), "{rows:?}");
    Ok(())
}

/// Checks that the tracepoint sees drops by `tcp_drop()`, by which connections drop useless
/// packets. Before 5.18 it does not.
fn needs_traced_tcp_drop() -> Result<(), kernel_tests::requirements::Skip> {
    let values = index().enum_values("skb_drop_reason").expect("an answer");
    let there = matches!(values, Lookup::Found(values)
        if values.iter().any(|(name, _)| *name == "SKB_DROP_REASON_TCP_INVALID_SEQUENCE"));
    let absent = (!there).then(|| "no SKB_DROP_REASON_TCP_INVALID_SEQUENCE".to_owned());
    requires("drops by an established connection", Availability::Since(5, 18), absent)
}

/// IPv6 extension headers before the TCP header are skipped.
fn extension_headers() -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let (from, to) = (SocketAddr::new(LOCALHOST_V6, SOURCE_PORT), SocketAddr::new(LOCALHOST_V6, CLOSED_PORT));
    Segment { extended: true, intact: false, ..Segment::syn(from, to) }.send();
    let (rows, _) = finish(tool, &netns, 1);
    assert_packet(&rows[0], from, to, "SYN");
    assert_reason(&rows[0], &["TCP_CSUM"]);
    Ok(())
}

/// A UDP datagram to a closed port is dropped for the same reason, and is not shown.
fn other_protocols_are_ignored() -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&["--stats"]);
    for address in [LOCALHOST_V4, LOCALHOST_V6] {
        if family(address).is_ok() {
            let socket = UdpSocket::bind((address, 0)).expect("bind");
            socket.send_to(b"unread", (address, CLOSED_PORT)).expect("send");
        }
    }
    assert!(TcpStream::connect((LOCALHOST_V4, CLOSED_PORT)).is_err());
    let (rows, _) = finish(tool, &netns, 1);
    assert_eq!(rows[0].flags.as_deref(), Some("SYN"));
    Ok(())
}

/// A connection's last FIN is never read, and is purged with the socket.
fn purged_only_with_the_option() -> Outcome {
    let netns = Netns::enter_new();
    wait_as_sockets(&netns);
    let mut stage = Stage::new(Via::V4);
    // A drop of another kind, so that there is a row to wait for.
    let drop = || assert!(TcpStream::connect((LOCALHOST_V4, CLOSED_PORT)).is_err());
    let tool = start(&[]);
    traffic::client_closes_first(&mut stage);
    drop();
    let (rows, output) = finish(tool, &netns, 1);
    assert_reason(&rows[0], &["NO_SOCKET"]);
    assert!(output.stderr.contains("--purged shows them"), "{output}");

    let mut tool = start(&["--purged"]);
    traffic::client_closes_first(&mut stage);
    drop();
    tool.wait_rows(netns.inode(), 2);
    let output = tool.stop();
    let rows = output.rows::<DropRow>(netns.inode());
    let expected = reason(&["QUEUE_PURGE", "NOT_SPECIFIED"]);
    assert!(rows.iter().any(|row| (row.reason.clone(), row.reason_code) == expected), "{output}");
    assert!(!output.stderr.contains("--purged"), "{output}");
    Ok(())
}

/// Sends the accepting end two segments whose sequence numbers are 2^31 apart: one is before the
/// window, one after it.
pub fn send_out_of_window(pair: Pair, flags: u8) {
    let (from, to) = (pair.client.local, pair.client.remote);
    for seq in [0x1000_0000, 0x9000_0000] {
        Segment { seq, flags, payload: b"lost", ..Segment::syn(from, to) }.send();
    }
}

pub fn needs_receiver() -> Outcome {
    requires(
        "the receiving socket of a drop",
        Availability::Optional,
        (!has_receiving_socket()).then(|| "no rx_sk".to_owned()),
    )
}
