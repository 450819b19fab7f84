//! A test runner for tests that change the process they run in.
//!
//! Each test enters private namespaces, starts processes, may panic and may leak. So each test runs
//! in a process of its own: the runner starts its own program again with the test's name. It does
//! not fork, because a fork of a process that may have threads is unsafe in Rust.
//!
//! Most tests only look at sockets of their own network namespace and mostly wait for timers of the
//! kernel, so several of them run at a time. A test that must not share the machine says why
//! ([`Alone`]) and runs after the others, one at a time.
//!
//! The program needs nothing but its own file and that of tcptools, so it runs unchanged as the
//! payload of a virtual machine. There all tests run one at a time: if the kernel crashes, the last
//! line names the test.
//!
//! `libtest-mimic` 0.8 would replace a third of this module, but it takes one filter only, has no
//! verdict for a test that passed when it was repeated, prints no times, and leaves a test's
//! processes behind after Ctrl-C.

mod args;
mod report;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, geteuid};

use self::args::{Args, USAGE};
use self::report::Report;
use crate::deadline::{self, Deadline};
use crate::requirements::{Feature, Skip, misses_runs, needs, spares_init};
use crate::{actor_process, leak};

/// What a test returns unless it failed: a test fails by a panic.
pub type Outcome = Result<(), Skip>;

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    name: &'static str,
    run: fn() -> Outcome,
    alone: Option<Alone>,
}

/// Why a test must have the machine to itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alone {
    /// It compares the BPF objects of the whole kernel before and after.
    BpfObjects,
    /// It fills tables that have an entry for each socket of the machine, or opens very many
    /// sockets.
    Sockets,
    /// Its events come from timers. The kernel skips a program that is running already on the CPU,
    /// so a timer's event is lost if it interrupts the program while that handles an event of
    /// another test.
    Timers,
    /// It checks how long something takes, or runs so much that other tests would miss their time
    /// limits.
    Time,
    /// It compares with a tool of another project that cannot be limited to a network namespace and
    /// loses events if other tests make many.
    OtherTools,
    /// It changes the machine: its clock, its CPUs, its process ids.
    Machine,
}

/// A test, named `module::what_is_true`, that runs beside other tests.
#[must_use]
pub const fn test(name: &'static str, run: fn() -> Outcome) -> Test {
    Test { name, run, alone: None }
}

impl Test {
    /// The same test, run while no other test does.
    #[must_use]
    pub const fn alone(self, why: Alone) -> Self {
        Self { alone: Some(why), ..self }
    }

    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// The first argument of a process that runs one test.
const CHILD_FLAG: &str = "--run-one";

/// A test that takes longer is considered stuck and is killed.
const TEST_LIMIT: Duration = Duration::from_secs(60);

/// The report of a test that panicked.
const PANICKED: &str = "panicked";

/// How a test ended.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
}

/// The `main` of a test program: runs the tests the arguments ask for, or acts as a child process
/// of such a run.
#[must_use]
pub fn main(tests: &[Test]) -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(lossy).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [actor_process::FLAG, comm] => return actor_process::run(comm),
        [CHILD_FLAG, name] => return child(tests, name),
        _ => {}
    }
    match Args::parse(words) {
        Err(fault) => {
            eprintln!("{fault}\n{USAGE}");
            ExitCode::from(2)
        }
        Ok(Args { help: true, .. }) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(args) => start(tests, &args),
    }
}

fn lossy(word: OsString) -> String {
    word.to_string_lossy().into_owned()
}

/// Runs one test in this process and reports on standard input, which is a socket to the runner.
fn child(tests: &[Test], name: &str) -> ExitCode {
    // The runner takes its signals from a signalfd and has them blocked; a test and its tools need
    // them.
    SigSet::empty().thread_set_mask().expect("unblock signals");
    prctl::set_pdeathsig(Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
    let Some(test) = tests.iter().find(|test| test.name == name) else {
        eprintln!("no such test: {name}");
        return ExitCode::from(2);
    };
    let mut report = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().expect("dup stdin"));
    let before = leak::open_files();
    let outcome = panic::catch_unwind(AssertUnwindSafe(test.run));
    let line = match outcome {
        Err(_) => PANICKED.to_owned(), // the panic has printed its message
        Ok(Err(skip)) => format!("skipped {skip}"),
        Ok(Ok(())) => {
            let leaked = leak::new_files(&before);
            if leaked.is_empty() { "passed".to_owned() } else { format!("leaked {}", leaked.join(", ")) }
        }
    };
    match report.write_all(line.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// How many tests run at a time unless `--jobs` says otherwise.
fn default_jobs() -> usize {
    /// Tests mostly wait, so there may be more of them than CPUs.
    const JOBS_PER_CPU: usize = 2;
    // A kernel that preempts programs skips more events if several tests run.
    if needs(Feature::OwnMachine).is_ok() || misses_runs() {
        return 1;
    }
    JOBS_PER_CPU * std::thread::available_parallelism().map_or(1, usize::from)
}

fn start(tests: &[Test], args: &Args) -> ExitCode {
    let chosen: Vec<Test> = tests.iter().filter(|test| args.wants(test.name)).copied().collect();
    if args.list {
        for test in &chosen {
            println!("{}: test", test.name);
        }
        println!("\n{} tests, 0 benchmarks", chosen.len());
        return ExitCode::SUCCESS;
    }
    if let Err(fault) = deadline::patience() {
        eprintln!("{fault}");
        return ExitCode::from(2);
    }
    if !geteuid().is_root() {
        eprintln!("run as root: the kernel tests load BPF programs and make network namespaces");
        return ExitCode::FAILURE;
    }
    // Ctrl-C has to end the process groups of all running tests, tools included, and the runner has
    // to outlive it to do so.
    let mut interrupts = SigSet::empty();
    interrupts.add(Signal::SIGINT);
    interrupts.add(Signal::SIGTERM);
    interrupts.thread_block().expect("block signals");
    let signals = SignalFd::with_flags(&interrupts, SfdFlags::SFD_CLOEXEC).expect("signalfd");

    println!("\nrunning {} tests", chosen.len());
    let jobs = args.jobs.unwrap_or_else(default_jobs);
    let mut report = Report::new(tests.len() - chosen.len());
    let mut queue = Queue::new(chosen, jobs);
    loop {
        let mut run = match queue.next(&signals, args.nocapture) {
            Ok(Some(run)) => run,
            Ok(None) => break,
            Err(Interrupted) => {
                println!("interrupted");
                return ExitCode::FAILURE;
            }
        };
        let verdict = run.verdict.clone().expect("a run that ended");
        // An event that the kernel did not let the tool see proves nothing. If it is missing twice,
        // the tool is wrong.
        if verdict == Verdict::Failed(PANICKED.to_owned()) && run.first && (misses_runs() || spares_init()) {
            report.keep_first_failure(run.test.name, PANICKED.to_owned(), run.output());
            queue.repeat(run.test);
            continue;
        }
        let output = if matches!(verdict, Verdict::Failed(_)) { run.output() } else { String::new() };
        report.ended(run.test.name, verdict, output, run.begin.elapsed(), jobs > 1);
    }
    print!("{report}");
    report.exit_code()
}

/// The user has asked the runner to stop.
struct Interrupted;

/// The tests that have not started and those that run.
struct Queue {
    /// In reverse order: the last one is next.
    waiting: Vec<(Test, bool)>,
    running: Vec<Run>,
    jobs: usize,
}

impl Queue {
    /// With several jobs, the tests that must run alone come last, so that the others are not
    /// interrupted by them.
    fn new(mut tests: Vec<Test>, jobs: usize) -> Self {
        if jobs > 1 {
            tests.sort_by_key(|test| test.alone.is_some());
        }
        Self {
            waiting: tests.into_iter().rev().map(|test| (test, true)).collect(),
            running: Vec::new(),
            jobs,
        }
    }

    /// Runs a test for the second time, before all that wait.
    fn repeat(&mut self, test: Test) {
        self.waiting.push((test, false));
    }

    /// Keeps as many tests running as may run, and returns the next one that has ended; `None` if
    /// none is left.
    fn next(&mut self, signals: &SignalFd, nocapture: bool) -> Result<Option<Run>, Interrupted> {
        while let Some((test, first)) = self.waiting.last().copied() {
            let alone = |test: &Test| test.alone.is_some();
            let may_start = match &self.running[..] {
                [] => true,
                [other, ..] => self.running.len() < self.jobs && !alone(&test) && !alone(&other.test),
            };
            if !may_start {
                break;
            }
            self.waiting.pop();
            if self.jobs == 1 {
                report::begins(test.name);
            }
            self.running.push(Run::start(test, first, nocapture));
        }
        if self.running.is_empty() {
            return Ok(None);
        }
        loop {
            if let Some(at) = self.running.iter().position(|run| run.verdict.is_some()) {
                return Ok(Some(self.running.remove(at)));
            }
            self.wait(signals)?;
        }
    }

    /// Waits until a test reports, ends or reaches its time limit.
    fn wait(&mut self, signals: &SignalFd) -> Result<(), Interrupted> {
        let limits = self.running.iter().map(|run| run.deadline.poll_timeout().unwrap_or(PollTimeout::ZERO));
        let timeout = limits.min_by_key(|limit| limit.as_millis()).unwrap_or(PollTimeout::ZERO);
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.running.iter().map(|run| PollFd::new(run.report.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        if ready[0] {
            return Err(Interrupted);
        }
        for (run, ready) in self.running.iter_mut().zip(&ready[1..]) {
            if *ready {
                run.read_report();
            } else if run.deadline.left().is_none() {
                run.kill();
                run.verdict =
                    Some(Verdict::Failed(format!("killed, it ran longer than {:?}", run.deadline.limit())));
            }
        }
        Ok(())
    }
}

/// A test that runs. Dropping it kills all processes left in its process group.
struct Run {
    test: Test,
    /// Whether this is not a repetition.
    first: bool,
    begin: Instant,
    deadline: Deadline,
    child: Child,
    report: UnixStream,
    line: String,
    output: Option<File>,
    /// `None` while the test runs.
    verdict: Option<Verdict>,
}

impl Run {
    fn start(test: Test, first: bool, nocapture: bool) -> Self {
        let (report, theirs) = UnixStream::pair().expect("socketpair");
        let mut command = Command::new("/proc/self/exe");
        command.args([CHILD_FLAG, test.name]).stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0);
        let output = (!nocapture).then(|| {
            // A file and not a pipe: a process that a failed test left behind cannot keep the
            // runner waiting for its end.
            let file = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC).expect("memfd_create"));
            let copy = || Stdio::from(file.try_clone().expect("dup"));
            command.stdout(copy()).stderr(copy());
            file
        });
        let child = command.spawn().expect("start the test's process");
        let (begin, deadline) = (Instant::now(), Deadline::after(TEST_LIMIT));
        Self { test, first, begin, deadline, child, report, line: String::new(), output, verdict: None }
    }

    /// Reads a part of the report. The socket ends with the process: no process that the test
    /// starts inherits its standard input.
    fn read_report(&mut self) {
        let mut chunk = [0; 1024];
        match self.report.read(&mut chunk) {
            Ok(length) if length > 0 => self.line.push_str(&String::from_utf8_lossy(&chunk[..length])),
            _ => {
                let status = self.child.wait().expect("wait for the test's process");
                self.verdict = Some(judge(&self.line, status));
            }
        }
    }

    fn kill(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // The group of the child, started by `process_group(0)`. It is gone if the child left
            // no process behind.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }

    fn output(&mut self) -> String {
        let Some(file) = &mut self.output else { return String::new() };
        let mut bytes = Vec::new();
        match file.rewind().and_then(|()| file.read_to_end(&mut bytes)) {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) => format!("(the output cannot be read: {e})"),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A test has passed only if it said so and its process ended without an error.
fn judge(line: &str, status: ExitStatus) -> Verdict {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match (word, status.code()) {
        ("passed", Some(0)) => Verdict::Passed,
        ("skipped", Some(0)) => Verdict::Skipped(rest.to_owned()),
        ("leaked", Some(0)) => Verdict::Failed(format!("left open: {rest}")),
        (PANICKED, Some(0)) => Verdict::Failed(PANICKED.to_owned()),
        _ => match status.signal() {
            Some(signal) => Verdict::Failed(format!("its process was killed by signal {signal}")),
            None => Verdict::Failed(format!("its process ended with {status} and the report {line:?}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_passes_only_with_its_report_and_exit_code_0() {
        let status = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(judge("passed", status(0)), Verdict::Passed);
        assert_eq!(judge("skipped needs x: no", status(0)), Verdict::Skipped("needs x: no".to_owned()));
        for (line, status) in [
            ("", status(0)),
            ("passed", status(1)),
            ("passed", ExitStatus::from_raw(9)),
            ("panicked", status(0)),
            ("leaked 5", status(0)),
        ] {
            assert!(matches!(judge(line, status), Verdict::Failed(_)), "{line} {status}");
        }
    }

    #[test]
    fn tests_that_need_the_machine_come_last() {
        fn nothing() -> Outcome {
            Ok(())
        }
        let all = vec![test("a", nothing).alone(Alone::Time), test("b", nothing), test("c", nothing)];
        let order = |jobs| -> Vec<&str> {
            Queue::new(all.clone(), jobs).waiting.iter().rev().map(|(test, _)| test.name).collect()
        };
        assert_eq!(order(2), ["b", "c", "a"]);
        assert_eq!(order(1), ["a", "b", "c"]);
    }
}
