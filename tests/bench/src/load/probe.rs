//! Opens a connection every millisecond and records when each began. The first one that a tool
//! shows tells since when it sees connections.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Loading, begin, read_line, say};
use crate::fault::{During, Fault, Result};
use crate::watch::now;

/// The first argument of a process that opens these connections.
pub const FLAG: &str = "--probe";

/// The process: probes from the line `go` to the next line, then answers `times PORT:NANOS,…` with
/// the ports of the client.
pub fn run() -> Result<()> {
    begin()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).during("listen")?;
    let at = listener.local_addr().during("getsockname")?;
    say(&format!("ready {}", at.port()))?;
    read_line()?;
    say("probing")?;
    let over = AtomicBool::new(false);
    let times = thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                times.push(probe(&listener, at)?);
                thread::sleep(Duration::from_micros(900));
            }
            Ok(times)
        });
        let read = read_line();
        over.store(true, Ordering::Relaxed);
        read.and(prober.join().unwrap_or_else(|_| Err(Fault::new("the prober panicked"))))
    })?;
    let times: Vec<String> = times.iter().map(|(port, nanos)| format!("{port}:{nanos}")).collect();
    say(&format!("times {}", times.join(",")))
}

fn probe(listener: &TcpListener, to: SocketAddr) -> Result<(u16, u64)> {
    let begin = now()?;
    let client = TcpStream::connect(to).during("connect")?;
    let port = client.local_addr().during("getsockname")?.port();
    listener.accept().during("accept")?;
    Ok((port, begin))
}

/// A process that opens these connections.
#[derive(Debug)]
pub struct Probe(Loading);

impl Probe {
    pub fn start() -> Result<Self> {
        let mut loading = Loading::role(FLAG, "")?;
        loading.request("go", "probing")?;
        Ok(Self(loading))
    }

    /// Stops it; returns the port of each client and when its connection began.
    pub fn stop(mut self) -> Result<Vec<(u16, u64)>> {
        let words = self.0.request("stop", "times")?;
        let pair = |word: &str| {
            word.split_once(':').and_then(|(port, nanos)| Some((port.parse().ok()?, nanos.parse().ok()?)))
        };
        Ok(words.split(',').filter_map(pair).collect())
    }
}

/// When the connection began whose port occurs first in the rows.
pub fn first_seen(rows: &[u8], probes: &[(u16, u64)]) -> Option<u64> {
    let text = String::from_utf8_lossy(rows);
    let mut numbers =
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u16>().ok());
    numbers.find_map(|number| probes.iter().find(|(port, _)| *port == number).map(|(_, nanos)| *nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_port_in_the_rows_counts() {
        let probes = [(40000, 10), (40001, 20), (40002, 30)];
        let rows = b"LPORT RPORT\n7 127.0.0.1 8080 127.0.0.1 40001\n7 127.0.0.1:40002\n";
        assert_eq!(first_seen(rows, &probes), Some(20));
        assert_eq!(first_seen(b"LPORT\n", &probes), None);
    }
}
