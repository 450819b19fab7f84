//! Filters and owners of tcpdrop.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use btf::Lookup;
use kernel_tests::cli::run;
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Availability, Feature, needs, needs_owners, requires};
use kernel_tests::rights::Capability;
use kernel_tests::rows::DropRow;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::segment::{Segment, flag};
use kernel_tests::stage::{Stage, Via};

use super::{
    CLOSED_PORT, LOCALHOST_V4, SOURCE_PORT, assert_reason, finish, index, needs_receiver, send_out_of_window,
    start, with_probe_reads,
};

pub const TESTS: &[Test] = &[
    test("tcpdrop::owner", || with_probe_reads(|| owner(&["--owner"]))),
    test("tcpdrop::owner_by_sock_diag_and_proc", || with_probe_reads(|| owner(&["--owner", "--no-iter"]))),
    test("tcpdrop::pid", || with_probe_reads(pid)),
    test("tcpdrop::by_reason", || with_probe_reads(by_reason)),
    test("tcpdrop::by_port_and_address", || with_probe_reads(by_port_and_address)),
    test("tcpdrop::by_network_namespace", || with_probe_reads(by_network_namespace)),
    test("tcpdrop::unknown_reason", unknown_reason),
];

fn needs_reasons() -> Result<(), kernel_tests::requirements::Skip> {
    let absent = matches!(index().enum_values("skb_drop_reason"), Ok(Lookup::Absent(_)));
    requires(
        "reasons of drops",
        Availability::Since(5, 17),
        absent.then(|| "no enum skb_drop_reason".to_owned()),
    )
}

/// The owner of a socket from before the tool is known.
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

/// One drop for each of two reasons; `--reason` shows the selected ones.
fn by_reason() -> Outcome {
    needs_reasons()?;
    let netns = Netns::enter_new();
    let listener = TcpListener::bind((LOCALHOST_V4, 0)).expect("bind");
    let (from, to) = (SocketAddr::new(LOCALHOST_V4, SOURCE_PORT), listener.local_addr().expect("an address"));
    for (asked, expected) in [
        ("no_socket", &["NO_SOCKET"][..]),
        ("SKB_DROP_REASON_TCP_CSUM", &["TCP_CSUM"]),
        ("tcp_csum,NO_SOCKET", &["TCP_CSUM", "NO_SOCKET"]),
        ("NETFILTER_DROP", &[]),
    ] {
        let tool = start(&["--reason", asked]);
        Segment { intact: false, ..Segment::syn(from, to) }.send();
        assert!(TcpStream::connect((LOCALHOST_V4, CLOSED_PORT)).is_err());
        let (rows, _) = finish(tool, &netns, expected.len());
        let reasons: Vec<_> = rows.iter().map(|row| row.reason.as_deref().expect("a reason")).collect();
        assert_eq!(reasons, expected, "{asked}");
    }
    Ok(())
}

fn by_port_and_address() -> Outcome {
    let netns = Netns::enter_new();
    let to = SocketAddr::new(LOCALHOST_V4, CLOSED_PORT);
    let other = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 9).into(), 82);
    for (options, expected) in [
        // A packet without a socket counts as received, so the local port is its destination.
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
            netns.run(|| assert!(TcpStream::connect((LOCALHOST_V4, CLOSED_PORT)).is_err()));
        }
        let (rows, output) = finish(tool, &here, 1);
        assert_reason(&rows[0], &["NO_SOCKET"]);
        assert_eq!(output.stdout.lines().count(), 1, "{options:?}\n{output}");
    }
    Ok(())
}

/// The message on an unknown reason suggests a known one, or names the first kernel with reasons.
fn unknown_reason() -> Outcome {
    let output = run(["tcpdrop", "--reason", "NO_SOKET"]);
    output.assert_code(2).assert_no_stdout();
    let expected = if needs_reasons().is_ok() { "NO_SOCKET" } else { "5.17" };
    assert!(output.one_line().contains(expected), "{output}");
    Ok(())
}
