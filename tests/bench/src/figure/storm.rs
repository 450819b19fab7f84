//! Connections opened and closed as fast as the machine can: how many of them a tool costs.

use std::time::Duration;

use super::{Plan, tell};
use crate::contender::{Contender, Maker};
use crate::empty::Empty;
use crate::fault::{During, Result};
use crate::load::{End, Kind, Load};
use crate::program::Runs;
use crate::report::{Cell, Chart, Figure};
use crate::round::{Round, bare, expected, with};
use crate::stats::{greatest, least, median, ratio};

/// What the storm came to for a contender.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Who.
    pub contender: Contender,
    /// Connections a second with it, as parts of those without, round by round.
    pub ratios: Vec<f64>,
    /// Microseconds of user CPU for each connection.
    pub user: Option<f64>,
    /// Microseconds of CPU in all for each connection.
    pub cpu: Option<f64>,
    /// Rows that were due, rows that came.
    pub rows: (u64, u64),
    /// The worst round's part of rows that did not come.
    pub worst_loss: Option<f64>,
    /// Nanoseconds of its programs for each of their runs.
    pub each_run: Option<f64>,
    /// The same of an empty program, at the same time.
    pub empty: Option<f64>,
    /// Nanoseconds of its programs for each connection.
    pub each_connection: Option<f64>,
}

impl Storm {
    /// The middle of the ratios.
    pub fn ratio(&self) -> Option<f64> {
        median(&self.ratios)
    }

    /// From the least of them to the greatest: how far the machine lets one tell.
    fn range(&self) -> String {
        format!("{} to {}", Cell::number(least(&self.ratios), 2), Cell::number(greatest(&self.ratios), 2))
    }
}

/// Rounds without a tool and with each, in an order that turns round each time, so that what drifts cancels out.
pub fn measure(plan: &Plan) -> Result<(Vec<Storm>, Figure)> {
    tell("storm of connections");
    let load = Load::new(Kind::Storm(End::Fin), plan.time(700));
    let contenders = if plan.short { plan.of(&["tcplife", "tcpstates"]) } else { plan.with_known_rows(load) };
    // A short run compares with what costs nothing and with libbpf-tools.
    let contenders: Vec<&Contender> =
        contenders.into_iter().filter(|contender| !plan.short || contender.maker <= Maker::Libbpf).collect();
    let mut rates: Vec<f64> = Vec::new();
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let mut rounds: Vec<Vec<Round>> = (0..contenders.len()).map(|_| Vec::new()).collect();
    bare(load)?; // the first finds caches cold
    let count = plan.rounds(9, 3);
    for number in 0..count {
        tell(&format!("round {} of {count}", number + 1));
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        let mut before = bare(load)?.rate();
        for pair in order.chunks(2) {
            let seen = pair
                .iter()
                .map(|&at| with(contenders[at], load, false).during(contenders[at]))
                .collect::<Result<Vec<_>>>()?;
            let after = bare(load)?.rate();
            rates.push(after);
            for (&at, mut round) in pair.iter().zip(seen) {
                ratios[at].extend(ratio(round.done.rate(), (before + after) / 2.0));
                round.rows.clear();
                rounds[at].push(round);
            }
            before = after;
        }
    }
    let mut figure = Figure::new(
        "storm",
        "A storm of connections",
        "Connections on loopback, opened and closed as fast as two threads for each CPU can, ten changes of state each. \
         Rounds with and without alternate; the part is the median. User CPU is by ticks of the clock, to the end of the process; CPU in \
         all is exact, until all rows are written. Time in programs by the kernel's own count \
         (BPF_ENABLE_STATS), in a round of its own, beside an empty program at the same tracepoint. A row of tcptools that \
         does not come is a run that the kernel left out, because the program was running on that CPU already (an interrupt); \
         the tool counts and says it. Where the kernel spares its process 1 (`tcptools doctor`), what packets change while that \
         has the CPU is left out as well, and nobody counts it.",
        &[
            "tool",
            "part of connections/s",
            "in single rounds",
            "user µs/connection",
            "CPU µs/connection",
            "rows due",
            "rows",
            "worst loss %",
            "ns/run",
            "empty ns/run",
            "ns/connection",
        ],
    );
    let none = median(&rates);
    figure.row([
        format!("none: {} connections/s", Cell::number(none, 0)).into(),
        Cell::Number(1.0, 2),
        Cell::Unknown,
        Cell::Unknown,
        Cell::Unknown,
        Cell::Unknown,
        Cell::Unknown,
        Cell::Unknown,
        Cell::Unknown,
        Cell::Unknown,
        Cell::Unknown,
    ]);
    let mut storms = Vec::new();
    for (at, contender) in contenders.iter().enumerate() {
        let kernel = in_kernel(contender)?;
        let storm = sum_up(contender, load, std::mem::take(&mut ratios[at]), &rounds[at], &kernel);
        figure.row([
            contender.to_string().into(),
            Cell::number(storm.ratio(), 2),
            storm.range().into(),
            Cell::number(storm.user, 2),
            Cell::number(storm.cpu, 2),
            Cell::count(storm.rows.0),
            Cell::count(storm.rows.1),
            Cell::number(storm.worst_loss.map(|loss| loss * 100.0), 1),
            Cell::number(storm.each_run, 0),
            Cell::number(storm.empty, 0),
            Cell::number(storm.each_connection, 0),
        ]);
        storms.push(storm);
    }
    let bars = storms.iter().filter_map(|storm| Some((storm.contender.to_string(), storm.ratio()?)));
    let axis = "connections/s with the tool, as a part of those without".to_owned();
    figure.chart = Some(Chart::Bars { axis, bars: bars.collect(), goal: Some(0.9) });
    Ok((storms, figure))
}

/// What the kernel counts in a round of its own.
struct InKernel {
    runs: Runs,
    connections: u64,
    empty: Runs,
}

fn in_kernel(contender: &Contender) -> Result<InKernel> {
    let _on = loader::enable_stats().during("BPF_ENABLE_STATS")?;
    let empty = Empty::attach()?;
    let round = with(contender, Load::new(Kind::Storm(End::Fin), Duration::from_millis(300)), true)?;
    Ok(InKernel { runs: round.runs, connections: round.done.count, empty: empty.runs()? })
}

fn sum_up(contender: &Contender, load: Load, ratios: Vec<f64>, rounds: &[Round], kernel: &InKernel) -> Storm {
    let due = |round: &Round| expected(contender.tool, load, &round.done).unwrap_or(0);
    let losses: Vec<f64> = rounds
        .iter()
        .filter_map(|round| ratio(due(round).saturating_sub(round.delivered) as f64, due(round) as f64))
        .collect();
    let each = |time: fn(&Round) -> Duration| -> Vec<f64> {
        let micros = |round: &Round| ratio(time(round).as_secs_f64() * 1e6, round.done.count as f64);
        rounds.iter().filter_map(micros).collect()
    };
    let user = each(|round| round.user);
    Storm {
        contender: contender.clone(),
        ratios,
        // The clock is one of ticks: the mean, which all rounds share, and not the middle.
        user: ratio(user.iter().sum(), user.len() as f64),
        cpu: median(&each(|round| round.cpu)),
        rows: (rounds.iter().map(due).sum(), rounds.iter().map(|round| round.delivered).sum()),
        worst_loss: greatest(&losses),
        each_run: kernel.runs.nanos_each(),
        empty: kernel.empty.nanos_each(),
        each_connection: ratio(kernel.runs.nanos as f64, kernel.connections as f64),
    }
}

/// The same by IPv6 and with connections that are reset, ours only.
pub fn variants(plan: &Plan) -> Result<Figure> {
    tell("storms by IPv6, and of resets");
    let mut figure = Figure::new(
        "storm-variants",
        "Other storms",
        "As above, one kind of connection each; the median of three.",
        &["storm", "tool", "part of connections/s", "rows due", "rows"],
    );
    for (name, end, v6) in
        [("IPv6, closed", End::Fin, true), ("IPv4, reset", End::Rst, false), ("IPv6, reset", End::Rst, true)]
    {
        let load = Load { kind: Kind::Storm(end), v6, time: Duration::from_millis(400) };
        for contender in
            plan.of(&["tcplife", "tcpstates"]).into_iter().filter(|one| one.maker == Maker::Tcptools)
        {
            let (mut ratios, mut due, mut came) = (Vec::new(), 0, 0);
            let mut before = bare(load)?.rate();
            for _ in 0..3 {
                let round = with(contender, load, false)?;
                let after = bare(load)?.rate();
                ratios.extend(ratio(round.done.rate(), (before + after) / 2.0));
                before = after;
                due += expected(contender.tool, load, &round.done).unwrap_or(0);
                came += round.delivered;
            }
            figure.row([
                name.into(),
                contender.to_string().into(),
                Cell::number(median(&ratios), 2),
                Cell::count(due),
                Cell::count(came),
            ]);
        }
    }
    Ok(figure)
}
