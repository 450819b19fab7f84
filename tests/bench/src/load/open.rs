//! Keeps connections open, in growing numbers, and sends bytes through them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Loading, begin, read_line, say};
use crate::fault::{During, Fault, Result};

/// The first argument of a process that keeps sockets open.
pub const FLAG: &str = "--open-sockets";

/// The greatest number of sockets, both ends counted.
pub const MAX_SOCKETS: u64 = 100_000;

/// Connections to one address, well below the number of ports.
const PER_ADDRESS: usize = 20_000;

/// Processes that together keep sockets open, each up to its limit of open files.
#[derive(Debug)]
pub struct OpenSockets {
    /// Sockets per process.
    each: u64,
    parts: Vec<Loading>,
}

impl OpenSockets {
    pub fn new() -> Result<Self> {
        /// Files of such a process that are not sockets of the load.
        const OTHER_FILES: u64 = 100;
        let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).during("RLIMIT_NOFILE")?;
        let each = limit.saturating_sub(OTHER_FILES).clamp(1, MAX_SOCKETS);
        Ok(Self { each, parts: Vec::new() })
    }

    /// Opens connections until there are this many sockets.
    pub fn open(&mut self, sockets: u64) -> Result<()> {
        while (self.parts.len() as u64) < sockets.div_ceil(self.each) {
            self.parts.push(Loading::role(FLAG, "")?);
        }
        self.request("open", "opened", sockets)
    }

    /// Sends a byte through each connection of the first `sockets` sockets.
    pub fn touch(&mut self, sockets: u64) -> Result<()> {
        self.request("touch", "touched", sockets)
    }

    fn request(&mut self, word: &str, answer: &str, mut sockets: u64) -> Result<()> {
        for part in &mut self.parts {
            let some = sockets.min(self.each);
            sockets -= some;
            if some > 0 {
                part.request(&format!("{word} {some}"), answer)?;
            }
        }
        Ok(())
    }
}

/// The process: at `open N` it opens connections until there are `N` sockets and answers
/// `opened N`; at `touch N` it sends a byte through each of the first connections, which have `N`
/// sockets, and answers `touched N`.
pub fn run() -> Result<()> {
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).during("RLIMIT_NOFILE")?;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).during("RLIMIT_NOFILE")?;
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
            "open" => {
                // The listener is one of the sockets.
                while pairs.len() * 2 + 1 < sockets {
                    let group = u8::try_from(pairs.len() / PER_ADDRESS + 1).during("a group")?;
                    let to = SocketAddr::from((Ipv4Addr::new(127, 78, 0, group), port));
                    let client = TcpStream::connect(to).during("connect")?;
                    pairs.push((client, listener.accept().during("accept")?.0));
                }
                say(&format!("opened {sockets}"))?;
            }
            "touch" => {
                for (client, server) in pairs.iter_mut().take(sockets.div_ceil(2)) {
                    client.write_all(b"x").during("send")?;
                    server.read_exact(&mut [0]).during("receive")?;
                }
                say(&format!("touched {sockets}"))?;
            }
            _ => return Err(Fault::new(format!("unknown request {word}"))),
        }
    }
}
