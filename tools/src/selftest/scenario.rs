//! Makes the connections that tools are checked on, in a network namespace of this process and its
//! peer.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect,
    getsockname, listen, recv, send, socket,
};
use nix::unistd::geteuid;

use super::check::{Conversation, Side, UnansweredConnect};
use super::process::Process;
use super::{MAX_WAIT_MS, NAME};

/// Two addresses, so that neither side can be taken for the other.
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Bytes sent to the server, and back.
const UP: usize = 30_011;
const DOWN: usize = 50_021;

/// How long a connection is open, at least.
const OPEN: Duration = Duration::from_millis(5);

/// The name of the peer process.
const PEER: &str = "tcptools-peer";

/// How often a condition is checked that the kernel does not announce.
const POLL: Duration = Duration::from_millis(1);

/// A network namespace with a peer process in it.
pub(super) struct TestNet {
    /// The inode of the namespace.
    pub(super) netns: u64,
    peer: Process,
    server: SocketAddrV4,
    /// This process.
    pid: u32,
    comm: String,
    /// Whether this PID namespace is the initial one, whose numbers tools show.
    initial_pids: bool,
}

/// `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const INITIAL_PIDS: u64 = 0xEFFF_FFFC;

impl TestNet {
    /// Moves this process into a namespace of its own and starts the peer.
    pub(super) fn new() -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| {
            io::Error::other(format!("cannot create a network namespace (needs CAP_SYS_ADMIN): {error}"))
        })?;
        loopback_up()?;
        let inode = |path| fs::metadata(path).map(|metadata| metadata.ino());
        let mut peer = Process::start([NAME, "--peer"].map(OsString::from).into())?;
        let mut line = String::new();
        BufReader::new(&mut peer.stdout).read_line(&mut line)?;
        let comm = fs::read_to_string("/proc/self/comm")?;
        Ok(Self {
            netns: inode("/proc/self/ns/net")?,
            server: line.trim().parse().map_err(|_| io::Error::other("the peer process does not listen"))?,
            peer,
            pid: std::process::id(),
            comm: comm.trim_end().to_owned(),
            initial_pids: inode("/proc/self/ns/pid")? == INITIAL_PIDS,
        })
    }

    /// Makes the connections.
    pub(super) fn converse(&self) -> io::Result<Conversation> {
        let (closed, begin) = (unused_address()?, Instant::now());
        let refused = match self.connect(closed) {
            Err((local, Errno::ECONNREFUSED)) => self.client(local, closed, (0, 0)),
            other => return Err(unexpected("no socket listens", other.err().map(|(_, error)| error))),
        };
        let refusal = begin.elapsed();

        let begin = Instant::now();
        let (local, stream) = self.connect(self.server).map_err(|(_, error)| error)?;
        let connect = begin.elapsed();
        let mut stream = TcpStream::from(stream);
        stream.write_all(&vec![b'u'; UP])?;
        stream.read_exact(&mut vec![0; DOWN])?;
        let established = Instant::now();
        // The connection stays open for a time that shows in a duration.
        thread::sleep(OPEN);
        let least = established.elapsed();
        drop(stream);
        wait(&|| Ok(sockets()?.iter().all(|socket| !socket.of(local.port()) || socket.state == TIME_WAIT)))?;
        let server = Side {
            local: self.server,
            remote: local,
            pid: self.initial_pids.then(|| self.peer.id()),
            comm: PEER.to_owned(),
            sent: DOWN,
            received: UP,
        };
        Ok(Conversation {
            client: self.client(local, self.server, (UP, DOWN)),
            server,
            refused,
            connect,
            refusal,
            open: (least, begin.elapsed()),
            uid: geteuid().as_raw(),
        })
    }

    /// Connects to a listener whose accept queue is full, so that the kernel does not answer.
    pub(super) fn connect_unanswered(&self) -> io::Result<UnansweredConnect> {
        let listener = tcp(SockFlag::empty())?;
        bind(listener.as_raw_fd(), &any(SERVER))?;
        listen(&listener, Backlog::new(1)?)?;
        let full = local(&listener)?;
        let mut waiting = Vec::new();
        for _ in 0..2 {
            waiting.push(self.connect(full).map_err(|(_, error)| error)?);
        }
        wait(&|| Ok(sockets()?.iter().any(|socket| socket.accepts(full.port()) && socket.queued == 2)))?;

        let client = tcp(SockFlag::SOCK_NONBLOCK)?;
        bind(client.as_raw_fd(), &any(CLIENT))?;
        let from = local(&client)?;
        match connect(client.as_raw_fd(), &SockaddrIn::from(full)) {
            Err(Errno::EINPROGRESS) => {}
            other => return Err(unexpected("the accept queue is full", other.err())),
        }
        let before = retransmitted()?;
        wait(&|| Ok(retransmitted()? > before))?;
        drop(client);
        Ok(UnansweredConnect {
            client: self.client(from, full, (0, 0)),
            retransmissions: retransmitted()? - before,
        })
    }

    fn client(&self, local: SocketAddrV4, remote: SocketAddrV4, (sent, received): (usize, usize)) -> Side {
        let pid = self.initial_pids.then_some(self.pid);
        Side { local, remote, pid, comm: self.comm.clone(), sent, received }
    }

    /// Connects from the client's address. Also returns the local endpoint, even if the connect
    /// failed.
    fn connect(&self, to: SocketAddrV4) -> Result<(SocketAddrV4, OwnedFd), (SocketAddrV4, Errno)> {
        let nowhere = SocketAddrV4::new(CLIENT, 0);
        let bound = || {
            let fd = tcp(SockFlag::empty())?;
            bind(fd.as_raw_fd(), &any(CLIENT))?;
            Ok((local(&fd)?, fd))
        };
        let (local, fd) = bound().map_err(|error| (nowhere, error))?;
        match connect(fd.as_raw_fd(), &SockaddrIn::from(to)) {
            Ok(()) => Ok((local, fd)),
            Err(error) => Err((local, error)),
        }
    }
}

/// The peer process: prints where it listens, and on each connection reads, writes, and closes
/// after the client.
pub(super) fn peer() -> io::Result<Infallible> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    fs::write("/proc/self/comm", PEER)?;
    let listener = TcpListener::bind((SERVER, 0))?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.read_exact(&mut vec![0; UP])?;
        stream.write_all(&vec![b'd'; DOWN])?;
        // Returns when the client has closed.
        stream.read_to_end(&mut Vec::new())?;
    }
}

/// The error if a connect that should fail succeeds, or fails for another reason.
fn unexpected(why: &str, error: Option<Errno>) -> io::Error {
    io::Error::other(format!("a connect where {why}: {error:?}"))
}

fn tcp(flags: SockFlag) -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Inet, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)
}

fn any(address: Ipv4Addr) -> SockaddrIn {
    SockaddrIn::from(SocketAddrV4::new(address, 0))
}

fn local(fd: &OwnedFd) -> Result<SocketAddrV4, Errno> {
    getsockname::<SockaddrIn>(fd.as_raw_fd()).map(SocketAddrV4::from)
}

/// An address and port that no socket listens on.
fn unused_address() -> Result<SocketAddrV4, Errno> {
    // The socket is closed again when this returns. No other process binds in this namespace.
    let fd = tcp(SockFlag::empty())?;
    bind(fd.as_raw_fd(), &any(SERVER))?;
    local(&fd)
}

/// Sets the loopback device of this namespace up: `RTM_NEWLINK` (linux/rtnetlink.h) with
/// `struct ifinfomsg`, acknowledged.
fn loopback_up() -> Result<(), Errno> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
    const LOOPBACK_IFINDEX: u32 = 1;
    const IFF_UP: u32 = 0x1;
    let mut request = Vec::new();
    request.extend(32_u32.to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    request.extend([0; 12]); // nlmsg_seq, nlmsg_pid, ifi_family, padding, ifi_type
    for word in [LOOPBACK_IFINDEX, IFF_UP, IFF_UP] {
        request.extend(word.to_ne_bytes());
    }
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    // Without a destination, the message goes to the kernel.
    send(fd.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // struct nlmsgerr behind the header: 0 or a negative errno.
    match answer.get(16..length).and_then(|error| error.first_chunk()).map(|error| i32::from_ne_bytes(*error))
    {
        Some(0) => Ok(()),
        error => Err(Errno::from_raw(error.map_or(0, i32::wrapping_neg))),
    }
}

/// Waits until a condition is met.
fn wait(is_met: &dyn Fn() -> io::Result<bool>) -> io::Result<()> {
    let end = Instant::now() + Duration::from_millis(MAX_WAIT_MS.into());
    while !is_met()? {
        if Instant::now() > end {
            return Err(io::Error::other("the test connections do not end"));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// `TCP_TIME_WAIT` and `TCP_LISTEN`, include/net/tcp_states.h.
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;

/// A line of `/proc/self/net/tcp`.
struct Socket {
    ports: (u16, u16),
    state: u8,
    /// Bytes to be read, or connections to be accepted.
    queued: u32,
}

impl Socket {
    /// `0: 0200007F:9C45 00000000:0000 0A 00000000:00000002 …`
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let mut port = || u16::from_str_radix(words.next()?.split_once(':')?.1, 16).ok();
        let ports = (port()?, port()?);
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        let queued = u32::from_str_radix(words.next()?.split_once(':')?.1, 16).ok()?;
        Some(Self { ports, state, queued })
    }

    fn of(&self, port: u16) -> bool {
        self.ports.0 == port || self.ports.1 == port
    }

    fn accepts(&self, port: u16) -> bool {
        self.state == LISTEN && self.ports.0 == port
    }
}

fn sockets() -> io::Result<Vec<Socket>> {
    let text = fs::read_to_string("/proc/self/net/tcp")?;
    Ok(text.lines().filter_map(Socket::parse).collect())
}

/// `RetransSegs` of this namespace.
fn retransmitted() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/net/snmp")?;
    retrans_segs(&text).ok_or_else(|| io::Error::other("no RetransSegs in /proc/self/net/snmp"))
}

/// Reads the two lines of TCP: names, then numbers.
fn retrans_segs(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let at = lines.next()?.split(' ').position(|name| name == "RetransSegs")?;
    lines.next()?.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_sockets() {
        let line = "   0: 0200007F:9C45 0300007F:0016 0A 00000001:00000002 00:00000000 00000000  0 0 1 1 0 100 0 0 10 0";
        let socket = Socket::parse(line).expect("a socket");
        assert_eq!((socket.ports, socket.state, socket.queued), ((0x9c45, 22), LISTEN, 2));
        assert!(socket.of(22) && socket.of(0x9c45) && !socket.of(0) && socket.accepts(0x9c45));
        assert!(Socket::parse("  sl  local_address rem_address   st tx_queue rx_queue tr").is_none());
        assert!(Socket::parse("").is_none());
    }

    #[test]
    fn retransmissions_of_the_kernel() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoMin RetransSegs InErrs\nTcp: 200 17 0\n";
        assert_eq!(retrans_segs(text), Some(17));
        assert_eq!(retrans_segs("Tcp: RtoMin\nTcp: 200\n"), None);
    }
}
