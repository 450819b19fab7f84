//! Runs the built tcptools, waits for what it says, and shows all of it when something is wrong.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline::{Deadline, WAIT_LIMIT, wait_until};
use crate::rows;

/// Where the tool under test is: `$TCPTOOLS`, or the binary cargo built beside this test.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn binary() -> PathBuf {
    let path = std::env::var_os("TCPTOOLS").map_or_else(
        || {
            // target/TRIPLE/PROFILE/deps/kernel-HASH
            let own = std::env::current_exe().expect("the path of this program");
            own.ancestors().nth(2).unwrap_or(&own).join("tcptools")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "no tcptools at {}: build it (cargo build -p tools) or set TCPTOOLS to where it is",
        path.display()
    );
    path
}

/// `tcptools` with arguments, to be run.
#[must_use]
pub fn tcptools<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.args(args);
    command
}

/// Runs `tcptools` to its end, which it has to reach by itself.
#[must_use]
#[track_caller]
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Tool::spawn(tcptools(args)).finish()
}

/// A pipe of the tool and what has come out of it.
#[derive(Debug)]
struct Pipe<R> {
    /// `None` after its end.
    source: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(source: Option<R>) -> Self {
        Self { source, bytes: Vec::new() }
    }

    /// Reads what there is, which `poll(2)` said is something.
    fn read(&mut self) {
        let Some(source) = &mut self.source else { return };
        let mut chunk = [0; 64 * 1024];
        match source.read(&mut chunk) {
            Ok(0) => self.source = None,
            Ok(n) => self.bytes.extend(&chunk[..n]),
            Err(e) => panic!("read from the tool: {e}"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A tool that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    command: String,
    stdout: Pipe<ChildStdout>,
    stderr: Pipe<ChildStderr>,
}

/// What a tool has said so far, or in all.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line.
    pub command: String,
    /// `None` while it runs.
    pub status: Option<ExitStatus>,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Tool {
    /// Starts `tcptools TOOL ARGS -v` and waits until it is attached: what happens from now on it has to report.
    #[must_use]
    #[track_caller]
    pub fn start(tool: &str, args: &[&str]) -> Self {
        let mut started = Self::spawn(tcptools([&[tool][..], args, &["-v"]].concat()));
        started.wait_attached(tool);
        started
    }

    /// Starts a command with its output in pipes.
    #[must_use]
    #[track_caller]
    pub fn spawn(command: Command) -> Self {
        Self::spawn_to(command, Stdio::piped())
    }

    /// Starts a command with standard output of the test's choice.
    #[must_use]
    #[track_caller]
    pub fn spawn_to(mut command: Command, stdout: Stdio) -> Self {
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start {shown}: {e}"));
        let (stdout, stderr) = (Pipe::new(child.stdout.take()), Pipe::new(child.stderr.take()));
        Self { child, command: shown, stdout, stderr }
    }

    /// The tool's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line that `-v` prints once all programs are attached.
    #[track_caller]
    pub fn wait_attached(&mut self, tool: &str) {
        let line = format!("tcptools: {tool}: attached");
        self.wait_for(&format!("line `{line}` on standard error"), |seen| {
            seen.stderr.lines().any(|l| l == line)
        });
    }

    /// Reads until a condition on the output holds. Only complete lines are shown to it, all of them each time; for many rows
    /// see [`Self::wait_rows`].
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, mut holds: impl FnMut(&Output) -> bool) {
        self.wait(what, |tool| holds(&tool.complete_lines()));
    }

    /// Reads until there are so many rows of a network namespace. Each line is looked at once.
    #[track_caller]
    pub fn wait_rows(&mut self, netns: u64, count: usize) {
        let (mut looked, mut rows) = (0, 0);
        self.wait(&format!("{count} rows of namespace {netns}"), |tool| {
            let fresh = &tool.stdout.bytes[looked..];
            let complete = fresh.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let text = String::from_utf8_lossy(&fresh[..complete]);
            rows += text.lines().filter(|line| rows::is_of(line, netns)).count();
            looked += complete;
            rows >= count
        });
    }

    /// Reads while something else goes on that takes its time, so that the tool never waits for its reader.
    ///
    /// # Panics
    /// If `work` does.
    pub fn read_during<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        /// How soon the end of the work is seen when the tool says nothing.
        const LOOK: u16 = 10;
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() && self.pump(PollTimeout::from(LOOK)) {}
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    #[track_caller]
    fn wait(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Deadline::after(WAIT_LIMIT);
        while !holds(self) {
            let Some(timeout) = deadline.poll_timeout() else {
                panic!("no {what} within {:?}\n{}", deadline.limit(), self.seen());
            };
            if !self.pump(timeout) {
                let status = self.reap();
                let seen = Output { status: Some(status), ..self.seen() };
                assert!(holds(self), "the tool ended before {what}\n{seen}");
                return;
            }
        }
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid is a positive i32");
        kill(Pid::from_raw(pid), signal).unwrap_or_else(|e| panic!("{signal} to {}: {e}", self.command));
    }

    /// Stops the tool as a user does, by Ctrl-C, and returns all it has said.
    #[must_use]
    #[track_caller]
    pub fn stop(self) -> Output {
        self.signal(Signal::SIGINT);
        self.finish()
    }

    /// Waits for so many rows of a network namespace and then stops the tool, which prints what is pending: a row too many shows
    /// as well.
    #[must_use]
    #[track_caller]
    pub fn stop_after(mut self, netns: u64, rows: usize) -> Output {
        self.wait_rows(netns, rows);
        let output = self.stop();
        output.assert_code(0).assert_complete_lines();
        output
    }

    /// Waits for the tool's end.
    #[must_use]
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let deadline = Deadline::after(WAIT_LIMIT);
        loop {
            let Some(timeout) = deadline.poll_timeout() else {
                panic!("the tool did not end within {:?}\n{}", deadline.limit(), self.seen());
            };
            if !self.pump(timeout) {
                break;
            }
        }
        let status = self.reap();
        Output { status: Some(status), ..self.seen() }
    }

    /// Closes the reading end of the tool's standard output, as `head` does when it has enough.
    pub fn close_stdout(&mut self) {
        self.stdout.source = None;
    }

    /// What has been read so far, an unfinished line at the end of standard output included.
    #[must_use]
    pub fn seen(&self) -> Output {
        Output {
            command: self.command.clone(),
            status: None,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }

    fn complete_lines(&self) -> Output {
        let mut seen = self.seen();
        for text in [&mut seen.stdout, &mut seen.stderr] {
            text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        }
        seen
    }

    /// Reads what comes within `timeout`. False when both pipes have ended.
    fn pump(&mut self, timeout: PollTimeout) -> bool {
        let mut fds = Vec::new();
        fds.extend(self.stdout.source.as_ref().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)));
        let has_stdout = !fds.is_empty();
        fds.extend(self.stderr.source.as_ref().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)));
        if fds.is_empty() {
            return false;
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        let (stdout, stderr) = if has_stdout { (Some(0), 1) } else { (None, 0) };
        if stdout.is_some_and(|at| ready[at]) {
            self.stdout.read();
        }
        if ready.get(stderr) == Some(&true) {
            self.stderr.read();
        }
        true
    }

    /// Takes the status of a tool that has closed its output, which it does by ending.
    #[track_caller]
    fn reap(&mut self) -> ExitStatus {
        let command = self.command.clone();
        wait_until("end of the tool's process", WAIT_LIMIT, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("{command} still runs")),
            Err(e) => Err(e.to_string()),
        })
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Both fail only when the tool has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Fails unless the tool ended by itself with this code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        let got = self.status.and_then(|s| s.code());
        assert!(got == Some(code), "the exit code has to be {code}\n{self}");
        self
    }

    /// Fails when standard output has anything.
    #[track_caller]
    pub fn assert_no_stdout(&self) -> &Self {
        assert!(self.stdout.is_empty(), "standard output has to be empty\n{self}");
        self
    }

    /// Fails unless this was wrong usage: exit code 2, nothing done, and one line that names what is wrong.
    #[track_caller]
    pub fn assert_wrong_usage(&self, named: &str) {
        self.assert_code(2).assert_no_stdout();
        assert!(self.one_line().contains(named), "the line has to name {named}\n{self}");
    }

    /// Its complaint, which has to be exactly one line that begins with the program's name.
    #[must_use]
    #[track_caller]
    pub fn one_line(&self) -> &str {
        match self.complaints()[..] {
            [line] if line.starts_with("tcptools: ") => line,
            _ => panic!("standard error has to be one line `tcptools: ...`\n{self}"),
        }
    }

    /// What a tool started by [`Tool::start`] has said on standard error since it was attached.
    #[must_use]
    #[track_caller]
    pub fn stderr_since_attached(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.stderr.lines().collect();
        match lines.iter().position(|l| l.ends_with(": attached")) {
            Some(at) => lines[at + 1..].to_vec(),
            None => panic!("the tool was never attached\n{self}"),
        }
    }

    /// What it has said on standard error, but for what it says at every start on some kernels ([`crate::requirements::spares_init`]).
    #[must_use]
    pub fn complaints(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| !line.contains(" leaves out what happens in process 1 ")).collect()
    }

    /// Fails when the output ends within a line.
    #[track_caller]
    pub fn assert_complete_lines(&self) -> &Self {
        assert!(
            self.stdout.is_empty() || self.stdout.ends_with('\n'),
            "standard output ends within a line\n{self}"
        );
        self
    }
}

/// All that is needed to see what went wrong.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            None => "runs".to_owned(),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => status.to_string(),
            },
        };
        write!(
            f,
            "command: {}\nstatus:  {status}\nstandard output:\n{}standard error:\n{}",
            self.command,
            shown(&self.stdout),
            shown(&self.stderr)
        )
    }
}

/// A text as it is, or the ends of a long one, with every line indented so that it cannot be taken for the test's own words.
fn shown(text: &str) -> String {
    const ENDS: usize = 100;
    let lines: Vec<&str> = text.lines().collect();
    let indented = |lines: &[&str]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    if lines.len() <= 2 * ENDS {
        return indented(&lines);
    }
    let (head, tail) = (&lines[..ENDS], &lines[lines.len() - ENDS..]);
    format!("{}    ... {} lines ...\n{}", indented(head), lines.len() - 2 * ENDS, indented(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle() {
        let text: String = (0..1000).map(|n| format!("{n}\n")).collect();
        let shown = shown(&text);
        assert!(shown.starts_with("    0\n") && shown.ends_with("    999\n"));
        assert!(shown.contains("    99\n    ... 800 lines ...\n    900\n"), "{shown}");
    }

    #[test]
    fn output_is_read_and_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; printf thr; exit 3"]);
        let mut tool = Tool::spawn(command);
        tool.wait_for("the first line", |seen| seen.stdout == "one\n");
        let output = tool.finish();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("one\nthr", "two\n"));
        output.assert_code(3);
    }

    #[test]
    #[should_panic(expected = "the tool ended before a line that never comes")]
    fn an_end_before_the_condition_is_a_failure() {
        Tool::spawn(Command::new("true")).wait_for("a line that never comes", |seen| !seen.stdout.is_empty());
    }
}
