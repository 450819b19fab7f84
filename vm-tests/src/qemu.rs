//! Runs QEMU and reads the lines of a machine's serial ports.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Doing, Result};
use crate::matrix::{Arch, Run};

/// The clock of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// The host's clock.
    Real,
    /// Each instruction takes one nanosecond, and an idle CPU jumps to its next timer. So the load
    /// of the host and the speed of the emulation do not change a measurement. The machine has one
    /// CPU, because the clock counts the instructions of all CPUs together.
    Instructions,
}

impl Clock {
    /// A machine that prints nothing for this long hangs. It is longer than the four minutes after
    /// which the kernel tests end a test (`KERNEL_TESTS_PATIENCE` in `init/src/payload.rs`). A
    /// machine that counts instructions gets more time, because a busy host slows it down.
    fn max_silence(self) -> Duration {
        Duration::from_secs(60 * if self == Self::Real { 5 } else { 20 })
    }

    /// The longest time that a machine may run.
    fn max_runtime(self) -> Duration {
        Duration::from_secs(60 * if self == Self::Real { 20 } else { 60 })
    }
}

/// A machine to boot.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// Its kernel and variant.
    pub run: &'a Run<'a>,
    /// The kernel's file.
    pub vmlinuz: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// Its clock.
    pub clock: Clock,
}

/// Memory of a machine.
const MEMORY_MIB: u32 = 1024;

/// The device that PID 1 reports on. On x86-64 it is a second serial port, which the kernel does
/// not use. The `virt` board of arm64 has only one serial port, which PID 1 shares with the kernel.
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
    /// QEMU ended. The machine's output says whether all went well.
    Exited,
    /// It printed nothing for too long.
    Silent,
    /// It ran for too long.
    Overdue,
}

/// QEMU's command line, without the serial ports.
fn command(boot: &Boot<'_>) -> Command {
    let Boot { run, vmlinuz, initramfs, clock } = *boot;
    let (program, console) = match run.kernel.arch {
        Arch::Amd64 => ("qemu-system-x86_64", "ttyS0"),
        Arch::Arm64 => ("qemu-system-aarch64", "ttyAMA0"),
    };
    // The kernel kills the machine if this process ends, for whatever reason.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    if run.kernel.arch == Arch::Arm64 {
        // `-cpu max` emulates pointer authentication, with which a boot takes three times as long.
        command.args(["-machine", "virt", "-cpu", "cortex-a72"]);
    }
    // One thread for all CPUs. When a tracepoint is switched on or off, the kernel puts a
    // breakpoint into its code for a moment. With a thread for each CPU, QEMU may still execute the
    // breakpoint after the kernel has removed it, and the kernel crashes (`Oops: int3`).
    command.args(["-accel", "tcg,thread=single", "-display", "none", "-nodefaults", "-no-reboot"]);
    let cpus = match clock {
        Clock::Real => run.variant.cpus,
        Clock::Instructions => {
            command.args(["-icount", "shift=0,sleep=off"]);
            1
        }
    };
    command.args(["-smp", &cpus.to_string(), "-m", &MEMORY_MIB.to_string()]);
    command.arg("-kernel").arg(vmlinuz).arg("-initrd").arg(initramfs);
    // If PID 1 dies, the kernel panics; `panic=-1` makes it reboot at once, and `-no-reboot` ends
    // QEMU. `loglevel=5` shows warnings.
    let append = format!("console={console} panic=-1 loglevel=5 mitigations=off {}", run.variant.append);
    command.args(["-append", append.trim_end()]);
    command
}

/// Runs a machine to its end and passes each line of its output to `on_line`.
///
/// # Errors
///
/// If QEMU cannot be started. A failure in the machine is not an error here.
pub fn run(boot: &Boot<'_>, socket: &Path, mut on_line: impl FnMut(&str)) -> Result<End> {
    let mut command = command(boot);
    command.args(["-serial", "stdio"]);
    let (sender, lines) = channel();
    if boot.run.kernel.arch == Arch::Amd64 {
        // A run that was killed leaves its socket.
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

/// A running QEMU, killed on drop.
struct Machine(Child);

impl Machine {
    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
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
    /// If QEMU ends before it opens the socket, the reader's thread waits forever and the channel
    /// stays open. So check regularly whether QEMU still runs.
    const CHECK_INTERVAL: Duration = Duration::from_millis(200);
    let begin = Instant::now();
    let mut last_line = begin;
    loop {
        match lines.recv_timeout(CHECK_INTERVAL) {
            Ok(line) => {
                last_line = Instant::now();
                on_line(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return End::Exited,
            Err(RecvTimeoutError::Timeout) if machine.has_ended() => {
                lines.try_iter().for_each(|line| on_line(&line));
                return End::Exited;
            }
            Err(RecvTimeoutError::Timeout) if last_line.elapsed() > clock.max_silence() => {
                return End::Silent;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if begin.elapsed() > clock.max_runtime() {
            return End::Overdue;
        }
    }
}

/// Sends each line until the stream ends or the receiver is gone.
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
/// If QEMU cannot be started.
pub fn attached(boot: &Boot<'_>) -> Result<()> {
    let mut command = command(boot);
    // With `mon:` Ctrl-C goes to the machine, and Ctrl-A X ends QEMU.
    command.args(["-serial", "mon:stdio", "-serial", "null"]);
    command.status().map(|_| ()).doing(format_args!("start {}", command.get_program().display()))
}
