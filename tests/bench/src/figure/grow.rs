//! How costs grow with the number of sockets, subnets, ports and CPUs.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use loader::simulation::PerfBuffers;

use super::{progress, start};
use crate::contender::Contender;
use crate::fault::{During, Fault, Result};
use crate::load::open::{MAX_SOCKETS, OpenSockets};
use crate::load::{End, Kind, Load};
use crate::proc;
use crate::process::Running;
use crate::report::{Cell, Chart, Figure};
use crate::round::{START_LIMIT, with};
use crate::stats::{exponent, least};

/// A table that is large enough for all open sockets.
const LARGE_TABLE: [&str; 2] = ["--max-sockets", "131072"];

/// The tool that looks up the owners of all open sockets at its start.
fn with_existing() -> Contender {
    Contender::ours("tcplife", &[&["--existing"][..], &LARGE_TABLE].concat())
}

/// A cost measured at several sizes.
#[derive(Clone, Debug)]
pub struct Growth {
    /// The thing that grows, and the cost with its unit.
    pub name: String,
    /// Pairs of a size and a cost.
    pub points: Vec<(f64, f64)>,
    /// Costs below this are noise.
    floor: f64,
}

impl Growth {
    /// The steepest step; 1 is proportional.
    pub fn steepest(&self) -> f64 {
        (1..self.points.len()).filter_map(|at| self.step(at)).fold(0.0, f64::max)
    }

    /// The steepness of the step to a point from the one before.
    fn step(&self, at: usize) -> Option<f64> {
        let [small, large] = [at.checked_sub(1)?, at].map(|at| self.points.get(at).copied());
        Some(exponent(small?, large?, self.floor))
    }
}

/// Measures one thing that grows.
type Part = fn() -> Result<(Vec<Growth>, Figure)>;

/// All of these measurements and their names on the command line.
pub const PARTS: [(&str, Part); 4] =
    [("sockets", sockets), ("subnets", subnets), ("ports", ports), ("rings", rings)];

/// A table with the steepest step of each measurement.
pub fn steepest(growths: &[Growth]) -> Figure {
    let mut figure = Figure::new(
        "growth",
        "How cost grows",
        "The steepest step of each measurement above: 0 is constant, 1 proportional, 2 quadratic. The buffers of many CPUs exceed \
         the caches of the CPU that reads them, which makes one step steeper.",
        &["", "from", "to", "steepest step", "highest cost"],
    );
    for growth in growths {
        let [from, to] = [growth.points.first(), growth.points.last()]
            .map(|point| Cell::number(point.map(|(size, _)| *size), 0));
        figure.row([
            growth.name.clone().into(),
            from,
            to,
            Cell::Number(growth.steepest(), 2),
            Cell::number(growth.points.last().map(|(_, cost)| *cost), 1),
        ]);
    }
    figure
}

/// A figure with a row for each point.
fn figure(id: &'static str, [title, about]: [&str; 2], size: &str, cost: &str, growths: &[Growth]) -> Figure {
    let mut figure = Figure::new(id, title, about, &["", size, cost, "growth"]);
    for growth in growths {
        for (at, (size, cost)) in growth.points.iter().enumerate() {
            figure.row([
                growth.name.clone().into(),
                Cell::Number(*size, 0),
                Cell::Number(*cost, 2),
                Cell::number(growth.step(at), 2),
            ]);
        }
    }
    let lines = growths.iter().map(|growth| (growth.name.clone(), growth.points.clone())).collect();
    figure.chart = Some(Chart::Lines { size: size.to_owned(), cost: cost.to_owned(), lines });
    figure
}

/// Open sockets at the start of a tool; and, with the same sockets, flows that tcptop reports.
fn sockets() -> Result<(Vec<Growth>, Figure)> {
    progress("open sockets, and flows");
    let tools = [
        ("tcplife --existing", with_existing()),
        ("tcptop", Contender::ours("tcptop", &[&["-C"][..], &LARGE_TABLE].concat())),
    ];
    let mut growths: Vec<Growth> = tools
        .iter()
        .map(|(tool, _)| Growth { name: format!("{tool}: start, ms"), points: Vec::new(), floor: 2.0 })
        .collect();
    let mut report =
        Growth { name: "tcptop: CPU of a report, ms".to_owned(), points: Vec::new(), floor: 1.0 };
    let mut holders = OpenSockets::new()?;
    for size in [1, 10, 100, 1000, 10_000, MAX_SOCKETS] {
        holders.open(size)?;
        for ((_, contender), growth) in tools.iter().zip(&mut growths) {
            let ready = (0..3)
                .map(|_| start::start(contender).map(|start| start.ready))
                .collect::<Result<Vec<_>>>()?;
            growth.points.push((size as f64, least(&ready).unwrap_or(f64::NAN)));
        }
        if size >= 10 {
            report.points.push((size as f64, flows(&tools[1].1, &mut holders, size)?));
        }
    }
    growths.push(report);
    let text = [
        "Open sockets",
        "Start: from exec until everything is attached and all open sockets have an owner, the minimum of three. Report: CPU time of \
         tcptop for a report of this many flows with traffic. Growth: 1 is proportional.",
    ];
    let figure = figure("sockets", text, "sockets or flows", "ms", &growths);
    Ok((growths, figure))
}

/// Milliseconds from exec until tcplife is ready with this many open sockets; the minimum of three.
pub fn start_with(sockets: u64) -> Result<f64> {
    progress("open sockets");
    let mut holders = OpenSockets::new()?;
    holders.open(sockets)?;
    let contender = with_existing();
    let ready =
        (0..3).map(|_| start::start(&contender).map(|start| start.ready)).collect::<Result<Vec<_>>>()?;
    least(&ready).ok_or_else(|| Fault::new("no start was measured"))
}

/// Milliseconds of CPU time for a report of this many flows.
fn flows(contender: &Contender, holders: &mut OpenSockets, size: u64) -> Result<f64> {
    let mut running = Running::start(contender.command())?;
    running.wait_attached(START_LIMIT)?;
    let before = proc::cpu_nanos(running.pid())?;
    holders.touch(size)?;
    let length = running.length()?;
    let reported = |running: &Running| Ok(running.length()? > length);
    // The bytes can fall into two intervals; the second report is complete one interval later.
    running.wait_until(Duration::from_secs(5), reported)?;
    let end = Instant::now() + Duration::from_millis(1050);
    running.wait_until(Duration::from_secs(5), |_| Ok(Instant::now() >= end))?;
    let after = proc::cpu_nanos(running.pid())?;
    let rows = running.stop()?.rows;
    let rows =
        rows.split(|&byte| byte == b'\n').filter(|row| row.windows(7).any(|part| part == b"127.78.")).count();
    if (rows as u64) < size / 2 * 2 {
        return Err(Fault::new(format!("{rows} rows for {size} flows")));
    }
    Ok((after - before) as f64 / 1e6)
}

/// Start and run time of tcpsubnet by the number of subnets.
fn subnets() -> Result<(Vec<Growth>, Figure)> {
    progress("subnets");
    let mut growths = ["start, ms", "ns per run"].map(|what| Growth {
        name: format!("tcpsubnet: {what}"),
        points: Vec::new(),
        floor: if what.starts_with('n') { 10.0 } else { 1.0 },
    });
    for size in [1, 10, 32, 100, 1000, 10_000_u32] {
        let subnets: Vec<String> =
            (0..size).map(|n| format!("{}/32", Ipv4Addr::from(0x0100_0000 + n))).collect();
        // An argument can have at most 128 KiB.
        let lists: Vec<String> = subnets.chunks(5000).map(|some| some.join(",")).collect();
        let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
        let contender = Contender::ours("tcpsubnet", &lists);
        let ready =
            (0..3).map(|_| start::start(&contender).map(|start| start.ready)).collect::<Result<Vec<_>>>()?;
        growths[0].points.push((size.into(), least(&ready).unwrap_or(f64::NAN)));
        growths[1].points.push((size.into(), nanos_per_run(&contender, Kind::Stream(64))?));
    }
    let text = [
        "Subnets",
        "Start of tcpsubnet (the minimum of three), and the time of its programs per send, with this many subnets.",
    ];
    let figure = figure("subnets", text, "subnets", "cost", &growths);
    Ok((growths.into(), figure))
}

/// Run time and verified instructions by the number of ports in a filter.
fn ports() -> Result<(Vec<Growth>, Figure)> {
    progress("ports");
    let mut growths = ["ns per run", "verified instructions"].map(|what| Growth {
        name: format!("tcplife -L: {what}"),
        points: Vec::new(),
        floor: 10.0,
    });
    for size in [1, 2, 4, 8, 16, 32, 64_u32] {
        let list: Vec<String> = (0..size).map(|n| (1 + 2 * n).to_string()).collect();
        let contender = Contender::ours("tcplife", &["-L", &list.join(",")]);
        growths[0].points.push((size.into(), nanos_per_run(&contender, Kind::Storm(End::Fin))?));
        let mut running = Running::start(contender.command())?;
        running.wait_attached(START_LIMIT)?;
        let verified =
            running.programs().into_iter().filter_map(|id| proc::verified(running.pid(), id)).sum::<u64>();
        growths[1].points.push((size.into(), verified as f64));
        running.stop()?;
    }
    let text = [
        "Ports",
        "A filter with this many ports, none of which matches: time per run, and instructions that the verifier followed.",
    ];
    let figure = figure("ports", text, "ports", "cost", &growths);
    Ok((growths.into(), figure))
}

/// Nanoseconds per run of a contender's programs; the minimum of three rounds.
fn nanos_per_run(contender: &Contender, kind: Kind) -> Result<f64> {
    let _on = loader::enable_stats().during("BPF_ENABLE_STATS")?;
    let load = Load::new(kind, Duration::from_millis(100));
    let rounds = (0..3).map(|_| with(contender, load, true)).collect::<Result<Vec<_>>>()?;
    let each: Vec<f64> = rounds.iter().filter_map(|round| round.runs.nanos_per_run()).collect();
    least(&each).ok_or_else(|| Fault::new("no program ran"))
}

/// Time to read the perf buffers of larger machines than this one.
fn rings() -> Result<(Vec<Growth>, Figure)> {
    progress("rings");
    /// Records per buffer, of 96 bytes each.
    const RECORDS: u64 = 200;
    let mut growths = ["empty buffers, µs", "200 events per CPU, µs"].map(|what| Growth {
        name: format!("drain: {what}"),
        points: Vec::new(),
        floor: 0.05,
    });
    for cpus in [2, 8, 32, 128, 512_usize] {
        let mut buffers = PerfBuffers::new(cpus, 64 << 10);
        let [mut empty, mut full] = [Vec::new(), Vec::new()];
        for round in 0..7 {
            empty.push(drain(&mut buffers, 0)?);
            for record in 0..RECORDS {
                for cpu in 0..cpus {
                    // CPUs take turns, so that the reader has to merge their records by time.
                    let time = (round * RECORDS + record) * cpus as u64 + cpu as u64;
                    if !buffers.append(cpu, time, 12) {
                        return Err(Fault::new("a perf buffer is full"));
                    }
                }
            }
            full.push(drain(&mut buffers, RECORDS * cpus as u64)?);
        }
        for (growth, costs) in growths.iter_mut().zip([empty, full]) {
            growth.points.push((cpus as f64, least(&costs).unwrap_or(f64::NAN)));
        }
    }
    let text = [
        "CPUs",
        "The tools' reader drains the perf buffers of this many CPUs, in plain memory: one pass, the minimum of seven.",
    ];
    let figure = figure("rings", text, "CPUs", "µs", &growths);
    Ok((growths.into(), figure))
}

/// Microseconds of one pass. It must find this many records, ordered by time.
fn drain(buffers: &mut PerfBuffers, expected: u64) -> Result<f64> {
    let (mut last, mut in_order) = (0, true);
    let begin = Instant::now();
    let count = buffers
        .drain(&mut |record| {
            let time = record.first_chunk().map_or(0, |time| u64::from_ne_bytes(*time));
            in_order &= time >= last;
            last = time;
        })
        .during("drain")?;
    let took = begin.elapsed();
    if count != expected || !in_order {
        return Err(Fault::new(format!("{count} of {expected} records, in order: {in_order}")));
    }
    Ok(took.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steepest_step_counts() {
        let growth =
            |points: &[(f64, f64)]| Growth { name: String::new(), points: points.to_vec(), floor: 0.1 };
        let square = growth(&[(1.0, 5.0), (10.0, 6.0), (100.0, 600.0), (1000.0, 600.0)]);
        assert!((square.steepest() - 2.0).abs() < 1e-9, "{}", square.steepest());
        assert!(growth(&[(1.0, 5.0), (1000.0, 5.0)]).steepest().abs() < 1e-9);
    }

    #[test]
    fn rings_are_read_in_order() {
        let mut buffers = PerfBuffers::new(2, 4096);
        assert!(buffers.append(1, 5, 12) && buffers.append(0, 7, 12));
        assert!(drain(&mut buffers, 2).is_ok());
        assert!(drain(&mut buffers, 1).is_err(), "nothing is left");
    }
}
