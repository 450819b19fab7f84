//! QEMU: the command line of a machine, and its serial ports as a stream of lines.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Doing, Result};
use crate::matrix::{Arch, Run};

/// What time is in a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// This machine's own.
    Real,
    /// An instruction is a nanosecond, and nobody waits for a timer: what else this machine has to do, and how slow it emulates,
    /// changes no measurement. There is one CPU, because the clock counts the instructions of all of them.
    Instructions,
}

impl Clock {
    /// Nothing for so long, and the machine hangs. A test may take four minutes (`KERNEL_TESTS_PATIENCE` in
    /// `init/src/payload.rs`) before the tests themselves end it; where the clock is not ours, a busy host is no hang.
    fn silence(self) -> Duration {
        Duration::from_secs(60 * if self == Self::Real { 5 } else { 20 })
    }

    /// The most a machine may take in all.
    fn lifetime(self) -> Duration {
        Duration::from_secs(60 * if self == Self::Real { 20 } else { 60 })
    }
}

/// What is booted.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// The machine.
    pub run: &'a Run<'a>,
    /// Its kernel.
    pub vmlinuz: &'a Path,
    /// Its files.
    pub initramfs: &'a Path,
    /// Its time.
    pub clock: Clock,
}

/// In MiB.
const MEMORY: u32 = 1024;

/// The device for results in a machine. x86-64 has a second serial port, which the kernel does not write to; the `virt` board
/// of arm64 has one, and PID 1 shares it with the kernel.
#[must_use]
pub fn result_device(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "/dev/ttyS1",
        Arch::Arm64 => "/dev/ttyAMA0",
    }
}

/// How a machine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It powered off, or QEMU gave up: what was said decides.
    Exited,
    /// It said nothing for too long.
    Silent,
    /// It took too long.
    Overdue,
}

/// The command line.
fn command(boot: &Boot<'_>) -> Command {
    let Boot { run, vmlinuz, initramfs, clock } = *boot;
    let (program, console) = match run.kernel.arch {
        Arch::Amd64 => ("qemu-system-x86_64", "ttyS0"),
        Arch::Arm64 => ("qemu-system-aarch64", "ttyAMA0"),
    };
    // Whatever ends this process, its machines end with it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    if run.kernel.arch == Arch::Arm64 {
        // Not `max`: it emulates pointer authentication, which makes a boot three times as long.
        command.args(["-machine", "virt", "-cpu", "cortex-a72"]);
    }
    // One thread for all CPUs of a machine: with a thread for each, QEMU may execute a breakpoint that the kernel has already
    // taken back after patching its code, as it does whenever a tracepoint is switched, and the kernel dies of it (`Oops: int3`).
    command.args(["-accel", "tcg,thread=single", "-display", "none", "-nodefaults", "-no-reboot"]);
    let cpus = match clock {
        Clock::Real => run.variant.cpus,
        Clock::Instructions => {
            command.args(["-icount", "shift=0,sleep=off"]);
            1
        }
    };
    command.args(["-smp", &cpus.to_string(), "-m", &MEMORY.to_string()]);
    command.arg("-kernel").arg(vmlinuz).arg("-initrd").arg(initramfs);
    // A dead PID 1 is a panic, a panic is a reboot, and a reboot is the end of QEMU. Warnings are shown (`loglevel=5`).
    let append = format!("console={console} panic=-1 loglevel=5 mitigations=off {}", run.variant.append);
    command.args(["-append", append.trim_end()]);
    command
}

/// Runs a machine to its end; each line it says goes to `on_line`.
///
/// # Errors
///
/// When QEMU cannot be started. What goes wrong in the machine is no error here.
pub fn run(boot: &Boot<'_>, socket: &Path, mut on_line: impl FnMut(&str)) -> Result<End> {
    let mut command = command(boot);
    command.args(["-serial", "stdio"]);
    let (sender, lines) = channel();
    if boot.run.kernel.arch == Arch::Amd64 {
        // The socket of a run that was killed may be left.
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).doing(format_args!("bind {}", socket.display()))?;
        command.arg("-serial").arg(format!("unix:{}", socket.display()));
        let sender = sender.clone();
        thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                forward(stream, &sender);
            }
        });
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(format_args!("start {}", command.get_program().display()))?;
    let mut machine = Machine(child);
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        machine.0.stdout.take().map(|pipe| Box::new(pipe) as _),
        machine.0.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || forward(stream, &sender));
    }
    drop(sender);
    Ok(watch(&mut machine, &lines, boot.clock, &mut on_line))
}

/// A QEMU that runs. Dropping it kills it.
struct Machine(Child);

impl Machine {
    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(
    machine: &mut Machine,
    lines: &Receiver<String>,
    clock: Clock,
    on_line: &mut dyn FnMut(&str),
) -> End {
    /// A port of a machine that never opened the socket does not close; its process ends all the same.
    const LOOK: Duration = Duration::from_millis(200);
    let begin = Instant::now();
    let mut heard = begin;
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => {
                heard = Instant::now();
                on_line(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return End::Exited,
            Err(RecvTimeoutError::Timeout) if machine.has_ended() => {
                lines.try_iter().for_each(|line| on_line(&line));
                return End::Exited;
            }
            Err(RecvTimeoutError::Timeout) if heard.elapsed() > clock.silence() => return End::Silent,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if begin.elapsed() > clock.lifetime() {
            return End::Overdue;
        }
    }
}

/// Sends each line on until the stream ends or nobody listens.
fn forward(stream: impl Read, sender: &Sender<String>) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        if sender.send(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

/// Runs a machine with its console on this terminal.
///
/// # Errors
///
/// When QEMU cannot be started.
pub fn attached(boot: &Boot<'_>) -> Result<()> {
    let mut command = command(boot);
    // `mon:` leaves Ctrl-C to the machine, and Ctrl-A X ends it.
    command.args(["-serial", "mon:stdio", "-serial", "null"]);
    command.status().map(|_| ()).doing(format_args!("start {}", command.get_program().display()))
}
