//! The program this machine was started for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::unistd::setsid;

use crate::results::Results;

/// The environment of the payload. The last two are of the kernel tests: the tool, and a factor for all their limits.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/bin:/usr/bin"),
    ("TMPDIR", "/tmp"),
    ("TCPTOOLS", "/bin/tcptools"),
    ("KERNEL_TESTS_PATIENCE", "4"),
];

/// A program with the payload's environment and nothing else.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(ENVIRONMENT).stdin(Stdio::null());
    command
}

/// Runs the payload, hands on each line of its output, and says how it ended: `ok`, or what was wrong.
pub fn run(payload: &[String], results: &mut Results) -> Result<String, String> {
    let [program, arguments @ ..] = payload else { return Ok("ok".into()) };
    // One pipe for both, so that the lines keep their order.
    let (reader, writer) = std::io::pipe().map_err(|e| format!("pipe: {e}"))?;
    let copy = writer.try_clone().map_err(|e| format!("dup: {e}"))?;
    let mut child = {
        let mut command = command(program);
        command.args(arguments).stdout(writer).stderr(copy);
        command.spawn().map_err(|e| format!("start {program}: {e}"))?
        // The command goes here, and its ends of the pipe with it: what is left are the child's.
    };
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(|e| format!("read the payload's output: {e}"))? > 0 {
        results.say("out", String::from_utf8_lossy(&line).trim_end())?;
        line.clear();
    }
    let status = child.wait().map_err(|e| format!("wait for {program}: {e}"))?;
    Ok(verdict(status))
}

/// Hands on each line of a file that the payload has written. Where there is none the runner misses it, and knows the verdict.
pub fn hand_over(path: &str, results: &mut Results) -> Result<(), String> {
    let (Ok(text), Some(name)) = (fs::read_to_string(path), Path::new(path).file_name()) else {
        return Ok(());
    };
    for line in text.lines() {
        results.say("file", &format!("{} {line}", name.display()))?;
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

/// A shell on the console, until it ends.
pub fn shell() -> Result<(), String> {
    let mut command = Command::new("/bin/sh");
    command.arg0("-sh").env_clear().envs(ENVIRONMENT).env("HOME", "/").env("TERM", "linux");
    // PID 1 leads a session already, and the console becomes its terminal when it is opened; job control needs that.
    let _ = setsid();
    command
        .status()
        .map(|_| ())
        .map_err(|e| format!("start /bin/sh: {e} (is busybox-static installed where vm-test runs?)"))
}
