//! Opens and closes connections.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::{Done, End, Load, cpus};
use crate::fault::{During, Fault, Result};

/// A listener and its addresses. There are enough addresses that ports do not run out while closed
/// connections are in TIME_WAIT.
struct Service {
    listener: TcpListener,
    addresses: Vec<SocketAddr>,
}

impl Service {
    fn new(v6: bool) -> Result<Self> {
        // IPv6 has one loopback address, whose ports are enough for about 50,000 connections.
        let addresses: Vec<IpAddr> = if v6 {
            vec![Ipv6Addr::LOCALHOST.into()]
        } else {
            (1..=200).map(|n| Ipv4Addr::new(127, 77, 0, n).into()).collect()
        };
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let any = SocketAddr::new(any, 0);
        let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).during("socket")?;
        socket.bind(&any.into()).during("bind")?;
        socket.listen(4096).during("listen")?;
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().during("getsockname")?.port();
        let addresses = addresses.into_iter().map(|address| (address, port).into()).collect();
        Ok(Self { listener, addresses })
    }

    fn port(&self) -> u16 {
        self.addresses.first().map_or(0, SocketAddr::port)
    }

    fn address(&self, number: u64) -> Result<SocketAddr> {
        let at = usize::try_from(number).unwrap_or(0) % self.addresses.len();
        self.addresses.get(at).copied().ok_or_else(|| Fault::new("no address"))
    }
}

/// One connection on the client's side. Each side waits for the other at every step, so that all
/// connections go through the same states and no queue overflows.
fn client(to: SocketAddr, end: End) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    match end {
        End::Fin => {
            stream.shutdown(Shutdown::Write)?;
            read_to_end(&mut stream)
        }
        End::Rst => {
            stream.read_exact(&mut [0])?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))
        }
    }
}

/// Serves connections until the listener is shut down.
fn serve(listener: &TcpListener, end: End) -> io::Result<()> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            accepted => accepted?,
        };
        if end == End::Rst {
            stream.write_all(b"x")?;
        }
        match read_to_end(&mut stream) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => other?,
        }
    }
}

fn read_to_end(stream: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 16];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

/// Connections as fast as possible, with two threads per CPU.
pub fn storm(end: End, load: &Load, ready: impl FnOnce(u16) -> Result<()>) -> Result<Done> {
    run(cpus(), end, load, ready, |_, _| {})
}

/// Connections at this rate, one after the other.
pub fn steady(rate: u32, load: &Load, ready: impl FnOnce(u16) -> Result<()>) -> Result<Done> {
    run(1, End::Fin, load, ready, |begin, done| {
        let due = begin + Duration::from_secs_f64(done as f64 / f64::from(rate));
        thread::sleep(due.saturating_duration_since(Instant::now()));
    })
}

/// Runs `pairs` of a client and a server until the time is over. `pace` is called before each
/// connection with the time of the start and the number of connections so far.
fn run(
    pairs: usize,
    end: End,
    load: &Load,
    ready: impl FnOnce(u16) -> Result<()>,
    pace: impl Fn(Instant, u64) + Sync,
) -> Result<Done> {
    let service = Service::new(load.v6)?;
    let stop = AtomicBool::new(false);
    let (service, stop, pace) = (&service, &stop, &pace);
    thread::scope(|scope| {
        let servers: Vec<_> = (0..pairs).map(|_| scope.spawn(|| serve(&service.listener, end))).collect();
        ready(service.port())?;
        let begin = Instant::now();
        let clients: Vec<_> = (0..pairs)
            .map(|_| {
                scope.spawn(move || -> Result<u64> {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        pace(begin, count);
                        client(service.address(count)?, end).during("a connection")?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        thread::sleep(load.time);
        stop.store(true, Ordering::Relaxed);
        let counts = clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Err(Fault::new("a client panicked"))));
        let counts: Vec<_> = counts.collect();
        let time = begin.elapsed();
        SockRef::from(&service.listener).shutdown(Shutdown::Read).during("shut the listener down")?;
        for server in servers {
            server.join().map_err(|_| Fault::new("a server panicked"))?.during("a server")?;
        }
        let count = counts.into_iter().sum::<Result<u64>>()?;
        Ok(Done { count, time, events: 0 })
    })
}

/// Connects to a port without a listener, with one thread per CPU.
pub fn refused(load: &Load, ready: impl FnOnce(u16) -> Result<()>) -> Result<Done> {
    let Service { listener, addresses } = Service::new(load.v6)?;
    let (to, port) = addresses.first().map(|to| (*to, to.port())).ok_or_else(|| Fault::new("no address"))?;
    drop(listener);
    ready(port)?;
    let begin = Instant::now();
    let counts = thread::scope(|scope| {
        let clients: Vec<_> = (0..cpus())
            .map(|_| {
                scope.spawn(move || {
                    let mut count = 0_u64;
                    while begin.elapsed() < load.time {
                        match TcpStream::connect(to) {
                            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => count += 1,
                            other => {
                                return Err(Fault::new(format!(
                                    "a connect to a port without a listener: {other:?}"
                                )));
                            }
                        }
                    }
                    Ok(count)
                })
            })
            .collect();
        let join = |client: thread::ScopedJoinHandle<'_, Result<u64>>| {
            client.join().unwrap_or_else(|_| Err(Fault::new("a client panicked")))
        };
        clients.into_iter().map(join).sum::<Result<u64>>()
    });
    Ok(Done { count: counts?, time: begin.elapsed(), events: 0 })
}
