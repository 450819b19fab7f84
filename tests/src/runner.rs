//! A test runner for tests that change the process they run in.
//!
//! Each test enters private namespaces, starts processes, may panic and may leak. So each runs in a process of its own, one
//! after the other: the runner starts its own program again with the test's name. One at a time because tests compare what
//! the whole kernel holds (BPF objects) before and after, and because two tracing tools at once would disturb each other's
//! timing. Started again rather than forked, because a fork of a process that may have threads is unsafe in Rust.
//!
//! The program needs nothing but its own file and the tool's, so it runs unchanged as the payload of a virtual machine.

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
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, geteuid};

use crate::deadline::{self, Deadline};
use crate::gate::{Skip, misses_runs, spares_init};
use crate::{leak, role};

/// What a test returns when it did not fail, which is a panic.
pub type Outcome = Result<(), Skip>;

/// A test: its name, `module::what_holds`, and its function.
pub type Test = (&'static str, fn() -> Outcome);

/// The first argument of a process that is an actor.
pub(crate) const ACTOR_FLAG: &str = "--actor";

/// The first argument of a process that runs one test.
const CHILD_FLAG: &str = "--run-one";

/// A test that takes longer hangs.
const TEST_LIMIT: Duration = Duration::from_secs(60);

const USAGE: &str = "\
Usage: kernel [--list] [--exact] [--nocapture] [--skip PART]... [PART]...
Runs the tests whose name contains one of the PARTs (all without a PART), as root, on the running kernel.
The tool under test is $TCPTOOLS, or tcptools beside this program's directory.
$KERNEL_TESTS_PATIENCE is a factor (default 1) for every time limit: 10 in a machine that is emulated.";

/// What the command line asks for.
#[derive(Default, PartialEq, Eq, Debug)]
struct Args {
    list: bool,
    exact: bool,
    nocapture: bool,
    help: bool,
    skip: Vec<String>,
    parts: Vec<String>,
}

impl Args {
    fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => args.list = true,
                "--exact" => args.exact = true,
                "--nocapture" | "--no-capture" => args.nocapture = true,
                "-h" | "--help" => args.help = true,
                "--skip" => args.skip.push(words.next().ok_or("--skip needs a part of a name")?),
                flag if flag.starts_with('-') => return Err(format!("no such option: {flag}")),
                _ => args.parts.push(word),
            }
        }
        Ok(args)
    }

    fn wants(&self, name: &str) -> bool {
        let hit = |part: &String| if self.exact { name == part } else { name.contains(part.as_str()) };
        (self.parts.is_empty() || self.parts.iter().any(hit)) && !self.skip.iter().any(hit)
    }
}

/// What a test that found something wrong reports.
const PANICKED: &str = "panicked";

/// How a test ended.
#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
}

/// The `main` of a test program: runs the tests the arguments ask for, or takes the part of a child.
#[must_use]
pub fn main(tests: &[Test]) -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(lossy).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [ACTOR_FLAG, comm] => return role::run(comm),
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
        Ok(args) => run(tests, &args),
    }
}

fn lossy(word: OsString) -> String {
    word.to_string_lossy().into_owned()
}

/// Runs one test in this process and reports on standard input, which is a socket to the runner.
fn child(tests: &[Test], name: &str) -> ExitCode {
    // The runner takes its signals from a signalfd and has them blocked; a test and its tools need them.
    SigSet::empty().thread_set_mask().expect("unblock signals");
    prctl::set_pdeathsig(Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
    let Some((_, test)) = tests.iter().find(|(n, _)| *n == name) else {
        eprintln!("no such test: {name}");
        return ExitCode::from(2);
    };
    let mut report = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().expect("dup stdin"));
    let before = leak::open_files();
    let outcome = panic::catch_unwind(AssertUnwindSafe(test));
    let line = match outcome {
        Err(_) => PANICKED.to_owned(), // the panic has printed what it had to say
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

fn run(tests: &[Test], args: &Args) -> ExitCode {
    let chosen: Vec<&Test> = tests.iter().filter(|(name, _)| args.wants(name)).collect();
    if args.list {
        for (name, _) in &chosen {
            println!("{name}: test");
        }
        println!("\n{} tests, 0 benchmarks", chosen.len());
        return ExitCode::SUCCESS;
    }
    if let Err(fault) = deadline::patience() {
        eprintln!("{fault}");
        return ExitCode::from(2);
    }
    if !geteuid().is_root() {
        eprintln!("the kernel tests load BPF programs and make network namespaces: run them as root");
        return ExitCode::FAILURE;
    }
    // Ctrl-C has to end the test's whole process group, tools included, and the runner has to outlive it to do so.
    let mut interrupts = SigSet::empty();
    interrupts.add(Signal::SIGINT);
    interrupts.add(Signal::SIGTERM);
    interrupts.thread_block().expect("block signals");
    let signals = SignalFd::with_flags(&interrupts, SfdFlags::SFD_CLOEXEC).expect("signalfd");

    println!("\nrunning {} tests", chosen.len());
    let begin = Instant::now();
    let (mut passed, mut skipped, mut failures, mut again) = (0usize, 0usize, Vec::new(), Vec::new());
    for (name, _) in &chosen {
        print!("test {name} ... ");
        io::stdout().flush().expect("write to standard output");
        let mut run = Run::start(name, args.nocapture);
        let mut verdict = run.verdict(&signals);
        if let Some(Verdict::Failed(why)) = &verdict
            && why == PANICKED
            && (misses_runs() || spares_init())
        {
            // What the kernel did not let the tool see proves nothing; that it leaves out the same twice does.
            again.push((*name, why.clone(), run.output()));
            run = Run::start(name, args.nocapture);
            verdict = run.verdict(&signals);
        }
        let Some(verdict) = verdict else {
            println!("interrupted");
            return ExitCode::FAILURE;
        };
        match verdict {
            Verdict::Passed => {
                passed += 1;
                let second = again.last().is_some_and(|(failed, ..)| failed == name);
                println!("ok{}", if second { " the second time" } else { "" });
            }
            Verdict::Skipped(why) => {
                skipped += 1;
                println!("skipped: {why}");
            }
            Verdict::Failed(why) => {
                println!("FAILED");
                failures.push((*name, why, run.output()));
            }
        }
    }
    if !again.is_empty() {
        println!("\nrun twice, for this kernel leaves out runs of programs; what failed the first time:");
        print!("{}", outputs(&again));
    }
    print!("{}", summary(passed, skipped, &failures, tests.len() - chosen.len(), begin.elapsed()));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The end of the output, in cargo's form and then in plain words.
fn summary(
    passed: usize,
    skipped: usize,
    failures: &[(&str, String, String)],
    filtered: usize,
    took: Duration,
) -> String {
    let mut text = String::new();
    if !failures.is_empty() {
        text.push_str("\nfailures:\n");
        text.push_str(&outputs(failures));
        text.push_str("\nfailures:\n");
        for (name, ..) in failures {
            text.push_str(&format!("    {name}\n"));
        }
    }
    let (failed, result) = (failures.len(), if failures.is_empty() { "ok" } else { "FAILED" });
    text.push_str(&format!(
        "\ntest result: {result}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; {filtered} filtered out; \
         finished in {:.2}s\n\n{passed} passed, {failed} failed, {skipped} skipped\n",
        took.as_secs_f64()
    ));
    text
}

/// What failed tests said.
fn outputs(failures: &[(&str, String, String)]) -> String {
    let output = |(name, why, output): &(&str, String, String)| {
        format!("\n---- {name}: {why} ----\n{}\n", output.trim_end())
    };
    failures.iter().map(output).collect()
}

/// A test that runs. Dropping it kills whatever is left of its process group.
struct Run {
    child: Child,
    report: UnixStream,
    output: Option<File>,
}

impl Run {
    fn start(name: &str, nocapture: bool) -> Self {
        let (report, theirs) = UnixStream::pair().expect("socketpair");
        let mut command = Command::new("/proc/self/exe");
        command.args([CHILD_FLAG, name]).stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0);
        let output = (!nocapture).then(|| {
            // A file and not a pipe: a process that a failed test left behind cannot keep the runner waiting for its end.
            let file = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC).expect("memfd_create"));
            let copy = || Stdio::from(file.try_clone().expect("dup"));
            command.stdout(copy()).stderr(copy());
            file
        });
        let child = command.spawn().expect("start the test's process");
        Self { child, report, output }
    }

    /// Waits for the end of the test; `None` when the user interrupted it.
    fn verdict(&mut self, signals: &SignalFd) -> Option<Verdict> {
        let deadline = Deadline::after(TEST_LIMIT);
        let mut line = String::new();
        loop {
            let Some(timeout) = deadline.poll_timeout() else {
                self.kill();
                return Some(Verdict::Failed(format!("killed, it ran longer than {:?}", deadline.limit())));
            };
            let mut fds = [
                PollFd::new(self.report.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => panic!("poll: {errno}"),
            }
            if fds[1].any() == Some(true) {
                self.kill();
                return None;
            }
            // The socket ends with the process: nothing it starts inherits its standard input.
            let mut chunk = [0; 1024];
            match self.report.read(&mut chunk) {
                Ok(n) if n > 0 => line.push_str(&String::from_utf8_lossy(&chunk[..n])),
                _ => break,
            }
        }
        let status = self.child.wait().expect("wait for the test's process");
        Some(judge(&line, status))
    }

    fn kill(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // The group of the child, started by `process_group(0)`. It is gone when the child left nothing behind.
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

/// A test passed only when it said so and its process ended well.
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

    fn args(words: &[&str]) -> Result<Args, String> {
        Args::parse(words.iter().map(|&w| w.to_owned()))
    }

    #[test]
    fn a_part_of_a_name_chooses_and_skip_takes_away() {
        let chosen = args(&["tcplife", "cli::", "--skip", "v6"]).unwrap();
        assert!(chosen.wants("tcplife::refused"));
        assert!(chosen.wants("cli::links"));
        assert!(!chosen.wants("tcplife::refused_v6"));
        assert!(!chosen.wants("tcpstates::refused"));
        let exact = args(&["--exact", "tcplife::refused"]).unwrap();
        assert!(exact.wants("tcplife::refused"));
        assert!(!exact.wants("tcplife::refused_v6"));
        assert!(args(&[]).unwrap().wants("anything"));
        assert_eq!(args(&["--frobnicate"]), Err("no such option: --frobnicate".to_owned()));
    }

    #[test]
    fn only_a_report_and_a_good_end_make_a_pass() {
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
    fn the_summary_counts() {
        let failures = [("a::b", "panicked".to_owned(), "why\n".to_owned())];
        let text = summary(2, 1, &failures, 3, Duration::ZERO);
        assert!(
            text.contains("test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 3 filtered out")
        );
        assert!(text.ends_with("\n2 passed, 1 failed, 1 skipped\n"));
        assert!(text.contains("---- a::b: panicked ----\nwhy\n"));
    }
}
