//! Whether every event becomes a row: at a steady rate, for refused connects, and for
//! retransmissions.

use std::time::Duration;

use serde_json::Value;

use super::{Plan, progress};
use crate::contender::{Contender, Maker};
use crate::fault::{During, Result};
use crate::load::{Kind, Load};
use crate::report::{Cell, Figure};
use crate::round::{Round, bare, expected, with};
use crate::stats::{median, ratio};

/// Connections per second, as on a busy production host.
const RATE: u32 = 3000;

/// The result of a tool at the steady rate.
#[derive(Clone, Debug)]
pub struct Steady {
    pub contender: Contender,
    /// Expected rows, and rows printed.
    pub rows: (u64, u64),
}

/// A rate at which the machine has time left.
pub fn steady(plan: &Plan) -> Result<(Vec<Steady>, Figure)> {
    progress("a steady rate");
    let load = Load::new(Kind::Steady(RATE), plan.time(if plan.short { 800 } else { 2000 }));
    let mut figure = Figure::new(
        "steady",
        "A steady rate",
        "3,000 connections per second, one after the other. User CPU is counted in clock ticks; total CPU is exact.",
        &["tool", "connections/s", "rows expected", "rows", "user CPU %", "total CPU %"],
    );
    let mut results = Vec::new();
    let chosen = plan.with_known_rows(load);
    for contender in chosen.into_iter().filter(|one| !plan.short || one.maker == Maker::Tcptools) {
        let round = with(contender, load, false).during(contender)?;
        let due = expected(contender.tool, load, &round.done).unwrap_or(0);
        let percent = |cpu: Duration| ratio(cpu.as_secs_f64() * 100.0, round.done.time.as_secs_f64());
        figure.row([
            contender.to_string().into(),
            Cell::Number(round.done.rate(), 0),
            Cell::count(due),
            Cell::count(round.delivered),
            Cell::number(percent(round.user), 1),
            Cell::number(percent(round.cpu), 1),
        ]);
        results.push(Steady { contender: contender.clone(), rows: (due, round.delivered) });
    }
    Ok((results, figure))
}

/// Connects to a port without a listener.
pub fn refused() -> Result<Figure> {
    progress("refused connects");
    let load = Load::new(Kind::Refused, Duration::from_millis(400));
    let mut figure = Figure::new(
        "refused",
        "Refused connects",
        "Connects to a port without a listener, as fast as one thread per CPU can. Medians of three rounds.",
        &["tool", "share of connects/s", "rows expected", "rows"],
    );
    let ours = [
        ("tcpconnlat", &["--failed"][..]),
        ("tcplife", &["--failed"]),
        ("tcpdrop", &["--no-stack", "--ring-size", "16M"]),
        ("tcpdrop", &["--ring-size", "64M"]),
    ];
    for (tool, args) in ours {
        let contender = Contender::ours(tool, args);
        let (ratios, expected_rows, rows) = alternate(&contender, load, 3)?;
        figure.row([
            format!("{contender} {}", args.join(" ")).into(),
            Cell::number(median(&ratios), 2),
            Cell::count(expected_rows),
            Cell::count(rows),
        ]);
    }
    Ok(figure)
}

/// Rounds with and without a tool in turn: ratios of their rates, expected rows, and rows printed.
fn alternate(contender: &Contender, load: Load, rounds: usize) -> Result<(Vec<f64>, u64, u64)> {
    let (mut ratios, mut expected_rows, mut rows) = (Vec::new(), 0, 0);
    let mut before = bare(load)?.rate();
    for _ in 0..rounds {
        let round = with(contender, load, false).during(contender)?;
        let after = bare(load)?.rate();
        ratios.extend(ratio(round.done.rate(), f64::midpoint(before, after)));
        before = after;
        expected_rows += expected(contender.tool, load, &round.done).unwrap_or(0);
        rows += round.delivered;
    }
    Ok((ratios, expected_rows, rows))
}

/// Packets lost between two namespaces. The expected number is the kernel's own count.
pub fn lossy(plan: &Plan) -> Result<Figure> {
    progress("lost packets");
    let load = Load::new(Kind::Lossy(20), Duration::from_millis(1500));
    let mut figure = Figure::new(
        "lossy",
        "A storm of retransmissions",
        "64 connections over a pair of veth devices that lose every fifth packet. The expected number is the kernel's count of \
         retransmitted segments; a row is about a packet, which can contain several segments. Kernels that run no BPF programs \
         in process 1 (see `tcptools doctor`) report fewer than they count.",
        &["tool", "retransmissions/s", "segments expected", "segments reported", "rows"],
    );
    let json = Contender::ours("tcpretrans", &["--json"]);
    let peers = plan.of(&["tcpretrans"]).into_iter().filter(|one| one.maker != Maker::Tcptools);
    for contender in std::iter::once(&json).chain(peers) {
        let round = with(contender, load, false).during(contender)?;
        let reported = (contender.maker == Maker::Tcptools).then(|| segments(&round));
        figure.row([
            contender.to_string().into(),
            Cell::number(ratio(round.done.events as f64, round.done.time.as_secs_f64()), 0),
            Cell::count(round.done.events),
            reported.map_or(Cell::Unknown, Cell::count),
            Cell::count(round.delivered),
        ]);
    }
    Ok(figure)
}

/// The sum of the segments in rows of JSON about the sender, which is the only one with its
/// address.
fn segments(round: &Round) -> u64 {
    let text = String::from_utf8_lossy(&round.rows);
    let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_sender = rows.filter(|row| row["laddr"] == "10.87.0.1");
    of_sender.filter_map(|row| row["segments"].as_u64()).sum()
}
