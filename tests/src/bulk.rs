//! Connections by the thousand, of this process with itself: fast, of every kind, and counted.
//!
//! For single connections with all their facts see [`traffic`](crate::traffic).

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use crate::deadline::{WAIT_LIMIT, wait_until};
use crate::loss::drop_received;
use crate::netns::Netns;
use crate::proc_net::{LISTEN, sockets};

/// Connections to one address before another address is used: well below the number of ports.
const PER_ADDRESS: usize = 20_000;

/// Both ends of a connection.
#[derive(Debug)]
pub struct Endpoints {
    pub client: TcpStream,
    pub server: TcpStream,
}

/// Enters a new namespace in which every connection gets a port of its own: no port is used again
/// before all ports were.
#[must_use]
pub fn new_netns() -> Netns {
    let netns = Netns::enter_new();
    netns.set_sysctl("net/ipv4/tcp_tw_reuse", "0");
    netns.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    netns
}

/// Lets this process open this many files.
///
/// # Errors
/// If the process may not raise its limit so far.
pub fn raise_file_limit(count: u64) -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= count { Ok(()) } else { setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count)) }
}

/// The present number of TCP sockets of the machine, in all namespaces.
///
/// # Panics
/// If `/proc` does not have it.
#[must_use]
#[track_caller]
pub fn open_sockets() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").expect("sockets of the machine");
    let alloc = text.split_once("alloc ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    alloc.expect("a number of sockets")
}

/// A listener on one of the addresses of the loopback device.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on `127.0.0.1`.
    ///
    /// # Panics
    /// If the kernel refuses, like all functions here.
    #[must_use]
    #[track_caller]
    pub fn open() -> Self {
        Self::at(0)
    }

    #[track_caller]
    fn at(number: usize) -> Self {
        let last = u8::try_from(number + 1).expect("few addresses");
        Self(TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), 0)).expect("listen"))
    }

    /// The address of the listener.
    #[must_use]
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    /// Opens a connection to this listener.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> Endpoints {
        let client = TcpStream::connect(self.address()).expect("connect");
        let (server, _) = self.0.accept().expect("accept");
        Endpoints { client, server }
    }

    /// Waits until all connections of this listener have ended. All of them must have been closed
    /// before, but on a busy machine the last acknowledgement may arrive late.
    #[track_caller]
    pub fn wait_closed(&self) {
        let port = self.address().port();
        wait_until("end of all connections", WAIT_LIMIT, || {
            let left = sockets().into_iter().find(|socket| socket.local == port && socket.state != LISTEN);
            left.map_or(Ok(()), |socket| Err(format!("{socket:?}")))
        });
    }
}

impl Endpoints {
    /// Closes the client, waits until the server has read the end of the stream, and closes the
    /// server.
    #[track_caller]
    pub fn close(self) {
        let Self { client, mut server } = self;
        drop(client);
        assert_eq!(server.read(&mut [0; 1]).expect("the end of the stream"), 0);
    }
}

/// Opens this many connections.
#[must_use]
#[track_caller]
pub fn open(count: usize) -> Vec<Endpoints> {
    let mut all = Vec::with_capacity(count);
    let mut listener = Listener::at(0);
    for number in 0..count {
        if number > 0 && number % PER_ADDRESS == 0 {
            listener = Listener::at(number / PER_ADDRESS);
        }
        all.push(listener.connect());
    }
    all
}

/// Starts this many connects whose answers are dropped. Dropping a socket gives its connect up.
#[must_use]
#[track_caller]
pub fn unanswered(count: usize, listener: &Listener) -> Vec<Socket> {
    let begin = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        drop_received(&socket);
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        assert!(socket.connect(&listener.address().into()).is_err(), "connected without an answer");
        socket
    };
    (0..count).map(begin).collect()
}

/// What can become of a TCP socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A connection that sends and is closed by the client first.
    ClientCloses,
    /// A connection closed by the server first.
    ServerCloses,
    /// A connection reset by the client.
    ClientResets,
    /// A connection closed with unread bytes, which the kernel resets.
    Unread,
    /// A connect to a port without a listener.
    Refused,
    /// A connect without an answer, given up.
    Unanswered,
    /// A connection that is never accepted, because the listener is closed.
    NeverAccepted,
    /// A connection half-closed by both sides, one after the other.
    HalfClosed,
    /// A listener without connections.
    Listener,
    /// A socket that is bound and closed.
    Bound,
    /// A connection that both sides shut down in both directions.
    BothClose,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::ClientCloses,
        Self::ServerCloses,
        Self::ClientResets,
        Self::Unread,
        Self::Refused,
        Self::Unanswered,
        Self::NeverAccepted,
        Self::HalfClosed,
        Self::Listener,
        Self::Bound,
        Self::BothClose,
    ];

    /// Makes sockets of this kind and ends them; returns how many.
    ///
    /// # Panics
    /// If they do not end as they should.
    #[track_caller]
    pub fn make_and_end(self, listener: &Listener) -> u64 {
        match self {
            Self::ClientCloses => {
                let mut ends = listener.connect();
                ends.client.write_all(b"some bytes").expect("send");
                ends.server.read_exact(&mut [0; 10]).expect("receive");
                ends.close();
                2
            }
            Self::ServerCloses => {
                let Endpoints { mut client, server } = listener.connect();
                drop(server);
                assert_eq!(client.read(&mut [0; 1]).expect("the end of the stream"), 0);
                2
            }
            Self::ClientResets => {
                let Endpoints { client, mut server } = listener.connect();
                SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
                drop(client);
                assert_eq!(reset(&server.read(&mut [0; 1])), Some(io::ErrorKind::ConnectionReset));
                2
            }
            Self::Unread => {
                let Endpoints { mut client, mut server } = listener.connect();
                server.write_all(b"unread").expect("send");
                client.write_all(b"unread").expect("send");
                drop(client);
                drop(server);
                2
            }
            Self::Refused => {
                let refused = TcpStream::connect(SocketAddr::new(listener.address().ip(), 9));
                assert_eq!(refused.expect_err("no listener").kind(), io::ErrorKind::ConnectionRefused);
                1
            }
            Self::Unanswered => {
                drop(unanswered(1, listener));
                1
            }
            Self::NeverAccepted => {
                let inner = Listener::open();
                let mut client = TcpStream::connect(inner.address()).expect("connect");
                drop(inner);
                wait_for_reset(&mut client);
                3
            }
            Self::HalfClosed => {
                let Endpoints { mut client, mut server } = listener.connect();
                client.shutdown(std::net::Shutdown::Write).expect("shutdown");
                assert_eq!(server.read(&mut [0; 1]).expect("the end of the stream"), 0);
                server.write_all(b"more").expect("send");
                server.shutdown(std::net::Shutdown::Write).expect("shutdown");
                assert_eq!(client.read_to_end(&mut Vec::new()).expect("the rest"), 4);
                2
            }
            Self::Listener => {
                drop(Listener::open());
                1
            }
            Self::Bound => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
                let any: SocketAddr = (IpAddr::from(Ipv4Addr::LOCALHOST), 0).into();
                socket.bind(&any.into()).expect("bind");
                1
            }
            Self::BothClose => {
                let Endpoints { client, server } = listener.connect();
                client.shutdown(std::net::Shutdown::Both).expect("shutdown");
                server.shutdown(std::net::Shutdown::Both).expect("shutdown");
                2
            }
        }
    }
}

/// Waits until a client sees the reset. If the last packet of its handshake arrived while the
/// listener was being closed, no reset is sent for it, so the client sends more, which is answered
/// by a reset.
#[track_caller]
fn wait_for_reset(client: &mut TcpStream) {
    client.set_read_timeout(Some(Duration::from_secs(1))).expect("SO_RCVTIMEO");
    loop {
        match reset(&client.read(&mut [0; 1])) {
            Some(io::ErrorKind::ConnectionReset) => break,
            Some(io::ErrorKind::WouldBlock) => {}
            other => panic!("not reset: {other:?}"),
        }
        // A failed write shows the reset.
        if client.write_all(b"more").is_err() {
            break;
        }
    }
}

fn reset(read: &io::Result<usize>) -> Option<io::ErrorKind> {
    read.as_ref().err().map(io::Error::kind)
}
