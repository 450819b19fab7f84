//! Packets that are lost on purpose, and the kernel's own counts of retransmissions.
//!
//! A socket filter drops received packets before TCP sees them. The sender cannot distinguish that
//! from a loss in the network. The filter affects only its socket, and no kernel module is needed.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

/// `BPF_RET | BPF_K`, linux/bpf_common.h: with 0, no byte of the packet passes.
const BPF_RET_K: u16 = 0x06;

/// Has a socket drop all packets that it receives. Connections accepted from a listener inherit
/// that.
///
/// # Panics
/// If the kernel refuses.
pub fn drop_received(socket: &impl AsFd) {
    let filter = SockFilter::new(BPF_RET_K, 0, 0, 0);
    SockRef::from(socket).attach_filter(&[filter]).expect("SO_ATTACH_FILTER");
}

/// Has the socket receive packets again.
///
/// # Panics
/// If it did not drop packets.
pub fn stop_dropping(socket: &impl AsFd) {
    SockRef::from(socket).detach_filter().expect("SO_DETACH_FILTER");
}

/// Calls `send`, and has a socket drop what it receives until the packets of `send` have arrived.
/// On a busy machine they may arrive some time after they were sent.
#[track_caller]
fn while_dropping<T>(receiver: &impl AsFd, send: impl FnOnce() -> T) -> T {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("affinity");
    let mut here = CpuSet::new();
    here.set(sched_getcpu().expect("a CPU")).expect("its number");
    // The loopback device has a queue for each CPU, in which packets keep their order.
    sched_setaffinity(this, &here).expect("stay here");
    drop_received(receiver);
    let sent = send();
    let [sender, sentinel] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("UDP"));
    let to = sentinel.local_addr().expect("bound");
    // Two packets follow each other: the first packet of `send` may be answered, and the answer
    // must be lost too.
    for _ in 0..2 {
        sender.send_to(&[0], to).expect("send a packet behind them");
        sentinel.recv(&mut [0]).expect("a packet behind them");
    }
    stop_dropping(receiver);
    sched_setaffinity(this, &allowed).expect("go anywhere");
    sent
}

/// Both ends of a connection of this process with itself, and its listener.
#[derive(Debug)]
pub struct Pair {
    pub listener: TcpListener,
    pub client: TcpStream,
    pub server: TcpStream,
}

/// The packet that is lost while a connection is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// No packet.
    Nothing,
    /// The first SYN.
    Syn,
    /// The first SYN-ACK.
    SynAck,
}

impl Pair {
    /// A connection between this address and itself.
    #[must_use]
    #[track_caller]
    pub fn new(address: IpAddr) -> Self {
        Self::connect(TcpListener::bind((address, 0)).expect("listen"), address, Lost::Nothing)
    }

    /// A connection of an IPv4 client to an IPv6 socket.
    #[must_use]
    #[track_caller]
    pub fn mapped() -> Self {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
        socket.set_only_v6(false).expect("IPV6_V6ONLY");
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).expect("bind");
        socket.listen(8).expect("listen");
        Self::connect(socket.into(), IpAddr::from([127, 0, 0, 1]), Lost::Nothing)
    }

    /// A connection that loses a packet while it is opened.
    #[must_use]
    #[track_caller]
    pub fn with_loss(address: IpAddr, lost: Lost) -> Self {
        Self::connect(TcpListener::bind((address, 0)).expect("listen"), address, lost)
    }

    /// Connects to a listener at this address.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    #[track_caller]
    pub fn connect(listener: TcpListener, address: IpAddr, lost: Lost) -> Self {
        let to = SocketAddr::new(address, listener.local_addr().expect("bound").port());
        let client = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
        match lost {
            Lost::Nothing => client.connect(&to.into()).expect("connect"),
            Lost::Syn => begin(&client, to, &listener),
            Lost::SynAck => begin(&client, to, &client),
        }
        let (server, _) = listener.accept().expect("accept");
        client.set_nonblocking(false).expect("O_NONBLOCK");
        let pair = Self { listener, client: client.into(), server };
        for stream in [&pair.client, &pair.server] {
            stream.set_nodelay(true).expect("TCP_NODELAY");
        }
        pair
    }

    /// The client sends `bytes`, which are lost, then each of `more` in a packet of its own.
    /// Returns once retransmissions have brought all bytes to the server.
    #[track_caller]
    pub fn lose(&mut self, bytes: &[u8], more: &[&[u8]]) {
        lose(&mut self.client, &mut self.server, bytes, more);
    }

    /// The server sends bytes, which are lost; returns once the client has them.
    #[track_caller]
    pub fn lose_from_server(&mut self, bytes: &[u8]) {
        lose(&mut self.server, &mut self.client, bytes, &[]);
    }
}

/// Starts to connect while `receiver` drops the first packet that it receives.
#[track_caller]
fn begin(client: &Socket, to: SocketAddr, receiver: &impl AsFd) {
    client.set_nonblocking(true).expect("O_NONBLOCK");
    let begun = while_dropping(receiver, || client.connect(&to.into()));
    assert!(begun.is_err(), "connected without an answer");
}

#[track_caller]
fn lose(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8], more: &[&[u8]]) {
    while_dropping(to, || from.write_all(bytes).expect("send"));
    for bytes in more {
        from.write_all(bytes).expect("send");
    }
    let length = bytes.len() + more.iter().map(|bytes| bytes.len()).sum::<usize>();
    to.read_exact(&mut vec![0; length]).expect("receive what was lost");
}

/// Counters of the kernel for this network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters {
    /// `RetransSegs`: retransmitted segments, including those that could not be sent.
    pub segments: u64,
    /// `TCPLossProbes`: tail loss probes.
    pub loss_probes: u64,
    /// `TCPTimeouts`: expired retransmission timers.
    pub timeouts: u64,
    /// `TCPFastRetrans`: segments retransmitted in recovery.
    pub fast: u64,
    /// `TCPSynRetrans`: SYNs and SYN-ACKs.
    pub syns: u64,
}

impl Counters {
    /// The present values.
    ///
    /// # Panics
    /// If `/proc/net` does not have them.
    #[must_use]
    #[track_caller]
    pub fn now() -> Self {
        let [snmp, netstat] = ["/proc/self/net/snmp", "/proc/self/net/netstat"]
            .map(|path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}")));
        let of = |text: &str, group, name| {
            counter(text, group, name).unwrap_or_else(|| panic!("no {group} {name} in {text}"))
        };
        Self {
            segments: of(&snmp, "Tcp:", "RetransSegs"),
            loss_probes: of(&netstat, "TcpExt:", "TCPLossProbes"),
            timeouts: of(&netstat, "TcpExt:", "TCPTimeouts"),
            fast: of(&netstat, "TcpExt:", "TCPFastRetrans"),
            syns: of(&netstat, "TcpExt:", "TCPSynRetrans"),
        }
    }

    /// The increase since an earlier moment.
    #[must_use]
    pub fn since(self, then: Self) -> Self {
        Self {
            segments: self.segments - then.segments,
            loss_probes: self.loss_probes - then.loss_probes,
            timeouts: self.timeouts - then.timeouts,
            fast: self.fast - then.fast,
            syns: self.syns - then.syns,
        }
    }
}

/// A number of a file that has a line of names before each line of values.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group)).map(str::split_ascii_whitespace);
    let (mut names, mut values) = (lines.next()?, lines.next()?);
    values.nth(names.position(|known| known == name)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: A C\nTcp: 3 4\n";
        let of = |group, name| counter(text, group, name);
        assert_eq!([of("Ip:", "A"), of("Tcp:", "A"), of("Tcp:", "C")], [Some(1), Some(3), Some(4)]);
        assert_eq!([of("Ip:", "C"), of("Udp:", "A")], [None, None]);
    }
}
