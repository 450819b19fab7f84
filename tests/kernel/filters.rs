//! The filters that all tools share, on real sockets: a tool reports exactly the sockets that the
//! filter selects.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel_tests::actor::Actor;
use kernel_tests::cgroup::Cgroup;
use kernel_tests::cli::{Output, Tool};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::rights::Capability;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::stage::{End, Role, Session, Stage};
use kernel_tests::traffic;

pub const TESTS: &[Test] = &[
    test("filters::addresses", addresses),
    test("filters::addresses_by_probe_reads", addresses_by_probe_reads),
    test("filters::network_namespace", network_namespace),
    test("filters::cgroup", cgroup),
    test("filters::cgroup_of_a_listener", cgroup_of_a_listener),
    test("filters::all_at_once", all_at_once),
];

/// Tools whose rows have the port of a socket, each with a different kind of filter in its
/// programs.
const TOOLS: [&str; 3] = ["tcpconnlat", "tcplife", "tcpstates"];

/// A socket by its namespace and its port.
type Socket = (u64, u16);

/// The running tools, all with the same filter.
struct Watch(Vec<(&'static str, Tool)>);

impl Watch {
    #[track_caller]
    fn start(args: &[&str]) -> Self {
        Self(TOOLS.map(|name| (name, Tool::start(name, &[&["--json"], args].concat()))).into())
    }

    /// Each tool must have reported these ends, and no other sockets of these namespaces.
    #[track_caller]
    fn assert_reported(self, wanted: &[(&Netns, &End)], namespaces: &[&Netns]) {
        for (name, mut tool) in self.0 {
            let connects = |end: &End| name != "tcpconnlat" || end.role == Role::Active;
            let wanted: BTreeSet<Socket> = wanted
                .iter()
                .filter(|(_, end)| connects(end))
                .map(|(netns, end)| (netns.inode(), end.local.port()))
                .collect();
            tool.wait_for("rows of all selected sockets", |seen| {
                sockets(seen, namespaces).is_superset(&wanted)
            });
            let output = tool.stop();
            assert_eq!(sockets(output.assert_code(0), namespaces), wanted, "{name}\n{output}");
        }
    }
}

/// The sockets of these namespaces that a tool has reported. A socket that connects has no port at
/// first.
#[track_caller]
fn sockets(output: &Output, namespaces: &[&Netns]) -> BTreeSet<Socket> {
    let socket = |line: &str| {
        let row: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("not a row: {e}: {line}\n{output}"));
        let netns = row["netns"].as_u64().filter(|netns| namespaces.iter().any(|n| n.inode() == *netns))?;
        Some((netns, u16::try_from(row["lport"].as_u64()?).expect("a port")))
    };
    output.stdout.lines().filter_map(socket).collect()
}

/// A session between two addresses of this namespace.
#[track_caller]
fn session(listen: IpAddr, connect: IpAddr) -> Session {
    let [client, server] = ["kt-client", "kt-server"].map(Actor::start);
    traffic::server_closes_first(&mut Stage::between(client, server, listen, connect, 4))
}

/// Sessions in two IPv4 subnets, in one of them by an IPv6 socket too, and over IPv6. All clients
/// have different addresses.
#[track_caller]
fn by_address(mode: &[&str]) {
    let [one, two] = [1, 2].map(|third| Ipv4Addr::new(127, 0, third, 1));
    // Which of the four sessions match: first subnet, second subnet, first subnet by an IPv6
    // socket, IPv6.
    for (subnets, wanted) in [
        ("127.0.1.0/24", [true, false, true, false]),
        ("127.0.1.1", [true, false, true, false]),
        ("127.0.2.77/24,10.0.0.0/8", [false, true, false, false]),
        ("::ffff:127.0.1.0/120", [true, false, true, false]),
        ("127.0.1.2/31", [false; 4]),
        ("127.0.0.1/32", [true, true, true, false]),
        ("::1", [false, false, false, true]),
        ("::1/128,127.0.2.1", [false, true, false, true]),
        ("0.0.0.0/0", [true, true, true, false]),
        ("::/0", [false, false, false, true]),
        ("0.0.0.0/0,::/0", [true; 4]),
    ] {
        let netns = Netns::enter_new();
        let watch = Watch::start(&[mode, &["--addr", subnets]].concat());
        let sessions = [
            session(one.into(), one.into()),
            session(two.into(), two.into()),
            session(one.into(), one.to_ipv6_mapped().into()),
            session(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
        ];
        let ends = sessions.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        // Listeners are sockets too, with one address.
        let ends: Vec<_> = ends.flat_map(|(session, _)| &session.ends).map(|end| (&netns, end)).collect();
        watch.assert_reported(&ends, &[&netns]);
    }
}

/// `--addr`: either end of a connection, by the addresses on the wire.
fn addresses() -> Outcome {
    needs(Feature::Ipv6)?;
    by_address(&[]);
    Ok(())
}

fn addresses_by_probe_reads() -> Outcome {
    needs(Feature::Ipv6)?;
    needs(Feature::ProbeReads)?;
    by_address(&["--access", "probed"]);
    Ok(())
}

/// `--netns`: by number, or by a file in `/proc`.
fn network_namespace() -> Outcome {
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let (own, beside) = (Netns::enter_new(), Netns::beside());
    let resident = beside.run(|| Actor::start("kt-resident"));
    let file = format!("/proc/{}/ns/net", resident.who().pid);
    assert_eq!(
        fs::metadata(&file).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).ok(),
        Some(beside.inode())
    );
    for (wanted, option) in
        [(&own, own.inode().to_string()), (&beside, beside.inode().to_string()), (&beside, file)]
    {
        if option.starts_with("/proc") {
            needs(Feature::ToolHas(Capability::SysPtrace))?;
        }
        let watch = Watch::start(&["--netns", &option]);
        let sessions = [&own, &beside].map(|netns| (netns, netns.run(|| session(localhost, localhost))));
        let ends = sessions.iter().filter(|(netns, _)| netns.inode() == wanted.inode());
        let ends: Vec<_> =
            ends.flat_map(|(netns, session)| session.ends.iter().map(move |end| (*netns, end))).collect();
        watch.assert_reported(&ends, &[&own, &beside]);
    }
    Ok(())
}

/// `--cgroup`: sockets that a process made while it was in the cgroup or in a cgroup below it.
fn cgroup() -> Outcome {
    needs(Feature::Cgroup2)?;
    needs(Feature::ProbeReads)?;
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let (outer, beside) = (Cgroup::new(), Cgroup::new());
    let inner = outer.inner();
    let innermost = inner.inner();
    // The clients' cgroups. The servers are not moved.
    let homes = [None, Some(&beside), Some(&outer), Some(&inner), Some(&innermost)];
    let cases =
        [(&outer, [false, false, true, true, true]), (&innermost, [false, false, false, false, true])];
    for mode in [&["--access", "probed"][..], &[]] {
        for (asked, wanted) in cases {
            let netns = Netns::enter_new();
            let watch = Watch::start(&[mode, &["--cgroup", asked.path()]].concat());
            let sessions = homes.map(|home| {
                let [client, server] = ["kt-client", "kt-server"].map(Actor::start);
                home.inspect(|home| home.take(client.who().pid));
                traffic::client_closes_first(&mut Stage::between(client, server, localhost, localhost, 4))
            });
            let clients = sessions.iter().zip(wanted).filter(|(_, wanted)| *wanted);
            let clients: Vec<_> = clients.map(|(session, _)| (&netns, &session.ends[0])).collect();
            watch.assert_reported(&clients, &[&netns]);
        }
    }
    Ok(())
}

/// Accepted connections belong to the cgroup in which the listener was made, even if its process
/// has moved.
fn cgroup_of_a_listener() -> Outcome {
    needs(Feature::Cgroup2)?;
    needs(Feature::ProbeReads)?;
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let (home, elsewhere) = (Cgroup::new(), Cgroup::new());
    for (asked, wanted) in [(&home, true), (&elsewhere, false)] {
        let netns = Netns::enter_new();
        let [client, server] = ["kt-client", "kt-server"].map(Actor::start);
        home.take(server.who().pid);
        let mut stage = Stage::between(client, server, localhost, localhost, 4);
        elsewhere.take(stage.server.who().pid);
        let watch = Watch::start(&["--cgroup", asked.path()]);
        let session = traffic::client_closes_first(&mut stage);
        let accepted: Vec<_> = session.ends[1..].iter().filter(|_| wanted).map(|end| (&netns, end)).collect();
        watch.assert_reported(&accepted, &[&netns]);
    }
    Ok(())
}

/// Only sockets that pass all filters are reported.
fn all_at_once() -> Outcome {
    needs(Feature::Cgroup2)?;
    needs(Feature::ProbeReads)?;
    let (one, two) = (IpAddr::from([127, 0, 1, 1]), IpAddr::from([127, 0, 2, 1]));
    let home = Cgroup::new();
    let (own, beside) = (Netns::enter_new(), Netns::beside());
    let inode = own.inode().to_string();
    let watch = Watch::start(&["--netns", &inode, "--cgroup", home.path(), "--addr", "127.0.1.0/24", "-4"]);
    let play = |netns: &Netns, at_home: bool, address: IpAddr| {
        netns.run(|| {
            let [client, server] = ["kt-client", "kt-server"].map(Actor::start);
            if at_home {
                home.take(client.who().pid);
            }
            traffic::client_closes_first(&mut Stage::between(client, server, address, address, 4))
        })
    };
    let wanted = play(&own, true, one);
    play(&own, true, two);
    play(&own, false, one);
    play(&beside, true, one);
    watch.assert_reported(&[(&own, &wanted.ends[0])], &[&own, &beside]);
    Ok(())
}
