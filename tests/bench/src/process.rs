//! Runs a tool and observes it from outside: through `/proc` and through its output.

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

/// Time between two looks at a process.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Time limit for a tool to exit: the slowest first gives 100,000 of its pages back.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

/// A running tool. Dropping it kills the process.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Standard output, a memfd: unlike a pipe, it needs no reader that would take CPU time from
    /// the tool.
    stdout: File,
    stderr: File,
}

/// What a tool leaves when it has exited.
#[derive(Debug)]
pub struct Stopped {
    /// Its standard output.
    pub rows: Vec<u8>,
    /// From the signal to the end of the process.
    pub took: Duration,
    /// CPU time in user mode, from exec to the exit.
    pub user: Duration,
}

/// A process that waits for [`Waiting::exec`] to become a tool: its pid is known before its exec.
#[derive(Debug)]
pub struct Waiting {
    running: Running,
    line: ChildStdin,
}

impl Waiting {
    pub fn new(command: &Command) -> Result<Self> {
        let mut waiting = Command::new("/proc/self/exe");
        waiting.arg(EXEC).arg(command.get_program()).args(command.get_args()).stdin(Stdio::piped());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                waiting.env(name, value);
            }
        }
        let mut running = Running::spawn(waiting)?;
        let line = running.child.stdin.take().ok_or_else(|| Fault::new("the process has no pipe"))?;
        Ok(Self { running, line })
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Lets it become the tool.
    pub fn exec(mut self) -> Result<Running> {
        self.line.write_all(b"go\n").during("start a tool that waits")?;
        Ok(self.running)
    }
}

/// The first argument of a process that waits to become a tool.
pub const EXEC: &str = "--exec";

impl Running {
    /// Starts a tool and does not wait for anything.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let [stdout, stderr] = [c"stdout", c"stderr"].map(|name| memfd_create(name, MFdFlags::MFD_CLOEXEC));
        let [stdout, stderr] = [File::from(stdout.during("memfd")?), File::from(stderr.during("memfd")?)];
        let copy = |file: &File| file.try_clone().map(Stdio::from).during("dup");
        command.stdout(copy(&stdout)?).stderr(copy(&stderr)?).process_group(0);
        let child = command.spawn().during(format_args!("start {}", command.get_program().display()))?;
        Ok(Self { child, stdout, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has attached programs and sleeps.
    pub fn wait_attached(&mut self, limit: Duration) -> Result<()> {
        self.wait_until(limit, |running| Ok(proc::is_attached(running.pid())))
    }

    /// Waits until it has written nothing for a while: then all rows are written.
    pub fn wait_quiet(&mut self, limit: Duration) -> Result<()> {
        /// Longer than any tool keeps events in its buffers.
        const QUIET: Duration = Duration::from_millis(120);
        let begin = Instant::now();
        let (mut length, mut since) = (self.length()?, Instant::now());
        while since.elapsed() < QUIET {
            self.poll(begin, limit)?;
            let now = self.length()?;
            if now != length {
                (length, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits for [`POLL_INTERVAL`]. An error if the tool has exited or the time limit is over.
    fn poll(&mut self, begin: Instant, limit: Duration) -> Result<()> {
        if let Some(status) = self.child.try_wait().during("wait")? {
            let stderr = read(&mut self.stderr)?;
            let reason = reason(&String::from_utf8_lossy(&stderr));
            return Err(Fault::new(format!("{reason} ({status})")));
        }
        if begin.elapsed() > limit {
            return Err(Fault::new(format!("took more than {limit:?}")));
        }
        thread::sleep(POLL_INTERVAL);
        Ok(())
    }

    /// Polls it until a condition is true.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        while !condition(self)? {
            self.poll(begin, limit)?;
        }
        Ok(())
    }

    /// Bytes that it has written to standard output.
    pub fn length(&self) -> Result<u64> {
        self.stdout.metadata().map(|meta| meta.len()).during("stat")
    }

    pub fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid())
    }

    pub fn user(&self) -> Result<Duration> {
        proc::user_time(self.pid())
    }

    /// Total CPU time.
    pub fn cpu(&self) -> Result<Duration> {
        proc::cpu_time(self.pid())
    }

    /// The ids of its BPF programs.
    pub fn programs(&self) -> BTreeSet<u32> {
        proc::programs(self.pid())
    }

    /// Stops it with SIGINT, as Ctrl-C does, and waits for its exit.
    pub fn stop(mut self) -> Result<Stopped> {
        let before = user_of_children()?;
        let pid = i32::try_from(self.pid()).during("pid")?;
        let begin = Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGINT).during("SIGINT")?;
        let mut ended = self.child.try_wait().during("wait")?;
        while ended.is_none() && begin.elapsed() < EXIT_LIMIT {
            thread::sleep(Duration::from_micros(200));
            ended = self.child.try_wait().during("wait")?;
        }
        let took = begin.elapsed();
        if ended.is_none() {
            return Err(Fault::new(format!("did not exit within {EXIT_LIMIT:?} of SIGINT")));
        }
        let user = user_of_children()?.saturating_sub(before);
        Ok(Stopped { rows: read(&mut self.stdout)?, took, user })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).during("read the output of a tool")?;
    Ok(bytes)
}

/// CPU time in user mode of all children that have exited and were waited for.
fn user_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).during("getrusage")?;
    let time = usage.user_time();
    let micros = u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).during("a time")?;
    Ok(Duration::from_micros(micros))
}

/// The waiting process: reads a line from standard input, then executes the command. Returns only
/// if that fails.
pub fn wait_and_exec(words: &[String]) -> Fault {
    let [program, args @ ..] = words else { return Fault::new("--exec needs a program") };
    let mut line = String::new();
    if let Err(error) = std::io::stdin().read_line(&mut line) {
        return Fault::new(format!("standard input: {error}"));
    }
    Fault::new(format!("{program}: {}", Command::new(program).args(args).exec()))
}

/// The number of lines that contain a port, not as a part of a longer number.
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

/// The reason in the messages of a tool that gave up: the first line that is not a warning.
fn reason(messages: &str) -> Fault {
    let mut lines = messages.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.find(|line| !line.contains("modprobe") && !line.contains("RLIMIT_MEMLOCK")) {
        // BCC names the directory that it did not find.
        Some(line) if line.contains("/lib/modules/") => Fault::new("kernel headers are not installed"),
        Some(line) => Fault::new(line),
        None => Fault::new("exited without a message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_first_line_that_is_not_a_warning() {
        let bcc = reason("sh: 1: modprobe: not found\nchdir(/lib/modules/6.18/build): No such file\nmore\n");
        assert_eq!(bcc.to_string(), "kernel headers are not installed");
        assert_eq!(reason("libbpf: no\nlibbpf: more\n").to_string(), "libbpf: no");
        assert_eq!(reason("\n").to_string(), "exited without a message");
    }

    #[test]
    fn a_port_is_a_whole_number() {
        let rows = b"LPORT RPORT\n1 a 127.0.0.1 8080 127.0.0.1 40000\n2 b 127.0.0.1:40000 > 127.0.0.1:8080\n180801 8080x\n";
        assert_eq!(lines_with(rows, 8080), 3);
        assert_eq!(lines_with(rows, 40000), 2);
        assert_eq!(lines_with(rows, 808), 0);
        assert_eq!(lines_with(b"", 1), 0);
    }
}
