//! What the README shows: tcplife and tcpstates, beside those that do the same.

use super::start::Starts;
use super::storm::Storm;
use crate::contender::Contender;
use crate::report::{Cell, Figure};

/// The tools that peers have on every kernel.
const TOOLS: [&str; 2] = ["tcplife", "tcpstates"];

/// A column for each contender, a row for each cost.
pub fn headline(starts: &[Starts], storms: &[Storm]) -> Figure {
    let contenders: Vec<&Contender> = storms
        .iter()
        .map(|storm| &storm.contender)
        .filter(|contender| TOOLS.contains(&contender.tool))
        .collect();
    let names = contenders.iter().map(|contender| contender.to_string());
    let columns = std::iter::once(String::new()).chain(names).collect();
    let mut figure =
        Figure::new("headline", "In short", "Medians; how each was measured is said below.", &[]);
    figure.columns = columns;
    let storm = |contender: &Contender| storms.iter().find(|storm| storm.contender == *contender);
    let start = |contender: &Contender| starts.iter().find(|start| start.contender == *contender);
    let mut row = |name: &str, digits, value: &dyn Fn(&Contender) -> Option<f64>| {
        let cells = contenders.iter().map(|contender| Cell::number(value(contender), digits));
        figure.row(std::iter::once(Cell::from(name)).chain(cells));
    };
    row("connections/s in a storm, as a part of those without a tool", 2, &|one| storm(one)?.ratio());
    row("rows lost in the storm, worst round, %", 1, &|one| storm(one)?.worst_loss.map(|loss| loss * 100.0));
    row("kernel time for each run of the program, µs", 2, &|one| {
        storm(one)?.each_run.map(|nanos| nanos / 1e3)
    });
    row("user CPU for each connection, µs", 1, &|one| storm(one)?.user);
    row("exec to attached, ms", 1, &|one| start(one)?.attached);
    row("exec to the first event shown, ms", 1, &|one| start(one)?.first_event);
    row("resident memory at most, MB", 1, &|one| start(one)?.peak.map(|bytes| bytes / 1e6));
    row("Ctrl-C to the end, ms", 1, &|one| start(one)?.end);
    figure
}
