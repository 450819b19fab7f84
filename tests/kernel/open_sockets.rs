//! Sockets that were there before, by sock_diag and /proc.

use std::collections::HashSet;
use std::net::TcpListener;

use kernel_tests::gate::{Claim, Feature, claims, needs};
use kernel_tests::netns::Netns;
use kernel_tests::runner::{Outcome, Test};
use loader::Errno;
use tools::host::open_sockets::list::{self, ListError};

pub const TESTS: &[Test] = &[
    ("open_sockets::sock_diag_and_proc_find_our_listener", || finds_listener_at("127.0.0.1:0")),
    ("open_sockets::sock_diag_and_proc_find_our_listener_v6", || {
        needs(Feature::Ipv6)?;
        finds_listener_at("[::1]:0")
    }),
];

/// `TCP_LISTEN`, net/tcp_states.h.
const LISTEN: u8 = 10;

/// Tuple, state, inode, and who has it open.
fn finds_listener_at(address: &str) -> Outcome {
    Netns::enter_new();
    let listener = TcpListener::bind(address).expect("a listener");
    let local = listener.local_addr().expect("an address");
    let sockets = match list::tcp_sockets() {
        Ok(sockets) => sockets,
        // A kernel without tcp_diag says so; nothing else is an excuse.
        Err(error @ ListError::Refused(Errno::NOENT)) => {
            assert!(error.to_string().contains("tcp_diag"), "{error}");
            return claims("sock_diag of TCP", Claim::Optional, Some(error.to_string()));
        }
        Err(error) => panic!("{error}"),
    };
    let [socket] = &sockets[..] else { panic!("one socket in this namespace: {sockets:?}") };
    assert_eq!((socket.local, socket.local_port), (local.ip(), local.port()));
    assert_eq!((socket.state, socket.remote_port), (LISTEN, 0));
    assert!(socket.inode != 0 && socket.cookie != 0, "{socket:?}");
    let owners = list::owners(&HashSet::from([socket.inode])).expect("owners");
    assert_eq!(owners.by_inode[&socket.inode].pid, std::process::id());
    Ok(())
}
