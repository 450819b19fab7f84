//! Loads: the traffic that the tools watch. Each is a separate process in its own network
//! namespaces, with a limit on its time.
//!
//! The process writes `ready PORT`, waits for the line `go`, does its work, and writes
//! `done COUNT NANOS EVENTS`. It exits at the end of its input.

mod lossy;
pub mod open;
pub mod probe;
mod storm;
mod stream;

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use kernel_tests::netns::Netns;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::fault::{During, Fault, Result};

/// The first argument of a process that is a load.
pub const FLAG: &str = "--load";

/// How connections of a storm end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The client closes first, the server when it has received the FIN.
    Fin,
    /// The client resets the connection.
    Rst,
}

/// The kind of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Connections, opened and closed as fast as two threads per CPU can.
    Storm(End),
    /// This many connections per second, one after the other.
    Steady(u32),
    /// Connects to a port without a listener, as fast as possible.
    Refused,
    /// One connection for every two CPUs, with sends of this many bytes.
    Stream(u32),
    /// Connections between two namespaces that lose this percentage of their packets.
    Lossy(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    pub kind: Kind,
    /// Whether it uses IPv6.
    pub v6: bool,
    /// How long it runs.
    pub time: Duration,
}

/// The result of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Connections; of a stream, bytes received.
    pub count: u64,
    pub time: Duration,
    /// Sends of a stream, or retransmitted segments by the kernel's count; else 0.
    pub events: u64,
}

impl Done {
    /// The count per second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }
}

impl Load {
    /// A load over IPv4.
    pub fn new(kind: Kind, time: Duration) -> Self {
        Self { kind, v6: false, time }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, number) = match self.kind {
            Kind::Storm(End::Fin) => ("storm", 0),
            Kind::Storm(End::Rst) => ("storm-rst", 0),
            Kind::Steady(rate) => ("steady", rate),
            Kind::Refused => ("refused", 0),
            Kind::Stream(bytes) => ("stream", bytes),
            Kind::Lossy(percent) => ("lossy", percent),
        };
        write!(f, "{name} {number} {} {}", if self.v6 { "v6" } else { "v4" }, self.time.as_millis())
    }
}

impl FromStr for Load {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Fault::new(format!("not a load: {text}"));
        let words: Vec<&str> = text.split(' ').collect();
        let [name, number, family, millis] = words[..] else { return Err(wrong()) };
        let number = number.parse().map_err(|_| wrong())?;
        let kind = match name {
            "storm" => Kind::Storm(End::Fin),
            "storm-rst" => Kind::Storm(End::Rst),
            "steady" => Kind::Steady(number),
            "refused" => Kind::Refused,
            "stream" => Kind::Stream(number),
            "lossy" => Kind::Lossy(number),
            _ => return Err(wrong()),
        };
        let time = Duration::from_millis(millis.parse().map_err(|_| wrong())?);
        Ok(Self { kind, v6: family == "v6", time })
    }
}

/// A process that runs a load. Dropping it kills the process.
#[derive(Debug)]
pub struct Loading {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// The port of its listener: it occurs in every row about the load.
    pub port: u16,
}

impl Loading {
    /// Starts a load and waits until it is ready.
    pub fn start(load: Load) -> Result<Self> {
        Self::role(FLAG, &load.to_string())
    }

    /// Starts this program in the role of a flag.
    pub fn role(flag: &str, what: &str) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args([flag, what]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().during("start a load")?;
        let (to, from) = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .ok_or_else(|| Fault::new("the process has no pipes"))?;
        let mut loading = Self { child, to, from: BufReader::new(from), port: 0 };
        let words = loading.answer("ready")?;
        loading.port = words.trim().parse().during("a port")?;
        Ok(loading)
    }

    /// Runs the load to its end.
    pub fn go(&mut self) -> Result<Done> {
        self.request("go", "done").and_then(|words| done(&words))
    }

    /// Writes a line and waits for an answer that begins with `word`; returns the rest of it.
    pub fn request(&mut self, line: &str, word: &str) -> Result<String> {
        self.to.write_all(format!("{line}\n").as_bytes()).during("a load")?;
        self.answer(word)
    }

    fn answer(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line).during("a load")?;
        let rest = line.trim_end().strip_prefix(word);
        rest.map(|rest| rest.trim_start().to_owned())
            .ok_or_else(|| Fault::new(format!("unexpected answer of a load: {line:?}")))
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        // Both fail only if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn done(words: &str) -> Result<Done> {
    let numbers: Vec<u64> = words.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [count, nanos, events] = numbers[..] else {
        return Err(Fault::new(format!("not a result: {words}")));
    };
    Ok(Done { count, time: Duration::from_nanos(nanos), events })
}

/// The process of a load.
pub fn run(what: &str) -> Result<()> {
    let load: Load = what.parse()?;
    begin()?;
    let ready = |port: u16| {
        say(&format!("ready {port}"))?;
        read_line().map(drop)
    };
    let done = match load.kind {
        Kind::Storm(end) => storm::storm(end, &load, ready),
        Kind::Steady(rate) => storm::steady(rate, &load, ready),
        Kind::Refused => storm::refused(&load, ready),
        Kind::Stream(bytes) => stream::stream(bytes, &load, ready),
        Kind::Lossy(percent) => lossy::lossy(percent, &load, ready),
    }?;
    say(&format!("done {} {} {}", done.count, done.time.as_nanos(), done.events))?;
    while !read_line()?.is_empty() {}
    Ok(())
}

/// Lets this process be killed when its parent exits, and moves it into a new network namespace.
fn begin() -> Result<Netns> {
    prctl::set_pdeathsig(Signal::SIGKILL).during("PR_SET_PDEATHSIG")?;
    let netns = Netns::enter_new();
    netns.set_sysctl("net/ipv4/ip_local_port_range", "2048 65535");
    netns.set_sysctl("net/core/somaxconn", "65535");
    Ok(netns)
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).during("standard output")
}

/// The next line of standard input; empty at its end.
fn read_line() -> Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).during("standard input")?;
    Ok(line)
}

/// The number of CPUs that this process can use.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_parsed_from_its_text() {
        for kind in [
            Kind::Storm(End::Fin),
            Kind::Storm(End::Rst),
            Kind::Steady(3000),
            Kind::Refused,
            Kind::Stream(64),
            Kind::Lossy(5),
        ] {
            for v6 in [false, true] {
                let load = Load { kind, v6, time: Duration::from_millis(700) };
                assert_eq!(load.to_string().parse(), Ok(load));
            }
        }
        for wrong in ["", "storm", "flood 0 v4 1", "storm x v4 1", "storm 0 v4 1 2"] {
            assert!(wrong.parse::<Load>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_result_has_three_numbers() {
        let got = done("10 2000000000 3").unwrap();
        assert_eq!((got.count, got.events), (10, 3));
        assert!((got.rate() - 5.0).abs() < 1e-9);
        assert!(done("10 x 3").is_err());
    }
}
