//! The harness itself: another tool sees what the harness says it made, and its namespaces are
//! private.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use kernel_tests::actor::Actor;
use kernel_tests::deadline::{WAIT_LIMIT, patient};
use kernel_tests::netns::{self, Netns};
use kernel_tests::peer::{self, Change};
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::stage::{End, Stage, Via};
use kernel_tests::traffic::{self, Scenario};

pub const TESTS: &[Test] = &[
    test("harness::namespaces_are_private", namespaces_are_private),
    test("harness::a_veth_pair_carries_bytes", a_veth_pair_carries_bytes),
    test("harness::actors_have_names_of_their_own", actors_have_names_of_their_own),
    test("harness::attempts_fail_as_they_should", attempts_fail_as_they_should),
    test("harness::every_address_form_connects", every_address_form_connects),
    test("harness::a_storm_counts_its_sessions", a_storm_counts_its_sessions),
    test("harness::scenarios_do_what_they_say", scenarios_do_what_they_say).alone(Alone::OtherTools),
];

fn namespaces_are_private() -> Outcome {
    let machine = Netns::current();
    let own = Netns::enter_new();
    let beside = Netns::beside();
    assert_eq!(Netns::current().inode(), own.inode());
    assert!(machine.inode() != own.inode() && own.inode() != beside.inode());
    let own_listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = own_listener.local_addr().expect("an address");
    assert!(
        beside.run(|| TcpStream::connect(address)).is_err(),
        "another namespace sees this namespace's listener"
    );
    assert!(TcpStream::connect(address).is_ok(), "the loopback is not up");
    Ok(())
}

fn a_veth_pair_carries_bytes() -> Outcome {
    needs(Feature::Veth)?;
    let (here, there) = (Netns::enter_new(), Netns::beside());
    let (_, address) = netns::join(&here, &there).expect("a veth pair");
    let listener = there.run(|| TcpListener::bind((address, 0))).expect("bind");
    let to = listener.local_addr().expect("an address");
    let mut client = TcpStream::connect_timeout(&to, patient(WAIT_LIMIT)).expect("connect");
    let (mut server, from) = listener.accept().expect("accept");
    assert_eq!(from.ip(), Ipv4Addr::new(10, 87, 0, 1));
    client.write_all(b"over the wire").expect("write");
    drop(client);
    let mut text = String::new();
    server.read_to_string(&mut text).expect("read");
    assert_eq!(text, "over the wire");
    Ok(())
}

fn actors_have_names_of_their_own() -> Outcome {
    let actors = ["kt-one", "kt-two"].map(Actor::start);
    for actor in &actors {
        let who = actor.who();
        let comm = fs::read_to_string(format!("/proc/{}/comm", who.pid)).expect("a process");
        assert_eq!(comm.trim_end(), who.comm);
    }
    assert_ne!(actors[0].who().pid, actors[1].who().pid);
    Ok(())
}

/// The scenarios check the error of each attempt.
fn attempts_fail_as_they_should() -> Outcome {
    Netns::enter_new();
    let mut silent = traffic::with_full_backlog();
    let timed_out = traffic::timed_out(&mut silent);
    assert!(timed_out.at_most < patient(Duration::from_secs(5)), "the time limit was shorter: {timed_out:?}");
    traffic::aborted(&mut silent);
    needs(Feature::Veth)?;
    traffic::unreachable(&mut traffic::with_no_neighbour());
    Ok(())
}

fn every_address_form_connects() -> Outcome {
    needs(Feature::Ipv6)?;
    Netns::enter_new();
    for (via, families) in [
        (Via::V4, [false, false]),
        (Via::V6, [true, true]),
        (Via::MappedClient, [true, false]),
        (Via::DualStackServer, [false, true]),
    ] {
        let session = traffic::client_closes_first(&mut Stage::new(via));
        let seen: Vec<bool> = session.ends.iter().map(|end| end.local.is_ipv6()).collect();
        assert_eq!(seen, families, "{via:?}: {session:?}");
    }
    Ok(())
}

fn a_storm_counts_its_sessions() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    traffic::start_storm(&mut stage, 100);
    let sessions = traffic::end_storm(&mut stage, 100);
    let ports: BTreeSet<u16> = sessions.iter().map(|s| s.ends[0].local.port()).collect();
    assert_eq!((sessions.len(), ports.len()), (100, 100));
    assert!(sessions.iter().all(|s| s.ends[0].tx == s.ends[1].rx && s.ends[0].rx == s.ends[1].tx));
    Ok(())
}

/// tcpstates of libbpf-tools sees the sockets of every scenario go through the states that the
/// scenario names.
fn scenarios_do_what_they_say() -> Outcome {
    const SCENARIOS: &[(&str, Scenario)] = &[
        ("client_closes_first", traffic::client_closes_first),
        ("server_closes_first", traffic::server_closes_first),
        ("no_bytes", traffic::no_bytes),
        ("many_bytes", traffic::many_bytes),
        ("half_close", traffic::half_close),
        ("client_resets", traffic::client_resets),
        ("server_resets", traffic::server_resets),
        ("server_closes_unread", traffic::server_closes_unread),
        ("client_killed", traffic::client_killed),
        ("handed_to_child", traffic::handed_to_child),
        ("shared_with_child", traffic::shared_with_child),
        ("never_accepted", traffic::never_accepted),
        ("refused", traffic::refused),
    ];
    let _netns = Netns::enter_new();
    let mut peer = peer::start("tcpstates")?;
    let address = peer::unique_address();
    let ours = |change: &Change| change.1.0 == address || change.1.2 == address;
    let mut ends = Vec::new();
    for (name, scenario) in SCENARIOS {
        let mut stage =
            Stage::between(Actor::start("kt-client"), Actor::start("kt-server"), address, address, 16);
        let session = scenario(&mut stage);
        stage.server.unlisten();
        ends.push((*name, stage.listener_end()));
        ends.extend(session.ends.into_iter().map(|end| (*name, end)));
    }
    let changes = ends.iter().map(|(_, end)| end.path.split(' ').count() - 1).sum();
    peer.wait_for(&format!("{changes} changes"), |seen| {
        peer::changes(seen).iter().filter(|c| ours(c)).count() >= changes
    });
    let mut seen = peer::changes(&peer.stop());
    seen.retain(ours);
    let paths = paths(&seen);
    for (name, end) in &ends {
        assert_eq!(paths.get(&key(end)).map(String::as_str), Some(end.path), "{name}: {end:?}");
    }
    assert_eq!(paths.len(), ends.len(), "sockets of no scenario: {seen:#?}");
    Ok(())
}

/// Local and remote port, which identify a socket among those of one address.
type Ports = (u16, u16);

fn key(end: &End) -> Ports {
    (end.local.port(), end.remote.port())
}

/// The states of each socket, by the ports of its last change.
fn paths(changes: &[Change]) -> BTreeMap<Ports, String> {
    let mut open: BTreeMap<u64, String> = BTreeMap::new();
    let mut paths = BTreeMap::new();
    for (skaddr, tuple, old, new) in changes {
        let path = open.entry(*skaddr).or_insert_with(|| old.clone());
        path.push(' ');
        path.push_str(new);
        if new == "CLOSE" {
            paths.insert((tuple.1, tuple.3), open.remove(skaddr).unwrap_or_default());
        }
    }
    paths
}
