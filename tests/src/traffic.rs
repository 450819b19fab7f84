//! Connections whose every fact is known.
//!
//! A [`Scenario`] plays one connection on a [`Stage`] and returns what a right tool has to say about it: addresses and ports
//! as the sockets report them, bytes each way, whose sockets they were, how they ended, and the states each went through.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use crate::actor::{Actor, Conn};
use crate::deadline::wait_until;
use crate::netns::{self, Netns};
use crate::role;
use crate::stage::{
    ACCEPT_CLOSES_FIRST, ACCEPT_CLOSES_LAST, ACCEPT_RESET, CONNECT_CLOSES_FIRST, CONNECT_CLOSES_LAST,
    CONNECT_FAILS, CONNECT_RESET, End, Ending, Pair, Role, Session, Stage, source_of,
};
use Ending::{Aborted, Closed, Refused, Reset, Timeout, Unreachable};

/// Plays one connection.
pub type Scenario = fn(&mut Stage) -> Session;

/// The client closes first.
#[track_caller]
pub fn client_closes_first(stage: &mut Stage) -> Session {
    let pair = begun(stage);
    close(stage, pair, (1000, 300))
}

/// The server closes first.
#[track_caller]
pub fn server_closes_first(stage: &mut Stage) -> Session {
    let pair = stage.open();
    stage.exchange(pair, 77, 4321);
    stage.closing();
    stage.server.close(pair.server);
    stage.client.recv_eof(pair.client, 0);
    stage.client.close(pair.client);
    stage.both(pair, (77, 4321), (Closed, CONNECT_CLOSES_LAST), (Closed, ACCEPT_CLOSES_FIRST))
}

/// A connection with bytes on it, left open. [`finish`] ends it.
#[track_caller]
pub fn begun(stage: &mut Stage) -> Pair {
    let pair = stage.open();
    stage.exchange(pair, 1000, 300);
    pair
}

/// Sends some more over what [`begun`] left open; the client closes first. The bytes are those of both halves.
#[track_caller]
pub fn finish(stage: &mut Stage, pair: Pair) -> Session {
    stage.exchange(pair, 24, 12);
    close(stage, pair, (1024, 312))
}

/// The client closes first a connection over which these bytes went, up and down.
#[track_caller]
pub fn close(stage: &mut Stage, pair: Pair, bytes: (u64, u64)) -> Session {
    stage.closing();
    stage.client.close(pair.client);
    stage.server.recv_eof(pair.server, 0);
    stage.server.close(pair.server);
    stage.both(pair, bytes, (Closed, CONNECT_CLOSES_FIRST), (Closed, ACCEPT_CLOSES_LAST))
}

/// Not a byte: what SYN and FIN add to the kernel's counters shows nowhere.
#[track_caller]
pub fn no_bytes(stage: &mut Stage) -> Session {
    let pair = stage.open();
    close(stage, pair, (0, 0))
}

/// More than the buffers hold, one way.
#[track_caller]
pub fn many_bytes(stage: &mut Stage) -> Session {
    const UP: u64 = 20_000_001;
    let pair = stage.open();
    stage.client.start_send(pair.client, UP);
    stage.server.recv(pair.server, UP);
    stage.client.finish();
    close(stage, pair, (UP, 0))
}

/// The client stops sending, the server goes on for a while.
#[track_caller]
pub fn half_close(stage: &mut Stage) -> Session {
    let pair = stage.open();
    stage.client.send(pair.client, 10);
    stage.closing();
    stage.client.shutdown_wr(pair.client);
    stage.server.recv_eof(pair.server, 10);
    stage.server.send(pair.server, 5000);
    stage.client.recv(pair.client, 5000);
    stage.server.close(pair.server);
    stage.client.recv_eof(pair.client, 0);
    stage.client.close(pair.client);
    stage.both(pair, (10, 5000), (Closed, CONNECT_CLOSES_FIRST), (Closed, ACCEPT_CLOSES_LAST))
}

/// The client ends with a reset.
#[track_caller]
pub fn client_resets(stage: &mut Stage) -> Session {
    let pair = stage.open();
    stage.exchange(pair, 100, 200);
    stage.settle(pair);
    stage.client.linger0(pair.client);
    stage.closing();
    stage.client.close(pair.client);
    stage.server.recv_reset(pair.server);
    stage.server.close(pair.server);
    stage.both(pair, (100, 200), (Aborted, CONNECT_RESET), (Reset, ACCEPT_RESET))
}

/// The server ends with a reset.
#[track_caller]
pub fn server_resets(stage: &mut Stage) -> Session {
    let pair = stage.open();
    stage.exchange(pair, 100, 200);
    stage.settle(pair);
    stage.server.linger0(pair.server);
    stage.closing();
    stage.server.close(pair.server);
    stage.client.recv_reset(pair.client);
    stage.client.close(pair.client);
    stage.both(pair, (100, 200), (Reset, CONNECT_RESET), (Aborted, ACCEPT_RESET))
}

/// The server closes without reading all: the kernel resets the connection. What had arrived counts, read or not.
#[track_caller]
pub fn server_closes_unread(stage: &mut Stage) -> Session {
    let pair = stage.open();
    stage.client.send(pair.client, 1234);
    stage.server.leave_unread(pair.server, 1234);
    stage.settle(pair);
    stage.closing();
    stage.server.close(pair.server);
    stage.client.recv_reset(pair.client);
    stage.client.close(pair.client);
    stage.both(pair, (1234, 0), (Reset, CONNECT_RESET), (Aborted, ACCEPT_RESET))
}

/// The client's process is killed with the connection open: the kernel closes it in order.
#[track_caller]
pub fn client_killed(stage: &mut Stage) -> Session {
    let pair = stage.open();
    stage.exchange(pair, 50, 60);
    stage.closing();
    stage.client.kill();
    stage.server.recv_eof(pair.server, 0);
    stage.server.close(pair.server);
    stage.both(pair, (50, 60), (Closed, CONNECT_CLOSES_FIRST), (Closed, ACCEPT_CLOSES_LAST))
}

/// The server hands its connection to a child, as inetd does, and keeps nothing of it.
#[track_caller]
pub fn handed_to_child(stage: &mut Stage) -> Session {
    let pair = stage.open();
    let (mut heir, inherited) = stage.server.heir(pair.server, "kt-heir");
    stage.server.close(pair.server);
    stage.client.send(pair.client, 600);
    heir.recv(inherited, 600);
    heir.send(inherited, 700);
    stage.client.recv(pair.client, 700);
    stage.closing();
    heir.close(inherited);
    stage.client.recv_eof(pair.client, 0);
    stage.client.close(pair.client);
    let mut session =
        stage.both(pair, (600, 700), (Closed, CONNECT_CLOSES_LAST), (Closed, ACCEPT_CLOSES_FIRST));
    session.ends[1].owners.push(heir.who());
    session
}

/// The same with a child that only closes it.
#[track_caller]
pub fn passed_on_unused(stage: &mut Stage) -> Session {
    let pair = stage.open();
    let (mut heir, inherited) = stage.server.heir(pair.server, "kt-heir");
    stage.server.close(pair.server);
    stage.closing();
    heir.close(inherited);
    stage.client.recv_eof(pair.client, 0);
    stage.client.close(pair.client);
    let mut session = stage.both(pair, (0, 0), (Closed, CONNECT_CLOSES_LAST), (Closed, ACCEPT_CLOSES_FIRST));
    session.ends[1].owners.push(heir.who());
    session
}

/// Two processes hold the client's socket; the connection ends with the last close.
#[track_caller]
pub fn shared_with_child(stage: &mut Stage) -> Session {
    let pair = stage.open();
    let (mut heir, inherited) = stage.client.heir(pair.client, "kt-heir");
    stage.exchange(pair, 11, 22);
    stage.client.close(pair.client);
    heir.send(inherited, 33);
    stage.server.recv(pair.server, 33);
    stage.closing();
    heir.close(inherited);
    stage.server.recv_eof(pair.server, 0);
    stage.server.close(pair.server);
    let mut session =
        stage.both(pair, (11 + 33, 22), (Closed, CONNECT_CLOSES_FIRST), (Closed, ACCEPT_CLOSES_LAST));
    session.ends[0].owners.push(heir.who());
    session
}

/// The server never accepts and closes its listener: the connection is reset, and the server's end had no owner.
/// The stage has no listener afterwards.
#[track_caller]
pub fn never_accepted(stage: &mut Stage) -> Session {
    stage.begin();
    let client = stage.client.connect(stage.target);
    stage.established();
    stage.client.send(client, 40);
    // Addresses of the end that nobody ever held: those of the client, seen from the other side.
    let server = Conn::unnumbered(client.remote, client.local);
    stage.settle(Pair { client, server });
    stage.closing();
    stage.server.unlisten();
    stage.client.recv_reset(client);
    stage.client.close(client);
    let mut session =
        stage.both(Pair { client, server }, (40, 0), (Reset, CONNECT_RESET), (Aborted, ACCEPT_RESET));
    session.ends[1].owners.clear();
    session
}

/// Nobody listens.
#[track_caller]
pub fn refused(stage: &mut Stage) -> Session {
    stage.server.unlisten();
    stage.begin();
    let failed = stage.client.connect_fails(stage.target);
    assert_eq!(failed.errno, "ECONNREFUSED");
    // The kernel has taken the address back by now, and left the port.
    let local = (source_of(stage.target), failed.local().port()).into();
    failure(stage, local, stage.target, Refused)
}

/// Nobody answers, and the client's own time limit ends the attempt. See [`deaf`] for the stage.
#[track_caller]
pub fn timed_out(stage: &mut Stage) -> Session {
    stage.begin();
    let conn = stage.client.start_connect(stage.target, Some(Duration::from_millis(300)));
    let failed = stage.client.finish_connect(conn).expect_err("a deaf listener");
    assert_eq!(failed.errno, "ETIMEDOUT");
    stage.client.close(conn);
    failure(stage, conn.local, conn.remote, Timeout)
}

/// Nobody answers, and the client gives up. See [`deaf`] for the stage.
#[track_caller]
pub fn aborted(stage: &mut Stage) -> Session {
    stage.begin();
    let conn = stage.client.start_connect(stage.target, None);
    stage.client.close(conn);
    failure(stage, conn.local, conn.remote, Aborted)
}

/// No way leads to the host, and the kernel finds out only after the SYN. See [`with_no_neighbour`] for the stage.
#[track_caller]
pub fn unreachable(stage: &mut Stage) -> Session {
    stage.begin();
    let conn = stage.client.start_connect(stage.target, None);
    let failed = stage.client.finish_connect(conn).expect_err("no such host");
    assert_eq!(failed.errno, "EHOSTUNREACH");
    stage.client.close(conn);
    failure(stage, conn.local, conn.remote, Unreachable)
}

/// A connect of this process that does not wait and is refused, while another of its threads asks for the socket's error until
/// the kernel has closed it.
///
/// # Panics
/// If the connect was not refused, or is not yet after a while.
#[track_caller]
pub fn refused_while_asked(to: SocketAddr) {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("nonblocking");
    let done = AtomicBool::new(false);
    let errors = || -> Option<ErrorKind> { socket.take_error().expect("asked").map(|error| error.kind()) };
    let (connected, taken) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut taken = None;
            while !done.load(Ordering::Relaxed) {
                taken = errors().or(taken);
            }
            taken.or_else(errors)
        });
        let connected = socket.connect(&to.into()).expect_err("nobody listens").kind();
        wait_until("the refused socket is closed", Duration::from_secs(5), || {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
            poll(&mut fds, PollTimeout::ZERO).map_err(|errno| errno.to_string())?;
            let closed = fds[0].revents().is_some_and(|got| got.contains(PollFlags::POLLHUP));
            if closed { Ok(()) } else { Err("still connecting".to_owned()) }
        });
        done.store(true, Ordering::Relaxed);
        (connected, asking.join().expect("the thread that asks"))
    });
    assert_eq!(taken.unwrap_or(connected), ErrorKind::ConnectionRefused);
}

/// What a connect that came to nothing looks like: one end, no bytes.
#[track_caller]
fn failure(stage: &Stage, local: SocketAddr, remote: SocketAddr, ending: Ending) -> Session {
    let end = End {
        local,
        remote,
        owners: vec![stage.client.who()],
        role: Role::Active,
        tx: 0,
        rx: 0,
        ending,
        path: CONNECT_FAILS,
    };
    stage.session(vec![end])
}

/// A stage whose listener drops every further SYN: a backlog of 0 holds one connection, made here and never accepted.
/// To be made before the tool starts; the connection that fills the backlog is none of the test's facts.
#[must_use]
#[track_caller]
pub fn deaf() -> Stage {
    let localhost = Ipv4Addr::LOCALHOST.into();
    let mut filler = Actor::start("kt-filler");
    let mut stage =
        Stage::between(Actor::start("kt-client"), Actor::start("kt-server"), localhost, localhost, 0);
    filler.connect(stage.target);
    stage.filler = Some(filler);
    stage
}

/// A stage whose client is sent to a neighbour that does not exist. The namespace this process is in gets a veth device.
#[must_use]
#[track_caller]
pub fn with_no_neighbour() -> Stage {
    const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 87, 0, 99);
    let (here, beyond) = (Netns::current(), Netns::beside());
    let (address, _) = netns::join(&here, &beyond).expect("a veth pair");
    // Three questions who the neighbour is, a second apart unless told otherwise.
    here.set_sysctl(&format!("net/ipv4/neigh/{}/retrans_time_ms", netns::VETH), "20");
    let mut stage = Stage::between(Actor::start("kt-client"), Actor::start("kt-server"), address, address, 1);
    stage.target.set_ip(NOBODY.into());
    stage.beyond = Some(beyond);
    stage
}

/// Starts many connections one after the other, the client closing its sending side first; [`end_storm`] waits for their end.
/// Each has a port of its own: in the namespace this process is in, no port is used again.
/// Whoever watches them has to read the tool's rows meanwhile, or the tool waits for its reader and its ring runs over.
#[track_caller]
pub fn start_storm(stage: &mut Stage, count: u32) {
    // A storm of seconds would take a port out of TIME_WAIT again, and two connections would be one tuple.
    let netns = Netns::current();
    netns.set_sysctl("net/ipv4/tcp_tw_reuse", "0");
    netns.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    stage.begin();
    stage.server.start_serving(count);
    stage.client.start_storm(count, stage.target);
}

/// One session for each connection of a storm of `count`.
#[track_caller]
pub fn end_storm(stage: &mut Stage, count: u32) -> Vec<Session> {
    let ports = stage.client.finish();
    stage.server.finish();
    let ports = ports.split(',').map(|port| port.parse().expect("a port"));
    let sessions = (0..count).zip(ports).map(|(n, port): (u32, u16)| {
        let local = SocketAddr::from((stage.target.ip(), port));
        let bytes = (role::storm_question(n), role::storm_answer(n));
        let client = Conn::unnumbered(local, stage.target);
        let server = Conn::unnumbered(stage.target, local);
        stage.both(
            Pair { client, server },
            bytes,
            (Closed, CONNECT_CLOSES_FIRST),
            (Closed, ACCEPT_CLOSES_LAST),
        )
    });
    sessions.collect()
}
