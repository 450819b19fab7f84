//! Runs the built tcptools, waits for its output, and shows all of it if a test fails.

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

/// The tool under test: `$TCPTOOLS`, or the binary that cargo built beside this test.
///
/// # Panics
/// If there is no such file.
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
        "no tcptools at {}: build it (cargo build -p tools) or set TCPTOOLS to its path",
        path.display()
    );
    path
}

/// The command `tcptools` with these arguments.
#[must_use]
pub fn tcptools<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.args(args);
    command
}

/// Runs `tcptools` until it ends by itself.
#[must_use]
#[track_caller]
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Tool::spawn(tcptools(args)).finish()
}

/// A pipe of the tool and the bytes read from it.
#[derive(Debug)]
struct Pipe<R> {
    /// `None` after the end of the pipe.
    source: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(source: Option<R>) -> Self {
        Self { source, bytes: Vec::new() }
    }

    /// Reads available bytes, once `poll(2)` has reported some.
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

/// A running tool. Dropping it kills the process.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    command: String,
    stdout: Pipe<ChildStdout>,
    stderr: Pipe<ChildStderr>,
}

/// The output of a tool, so far or complete.
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
    /// Starts `tcptools TOOL ARGS -v` and waits until it is attached. It must report all later
    /// events.
    #[must_use]
    #[track_caller]
    pub fn start(tool: &str, args: &[&str]) -> Self {
        let mut started = Self::spawn(tcptools([&[tool][..], args, &["-v"]].concat()));
        started.wait_attached(tool);
        started
    }

    /// Starts a command whose output goes to pipes.
    #[must_use]
    #[track_caller]
    pub fn spawn(command: Command) -> Self {
        Self::spawn_to(command, Stdio::piped())
    }

    /// Starts a command with this standard output.
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

    /// Waits for the line that `-v` prints once all programs have attached.
    #[track_caller]
    pub fn wait_attached(&mut self, tool: &str) {
        let line = format!("tcptools: {tool}: attached");
        self.wait_for(&format!("line `{line}` on standard error"), |seen| {
            seen.stderr.lines().any(|l| l == line)
        });
    }

    /// Reads until a condition on the output is met. It sees complete lines only, all of them each
    /// time; for many rows use [`Self::wait_rows`].
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, mut is_met: impl FnMut(&Output) -> bool) {
        self.wait(what, |tool| is_met(&tool.complete_lines()));
    }

    /// Reads until there are this many rows of a network namespace. Each line is checked once.
    #[track_caller]
    pub fn wait_rows(&mut self, netns: u64, count: usize) {
        let (mut checked, mut rows) = (0, 0);
        self.wait(&format!("{count} rows of namespace {netns}"), |tool| {
            let fresh = &tool.stdout.bytes[checked..];
            let complete = fresh.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let text = String::from_utf8_lossy(&fresh[..complete]);
            rows += text.lines().filter(|line| is_of(line, netns)).count();
            checked += complete;
            rows >= count
        });
    }

    /// Reads while `work` runs in another thread, so that the tool never waits for its reader.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn read_during<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        /// How often the end of the work is checked while the tool prints nothing.
        const CHECK_MILLIS: u16 = 10;
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() && self.pump(PollTimeout::from(CHECK_MILLIS)) {}
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    #[track_caller]
    fn wait(&mut self, what: &str, mut is_met: impl FnMut(&Self) -> bool) {
        let deadline = Deadline::after(WAIT_LIMIT);
        while !is_met(self) {
            let Some(timeout) = deadline.poll_timeout() else {
                panic!("no {what} within {:?}\n{}", deadline.limit(), self.seen());
            };
            if !self.pump(timeout) {
                let status = self.reap();
                let seen = Output { status: Some(status), ..self.seen() };
                assert!(is_met(self), "the tool ended before {what}\n{seen}");
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

    /// Stops the tool as Ctrl-C does, and returns its complete output.
    #[must_use]
    #[track_caller]
    pub fn stop(self) -> Output {
        self.signal(Signal::SIGINT);
        self.finish()
    }

    /// Waits for this many rows of a network namespace and then stops the tool. Stopping prints
    /// pending rows, so that an extra row is seen too.
    #[must_use]
    #[track_caller]
    pub fn stop_after(mut self, netns: u64, rows: usize) -> Output {
        self.wait_rows(netns, rows);
        let output = self.stop();
        output.assert_code(0).assert_complete_lines();
        output
    }

    /// Waits until the tool ends.
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

    /// Closes the reading end of the tool's standard output, as `head` does after its last line.
    pub fn close_stdout(&mut self) {
        self.stdout.source = None;
    }

    /// The output read so far, including an incomplete last line.
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

    /// Reads the output that arrives within `timeout`. False if both pipes have ended.
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

    /// The status of a tool that has closed its output because it ends.
    #[track_caller]
    fn reap(&mut self) -> ExitStatus {
        let command = self.command.clone();
        wait_until("end of the tool's process", WAIT_LIMIT, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("{command} is still running")),
            Err(e) => Err(e.to_string()),
        })
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Both fail only if the tool has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Fails unless the tool exited with this code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        let got = self.status.and_then(|s| s.code());
        assert!(got == Some(code), "the exit code must be {code}\n{self}");
        self
    }

    /// Fails unless standard output is empty.
    #[track_caller]
    pub fn assert_no_stdout(&self) -> &Self {
        assert!(self.stdout.is_empty(), "standard output must be empty\n{self}");
        self
    }

    /// Fails unless this was a usage error: exit code 2, no output, and one line that names the
    /// wrong argument.
    #[track_caller]
    pub fn assert_wrong_usage(&self, named: &str) {
        self.assert_code(2).assert_no_stdout();
        assert!(self.one_line().contains(named), "the line must name {named}\n{self}");
    }

    /// The message, which must be exactly one line that begins with the program's name.
    #[must_use]
    #[track_caller]
    pub fn one_line(&self) -> &str {
        match self.complaints()[..] {
            [line] if line.starts_with("tcptools: ") => line,
            _ => panic!("standard error must be one line `tcptools: ...`\n{self}"),
        }
    }

    /// The lines on standard error of a tool started by [`Tool::start`] since it was attached.
    #[must_use]
    #[track_caller]
    pub fn stderr_since_attached(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.stderr.lines().collect();
        match lines.iter().position(|l| l.ends_with(": attached")) {
            Some(at) => lines[at + 1..].to_vec(),
            None => panic!("the tool was never attached\n{self}"),
        }
    }

    /// The lines on standard error, without the line that is printed at every start on some kernels
    /// ([`crate::requirements::spares_init`]).
    #[must_use]
    pub fn complaints(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| !line.contains(" does not run BPF programs in PID 1, ")).collect()
    }

    /// Fails if standard output ends with an incomplete line.
    #[track_caller]
    pub fn assert_complete_lines(&self) -> &Self {
        assert!(
            self.stdout.is_empty() || self.stdout.ends_with('\n'),
            "standard output ends with an incomplete line\n{self}"
        );
        self
    }
}

/// Command, status and output, for failed tests.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            None => "running".to_owned(),
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

/// A text, or the first and last lines of a long text. Every line is indented, to distinguish it
/// from the test's own output.
fn shown(text: &str) -> String {
    const LINES_AT_EACH_END: usize = 100;
    let lines: Vec<&str> = text.lines().collect();
    let indented = |lines: &[&str]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    if lines.len() <= 2 * LINES_AT_EACH_END {
        return indented(&lines);
    }
    let (head, tail) = (&lines[..LINES_AT_EACH_END], &lines[lines.len() - LINES_AT_EACH_END..]);
    format!("{}    ... {} lines ...\n{}", indented(head), lines.len() - 2 * LINES_AT_EACH_END, indented(tail))
}

/// Whether a line looks like a row of this namespace. This is a quick check, because the tool may
/// have to wait while the test reads nothing. The rows are read strictly at the end.
pub(crate) fn is_of(line: &str, netns: u64) -> bool {
    const KEY: &str = "\"netns\":";
    let value = line.split_once(KEY).map(|(_, rest)| rest.split([',', '}']).next());
    value.flatten() == Some(netns.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_in_the_middle() {
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
