//! Packets that are lost when a test says so, and what the kernel itself counts of it.
//!
//! A socket that is deaf drops what comes before TCP sees it, by a filter of its own: the sender cannot tell that from a network
//! that lost it. Nothing but the socket is touched, and no kernel module is needed.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

/// `BPF_RET | BPF_K`, linux/bpf_common.h: with 0, nothing of the packet is let through.
const BPF_RET_K: u16 = 0x06;

/// Makes a socket deaf. What is accepted from a listener inherits it.
///
/// # Panics
/// When the kernel refuses.
pub fn deafen(socket: &impl AsFd) {
    let filter = SockFilter::new(BPF_RET_K, 0, 0, 0);
    SockRef::from(socket).attach_filter(&[filter]).expect("SO_ATTACH_FILTER");
}

/// Makes it hear again.
///
/// # Panics
/// When it was not deaf.
pub fn undeafen(socket: &impl AsFd) {
    SockRef::from(socket).detach_filter().expect("SO_DETACH_FILTER");
}

/// Sends something that a socket shall not hear, which is deaf until that has arrived. On a busy machine it may do so some time
/// after it was sent.
#[track_caller]
fn while_deaf<T>(deaf: &impl AsFd, send: impl FnOnce() -> T) -> T {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("affinity");
    let mut here = CpuSet::new();
    here.set(sched_getcpu().expect("a CPU")).expect("its number");
    // Loopback has a queue for each CPU, in which nothing overtakes.
    sched_setaffinity(this, &here).expect("stay here");
    deafen(deaf);
    let sent = send();
    let [ahead, behind] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("UDP"));
    let to = behind.local_addr().expect("bound");
    // What arrives first may be answered, and the answer be what shall be lost.
    for _ in 0..2 {
        ahead.send_to(&[0], to).expect("send behind it");
        behind.recv(&mut [0]).expect("arrive behind it");
    }
    undeafen(deaf);
    sched_setaffinity(this, &allowed).expect("go anywhere");
    sent
}

/// Both ends of a connection of this process, and the listener it came from.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Pair {
    pub listener: TcpListener,
    pub client: TcpStream,
    pub server: TcpStream,
}

/// What is lost while a connection is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// Nothing.
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

    /// One whose server has an IPv6 socket and whose client talks IPv4 to it.
    #[must_use]
    #[track_caller]
    pub fn mapped() -> Self {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
        socket.set_only_v6(false).expect("IPV6_V6ONLY");
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).expect("bind");
        socket.listen(8).expect("listen");
        Self::connect(socket.into(), IpAddr::from([127, 0, 0, 1]), Lost::Nothing)
    }

    /// One that is open only once something was sent for the second time.
    #[must_use]
    #[track_caller]
    pub fn late(address: IpAddr, lost: Lost) -> Self {
        Self::connect(TcpListener::bind((address, 0)).expect("listen"), address, lost)
    }

    /// Connects to a listener at this address.
    ///
    /// # Panics
    /// When that fails.
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

    /// The client sends, and the first that it sends is lost; then the server has it all. `more` follows in packets of its own.
    #[track_caller]
    pub fn lose(&mut self, bytes: &[u8], more: &[&[u8]]) {
        lose(&mut self.client, &mut self.server, bytes, more);
    }

    /// The same in the other direction.
    #[track_caller]
    pub fn lose_backwards(&mut self, bytes: &[u8]) {
        lose(&mut self.server, &mut self.client, bytes, &[]);
    }
}

/// Begins to connect while `deaf` does not hear the first packet that comes to it.
#[track_caller]
fn begin(client: &Socket, to: SocketAddr, deaf: &impl AsFd) {
    client.set_nonblocking(true).expect("O_NONBLOCK");
    let begun = while_deaf(deaf, || client.connect(&to.into()));
    assert!(begun.is_err(), "nobody answered, and yet it is connected");
}

#[track_caller]
fn lose(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8], more: &[&[u8]]) {
    while_deaf(to, || from.write_all(bytes).expect("send"));
    for bytes in more {
        from.write_all(bytes).expect("send");
    }
    let length = bytes.len() + more.iter().map(|bytes| bytes.len()).sum::<usize>();
    to.read_exact(&mut vec![0; length]).expect("receive what was lost");
}

/// What the kernel counts for this network namespace, in segments or in times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters {
    /// `RetransSegs`: segments retransmitted, or meant to be.
    pub segments: u64,
    /// `TCPLossProbes`: tail loss probes.
    pub loss_probes: u64,
    /// `TCPTimeouts`: retransmission timers that ran out.
    pub timeouts: u64,
    /// `TCPFastRetrans`: segments retransmitted in recovery.
    pub fast: u64,
    /// `TCPSynRetrans`: SYNs and SYN-ACKs.
    pub syns: u64,
}

impl Counters {
    /// What they are now.
    ///
    /// # Panics
    /// When `/proc/net` does not have them.
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

    /// What has been added since then.
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
    fn a_counter_stands_under_its_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: A C\nTcp: 3 4\n";
        let of = |group, name| counter(text, group, name);
        assert_eq!([of("Ip:", "A"), of("Tcp:", "A"), of("Tcp:", "C")], [Some(1), Some(3), Some(4)]);
        assert_eq!([of("Ip:", "C"), of("Udp:", "A")], [None, None]);
    }
}
