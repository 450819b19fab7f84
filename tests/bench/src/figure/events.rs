//! Whether every event comes: a steady rate, connects that are refused, packets that are lost.

use std::time::Duration;

use serde_json::Value;

use super::{Plan, tell};
use crate::contender::{Contender, Maker};
use crate::fault::{During, Result};
use crate::load::{Kind, Load};
use crate::report::{Cell, Figure};
use crate::round::{Round, bare, expected, with};
use crate::stats::{median, ratio};

/// Connections a second that any production host may have.
const RATE: u32 = 3000;

/// What the steady rate came to.
#[derive(Clone, Debug)]
pub struct Steady {
    /// Who.
    pub contender: Contender,
    /// Rows that were due, rows that came.
    pub rows: (u64, u64),
}

/// A rate that leaves the machine time.
pub fn steady(plan: &Plan) -> Result<(Vec<Steady>, Figure)> {
    tell("a steady rate");
    let load = Load::new(Kind::Steady(RATE), plan.time(if plan.short { 800 } else { 2000 }));
    let mut figure = Figure::new(
        "steady",
        "A steady rate",
        "3,000 connections a second, one after the other. User CPU is by ticks of the clock; CPU in all is exact.",
        &["tool", "connections/s", "rows due", "rows", "user CPU %", "CPU %"],
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

/// Connects where nobody listens.
pub fn refused() -> Result<Figure> {
    tell("refused connects");
    let load = Load::new(Kind::Refused, Duration::from_millis(400));
    let mut figure = Figure::new(
        "refused",
        "Refused connects",
        "Connects to a port where nobody listens, as fast as a thread for each CPU can; the median of three.",
        &["tool", "part of connects/s", "rows due", "rows"],
    );
    let ours = [
        ("tcpconnlat", &["--failed"][..]),
        ("tcplife", &["--failed"]),
        ("tcpdrop", &["--no-stack", "--ring-size", "16M"]),
        ("tcpdrop", &["--ring-size", "64M"]),
    ];
    for (tool, args) in ours {
        let contender = Contender::ours(tool, args);
        let (ratios, due, came) = alternate(&contender, load, 3)?;
        figure.row([
            format!("{contender} {}", args.join(" ")).into(),
            Cell::number(median(&ratios), 2),
            Cell::count(due),
            Cell::count(came),
        ]);
    }
    Ok(figure)
}

/// Ratios, rows that were due, rows that came.
fn alternate(contender: &Contender, load: Load, rounds: usize) -> Result<(Vec<f64>, u64, u64)> {
    let (mut ratios, mut due, mut came) = (Vec::new(), 0, 0);
    let mut before = bare(load)?.rate();
    for _ in 0..rounds {
        let round = with(contender, load, false).during(contender)?;
        let after = bare(load)?.rate();
        ratios.extend(ratio(round.done.rate(), f64::midpoint(before, after)));
        before = after;
        due += expected(contender.tool, load, &round.done).unwrap_or(0);
        came += round.delivered;
    }
    Ok((ratios, due, came))
}

/// Packets lost between two namespaces. What is due is the kernel's own count.
pub fn lossy(plan: &Plan) -> Result<Figure> {
    tell("lost packets");
    let load = Load::new(Kind::Lossy(20), Duration::from_millis(1500));
    let mut figure = Figure::new(
        "lossy",
        "A storm of retransmissions",
        "64 connections over a veth pair that lose every fifth packet. What is due is the kernel's count of retransmitted \
         segments; a row is a packet, which may be several. A kernel that spares its process 1 (`tcptools doctor`) tells of \
         fewer than it counts.",
        &["tool", "retransmissions/s", "segments due", "segments told", "rows"],
    );
    let json = Contender::ours("tcpretrans", &["--json"]);
    let peers = plan.of(&["tcpretrans"]).into_iter().filter(|one| one.maker != Maker::Tcptools);
    for contender in std::iter::once(&json).chain(peers) {
        let round = with(contender, load, false).during(contender)?;
        let told = (contender.maker == Maker::Tcptools).then(|| segments(&round));
        figure.row([
            contender.to_string().into(),
            Cell::number(ratio(round.done.events as f64, round.done.time.as_secs_f64()), 0),
            Cell::count(round.done.events),
            told.map_or(Cell::Unknown, Cell::count),
            Cell::count(round.delivered),
        ]);
    }
    Ok(figure)
}

/// The sum of segments in rows of JSON that the sender retransmitted. Nobody else has its address.
fn segments(round: &Round) -> u64 {
    let text = String::from_utf8_lossy(&round.rows);
    let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = rows.filter(|row| row["laddr"] == "10.87.0.1");
    ours.filter_map(|row| row["segments"].as_u64()).sum()
}
