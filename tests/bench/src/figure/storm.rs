//! Connections opened and closed as fast as the machine can: how much slower they are with a tool.

use std::time::Duration;

use super::{Plan, progress};
use crate::contender::{Contender, Maker};
use crate::empty::Empty;
use crate::fault::{During, Result};
use crate::load::{End, Kind, Load};
use crate::program::Runs;
use crate::report::{Cell, Chart, Figure};
use crate::round::{Round, bare, expected, with};
use crate::stats::{greatest, least, median, ratio};

/// The result of a contender in the storm.
#[derive(Clone, Debug)]
pub struct Storm {
    pub contender: Contender,
    /// Connections per second as a share of those without a tool, by round.
    pub ratios: Vec<f64>,
    /// Microseconds of user CPU per connection.
    pub user: Option<f64>,
    /// Microseconds of total CPU per connection.
    pub cpu: Option<f64>,
    /// Expected rows, and rows printed.
    pub rows: (u64, u64),
    /// The greatest share of lost rows in a round.
    pub worst_loss: Option<f64>,
    /// Nanoseconds per run of its programs.
    pub nanos_per_run: Option<f64>,
    /// The same for an empty program at the same time.
    pub empty: Option<f64>,
    /// Nanoseconds in its programs per connection.
    pub nanos_per_connection: Option<f64>,
}

impl Storm {
    /// The median of the ratios.
    pub fn ratio(&self) -> Option<f64> {
        median(&self.ratios)
    }

    /// The lowest and the highest ratio: how far rounds differ on this machine.
    fn range(&self) -> String {
        format!("{} to {}", Cell::number(least(&self.ratios), 2), Cell::number(greatest(&self.ratios), 2))
    }
}

/// Rounds without a tool and with each contender. The order is reversed every time, so that a drift
/// of the machine's speed affects all of them alike.
pub fn measure(plan: &Plan) -> Result<(Vec<Storm>, Figure)> {
    progress("storm of connections");
    let load = Load::new(Kind::Storm(End::Fin), plan.time(700));
    let contenders = if plan.short { plan.of(&["tcplife", "tcpstates"]) } else { plan.with_known_rows(load) };
    // A short run compares with no tool and with libbpf-tools.
    let contenders: Vec<&Contender> =
        contenders.into_iter().filter(|contender| !plan.short || contender.maker <= Maker::Libbpf).collect();
    let mut rates: Vec<f64> = Vec::new();
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let mut rounds: Vec<Vec<Round>> = (0..contenders.len()).map(|_| Vec::new()).collect();
    bare(load)?; // with cold caches
    let count = plan.rounds(9, 3);
    for number in 0..count {
        progress(&format!("round {} of {count}", number + 1));
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
        "Connections on loopback, opened and closed as fast as two threads per CPU can, with ten changes of state each. Rounds with \
         and without a tool alternate; the share is the median. User CPU is counted in clock ticks until the process exits; total \
         CPU is exact, until all rows are written. Time in programs is the kernel's own count (BPF_ENABLE_STATS) in a separate \
         round, with an empty program at the same tracepoint. If a row of tcptools is missing, the kernel skipped a run of a program \
         that was already running on that CPU (in an interrupt); the tool counts and reports this. Some kernels run no BPF programs \
         in process 1 (see `tcptools doctor`): changes by packets that arrive while it runs are skipped too, and not counted.",
        &[
            "tool",
            "share of connections/s",
            "range over rounds",
            "user µs/connection",
            "total CPU µs/connection",
            "rows expected",
            "rows",
            "worst loss %",
            "ns/run",
            "empty program ns/run",
            "ns/connection",
        ],
    );
    let without = median(&rates);
    figure.row([
        format!("no tool: {} connections/s", Cell::number(without, 0)).into(),
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
        let kernel = kernel_counts(contender)?;
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
            Cell::number(storm.nanos_per_run, 0),
            Cell::number(storm.empty, 0),
            Cell::number(storm.nanos_per_connection, 0),
        ]);
        storms.push(storm);
    }
    let bars = storms.iter().filter_map(|storm| Some((storm.contender.to_string(), storm.ratio()?)));
    let axis = "connections/s with the tool, share of those without".to_owned();
    figure.chart = Some(Chart::Bars { axis, bars: bars.collect(), goal: Some(0.9) });
    Ok((storms, figure))
}

/// The kernel's own counts, from a separate round.
struct KernelCounts {
    runs: Runs,
    connections: u64,
    empty: Runs,
}

fn kernel_counts(contender: &Contender) -> Result<KernelCounts> {
    let _on = loader::enable_stats().during("BPF_ENABLE_STATS")?;
    let empty = Empty::attach()?;
    let round = with(contender, Load::new(Kind::Storm(End::Fin), Duration::from_millis(300)), true)?;
    Ok(KernelCounts { runs: round.runs, connections: round.done.count, empty: empty.runs()? })
}

fn sum_up(
    contender: &Contender,
    load: Load,
    ratios: Vec<f64>,
    rounds: &[Round],
    kernel: &KernelCounts,
) -> Storm {
    let expected_rows = |round: &Round| expected(contender.tool, load, &round.done).unwrap_or(0);
    let losses: Vec<f64> = rounds
        .iter()
        .filter_map(|round| {
            ratio(expected_rows(round).saturating_sub(round.delivered) as f64, expected_rows(round) as f64)
        })
        .collect();
    let per_connection = |time: fn(&Round) -> Duration| -> Vec<f64> {
        let micros = |round: &Round| ratio(time(round).as_secs_f64() * 1e6, round.done.count as f64);
        rounds.iter().filter_map(micros).collect()
    };
    let user = per_connection(|round| round.user);
    Storm {
        contender: contender.clone(),
        ratios,
        // User CPU is counted in ticks: the mean over all rounds is more exact than a median.
        user: ratio(user.iter().sum(), user.len() as f64),
        cpu: median(&per_connection(|round| round.cpu)),
        rows: (rounds.iter().map(expected_rows).sum(), rounds.iter().map(|round| round.delivered).sum()),
        worst_loss: greatest(&losses),
        nanos_per_run: kernel.runs.nanos_per_run(),
        empty: kernel.empty.nanos_per_run(),
        nanos_per_connection: ratio(kernel.runs.nanos as f64, kernel.connections as f64),
    }
}

/// The same over IPv6 and with connections that are reset, without peers.
pub fn variants(plan: &Plan) -> Result<Figure> {
    progress("storms by IPv6, and of resets");
    let mut figure = Figure::new(
        "storm-variants",
        "Other storms",
        "As above, with other kinds of connections. Medians of three rounds.",
        &["storm", "tool", "share of connections/s", "rows expected", "rows"],
    );
    for (name, end, v6) in
        [("IPv6, closed", End::Fin, true), ("IPv4, reset", End::Rst, false), ("IPv6, reset", End::Rst, true)]
    {
        let load = Load { kind: Kind::Storm(end), v6, time: Duration::from_millis(400) };
        for contender in
            plan.of(&["tcplife", "tcpstates"]).into_iter().filter(|one| one.maker == Maker::Tcptools)
        {
            let (mut ratios, mut expected_rows, mut rows) = (Vec::new(), 0, 0);
            let mut before = bare(load)?.rate();
            for _ in 0..3 {
                let round = with(contender, load, false)?;
                let after = bare(load)?.rate();
                ratios.extend(ratio(round.done.rate(), (before + after) / 2.0));
                before = after;
                expected_rows += expected(contender.tool, load, &round.done).unwrap_or(0);
                rows += round.delivered;
            }
            figure.row([
                name.into(),
                contender.to_string().into(),
                Cell::number(median(&ratios), 2),
                Cell::count(expected_rows),
                Cell::count(rows),
            ]);
        }
    }
    Ok(figure)
}
