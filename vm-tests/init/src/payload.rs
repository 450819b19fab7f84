//! Runs the payload: the kernel tests, the benchmark or a shell.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::unistd::setsid;

use crate::results::Results;

/// The environment of the payload. The last three are for the kernel tests: the path of the tool, a
/// factor for all time limits, and the number of sockets of the soak test, which takes minutes with
/// the default number in an emulated machine.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/bin:/usr/bin"),
    ("TMPDIR", "/tmp"),
    ("TCPTOOLS", "/bin/tcptools"),
    ("KERNEL_TESTS_PATIENCE", "4"),
    ("KERNEL_TESTS_SOAK", "2000"),
];

/// A command whose environment is [`ENVIRONMENT`] only.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(ENVIRONMENT).stdin(Stdio::null());
    command
}

/// Runs the payload and reports each line of its output. Returns `ok` or what went wrong.
pub fn run(payload: &[String], results: &mut Results) -> Result<String, String> {
    let [program, arguments @ ..] = payload else { return Ok("ok".into()) };
    // One pipe for both, so that the lines keep their order.
    let (reader, writer) = std::io::pipe().map_err(|e| format!("pipe: {e}"))?;
    let copy = writer.try_clone().map_err(|e| format!("dup: {e}"))?;
    let mut child = {
        let mut command = command(program);
        command.args(arguments).stdout(writer).stderr(copy);
        command.spawn().map_err(|e| format!("start {program}: {e}"))?
        // Dropping the command closes its ends of the pipe, so that only the child has it open.
    };
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(|e| format!("read the payload's output: {e}"))? > 0 {
        results.report("out", String::from_utf8_lossy(&line).trim_end())?;
        line.clear();
    }
    let status = child.wait().map_err(|e| format!("wait for {program}: {e}"))?;
    Ok(verdict(status))
}

/// Reports each line of a file that the payload wrote. If the file is missing, the runner notices.
pub fn report_file(path: &str, results: &mut Results) -> Result<(), String> {
    let (Ok(text), Some(name)) = (fs::read_to_string(path), Path::new(path).file_name()) else {
        return Ok(());
    };
    for line in text.lines() {
        results.report("file", &format!("{} {line}", name.display()))?;
    }
    Ok(())
}

fn verdict(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ok".into(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => format!("ended with {status}"),
    }
}

/// Runs a shell on the console until it exits.
pub fn shell() -> Result<(), String> {
    let mut command = Command::new("/bin/sh");
    command.arg0("-sh").env_clear().envs(ENVIRONMENT).env("HOME", "/").env("TERM", "linux");
    // Job control needs a session whose terminal is the console. If PID 1 already leads a session,
    // this fails, and opening the console makes it the session's terminal.
    let _ = setsid();
    command
        .status()
        .map(|_| ())
        .map_err(|e| format!("start /bin/sh: {e} (vm-test --shell puts busybox there)"))
}
