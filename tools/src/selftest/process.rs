//! Child processes of this program, by `posix_spawn(3)`: `std::process` brings its fallback to
//! `fork`, and half of the C library.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

/// This program.
const SELF: &str = "/proc/self/exe";

/// A running child process. Dropping it kills it.
pub(super) struct Process {
    pid: Pid,
    ended: bool,
    pub(super) stdout: File,
    pub(super) stderr: File,
}

impl Process {
    /// Starts this program as `tcptools ARGS`, with an empty standard input and no environment.
    pub(super) fn start(args: Vec<OsString>) -> io::Result<Self> {
        let nothing = File::open("/dev/null")?;
        let (stdout, its_stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, its_stderr) = pipe2(OFlag::O_CLOEXEC)?;
        let mut files = PosixSpawnFileActions::init()?;
        for (fd, number) in
            [nothing.as_raw_fd(), its_stdout.as_raw_fd(), its_stderr.as_raw_fd()].iter().zip(0..)
        {
            files.add_dup2(*fd, number)?;
        }
        // A command line has no NUL bytes.
        let args = std::iter::once(crate::cli::command::NAME.into()).chain(args);
        let args: Vec<CString> = args.map(|arg| CString::new(arg.into_vec()).unwrap_or_default()).collect();
        let pid = posix_spawn(SELF, &files, &PosixSpawnAttr::init()?, &args, &[] as &[CString])?;
        Ok(Self { pid, ended: false, stdout: stdout.into(), stderr: stderr.into() })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Sends SIGTERM.
    pub(super) fn terminate(&self) -> io::Result<()> {
        Ok(kill(self.pid, Signal::SIGTERM)?)
    }

    /// Reads both of its outputs to the end. They are short, so it cannot block on one while the
    /// other is read.
    pub(super) fn finish(&mut self) -> io::Result<(String, String)> {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout)?;
        self.stderr.read_to_string(&mut stderr)?;
        Ok((stdout, stderr))
    }

    /// Waits for its end. Returns whether its status was 0.
    pub(super) fn succeeded(&mut self) -> io::Result<bool> {
        let status = waitpid(self.pid, None)?;
        self.ended = true;
        Ok(matches!(status, WaitStatus::Exited(_, 0)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            // Both fail only if it has ended already.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}
