//! Two processes, the connections between them, and what a correct tool has to report about each
//! end.
//!
//! The states are those of `sock:inet_sock_set_state`. It never shows TIME_WAIT: a smaller object
//! takes over, and the socket itself changes to CLOSE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use crate::actor::{Actor, Conn, Who};
use crate::deadline::{WAIT_LIMIT, wait_until};
use crate::netns::Netns;
use crate::proc_net::{FIN_WAIT2, ProcSocket, sockets};

/// The addresses a connection runs over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// IPv4 sockets on both sides.
    V4,
    /// IPv6 sockets on both sides.
    V6,
    /// An IPv6 socket connects to `::ffff:127.0.0.1`, where an IPv4 socket listens.
    MappedClient,
    /// An IPv4 socket connects to an IPv6 socket that listens on `::`.
    DualStackServer,
}

/// How an end was opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// By `connect(2)`.
    Active,
    /// By `accept(2)`.
    Passive,
}

/// How an end was closed, in the words of tcplife.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ending {
    /// By FINs.
    Closed,
    /// By a reset of the other side.
    Reset,
    /// By a reset of this side, or given up before it was established.
    Aborted,
    /// Never established: the port has no listener.
    Refused,
    /// Never established: no answer.
    Timeout,
    /// Never established: no route or no such host.
    Unreachable,
}

impl Ending {
    /// The word in tcplife's `outcome`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
        }
    }
}

/// States in order, separated by spaces, in the kernel's words without `TCP_`.
pub type Path = &'static str;

/// Connects, closes first.
pub const CONNECT_CLOSES_FIRST: Path = "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE";
/// Connects, closes after the peer.
pub const CONNECT_CLOSES_LAST: Path = "CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE";
/// Connects, ends by a reset.
pub const CONNECT_RESET: Path = "CLOSE SYN_SENT ESTABLISHED CLOSE";
/// Connects in vain.
pub const CONNECT_FAILS: Path = "CLOSE SYN_SENT CLOSE";
/// Is accepted, closes first.
pub const ACCEPT_CLOSES_FIRST: Path = "LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE";
/// Is accepted, closes after the peer.
pub const ACCEPT_CLOSES_LAST: Path = "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE";
/// Is accepted, ends by a reset.
pub const ACCEPT_RESET: Path = "LISTEN SYN_RECV ESTABLISHED CLOSE";
/// Listens and is closed.
pub const LISTENER: Path = "CLOSE LISTEN CLOSE";

/// One end of a connection, as a correct tool describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The socket's own address.
    pub local: SocketAddr,
    /// The address of the peer. Port 0 for a listener.
    pub remote: SocketAddr,
    /// The processes that had the socket open; a row names one of them. Empty if no process ever
    /// had it open.
    pub owners: Vec<Who>,
    /// How it was opened.
    pub role: Role,
    /// Payload sent and acknowledged.
    pub tx: u64,
    /// Payload received, read by the process or not.
    pub rx: u64,
    /// How it was closed.
    pub ending: Ending,
    /// The states it went through.
    pub path: Path,
}

/// A connection that a scenario has made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// The ends, the connecting one first. The accepting end is missing if the connection failed.
    pub ends: Vec<End>,
    /// A time before the connection was opened and a time after it was closed.
    pub span: (SystemTime, SystemTime),
    /// The connection was established at least this long.
    pub at_least: Duration,
    /// The time from the first SYN to the last close is at most this long.
    pub at_most: Duration,
}

/// A client, a server, and a listener of the server.
#[derive(Debug)]
pub struct Stage {
    /// The process that connects, `kt-client`.
    pub client: Actor,
    /// The process that listens and accepts, `kt-server`.
    pub server: Actor,
    /// Where the server listens, according to its socket.
    pub listener: SocketAddr,
    /// Where the client connects.
    pub target: SocketAddr,
    begin: (Instant, SystemTime),
    established: Instant,
    closing: Option<Instant>,
    /// Keeps the backlog of the listener full.
    pub(crate) filler: Option<Actor>,
    /// Keeps the other end of a veth pair.
    pub(crate) beyond: Option<Netns>,
}

/// Both ends of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The connecting end.
    pub client: Conn,
    /// The accepted end.
    pub server: Conn,
}

const BACKLOG: i32 = 16;

impl Stage {
    /// Starts the processes and listens, in the namespace this process is in.
    #[must_use]
    #[track_caller]
    pub fn new(via: Via) -> Self {
        let (listen, connect): (IpAddr, IpAddr) = match via {
            Via::V4 => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()),
            Via::V6 => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
            Via::MappedClient => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()),
            Via::DualStackServer => (Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
        };
        Self::between(Actor::start("kt-client"), Actor::start("kt-server"), listen, connect, BACKLOG)
    }

    /// The same with given actors, addresses and backlog.
    #[must_use]
    #[track_caller]
    pub fn between(client: Actor, mut server: Actor, listen: IpAddr, connect: IpAddr, backlog: i32) -> Self {
        let listener = server.listen((listen, 0).into(), backlog);
        let now = Instant::now();
        Self {
            client,
            server,
            listener,
            target: (connect, listener.port()).into(),
            begin: (now, SystemTime::now()),
            established: now,
            closing: None,
            filler: None,
            beyond: None,
        }
    }

    /// Opens a connection; returns once it is established and accepted.
    #[track_caller]
    pub fn open(&mut self) -> Pair {
        self.open_from(None)
    }

    /// The same from a given address, or from one of the kernel's choice.
    #[track_caller]
    pub fn open_from(&mut self, from: Option<SocketAddr>) -> Pair {
        self.begin();
        let client = match from {
            Some(from) => self.client.connect_from(from, self.target),
            None => self.client.connect(self.target),
        };
        let server = self.server.accept();
        self.established();
        Pair { client, server }
    }

    /// Sends bytes from the client to the server and back.
    #[track_caller]
    pub fn exchange(&mut self, pair: Pair, up: u64, down: u64) {
        self.client.send(pair.client, up);
        self.server.recv(pair.server, up);
        self.server.send(pair.server, down);
        self.client.recv(pair.client, down);
    }

    /// Marks the moment from which the connection is established on both sides.
    pub(crate) fn established(&mut self) {
        self.established = Instant::now();
    }

    /// Waits until all sent bytes are acknowledged. After a reset they never are, and tools would
    /// not count them.
    #[track_caller]
    pub fn settle(&self, pair: Pair) {
        for conn in [pair.client, pair.server] {
            wait_until("acknowledgement of what was sent", WAIT_LIMIT, || match proc_socket(conn) {
                Some(ProcSocket { unacknowledged: 0, .. }) => Ok(()),
                seen => Err(format!("{seen:?} for {conn:?}")),
            });
        }
    }

    /// Waits until the peer has acknowledged the FIN of this end, the first that was closed.
    #[track_caller]
    pub fn settle_fin(&self, conn: Conn) {
        wait_until("acknowledgement of the FIN", WAIT_LIMIT, || match proc_socket(conn) {
            Some(ProcSocket { state: FIN_WAIT2, .. }) => Ok(()),
            seen => Err(format!("{seen:?} for {conn:?}")),
        });
    }

    /// Marks the moment before the connection is closed.
    pub fn closing(&mut self) {
        self.closing = Some(Instant::now());
    }

    /// What a tool has to report about the listener once the server has closed it.
    #[must_use]
    #[track_caller]
    pub fn listener_end(&self) -> End {
        let any: IpAddr = match self.listener {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        End {
            local: self.listener,
            remote: (any, 0).into(),
            owners: vec![self.server.who()],
            role: Role::Passive,
            tx: 0,
            rx: 0,
            ending: Ending::Closed,
            path: LISTENER,
        }
    }

    pub(crate) fn begin(&mut self) {
        self.begin = (Instant::now(), SystemTime::now());
        self.closing = None;
    }

    fn client_end(&self, conn: Conn, bytes: (u64, u64), ending: Ending, path: Path) -> End {
        end(conn, self.client.who(), Role::Active, bytes, (ending, path))
    }

    fn server_end(&self, conn: Conn, bytes: (u64, u64), ending: Ending, path: Path) -> End {
        end(conn, self.server.who(), Role::Passive, bytes, (ending, path))
    }

    pub(crate) fn session(&self, ends: Vec<End>) -> Session {
        Session {
            ends,
            span: (self.begin.1, SystemTime::now()),
            at_least: self
                .closing
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(self.established)),
            at_most: self.begin.0.elapsed(),
        }
    }

    /// Both ends of a connection over which `up` bytes went to the server and `down` back.
    pub(crate) fn both(
        &self,
        pair: Pair,
        (up, down): (u64, u64),
        client: (Ending, Path),
        server: (Ending, Path),
    ) -> Session {
        self.session(vec![
            self.client_end(pair.client, (up, down), client.0, client.1),
            self.server_end(pair.server, (down, up), server.0, server.1),
        ])
    }
}

fn end(conn: Conn, who: Who, role: Role, (tx, rx): (u64, u64), (ending, path): (Ending, Path)) -> End {
    End { local: conn.local, remote: conn.remote, owners: vec![who], role, tx, rx, ending, path }
}

/// The address that the kernel gives a socket that connects to `to`. UDP shows it without a packet.
pub(crate) fn source_of(to: SocketAddr) -> IpAddr {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).expect("bind a UDP socket");
    socket.connect(to).and_then(|()| socket.local_addr()).expect("a route").ip()
}

/// The socket of this end of a connection; `None` if it is closed.
fn proc_socket(conn: Conn) -> Option<ProcSocket> {
    let ports = (conn.local.port(), conn.remote.port());
    sockets().into_iter().find(|socket| (socket.local, socket.remote) == ports)
}
