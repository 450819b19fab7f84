//! Sends bytes on loopback as fast as possible.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::{Done, Load, cpus};
use crate::fault::{During, Fault, Result};

/// One connection for every two CPUs, with a thread at each end; each send has `bytes` bytes.
pub fn stream(bytes: u32, load: &Load, ready: impl FnOnce(u16) -> Result<()>) -> Result<Done> {
    let listener = if load.v6 {
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
    } else {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
    };
    let listener = listener.during("listen")?;
    let at = listener.local_addr().during("getsockname")?;
    let size = usize::try_from(bytes).during("a size")?;
    let mut pairs = Vec::new();
    for _ in 0..cpus().div_ceil(2) {
        let client = TcpStream::connect(at).during("connect")?;
        let (server, _) = listener.accept().during("accept")?;
        client.set_nodelay(true).during("TCP_NODELAY")?;
        pairs.push((client, server));
    }
    ready(at.port())?;
    let sends = AtomicU64::new(0);
    let begin = Instant::now();
    let received = thread::scope(|scope| {
        let mut readers = Vec::new();
        for (mut client, mut server) in pairs {
            let sends = &sends;
            scope.spawn(move || {
                let chunk = vec![7; size];
                let mut count = 0;
                while begin.elapsed() < load.time && client.write_all(&chunk).is_ok() {
                    count += 1;
                }
                sends.fetch_add(count, Ordering::Relaxed);
            });
            readers.push(scope.spawn(move || {
                let (mut buffer, mut sum) = (vec![0; 256 << 10], 0_u64);
                loop {
                    match server.read(&mut buffer).during("read")? {
                        0 => return Ok(sum),
                        count => sum += count as u64,
                    }
                }
            }));
        }
        let join = |reader: thread::ScopedJoinHandle<'_, Result<u64>>| {
            reader.join().unwrap_or_else(|_| Err(Fault::new("a reader panicked")))
        };
        readers.into_iter().map(join).sum::<Result<u64>>()
    });
    Ok(Done { count: received?, time: begin.elapsed(), events: sends.into_inner() })
}
