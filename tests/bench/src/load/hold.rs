//! Connections that are held open, more and more of them, and bytes through all of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Loading, begin, read_line, say};
use crate::fault::{During, Fault, Result};

/// The first argument of a process that holds sockets.
pub const FLAG: &str = "--hold";

/// The most sockets, both ends counted.
pub const MOST: u64 = 100_000;

/// Connections towards one address, well below the number of ports.
const EACH: usize = 20_000;

/// Processes that hold sockets together, each as many as it may.
#[derive(Debug)]
pub struct Holders {
    /// Sockets of each.
    each: u64,
    parts: Vec<Loading>,
}

impl Holders {
    /// None yet.
    pub fn new() -> Result<Self> {
        /// Beside the sockets.
        const OTHER_FILES: u64 = 100;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).during("RLIMIT_NOFILE")?;
        let each = most.saturating_sub(OTHER_FILES).clamp(1, MOST);
        Ok(Self { each, parts: Vec::new() })
    }

    /// Opens connections until there are so many sockets.
    pub fn have(&mut self, sockets: u64) -> Result<()> {
        while (self.parts.len() as u64) < sockets.div_ceil(self.each) {
            self.parts.push(Loading::role(FLAG, "")?);
        }
        self.tell("have", "have", sockets)
    }

    /// Sends a byte through each connection of so many sockets.
    pub fn touch(&mut self, sockets: u64) -> Result<()> {
        self.tell("touch", "touched", sockets)
    }

    fn tell(&mut self, word: &str, answer: &str, mut sockets: u64) -> Result<()> {
        for part in &mut self.parts {
            let some = sockets.min(self.each);
            sockets -= some;
            if some > 0 {
                part.told(&format!("{word} {some}"), answer)?;
            }
        }
        Ok(())
    }
}

/// `have N`: opens connections until there are `N` sockets, answers `have N`. `touch N`: sends a byte through each of the
/// first connections that make up `N` sockets, answers `touched N`.
pub fn run() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).during("RLIMIT_NOFILE")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).during("RLIMIT_NOFILE")?;
    begin()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).during("listen")?;
    let port = listener.local_addr().during("getsockname")?.port();
    let mut pairs: Vec<(TcpStream, TcpStream)> = Vec::new();
    say(&format!("ready {port}"))?;
    loop {
        let line = read_line()?;
        let Some((word, number)) = line.trim_end().split_once(' ') else { return Ok(()) };
        let sockets: usize = number.parse().during("a number")?;
        match word {
            "have" => {
                // The listener is one of them.
                while pairs.len() * 2 + 1 < sockets {
                    let group = u8::try_from(pairs.len() / EACH + 1).during("a group")?;
                    let to = SocketAddr::from((Ipv4Addr::new(127, 78, 0, group), port));
                    let client = TcpStream::connect(to).during("connect")?;
                    pairs.push((client, listener.accept().during("accept")?.0));
                }
                say(&format!("have {sockets}"))?;
            }
            "touch" => {
                for (client, server) in pairs.iter_mut().take(sockets.div_ceil(2)) {
                    client.write_all(b"x").during("send")?;
                    server.read_exact(&mut [0]).during("receive")?;
                }
                say(&format!("touched {sockets}"))?;
            }
            _ => return Err(Fault::new(format!("cannot {word}"))),
        }
    }
}
