//! Bytes between two namespaces over a pair of veth devices, of whose packets some are lost: a filter on the receiving socket
//! drops them before TCP sees them, which the sender cannot tell from a network that lost them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kernel_tests::loss::Counters;
use kernel_tests::netns::{Netns, join};
use socket2::{SockFilter, SockRef};

use super::{Done, Load};
use crate::fault::{During, Fault, Result};

/// So many connections at once: each waits for its timers most of the time.
const CONNECTIONS: usize = 64;

/// Makes a socket lose so many in a hundred of the packets that come to it.
fn lose(socket: &TcpStream, percent: u32) -> Result<()> {
    /// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JGE | BPF_K`, `BPF_RET | BPF_K`; linux/bpf_common.h.
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

/// Streams on which `percent` of the packets are lost.
pub fn lossy(percent: u32, load: &Load, ready: impl FnOnce(u16) -> Result<()>) -> Result<Done> {
    let (here, beyond) = (Netns::current(), Netns::beside());
    let (_, address) = join(&here, &beyond).during("a veth pair")?;
    let listener = beyond.run(|| TcpListener::bind((address, 0))).during("listen")?;
    let at: SocketAddr = listener.local_addr().during("getsockname")?;
    let mut pairs = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(at).during("connect")?;
        pairs.push((client, listener.accept().during("accept")?.0));
    }
    // Not before: a lost SYN would take a second.
    for (_, server) in &pairs {
        lose(server, percent)?;
    }
    ready(at.port())?;
    let before = Counters::now();
    let begin = Instant::now();
    let received = thread::scope(|scope| {
        let mut ends = Vec::new();
        for (client, server) in &pairs {
            scope.spawn(move || while (&mut &*client).write_all(&[7; 16 << 10]).is_ok() {});
            ends.push(scope.spawn(move || {
                let (mut buffer, mut sum) = (vec![0; 64 << 10], 0_u64);
                while let Ok(count @ 1..) = (&mut &*server).read(&mut buffer) {
                    sum += count as u64;
                }
                sum
            }));
        }
        thread::sleep(load.time);
        for (client, server) in &pairs {
            // What is still lost would take its time: a reset at the close ends it.
            SockRef::from(client).set_linger(Some(Duration::ZERO)).during("SO_LINGER")?;
            for end in [client, server] {
                // One that is reset already cannot be shut down.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
        let join =
            |end: thread::ScopedJoinHandle<'_, u64>| end.join().map_err(|_| Fault::new("a reader panicked"));
        ends.into_iter().map(join).sum::<Result<u64>>()
    });
    drop(pairs);
    let time = begin.elapsed();
    let segments = Counters::now().since(before).segments;
    Ok(Done { count: received?, time, events: segments })
}
