//! A tool that runs, seen from outside: by `/proc` and by what it writes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fault::{During, Fault, Result};
use crate::proc::{self, Memory};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// What a tool may take to end: the slowest gives back 100,000 of its own pages first.
const END: Duration = Duration::from_secs(20);

/// A tool that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Memory instead of pipes: nobody has to read, and so nobody takes the CPU from what is measured.
    rows: File,
    said: File,
}

/// What is left of a tool.
#[derive(Debug)]
pub struct Stopped {
    /// Its standard output.
    pub rows: Vec<u8>,
    /// From the signal to the end of the process.
    pub took: Duration,
    /// CPU in user mode, from exec to the end.
    pub user: Duration,
}

/// A tool whose process is there, and that begins when it is told.
#[derive(Debug)]
pub struct Held {
    running: Running,
    line: ChildStdin,
}

impl Held {
    /// Makes the process.
    pub fn hold(command: &Command) -> Result<Self> {
        let mut holder = Command::new("/proc/self/exe");
        holder.arg(EXEC).arg(command.get_program()).args(command.get_args()).stdin(Stdio::piped());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                holder.env(name, value);
            }
        }
        let mut running = Running::spawn(holder)?;
        let line = running.child.stdin.take().ok_or_else(|| Fault::new("no pipe"))?;
        Ok(Self { running, line })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Lets it begin.
    pub fn go(mut self) -> Result<Running> {
        self.line.write_all(b"go\n").during("tell a tool to begin")?;
        Ok(self.running)
    }
}

/// The first argument of a process that waits to become a tool.
pub const EXEC: &str = "--exec";

impl Running {
    /// Starts a tool. Nothing is waited for.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let [rows, said] = [c"rows", c"said"].map(|name| memfd_create(name, MFdFlags::MFD_CLOEXEC));
        let [rows, said] = [File::from(rows.during("memfd")?), File::from(said.during("memfd")?)];
        let copy = |file: &File| file.try_clone().map(Stdio::from).during("dup");
        command.stdout(copy(&rows)?).stderr(copy(&said)?).process_group(0);
        let child = command.spawn().during(format_args!("start {}", command.get_program().display()))?;
        Ok(Self { child, rows, said })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it holds programs that are attached and sleeps.
    pub fn wait_attached(&mut self, limit: Duration) -> Result<()> {
        self.wait_until(limit, |running| Ok(proc::is_attached(running.pid())))
    }

    /// Waits until it writes no more: what there was to say is written.
    pub fn wait_quiet(&mut self, limit: Duration) -> Result<()> {
        /// Longer than any tool leaves events in its buffers.
        const QUIET: Duration = Duration::from_millis(120);
        let begin = Instant::now();
        let (mut length, mut since) = (self.length()?, Instant::now());
        while since.elapsed() < QUIET {
            self.wait_a_look(begin, limit)?;
            let now = self.length()?;
            if now != length {
                (length, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits a moment; an error when the tool has ended or the time is over.
    fn wait_a_look(&mut self, begin: Instant, limit: Duration) -> Result<()> {
        if let Some(status) = self.child.try_wait().during("wait")? {
            let said = read(&mut self.said)?;
            let reason = reason(&String::from_utf8_lossy(&said));
            return Err(Fault::new(format!("{reason} ({status})")));
        }
        if begin.elapsed() > limit {
            return Err(Fault::new(format!("not within {limit:?}")));
        }
        thread::sleep(LOOK);
        Ok(())
    }

    /// Looks at it until something holds.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        while !holds(self)? {
            self.wait_a_look(begin, limit)?;
        }
        Ok(())
    }

    /// Bytes that it has written.
    pub fn length(&self) -> Result<u64> {
        self.rows.metadata().map(|meta| meta.len()).during("stat")
    }

    /// Its memory now.
    pub fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid())
    }

    /// CPU in user mode so far.
    pub fn user(&self) -> Result<Duration> {
        proc::user_time(self.pid())
    }

    /// CPU in all so far.
    pub fn cpu(&self) -> Result<Duration> {
        proc::cpu_time(self.pid())
    }

    /// The numbers of the kernel's programs that it holds.
    pub fn programs(&self) -> BTreeSet<u32> {
        proc::programs(self.pid())
    }

    /// Stops it as a user does, by Ctrl-C.
    pub fn stop(mut self) -> Result<Stopped> {
        let before = user_of_children()?;
        let pid = i32::try_from(self.pid()).during("pid")?;
        let begin = Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGINT).during("SIGINT")?;
        let mut ended = self.child.try_wait().during("wait")?;
        while ended.is_none() && begin.elapsed() < END {
            thread::sleep(Duration::from_micros(200));
            ended = self.child.try_wait().during("wait")?;
        }
        let took = begin.elapsed();
        if ended.is_none() {
            return Err(Fault::new(format!("did not end within {END:?} of Ctrl-C")));
        }
        let user = user_of_children()?.saturating_sub(before);
        Ok(Stopped { rows: read(&mut self.rows)?, took, user })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).during("read what a tool wrote")?;
    Ok(bytes)
}

/// CPU in user mode of all children that were waited for.
fn user_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).during("getrusage")?;
    let time = usage.user_time();
    let micros = u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).during("a time")?;
    Ok(Duration::from_micros(micros))
}

/// Waits for a line on standard input and becomes the program that the words name: its process is known before it begins.
pub fn exec_when_told(words: &[String]) -> Fault {
    let [program, args @ ..] = words else { return Fault::new("--exec needs a program") };
    let mut line = String::new();
    if let Err(error) = std::io::stdin().read_line(&mut line) {
        return Fault::new(format!("standard input: {error}"));
    }
    Fault::new(format!("{program}: {}", Command::new(program).args(args).exec()))
}

/// Lines of a tool that name a port as a number of its own.
pub fn lines_with(rows: &[u8], port: u16) -> u64 {
    let port = port.to_string();
    let has = |line: &[u8]| {
        line.windows(port.len()).enumerate().any(|(at, window)| {
            let beside = |at: Option<usize>| at.and_then(|at| line.get(at)).is_some_and(u8::is_ascii_digit);
            window == port.as_bytes() && !beside(at.checked_sub(1)) && !beside(at.checked_add(port.len()))
        })
    };
    rows.split(|&byte| byte == b'\n').filter(|line| has(line)).count() as u64
}

/// The reason among what a tool said before it gave up: its first line that is no warning.
fn reason(said: &str) -> Fault {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.find(|line| !line.contains("modprobe") && !line.contains("RLIMIT_MEMLOCK")) {
        // BCC says which directory it did not find.
        Some(line) if line.contains("/lib/modules/") => Fault::new("no headers of this kernel"),
        Some(line) => Fault::new(line),
        None => Fault::new("ended without a word"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_first_line_that_gives_one() {
        let bcc = reason("sh: 1: modprobe: not found\nchdir(/lib/modules/6.18/build): No such file\nmore\n");
        assert_eq!(bcc.to_string(), "no headers of this kernel");
        assert_eq!(reason("libbpf: no\nlibbpf: more\n").to_string(), "libbpf: no");
        assert_eq!(reason("\n").to_string(), "ended without a word");
    }

    #[test]
    fn a_port_is_a_number_of_its_own() {
        let rows = b"LPORT RPORT\n1 a 127.0.0.1 8080 127.0.0.1 40000\n2 b 127.0.0.1:40000 > 127.0.0.1:8080\n180801 8080x\n";
        assert_eq!(lines_with(rows, 8080), 3);
        assert_eq!(lines_with(rows, 40000), 2);
        assert_eq!(lines_with(rows, 808), 0);
        assert_eq!(lines_with(b"", 1), 0);
    }
}
