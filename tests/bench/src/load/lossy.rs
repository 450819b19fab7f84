//! Sends bytes over a pair of veth devices and loses some of the packets: a filter on the receiving
//! socket drops them before TCP sees them, which looks to the sender like a network that lost them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kernel_tests::loss::Counters;
use kernel_tests::netns::{Netns, join};
use socket2::{SockFilter, SockRef};

use super::{Done, Load};
use crate::fault::{During, Fault, Result};

/// Connections at the same time: each waits for its timers most of the time.
const CONNECTIONS: usize = 64;

/// Makes a socket lose this percentage of the packets that arrive.
fn lose(socket: &TcpStream, percent: u32) -> Result<()> {
    /// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JGE | BPF_K`, `BPF_RET | BPF_K`;
    /// linux/bpf_common.h.
    const LOAD: u16 = 0x20;
    const IF_GE: u16 = 0x35;
    const RET: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_RANDOM`, linux/filter.h.
    const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned();
    let lost = u32::MAX / 100 * percent.min(100);
    let filter = [
        SockFilter::new(LOAD, 0, 0, RANDOM),
        SockFilter::new(IF_GE, 1, 0, lost),
        SockFilter::new(RET, 0, 0, 0),
        SockFilter::new(RET, 0, 0, u32::MAX),
    ];
    SockRef::from(socket).attach_filter(&filter).during("SO_ATTACH_FILTER")
}

/// Streams that lose `percent` of their packets.
pub fn lossy(percent: u32, load: &Load, ready: impl FnOnce(u16) -> Result<()>) -> Result<Done> {
    let (here, peer) = (Netns::current(), Netns::beside());
    let (_, address) = join(&here, &peer).during("a veth pair")?;
    let listener = peer.run(|| TcpListener::bind((address, 0))).during("listen")?;
    let at: SocketAddr = listener.local_addr().during("getsockname")?;
    let mut pairs = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(at).during("connect")?;
        pairs.push((client, listener.accept().during("accept")?.0));
    }
    // Only after the connections are established: the retransmission of a SYN takes a second.
    for (_, server) in &pairs {
        lose(server, percent)?;
    }
    ready(at.port())?;
    let before = Counters::now();
    let begin = Instant::now();
    let received = thread::scope(|scope| {
        let mut readers = Vec::new();
        for (client, server) in &pairs {
            scope.spawn(move || while (&mut &*client).write_all(&[7; 16 << 10]).is_ok() {});
            readers.push(scope.spawn(move || {
                let (mut buffer, mut sum) = (vec![0; 64 << 10], 0_u64);
                while let Ok(count @ 1..) = (&mut &*server).read(&mut buffer) {
                    sum += count as u64;
                }
                sum
            }));
        }
        thread::sleep(load.time);
        for (client, server) in &pairs {
            // A normal close would wait for retransmissions: with SO_LINGER the close sends a
            // reset.
            SockRef::from(client).set_linger(Some(Duration::ZERO)).during("SO_LINGER")?;
            for socket in [client, server] {
                // This fails if the socket is reset already.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        let join = |reader: thread::ScopedJoinHandle<'_, u64>| {
            reader.join().map_err(|_| Fault::new("a reader panicked"))
        };
        readers.into_iter().map(join).sum::<Result<u64>>()
    });
    drop(pairs);
    let time = begin.elapsed();
    let segments = Counters::now().since(before).segments;
    Ok(Done { count: received?, time, events: segments })
}
