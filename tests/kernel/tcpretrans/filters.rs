//! Filters and owners of tcpretrans.

use std::process;

use kernel_tests::loss::{Counters, Lost, Pair};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::needs_owners;
use kernel_tests::rows::{FlowRow, RetransRow};
use kernel_tests::runner::{Outcome, Test, test};

use super::{V4, ends, of_client, of_server, start, stop};

pub const TESTS: &[Test] = &[
    test("tcpretrans::owner", || owner(&[])),
    test("tcpretrans::owner_by_sock_diag_and_proc", || owner(&["--no-iter"])),
    test("tcpretrans::owner_of_a_syn_ack", owner_of_a_syn_ack),
    test("tcpretrans::pid", pid),
    test("tcpretrans::ports_and_family", ports_and_family),
];

/// The name of this thread, which makes the sockets.
pub fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/thread-self/comm").expect("procfs");
    name.trim_end().to_owned()
}

/// A timer's retransmission has the owner of the socket, for connections from before and after the
/// start of the tool. Without the option it has no process.
fn owner(args: &[&str]) -> Outcome {
    needs_owners(args)?;
    let netns = Netns::enter_new();
    netns.set_sysctl("net/ipv4/tcp_early_retrans", "0");
    let mut before = Pair::new(V4);
    let (knowing, plain) = (start(&[&["--owner"], args].concat()), start(&[]));
    let mut while_running = Pair::new(V4);
    before.lose(b"hello", &[]);
    while_running.lose(b"hello", &[]);
    let (output, plain) = (stop(knowing), stop(plain));
    let rows: Vec<RetransRow> = output.rows(netns.inode());
    for pair in [&before, &while_running] {
        assert!(rows.iter().any(|row| ends(row) == of_client(pair)), "{output}");
    }
    for row in rows {
        assert_eq!((row.pid, row.comm), (Some(process::id()), Some(own_name())), "{output}");
    }
    for row in plain.rows::<RetransRow>(netns.inode()) {
        assert_eq!((row.pid, row.comm), (None, None), "{plain}");
    }
    Ok(())
}

/// A SYN-ACK has the owner of the listener.
fn owner_of_a_syn_ack() -> Outcome {
    let netns = Netns::enter_new();
    let tool = start(&["--owner"]);
    let pair = Pair::with_loss(V4, Lost::SynAck);
    let output = stop(tool);
    let rows: Vec<RetransRow> = output.rows(netns.inode());
    let row = rows.iter().find(|row| row.kind == "S").unwrap_or_else(|| panic!("no SYN-ACK\n{output}"));
    assert_eq!((row.pid, &row.comm), (Some(process::id()), &Some(own_name())), "{output}");
    assert_eq!(ends(row), of_server(&pair), "{output}");
    Ok(())
}

/// Only the sockets of one process, including SYN-ACKs of its listeners.
fn pid() -> Outcome {
    let netns = Netns::enter_new();
    let own = process::id().to_string();
    let (ours, others) = (start(&["-p", &own]), start(&["-p", "1"]));
    let before = Counters::now();
    let mut pair = Pair::with_loss(V4, Lost::SynAck);
    pair.lose(b"hello", &[]);
    let counters = Counters::now().since(before);
    let (ours, others) = (stop(ours), stop(others));
    let segments = ours.rows::<RetransRow>(netns.inode()).iter().map(|row| row.segments).sum::<u64>();
    assert_eq!(segments, counters.segments, "{ours}");
    assert_eq!(others.rows::<RetransRow>(netns.inode()), [], "{others}");
    Ok(())
}

fn ports_and_family() -> Outcome {
    let netns = Netns::enter_new();
    let mut pair = Pair::new(V4);
    let (client, server) = of_client(&pair);
    let options = [
        (vec!["--localport".to_owned(), client.port().to_string()], true),
        (vec!["--remoteport".to_owned(), server.port().to_string()], true),
        (vec!["--localport".to_owned(), server.port().to_string()], false),
        (vec!["-4".to_owned()], true),
        (vec!["-6".to_owned()], false),
        (vec!["--netns".to_owned(), netns.inode().to_string()], true),
        (vec!["--netns".to_owned(), (netns.inode() + 1).to_string()], false),
    ];
    let tools: Vec<_> = options
        .iter()
        .map(|(args, wanted)| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            (start(&args), start(&[&["-c"], args.as_slice()].concat()), *wanted)
        })
        .collect();
    pair.lose(b"hello", &[]);
    for (rows, flows, wanted) in tools {
        let (rows, flows) = (stop(rows), stop(flows));
        assert_eq!(!rows.rows::<RetransRow>(netns.inode()).is_empty(), wanted, "{rows}");
        assert_eq!(!flows.rows::<FlowRow>(netns.inode()).is_empty(), wanted, "{flows}");
    }
    Ok(())
}
