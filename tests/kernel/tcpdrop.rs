//! tcpdrop: a row for each TCP packet that the kernel drops, with the reason this kernel has for it, and the way there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::LazyLock;

use btf::{Btf, Index, Lookup, Wanted};
use kernel_tests::actor::Actor;
use kernel_tests::cli::{Output, Tool, run};
use kernel_tests::netns::Netns;
use kernel_tests::nftables::{self, Hook};
use kernel_tests::requirements::{Availability, Feature, needs, needs_owners, requires, running_version};
use kernel_tests::rights::Capability;
use kernel_tests::rows::DropRow;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::segment::{Segment, flag};
use kernel_tests::stage::{Pair, Stage, Via};
use kernel_tests::traffic;
use nix::errno::Errno;

pub const TESTS: &[Test] = &[
    test("tcpdrop::closed_port", || named(|| closed_port(LOCALHOST_V4, &[]))),
    test("tcpdrop::closed_port_ipv6", || named(|| closed_port(LOCALHOST_V6, &[]))),
    test("tcpdrop::closed_port_by_probe_reads", || {
        named(|| closed_port(LOCALHOST_V4, &["--access", "probed"]))
    }),
    test("tcpdrop::closed_port_by_perf_buffers", || named(|| closed_port(LOCALHOST_V6, &["--perf"]))),
    test("tcpdrop::wrong_checksum", || here(|| wrong_checksum(LOCALHOST_V4))),
    test("tcpdrop::wrong_checksum_ipv6", || here(|| wrong_checksum(LOCALHOST_V6))),
    test("tcpdrop::netfilter", || named(|| netfilter(LOCALHOST_V4))),
    test("tcpdrop::netfilter_ipv6", || named(|| netfilter(LOCALHOST_V6))),
    test("tcpdrop::netfilter_drops_sent_packets", || here(netfilter_drops_sent_packets)),
    test("tcpdrop::data_to_a_closed_socket", || here(|| data_to_a_closed_socket(Via::V4))),
    test("tcpdrop::data_to_a_closed_socket_ipv6", || here(|| data_to_a_closed_socket(Via::V6))),
    test("tcpdrop::data_to_a_time_wait_socket", || here(data_to_a_time_wait_socket)),
    test("tcpdrop::data_out_of_the_window", || here(|| data_out_of_the_window(Via::V4, &[]))),
    test("tcpdrop::data_out_of_the_window_ipv6", || here(|| data_out_of_the_window(Via::V6, &[]))),
    test("tcpdrop::data_out_of_the_window_probed", || {
        here(|| data_out_of_the_window(Via::DualStackServer, &["--access", "probed"]))
    }),
    test("tcpdrop::extension_headers", || here(extension_headers)),
    test("tcpdrop::other_protocols_are_ignored", || here(other_protocols_are_ignored)),
    test("tcpdrop::purged_only_with_the_option", || here(purged_only_with_the_option)),
    test("tcpdrop::owner", || here(|| owner(&["--owner"]))),
    test("tcpdrop::owner_by_sock_diag_and_proc", || here(|| owner(&["--owner", "--no-iter"]))),
    test("tcpdrop::pid", || here(pid)),
    test("tcpdrop::by_reason", || here(by_reason)),
    test("tcpdrop::by_port_and_address", || here(by_port_and_address)),
    test("tcpdrop::by_network_namespace", || here(by_network_namespace)),
    test("tcpdrop::table", || named(table)),
    test("tcpdrop::table_without_stacks", || named(table_without_stacks)),
    test("tcpdrop::csv", || named(csv)),
    test("tcpdrop::the_last_row_has_its_stack", || named(the_last_row_has_its_stack)),
    test("tcpdrop::lockdown_is_explained", lockdown_is_explained),
    test("tcpdrop::wrong_usage", wrong_usage),
    test("tcpdrop::unknown_reason", unknown_reason),
];

/// What a packet holds has no type, so it is read by address.
fn here(test: fn() -> Outcome) -> Outcome {
    needs(Feature::ProbeReads)?;
    test()
}

/// Functions have names for those only who may know where they are.
fn named(test: fn() -> Outcome) -> Outcome {
    needs(Feature::ToolHas(Capability::Syslog))?;
    here(test)
}

/// Where that is forbidden, one line says so.
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

/// Ports where nobody listens, in namespaces where nobody else is.
const NOBODY: u16 = 81;
const FROM: u16 = 4321;

fn index() -> &'static Index<'static> {
    static BTF: LazyLock<Btf> = LazyLock::new(|| Btf::kernel().expect("the kernel's BTF"));
    static INDEX: LazyLock<Index<'static>> = LazyLock::new(|| {
        BTF.index(&Wanted::new().enumeration("skb_drop_reason").tracepoint("kfree_skb")).expect("an index")
    });
    &INDEX
}

/// This kernel's first of these reasons, by name and number: of one event, the later ones are what older kernels call it. Nothing
/// on kernels without reasons.
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

/// Whether this kernel tells which socket was receiving the packet; those before 6.11 do not.
fn has_receiving_socket() -> bool {
    match index().tracepoint("kfree_skb").expect("an answer") {
        Lookup::Found(tracepoint) => tracepoint.args.len() >= 4,
        Lookup::Absent(absent) => panic!("{absent}"),
    }
}

fn needs_reasons() -> Result<(), kernel_tests::requirements::Skip> {
    let absent = matches!(index().enum_values("skb_drop_reason"), Ok(Lookup::Absent(_)));
    requires(
        "reasons of drops",
        Availability::Since(5, 17),
        absent.then(|| "no enum skb_drop_reason".to_owned()),
    )
}

#[track_caller]
fn start(args: &[&str]) -> Tool {
    Tool::start("tcpdrop", &[&["--json"], args].concat())
}

/// Waits for so many rows of the namespace, and sees that there are no more.
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

/// The stack begins where the packet was dropped, and has nothing of the tool's.
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

/// What every row of a packet has.
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

/// The state, where the kernel tells which socket was receiving.
#[track_caller]
fn assert_state(row: &DropRow, state: &str) {
    assert_eq!(row.state.as_deref(), has_receiving_socket().then_some(state), "{row:?}");
}

fn family(address: IpAddr) -> Outcome {
    if address.is_ipv6() { needs(Feature::Ipv6) } else { Ok(()) }
}

/// A real connect to where nobody listens.
fn closed_port(address: IpAddr, options: &[&str]) -> Outcome {
    if options.contains(&"--perf") {
        needs(Feature::PerfEvents)?;
    }
    family(address)?;
    let netns = Netns::enter_new();
    let tool = start(options);
    let to = SocketAddr::new(address, NOBODY);
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

/// A segment with a wrong checksum, though somebody listens there.
fn wrong_checksum(address: IpAddr) -> Outcome {
    family(address)?;
    let netns = Netns::enter_new();
    let listener = TcpListener::bind((address, 0)).expect("bind");
    let (from, to) = (SocketAddr::new(address, FROM), listener.local_addr().expect("an address"));
    let tool = start(&[]);
    Segment { intact: false, ..Segment::syn(from, to) }.send();
    let (rows, _) = finish(tool, &netns, 1);
    assert_packet(&rows[0], from, to, "SYN");
    assert_reason(&rows[0], &["TCP_CSUM"]);
    assert_eq!((rows[0].state.as_ref(), rows[0].pid), (None, None));
    Ok(())
}

/// Drops what goes to [`NOBODY`], in the namespace that this process is in.
fn drop_at(hook: Hook) -> Outcome {
    let refused = nftables::drop_tcp_to(NOBODY, hook).err();
    // Not a matter of the version: a kernel may be built without.
    let absent = refused.map(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL | Errno::EPROTONOSUPPORT | Errno::EOPNOTSUPP | Errno::ENOENT) => error.to_string(),
        _ => panic!("a rule of nftables: {error}"),
    });
    requires("nftables", Availability::Optional, absent)
}

/// A rule that drops what comes to a port.
fn netfilter(address: IpAddr) -> Outcome {
    family(address)?;
    let netns = Netns::enter_new();
    drop_at(Hook::Input)?;
    let tool = start(&[]);
    let (from, to) = (SocketAddr::new(address, FROM), SocketAddr::new(address, NOBODY));
    Segment::syn(from, to).send();
    let (rows, _) = finish(tool, &netns, 1);
    assert_packet(&rows[0], from, to, "SYN");
    assert_reason(&rows[0], &["NETFILTER_DROP"]);
    assert_stack(&rows[0], if address.is_ipv4() { "ip_local_deliver" } else { "ip6_input" });
    Ok(())
}

/// A rule that drops what a socket sends: the packet is the socket's, which has a state, and its own port is the source.
fn netfilter_drops_sent_packets() -> Outcome {
    let netns = Netns::enter_new();
    drop_at(Hook::Output)?;
    let to = SocketAddr::new(LOCALHOST_V4, NOBODY);
    let mut client = Actor::start("kt-client");
    for (option, wanted) in [("--remoteport", true), ("--localport", false)] {
        let mut tool = start(&[option, "81", "--no-stack"]);
        let conn = client.start_connect(to, None);
        tool.wait_rows(netns.inode(), usize::from(wanted));
        client.close(conn);
        let output = tool.stop();
        let rows = output.rows::<DropRow>(netns.inode());
        // The SYN may have been sent again meanwhile.
        assert_eq!(rows.is_empty(), !wanted, "{output}");
        for row in rows {
            assert_packet(&row, conn.local, to, "SYN");
            assert_reason(&row, &["NETFILTER_DROP"]);
            assert_eq!((row.state.as_deref(), row.stack), (Some("SYN_SENT"), None));
        }
    }
    Ok(())
}

/// Has a socket that is closed first wait for the other side's FIN itself, as it does for more than a minute. For less, a smaller
/// object takes over once its own FIN is acknowledged, now or 40 ms later, and what comes to that is dropped as nothing in
/// particular, be it a mere FIN.
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

/// The same when a smaller object has taken over from the socket.
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
    // It is found by its addresses and never handed to the receiving code as a socket.
    assert!(matches!(rows[0].state.as_deref(), None | Some("TIME_WAIT")), "{:?}", rows[0]);
    Ok(())
}

/// Segments with sequence numbers of nobody.
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

/// Before 5.18 `tcp_drop()`, by which a connection drops what it cannot use, frees the packet without the tracepoint.
fn needs_traced_tcp_drop() -> Result<(), kernel_tests::requirements::Skip> {
    let values = index().enum_values("skb_drop_reason").expect("an answer");
    let there = matches!(values, Lookup::Found(values)
        if values.iter().any(|(name, _)| *name == "SKB_DROP_REASON_TCP_INVALID_SEQUENCE"));
    let absent = (!there).then(|| "no SKB_DROP_REASON_TCP_INVALID_SEQUENCE".to_owned());
    requires("drops by an established connection", Availability::Since(5, 18), absent)
}

/// What lies between the IPv6 header and that of TCP does not hide it.
fn extension_headers() -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let (from, to) = (SocketAddr::new(LOCALHOST_V6, FROM), SocketAddr::new(LOCALHOST_V6, NOBODY));
    Segment { extended: true, intact: false, ..Segment::syn(from, to) }.send();
    let (rows, _) = finish(tool, &netns, 1);
    assert_packet(&rows[0], from, to, "SYN");
    assert_reason(&rows[0], &["TCP_CSUM"]);
    Ok(())
}

/// A datagram to nobody is dropped for the same reason, and is no business of the tool.
fn other_protocols_are_ignored() -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&["--stats"]);
    for address in [LOCALHOST_V4, LOCALHOST_V6] {
        if family(address).is_ok() {
            let socket = UdpSocket::bind((address, 0)).expect("bind");
            socket.send_to(b"nobody reads this", (address, NOBODY)).expect("send");
        }
    }
    assert!(TcpStream::connect((LOCALHOST_V4, NOBODY)).is_err());
    let (rows, _) = finish(tool, &netns, 1);
    assert_eq!(rows[0].flags.as_deref(), Some("SYN"));
    Ok(())
}

/// A connection's last FIN, which nobody reads, is purged with the socket.
fn purged_only_with_the_option() -> Outcome {
    let netns = Netns::enter_new();
    wait_as_sockets(&netns);
    let mut stage = Stage::new(Via::V4);
    // A drop of another kind ends the waiting.
    let drop = || assert!(TcpStream::connect((LOCALHOST_V4, NOBODY)).is_err());
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

/// Sends the accepted end two segments with sequence numbers half of all numbers apart: one lies before the window, one behind.
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

/// Whose socket it was: born before the tool, and known all the same.
fn owner(options: &[&str]) -> Outcome {
    needs_receiver()?;
    needs_owners(options)?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let pair = stage.open();
    let tool = start(options);
    send_out_of_window(pair, flag::ACK);
    let (rows, _) = finish(tool, &netns, 2);
    let who = stage.server.who();
    for row in rows {
        assert_eq!((row.pid, row.comm.as_deref()), (Some(who.pid), Some(&*who.comm)), "{row:?}");
    }
    Ok(())
}

fn pid() -> Outcome {
    needs_receiver()?;
    for (of_server, count) in [(true, 2), (false, 0)] {
        let netns = Netns::enter_new();
        let mut stage = Stage::new(Via::V4);
        let who = if of_server { stage.server.who() } else { stage.client.who() };
        let mut tool = start(&["--pid", &who.pid.to_string(), "--stats"]);
        let here = stage.open();
        stage.exchange(here, 1, 1);
        send_out_of_window(here, flag::ACK);
        tool.wait_rows(netns.inode(), count);
        let output = tool.stop();
        assert_eq!(output.rows::<DropRow>(netns.inode()).len(), count, "{output}");
    }
    Ok(())
}

/// One drop for each of two reasons; `--reason` shows those that are asked for.
fn by_reason() -> Outcome {
    needs_reasons()?;
    let netns = Netns::enter_new();
    let listener = TcpListener::bind((LOCALHOST_V4, 0)).expect("bind");
    let (from, to) = (SocketAddr::new(LOCALHOST_V4, FROM), listener.local_addr().expect("an address"));
    for (asked, expected) in [
        ("no_socket", &["NO_SOCKET"][..]),
        ("SKB_DROP_REASON_TCP_CSUM", &["TCP_CSUM"]),
        ("tcp_csum,NO_SOCKET", &["TCP_CSUM", "NO_SOCKET"]),
        ("NETFILTER_DROP", &[]),
    ] {
        let tool = start(&["--reason", asked]);
        Segment { intact: false, ..Segment::syn(from, to) }.send();
        assert!(TcpStream::connect((LOCALHOST_V4, NOBODY)).is_err());
        let (rows, _) = finish(tool, &netns, expected.len());
        let reasons: Vec<_> = rows.iter().map(|row| row.reason.as_deref().expect("a reason")).collect();
        assert_eq!(reasons, expected, "{asked}");
    }
    Ok(())
}

fn by_port_and_address() -> Outcome {
    let netns = Netns::enter_new();
    let to = SocketAddr::new(LOCALHOST_V4, NOBODY);
    let other = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 9).into(), 82);
    for (options, expected) in [
        // Without a socket a packet is taken as received: this end's port is where it was going.
        (&["--localport", "81"][..], &[81][..]),
        (&["--localport", "81,82"], &[81, 82]),
        (&["--remoteport", "81"], &[]),
        (&["--addr", "127.0.0.8/30"], &[82]),
        (&["--addr", "127.0.0.0/8"], &[81, 82]),
        (&["-4"], &[81, 82]),
        (&["-6"], &[]),
    ] {
        let tool = start(options);
        for address in [to, other] {
            assert!(TcpStream::connect(address).is_err());
        }
        let (rows, _) = finish(tool, &netns, expected.len());
        assert_eq!(
            rows.iter().map(|row| row.dport.expect("a port")).collect::<Vec<_>>(),
            expected,
            "{options:?}"
        );
    }
    Ok(())
}

fn by_network_namespace() -> Outcome {
    let (here, beside) = (Netns::enter_new(), Netns::beside());
    let own = (here.inode().to_string(), std::process::id().to_string());
    for options in [["--netns-id", &own.0], ["--netns", &own.0], ["--pid-netns", &own.1]] {
        if options[0] == "--pid-netns" {
            needs(Feature::ToolHas(Capability::SysPtrace))?;
        }
        let tool = start(&options);
        for netns in [&beside, &here] {
            netns.run(|| assert!(TcpStream::connect((LOCALHOST_V4, NOBODY)).is_err()));
        }
        let (rows, output) = finish(tool, &here, 1);
        assert_reason(&rows[0], &["NO_SOCKET"]);
        assert_eq!(output.stdout.lines().count(), 1, "{options:?}\n{output}");
    }
    Ok(())
}

/// Runs the tool on one drop, of a segment with a wrong checksum, in a namespace of its own, and returns what it printed.
#[track_caller]
fn printed(options: &[&str], address: IpAddr, last: &str) -> Output {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let mut tool = Tool::start("tcpdrop", &[&["--netns", &inode], options].concat());
    let (from, to) = (SocketAddr::new(address, FROM), SocketAddr::new(address, NOBODY));
    Segment { intact: false, ..Segment::syn(from, to) }.send();
    tool.wait_for(last, |seen| seen.stdout.contains(last));
    let output = tool.stop();
    output.assert_code(0).assert_complete_lines();
    output
}

/// The time of day that a line begins with is some time; what follows is returned.
#[track_caller]
fn after_time<'a>(line: &'a str, output: &Output) -> &'a str {
    let (time, rest) = line.split_at_checked(8).unwrap_or_else(|| panic!("{output}"));
    let right = time
        .bytes()
        .enumerate()
        .all(|(at, byte)| if at % 3 == 2 { byte == b':' } else { byte.is_ascii_digit() });
    assert!(right, "no time: {line}\n{output}");
    rest
}

/// A reason as the table has it.
fn shown(names: &[&str]) -> String {
    match reason(names) {
        (Some(name), Some(number)) => format!("{name} ({number})"),
        _ => "-".to_owned(),
    }
}

/// The columns and widths of old, a line for each frame, an empty line.
fn table() -> Outcome {
    let output = printed(&[], LOCALHOST_V4, "\n\n");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "TIME     PID     IP SADDR:SPORT          > DADDR:DPORT          STATE (FLAGS)        REASON (CODE)",
        "{output}"
    );
    let expected = format!(" -       4  127.0.0.1:4321       > 127.0.0.1:81         {:<20} ", "- (SYN)");
    assert_eq!(after_time(lines[1], &output), expected + &shown(&["TCP_CSUM"]), "{output}");
    let (frames, end) = lines[2..].split_at(lines.len() - 3);
    assert!(
        frames.len() > 3 && frames.iter().all(|frame| frame.starts_with('\t') && frame.contains("+0x")),
        "{output}"
    );
    assert!(frames[0].starts_with("\ttcp_v4_rcv+0x"), "{output}");
    assert_eq!(end, [""], "{output}");

    needs(Feature::Ipv6)?;
    let output = printed(&[], LOCALHOST_V6, "\n\n");
    let row = output.stdout.lines().nth(1).expect("a row");
    let begin = " -       6  [::1]:4321           > [::1]:81             - (SYN)              ";
    assert!(after_time(row, &output).starts_with(begin), "{output}");
    Ok(())
}

fn table_without_stacks() -> Outcome {
    // That kernel names a place in the function that frees packets, and only a stack tells where that was called.
    let itself = cfg!(target_arch = "aarch64") && running_version() < (5, 17);
    let place = if itself { "kfree_skb" } else { "tcp_v4_rcv" };
    let output = printed(&["--no-stack"], LOCALHOST_V4, place);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [head, row] = lines[..] else { panic!("{output}") };
    assert!(head.ends_with("STATE (FLAGS)        REASON (CODE)            LOCATION"), "{output}");
    let (before, location) = row.rsplit_once(' ').expect("columns");
    assert_eq!(function(location), place, "{output}");
    assert!(before.trim_end().ends_with(&shown(&["TCP_CSUM"])), "{output}");
    Ok(())
}

fn csv() -> Outcome {
    let output = printed(&["--csv"], LOCALHOST_V4, "tcp_v4_rcv");
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [head, row] = lines[..] else { panic!("{output}") };
    assert_eq!(
        head, "TIME,PID,COMM,IP,SADDR,SPORT,DADDR,DPORT,STATE,FLAGS,REASON,CODE,LOCATION,STACK",
        "{output}"
    );
    let (name, number) = reason(&["TCP_CSUM"]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let expected = format!(
        ",-,-,4,127.0.0.1,4321,127.0.0.1,81,-,SYN,{},{},tcp_v4_rcv+0x",
        or_dash(name),
        or_dash(number.map(|number| number.to_string()))
    );
    assert!(after_time(row, &output).starts_with(&expected), "{output}");
    assert_eq!(row.split(',').count(), 14, "{output}");
    Ok(())
}

/// `--count 1` ends after a row and what belongs to it.
fn the_last_row_has_its_stack() -> Outcome {
    let netns = Netns::enter_new();
    let inode = netns.inode().to_string();
    let tool = Tool::start("tcpdrop", &["--netns", &inode, "--count", "1"]);
    for port in [81, 82] {
        assert!(TcpStream::connect((LOCALHOST_V4, port)).is_err());
    }
    let output = tool.finish();
    output.assert_code(0).assert_complete_lines();
    assert!(output.stdout.ends_with("\n\n"), "{output}");
    assert!(
        output.stdout.lines().filter(|line| line.contains(" > ")).count() == 2,
        "heading and row\n{output}"
    );
    assert!(output.stdout.contains("\ttcp_v4_rcv+0x"), "{output}");
    Ok(())
}

/// Exit code 2 and one line that names what is wrong, before anything is done.
fn wrong_usage() -> Outcome {
    const WRONG: &[(&[&str], &str)] = &[
        (&["--reason", ""], "--reason"),
        (&["--reason", "NO SOCKET"], "NO SOCKET"),
        (&["--reason", "NO_SOCKET,"], "NO_SOCKET,"),
        (&["--netns-id", "0"], "0"),
        (&["--netns-id", "eth0"], "eth0"),
        (&["--pid-netns", "0"], "0"),
        (&["--pid-netns", "4194305"], "4194305"),
        (&["--netns-id", "1", "--pid-netns", "1"], "--pid-netns"),
        (&["--netns", "1", "--pid-netns", "1"], "--pid-netns"),
        (&["-4", "-6"], "--ipv6"),
    ];
    for (args, named) in WRONG {
        run([&["tcpdrop"], *args].concat()).assert_wrong_usage(named);
    }
    Ok(())
}

/// A reason that this kernel has not: what it has instead.
fn unknown_reason() -> Outcome {
    let output = run(["tcpdrop", "--reason", "NO_SOKET"]);
    output.assert_code(2).assert_no_stdout();
    let expected = if needs_reasons().is_ok() { "NO_SOCKET" } else { "5.17" };
    assert!(output.one_line().contains(expected), "{output}");
    Ok(())
}
