//! Times from exec until attached, to the first row, and from Ctrl-C to exit; memory and system
//! calls of a start.

use std::time::{Duration, Instant};

use kernel_tests::leak::BpfObjects;

use super::{Plan, millis, progress};
use crate::contender::{Contender, Maker};
use crate::fault::{During, Fault, Result};
use crate::load::probe::{Probe, first_seen};
use crate::proc::{Memory, SLEEPS};
use crate::process::{Running, Waiting};
use crate::report::{Cell, Chart, Figure};
use crate::round::START_LIMIT;
use crate::stats::{greatest, median};
use crate::watch::{Call, Watch};

/// One start and stop of a tool.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Milliseconds from `execve(2)` to the end of the last system call that attached something.
    pub attached: f64,
    /// Milliseconds to the first sleep after it: the start is complete.
    pub ready: f64,
    /// System calls from exec until attached.
    pub calls: u64,
    /// Memory when the start is complete.
    pub memory: Memory,
    /// Milliseconds from Ctrl-C to exit.
    pub stop: f64,
}

/// Starts a tool, watches its system calls, and waits until it is ready.
pub fn begin(contender: &Contender) -> Result<(Running, Marks, Vec<Call>)> {
    let waiting = Waiting::new(&contender.command())?;
    let mut watch = Watch::over(waiting.pid())?;
    let mut running = waiting.exec()?;
    let mut marks = None;
    running.wait_until(START_LIMIT, |_| {
        marks = Marks::read(watch.calls()?);
        Ok(marks.is_some())
    })?;
    let marks = marks.ok_or_else(|| Fault::new("the tool attached nothing"))?;
    Ok((running, marks, watch.calls()?.to_vec()))
}

/// Runs a tool and waits until the kernel has freed its BPF objects. The kernel continues with that
/// after the tool has exited, and a tool that attaches to the same functions meanwhile has to wait.
pub fn with_cleanup<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    /// Other programs can load BPF objects at the same time.
    const LIMIT: Duration = Duration::from_secs(5);
    // Without bpftool this is unknown, and a start can contain such a wait.
    let before = BpfObjects::now().ok();
    let result = run()?;
    let ended = Instant::now();
    while before.as_ref().is_some_and(|before| before.none_left().is_err()) && ended.elapsed() < LIMIT {}
    Ok(result)
}

/// Starts a tool once.
pub fn start(contender: &Contender) -> Result<Start> {
    let (running, marks, _) = begin(contender)?;
    let memory = running.memory()?;
    let stopped = running.stop()?;
    Ok(Start {
        attached: marks.since_exec(marks.attached),
        ready: marks.since_exec(marks.ready),
        calls: marks.calls,
        memory,
        stop: millis(stopped.took),
    })
}

/// Times of a start, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    exec: u64,
    attached: u64,
    ready: u64,
    calls: u64,
}

impl Marks {
    /// Milliseconds from exec to a time.
    fn since_exec(&self, time: u64) -> f64 {
        time.saturating_sub(self.exec) as f64 / 1e6
    }

    /// The calls from exec to the last one that attached something.
    pub fn of<'a>(&self, calls: &'a [Call]) -> &'a [Call] {
        let begin = calls.iter().position(|call| call.begin >= self.exec).unwrap_or(calls.len());
        let end = calls.iter().rposition(|call| call.begin <= self.attached).map_or(begin, |at| at + 1);
        calls.get(begin..end).unwrap_or_default()
    }

    /// `None` until the tool sleeps with something attached.
    fn read(calls: &[Call]) -> Option<Self> {
        let exec = calls.iter().rposition(Call::executes)?;
        let calls = calls.get(exec..)?;
        let first = calls.iter().position(Call::attaches)?;
        let slept = |at: usize| {
            calls.get(at..)?.iter().position(|call| SLEEPS.contains(&call.number)).map(|n| at + n)
        };
        // A tool can sleep between two calls that attach: the sleep after the last one counts.
        let last = calls.iter().rposition(Call::attaches)?;
        let ready = slept(last.max(first))?;
        let ended =
            calls.iter().take(ready).filter(|call| call.attaches()).filter_map(|call| call.end).max()?;
        let begin = calls.first()?.begin;
        let count = calls.iter().skip(1).take_while(|call| call.begin <= ended).count();
        Some(Self { exec: begin, attached: ended, ready: calls.get(ready)?.begin, calls: count as u64 })
    }
}

/// Milliseconds from exec to the first connection that a tool shows. A connection begins every
/// millisecond.
fn first_row(contender: &Contender) -> Result<f64> {
    /// More bytes than any tool buffers: after this many, the first rows are written.
    const ENOUGH: u64 = 16 << 10;
    let probe = Probe::start()?;
    let (mut running, marks, _) = begin(contender)?;
    running.wait_until(START_LIMIT, |running| Ok(running.length()? >= ENOUGH))?;
    let probes = probe.stop()?;
    let stopped = running.stop()?;
    let seen = first_seen(&stopped.rows, &probes)
        .ok_or_else(|| Fault::new("the tool showed none of the connections"))?;
    // The connection can have begun before exec: then the difference is 0.
    Ok(marks.since_exec(seen))
}

/// The starts of a contender, over all rounds.
#[derive(Clone, Debug)]
pub struct Starts {
    pub contender: Contender,
    /// Milliseconds from exec until attached, median.
    pub attached: Option<f64>,
    /// Milliseconds from exec to the first row, median.
    pub first_row: Option<f64>,
    /// Peak resident memory in bytes, maximum.
    pub peak: Option<f64>,
    /// Milliseconds from Ctrl-C to exit, median.
    pub stop: Option<f64>,
}

/// Tools whose rows have both ports of a connection.
const WITH_PORTS: [&str; 3] = ["tcplife", "tcpstates", "tcptracer"];

/// Starts and stops all contenders several times, in turn.
pub fn measure(plan: &Plan) -> Result<(Vec<Starts>, Figure)> {
    progress("starts");
    let contenders: Vec<&Contender> = plan.contenders.iter().collect();
    let mut starts: Vec<Vec<Start>> = vec![Vec::new(); contenders.len()];
    let mut firsts: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..plan.rounds(9, 5) {
        for (at, contender) in contenders.iter().enumerate() {
            // A start of bpftrace takes as long as a hundred starts of tcptools.
            if contender.maker >= Maker::Bpftrace && round >= 3 {
                continue;
            }
            starts[at].push(with_cleanup(|| start(contender)).during(contender)?);
            if !plan.short && round < 3 && WITH_PORTS.contains(&contender.tool) {
                firsts[at].push(with_cleanup(|| first_row(contender)).during(contender)?);
            }
        }
    }
    let mut figure = Figure::new(
        "start",
        "Start and stop",
        "Attached: from exec to the end of the last system call that attaches something. First row: the first connection that is \
         shown, of one per millisecond (±1 ms). Ctrl-C: from the signal to the exit of the process. Medians; peak memory is the \
         maximum. \"Parts of a start\" says where the time goes.",
        &[
            "tool",
            "attached ms",
            "first row ms",
            "ready ms",
            "system calls",
            "peak RSS MB",
            "RSS MB",
            "mapped files MB",
            "mapped files",
            "Ctrl-C ms",
            "binary MB",
        ],
    );
    let mut results = Vec::new();
    for (at, contender) in contenders.iter().enumerate() {
        let of = |value: fn(&Start) -> f64| starts[at].iter().map(value).collect::<Vec<_>>();
        let megabytes = |bytes: Option<f64>| bytes.map(|bytes| bytes / 1e6);
        let result = Starts {
            contender: (*contender).clone(),
            attached: median(&of(|start| start.attached)),
            first_row: median(&firsts[at]),
            peak: greatest(&of(|start| start.memory.peak as f64)),
            stop: median(&of(|start| start.stop)),
        };
        figure.row([
            contender.to_string().into(),
            Cell::number(result.attached, 1),
            Cell::number(result.first_row, 1),
            Cell::number(median(&of(|start| start.ready)), 1),
            Cell::number(median(&of(|start| start.calls as f64)), 0),
            Cell::number(megabytes(result.peak), 1),
            Cell::number(megabytes(median(&of(|start| start.memory.now as f64))), 1),
            Cell::number(megabytes(median(&of(|start| start.memory.mapped as f64))), 1),
            Cell::number(median(&of(|start| start.memory.files as f64)), 0),
            Cell::number(result.stop, 1),
            Cell::number(megabytes(contender.file_bytes().map(|bytes| bytes as f64)), 1),
        ]);
        results.push(result);
    }
    let bars = results.iter().filter_map(|result| Some((result.contender.to_string(), result.attached?)));
    figure.chart = Some(Chart::Bars {
        axis: "time from exec until attached, ms".to_owned(),
        bars: bars.collect(),
        goal: Some(5.0),
    });
    Ok((results, figure))
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn times_of_a_start_are_read_from_its_calls() {
        let call = |begin, number, first| Call { begin, end: Some(begin + 2), number, args: [first, 0] };
        let (bpf, sleep) = (libc::SYS_bpf, libc::SYS_epoll_pwait);
        let calls = [
            call(1, libc::SYS_read, 0),
            call(10, libc::SYS_execve, 0),
            call(20, bpf, 5),
            call(30, sleep, 0),
            call(40, bpf, 17),
            call(50, bpf, 28),
            call(60, libc::SYS_write, 1),
            call(70, sleep, 0),
        ];
        assert_eq!(Marks::read(&calls), Some(Marks { exec: 10, attached: 52, ready: 70, calls: 4 }));
        assert_eq!(Marks::read(&calls[..7]), None, "it does not sleep yet");
        assert_eq!(Marks::read(&calls[..4]), None, "nothing is attached");
    }
}
