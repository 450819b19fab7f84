//! Connections with all their facts.
//!
//! A [`Scenario`] makes one connection on a [`Stage`] and returns what a correct tool has to report
//! about it: addresses and ports according to the sockets, bytes in each direction, owners, how it
//! ended, and the states of each end.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use crate::actor::{Actor, Conn};
use crate::actor_process;
use crate::deadline::wait_until;
use crate::netns::{self, Netns};
use crate::stage::{
    ACCEPT_CLOSES_FIRST, ACCEPT_CLOSES_LAST, ACCEPT_RESET, CONNECT_CLOSES_FIRST, CONNECT_CLOSES_LAST,
    CONNECT_FAILS, CONNECT_RESET, End, Ending, Pair, Role, Session, Stage, source_of,
};
use Ending::{Aborted, Closed, Refused, Reset, Timeout, Unreachable};

/// Makes one connection.
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

/// Opens a connection and sends bytes in both directions. [`finish`] ends it.
#[track_caller]
pub fn begun(stage: &mut Stage) -> Pair {
    let pair = stage.open();
    stage.exchange(pair, 1000, 300);
    pair
}

/// Sends more bytes over the connection of [`begun`]; the client closes first. The reported bytes
/// are those of both.
#[track_caller]
pub fn finish(stage: &mut Stage, pair: Pair) -> Session {
    stage.exchange(pair, 24, 12);
    close(stage, pair, (1024, 312))
}

/// The client closes first. `bytes` were sent over the connection before, to the server and back.
#[track_caller]
pub fn close(stage: &mut Stage, pair: Pair, bytes: (u64, u64)) -> Session {
    stage.closing();
    stage.client.close(pair.client);
    stage.server.recv_eof(pair.server, 0);
    stage.server.close(pair.server);
    stage.both(pair, bytes, (Closed, CONNECT_CLOSES_FIRST), (Closed, ACCEPT_CLOSES_LAST))
}

/// No bytes: SYN and FIN count as bytes in the kernel's counters and must not be reported.
#[track_caller]
pub fn no_bytes(stage: &mut Stage) -> Session {
    let pair = stage.open();
    close(stage, pair, (0, 0))
}

/// More bytes than the buffers have space for, in one direction.
#[track_caller]
pub fn many_bytes(stage: &mut Stage) -> Session {
    const UP: u64 = 20_000_001;
    let pair = stage.open();
    stage.client.start_send(pair.client, UP);
    stage.server.recv(pair.server, UP);
    stage.client.finish();
    close(stage, pair, (UP, 0))
}

/// The client stops sending, the server sends more.
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

/// The client resets the connection.
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

/// The server resets the connection.
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

/// The server closes with unread bytes, so the kernel resets the connection. All received bytes
/// count, read or not.
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

/// The server passes its connection to a child process, as inetd does, and closes its own
/// descriptor.
#[track_caller]
pub fn handed_to_child(stage: &mut Stage) -> Session {
    let pair = stage.open();
    let (mut child, inherited) = stage.server.start_child(pair.server, "kt-child");
    stage.server.close(pair.server);
    stage.client.send(pair.client, 600);
    child.recv(inherited, 600);
    child.send(inherited, 700);
    stage.client.recv(pair.client, 700);
    stage.closing();
    child.close(inherited);
    stage.client.recv_eof(pair.client, 0);
    stage.client.close(pair.client);
    let mut session =
        stage.both(pair, (600, 700), (Closed, CONNECT_CLOSES_LAST), (Closed, ACCEPT_CLOSES_FIRST));
    session.ends[1].owners.push(child.who());
    session
}

/// The same with a child that only closes the connection.
#[track_caller]
pub fn passed_on_unused(stage: &mut Stage) -> Session {
    let pair = stage.open();
    let (mut child, inherited) = stage.server.start_child(pair.server, "kt-child");
    stage.server.close(pair.server);
    stage.closing();
    child.close(inherited);
    stage.client.recv_eof(pair.client, 0);
    stage.client.close(pair.client);
    let mut session = stage.both(pair, (0, 0), (Closed, CONNECT_CLOSES_LAST), (Closed, ACCEPT_CLOSES_FIRST));
    session.ends[1].owners.push(child.who());
    session
}

/// Two processes have the client's socket open; the connection ends with the last close.
#[track_caller]
pub fn shared_with_child(stage: &mut Stage) -> Session {
    let pair = stage.open();
    let (mut child, inherited) = stage.client.start_child(pair.client, "kt-child");
    stage.exchange(pair, 11, 22);
    stage.client.close(pair.client);
    child.send(inherited, 33);
    stage.server.recv(pair.server, 33);
    stage.closing();
    child.close(inherited);
    stage.server.recv_eof(pair.server, 0);
    stage.server.close(pair.server);
    let mut session =
        stage.both(pair, (11 + 33, 22), (Closed, CONNECT_CLOSES_FIRST), (Closed, ACCEPT_CLOSES_LAST));
    session.ends[0].owners.push(child.who());
    session
}

/// The server never accepts and closes its listener: the connection is reset, and the server's end
/// never had an owner. Afterwards the stage has no listener.
#[track_caller]
pub fn never_accepted(stage: &mut Stage) -> Session {
    stage.begin();
    let client = stage.client.connect(stage.target);
    stage.established();
    stage.client.send(client, 40);
    // The end without a process has the addresses of the client, exchanged.
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

/// The port has no listener.
#[track_caller]
pub fn refused(stage: &mut Stage) -> Session {
    stage.server.unlisten();
    stage.begin();
    let failed = stage.client.connect_fails(stage.target);
    assert_eq!(failed.errno, "ECONNREFUSED");
    // By now the kernel has removed the address of the socket, and left the port.
    let local = (source_of(stage.target), failed.local().port()).into();
    failure(stage, local, stage.target, Refused)
}

/// No answer, and the time limit of the client ends the connect. The stage is
/// [`with_full_backlog`].
#[track_caller]
pub fn timed_out(stage: &mut Stage) -> Session {
    stage.begin();
    let conn = stage.client.start_connect(stage.target, Some(Duration::from_millis(300)));
    let failed = stage.client.finish_connect(conn).expect_err("a connect without an answer");
    assert_eq!(failed.errno, "ETIMEDOUT");
    stage.client.close(conn);
    failure(stage, conn.local, conn.remote, Timeout)
}

/// No answer, and the client gives up. The stage is [`with_full_backlog`].
#[track_caller]
pub fn aborted(stage: &mut Stage) -> Session {
    stage.begin();
    let conn = stage.client.start_connect(stage.target, None);
    stage.client.close(conn);
    failure(stage, conn.local, conn.remote, Aborted)
}

/// The kernel finds no such host after it has sent the SYN. The stage is [`with_no_neighbour`].
#[track_caller]
pub fn unreachable(stage: &mut Stage) -> Session {
    stage.begin();
    let conn = stage.client.start_connect(stage.target, None);
    let failed = stage.client.finish_connect(conn).expect_err("no such host");
    assert_eq!(failed.errno, "EHOSTUNREACH");
    stage.client.close(conn);
    failure(stage, conn.local, conn.remote, Unreachable)
}

/// A nonblocking connect of this process that is refused, while another thread reads the socket's
/// error (`SO_ERROR`) until the kernel has closed the socket.
///
/// # Panics
/// If the connect is not refused in time.
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
        let connected = socket.connect(&to.into()).expect_err("no listener").kind();
        wait_until("the refused socket is closed", Duration::from_secs(5), || {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
            poll(&mut fds, PollTimeout::ZERO).map_err(|errno| errno.to_string())?;
            let closed = fds[0].revents().is_some_and(|got| got.contains(PollFlags::POLLHUP));
            if closed { Ok(()) } else { Err("still connecting".to_owned()) }
        });
        done.store(true, Ordering::Relaxed);
        (connected, asking.join().expect("the thread that reads errors"))
    });
    assert_eq!(taken.unwrap_or(connected), ErrorKind::ConnectionRefused);
}

/// A failed connect: one end, no bytes.
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

/// A stage whose listener drops all SYNs: its backlog of 0 has space for one connection, which is
/// made here and never accepted. Make the stage before the tool starts, because no session
/// describes the connection that fills the backlog.
#[must_use]
#[track_caller]
pub fn with_full_backlog() -> Stage {
    let localhost = Ipv4Addr::LOCALHOST.into();
    let mut filler = Actor::start("kt-filler");
    let mut stage =
        Stage::between(Actor::start("kt-client"), Actor::start("kt-server"), localhost, localhost, 0);
    filler.connect(stage.target);
    stage.filler = Some(filler);
    stage
}

/// A stage whose client connects to a neighbour that does not exist. The namespace this process is
/// in gets a veth device.
#[must_use]
#[track_caller]
pub fn with_no_neighbour() -> Stage {
    const ABSENT: Ipv4Addr = Ipv4Addr::new(10, 87, 0, 99);
    let (here, beyond) = (Netns::current(), Netns::beside());
    let (address, _) = netns::join(&here, &beyond).expect("a veth pair");
    // The kernel sends three neighbour requests, by default a second apart.
    here.set_sysctl(&format!("net/ipv4/neigh/{}/retrans_time_ms", netns::VETH), "20");
    let mut stage = Stage::between(Actor::start("kt-client"), Actor::start("kt-server"), address, address, 1);
    stage.target.set_ip(ABSENT.into());
    stage.beyond = Some(beyond);
    stage
}

/// Starts many connections one after the other, the client closing its sending side first;
/// [`end_storm`] waits for their end. Each has a port of its own: in the namespace this process is
/// in, no port is used twice. A test that watches them must read the tool's rows meanwhile.
/// Otherwise the pipe fills, the tool waits, and its ring overflows.
#[track_caller]
pub fn start_storm(stage: &mut Stage, count: u32) {
    // Otherwise a storm of seconds would use ports in TIME_WAIT again, and two connections would
    // have the same tuple.
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
        let bytes = (actor_process::storm_question(n), actor_process::storm_answer(n));
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
