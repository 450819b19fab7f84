//! From exec to attached, to the first event, and from Ctrl-C to the end; memory and system calls on the way.

use std::time::{Duration, Instant};

use kernel_tests::leak::BpfObjects;

use super::{Plan, millis, tell};
use crate::contender::{Contender, Maker};
use crate::fault::{During, Fault, Result};
use crate::load::probe::{Probe, first_seen};
use crate::proc::{Memory, SLEEPS};
use crate::process::{Held, Running};
use crate::report::{Cell, Chart, Figure};
use crate::round::START;
use crate::stats::{greatest, median};
use crate::watch::{Call, Watch};

/// One start, and the end of it.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// From `execve(2)` to the end of the last system call that attached something, in milliseconds.
    pub attached: f64,
    /// To the first sleep after it: everything that belongs to the start is done.
    pub ready: f64,
    /// System calls between.
    pub calls: u64,
    /// Memory, when ready.
    pub memory: Memory,
    /// From Ctrl-C to the end, in milliseconds.
    pub end: f64,
}

/// Starts a tool under watch, until it is ready; with all its system calls.
pub fn begin(contender: &Contender) -> Result<(Running, Marks, Vec<Call>)> {
    let held = Held::hold(&contender.command())?;
    let mut watch = Watch::over(held.pid())?;
    let mut running = held.go()?;
    let mut marks = None;
    running.wait_until(START, |_| {
        marks = Marks::read(watch.calls()?);
        Ok(marks.is_some())
    })?;
    let marks = marks.ok_or_else(|| Fault::new("never attached"))?;
    Ok((running, marks, watch.calls()?.to_vec()))
}

/// Runs a tool, and waits until the kernel has let go of what it had. Some of that goes on after the tool's end, and who
/// attaches at the same places waits for that.
pub fn alone<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    /// What others do on the machine meanwhile is no reason to wait for ever.
    const LIMIT: Duration = Duration::from_secs(5);
    // Without bpftool nobody knows; then a start may have waited.
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
        end: millis(stopped.took),
    })
}

/// Moments of a start, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    exec: u64,
    attached: u64,
    ready: u64,
    calls: u64,
}

impl Marks {
    /// Milliseconds from exec to a moment.
    fn since_exec(&self, moment: u64) -> f64 {
        moment.saturating_sub(self.exec) as f64 / 1e6
    }

    /// The calls from exec to the one that attached last.
    pub fn of<'a>(&self, calls: &'a [Call]) -> &'a [Call] {
        let begin = calls.iter().position(|call| call.begin >= self.exec).unwrap_or(calls.len());
        let end = calls.iter().rposition(|call| call.begin <= self.attached).map_or(begin, |at| at + 1);
        calls.get(begin..end).unwrap_or_default()
    }

    /// `None` before the tool sleeps with something attached.
    fn read(calls: &[Call]) -> Option<Self> {
        let exec = calls.iter().rposition(Call::executes)?;
        let calls = calls.get(exec..)?;
        let first = calls.iter().position(Call::attaches)?;
        let slept = |at: usize| {
            calls.get(at..)?.iter().position(|call| SLEEPS.contains(&call.number)).map(|n| at + n)
        };
        // A tool that sleeps while it attaches goes on attaching.
        let last = calls.iter().rposition(Call::attaches)?;
        let ready = slept(last.max(first))?;
        let ended =
            calls.iter().take(ready).filter(|call| call.attaches()).filter_map(|call| call.end).max()?;
        let begin = calls.first()?.begin;
        let count = calls.iter().skip(1).take_while(|call| call.begin <= ended).count();
        Some(Self { exec: begin, attached: ended, ready: calls.get(ready)?.begin, calls: count as u64 })
    }
}

/// From exec to the first connection that a tool shows, in milliseconds. A connection begins each millisecond.
fn first_event(contender: &Contender) -> Result<f64> {
    /// So many bytes are more than anyone's buffer: rows that were kept back come out.
    const ENOUGH: u64 = 16 << 10;
    let probe = Probe::start()?;
    let (mut running, marks, _) = begin(contender)?;
    running.wait_until(START, |running| Ok(running.length()? >= ENOUGH))?;
    let probes = probe.stop()?;
    let stopped = running.stop()?;
    let seen = first_seen(&stopped.rows, &probes).ok_or_else(|| Fault::new("no probe was seen"))?;
    // It may have begun before, and have ended when the tool was there.
    Ok(marks.since_exec(seen))
}

/// What a contender's starts came to.
#[derive(Clone, Debug)]
pub struct Starts {
    /// Who.
    pub contender: Contender,
    /// Milliseconds from exec to attached, the middle of all rounds.
    pub attached: Option<f64>,
    /// Milliseconds from exec to the first event.
    pub first_event: Option<f64>,
    /// Bytes resident, the most of all rounds.
    pub peak: Option<f64>,
    /// Milliseconds from Ctrl-C to the end.
    pub end: Option<f64>,
}

/// Tools that show each connection by both of its ports.
const WITH_PORTS: [&str; 3] = ["tcplife", "tcpstates", "tcptracer"];

/// Starts all contenders, in turn, several times.
pub fn measure(plan: &Plan) -> Result<(Vec<Starts>, Figure)> {
    tell("starts");
    let contenders: Vec<&Contender> = plan.contenders.iter().collect();
    let mut starts: Vec<Vec<Start>> = vec![Vec::new(); contenders.len()];
    let mut firsts: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..plan.rounds(9, 5) {
        for (at, contender) in contenders.iter().enumerate() {
            // A start of bpftrace takes as long as a hundred of ours.
            if contender.maker >= Maker::Bpftrace && round >= 3 {
                continue;
            }
            starts[at].push(alone(|| start(contender)).during(contender)?);
            if !plan.short && round < 3 && WITH_PORTS.contains(&contender.tool) {
                firsts[at].push(alone(|| first_event(contender)).during(contender)?);
            }
        }
    }
    let mut figure = Figure::new(
        "start",
        "Start and end",
        "From exec to the end of the last system call that attaches; to the first connection that is shown, of one each \
         millisecond (±1 ms); from Ctrl-C to the end of the process. Medians; memory is the most of all rounds. Where \
         the time goes is in \"What a start consists of\".",
        &[
            "tool",
            "attached ms",
            "first event ms",
            "ready ms",
            "system calls",
            "peak RSS MB",
            "RSS MB",
            "files mapped MB",
            "files",
            "Ctrl-C ms",
            "program MB",
        ],
    );
    let mut results = Vec::new();
    for (at, contender) in contenders.iter().enumerate() {
        let of = |value: fn(&Start) -> f64| starts[at].iter().map(value).collect::<Vec<_>>();
        let megabytes = |bytes: Option<f64>| bytes.map(|bytes| bytes / 1e6);
        let result = Starts {
            contender: (*contender).clone(),
            attached: median(&of(|start| start.attached)),
            first_event: median(&firsts[at]),
            peak: greatest(&of(|start| start.memory.peak as f64)),
            end: median(&of(|start| start.end)),
        };
        figure.row([
            contender.to_string().into(),
            Cell::number(result.attached, 1),
            Cell::number(result.first_event, 1),
            Cell::number(median(&of(|start| start.ready)), 1),
            Cell::number(median(&of(|start| start.calls as f64)), 0),
            Cell::number(megabytes(result.peak), 1),
            Cell::number(megabytes(median(&of(|start| start.memory.now as f64))), 1),
            Cell::number(megabytes(median(&of(|start| start.memory.mapped as f64))), 1),
            Cell::number(median(&of(|start| start.memory.files as f64)), 0),
            Cell::number(result.end, 1),
            Cell::number(megabytes(contender.file_bytes().map(|bytes| bytes as f64)), 1),
        ]);
        results.push(result);
    }
    let bars = results.iter().filter_map(|result| Some((result.contender.to_string(), result.attached?)));
    figure.chart =
        Some(Chart::Bars { axis: "exec to attached, ms".to_owned(), bars: bars.collect(), goal: Some(5.0) });
    Ok((results, figure))
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn the_marks_of_a_start() {
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
