//! What was set out to reach, and whether it is.

use super::start::Starts;
use super::storm::Storm;
use crate::contender::Maker;
use crate::limit::Limit;
use crate::report::{Cell, Figure};
use crate::stats::ratio;

/// Each goal beside what was measured: of tcplife and tcpstates in the storm, of the tool that is worst at a start and an end.
pub fn goals(starts: &[Starts], storms: &[Storm]) -> Figure {
    let mut figure = Figure::new(
        "goals",
        "Goals",
        "What is not reached has its reason in the figures below. A run that tells a change of state is made of the parts in \"What a run \
         consists of\", and takes what they take together; a tool that tells ten changes of each connection pays that ten times. A \
         start is made of the parts in \"What a start consists of\": the kernel's share of them is the same for whoever loads these \
         programs.",
        &["goal", "of", "asked", "measured", "reached"],
    );
    let mut row = |what: &str, of: &str, goal: Limit, digits: usize, value: Option<f64>| {
        figure.row([
            what.into(),
            of.into(),
            words(goal, digits).into(),
            Cell::number(value, digits),
            value.map_or(Cell::Unknown, |value| if goal.holds(value) { "yes" } else { "no" }.into()),
        ]);
    };
    for (tool, part) in [("tcplife", 0.9), ("tcpstates", 0.85)] {
        let of = |maker| {
            storms.iter().find(|storm| storm.contender.maker == maker && storm.contender.tool == tool)
        };
        let (ours, peer) = (of(Maker::Tcptools), of(Maker::Libbpf));
        let user = ours.zip(peer).and_then(|(ours, peer)| ratio(ours.user?, peer.user?));
        row(
            "connections/s, as a part of those without a tool",
            tool,
            Limit::AtLeast(part),
            2,
            ours.and_then(Storm::ratio),
        );
        let each_run = ours.and_then(|ours| Some(ours.each_run? / 1e3));
        row("kernel time for each run, µs", tool, Limit::AtMost(0.25), 2, each_run);
        let lost = ours.and_then(|ours| ours.worst_loss).map(|loss| loss * 100.0);
        row("rows lost in the storm, %", tool, Limit::AtMost(0.0), 1, lost);
        row("user CPU, as a part of libbpf-tools'", tool, Limit::AtMost(1.0 / 3.0), 2, user);
    }
    let mut worst = |what: &str, most: f64, digits: usize, value: fn(&Starts) -> Option<f64>| {
        let measured = starts
            .iter()
            .filter(|start| start.contender.maker == Maker::Tcptools)
            .filter_map(|start| Some((value(start)?, start.contender.tool)));
        let worst = measured.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let (value, tool) = worst.map_or((None, "-"), |(value, tool)| (Some(value), tool));
        row(what, tool, Limit::AtMost(most), digits, value);
    };
    worst("exec to attached, ms", 5.0, 1, |start| start.attached);
    worst("resident memory at most, MB", 4.0, 1, |start| Some(start.peak? / 1e6));
    worst("Ctrl-C to the end, ms", 30.0, 1, |start| start.end);
    figure
}

fn words(goal: Limit, digits: usize) -> String {
    match goal {
        Limit::AtLeast(least) => format!("≥ {least:.digits$}"),
        Limit::AtMost(most) => format!("≤ {most:.digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Contender;

    #[test]
    fn the_worst_tool_counts() {
        let start = |tool, attached| Starts {
            contender: Contender::ours(tool, &[]),
            attached: Some(attached),
            first_event: None,
            peak: Some(3.5e6),
            end: None,
        };
        let figure = goals(&[start("tcplife", 4.0), start("tcptop", 8.0), start("tcpdrop", 3.0)], &[]);
        let rows = |what: &str| {
            let cells = figure.rows.iter().find(|row| row[0] == what.into()).expect("a row");
            cells[1..].iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(rows("exec to attached, ms"), ["tcptop", "≤ 5.0", "8.0", "no"]);
        assert_eq!(rows("resident memory at most, MB")[2..], ["3.5", "yes"]);
        assert_eq!(rows("Ctrl-C to the end, ms"), ["-", "≤ 30.0", "-", "-"], "not measured");
    }
}
