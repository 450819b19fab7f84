//! The goals for tcptools, and whether they are reached.

use super::start::Starts;
use super::storm::Storm;
use crate::contender::Maker;
use crate::limit::Limit;
use crate::report::{Cell, Figure};
use crate::stats::ratio;

/// Each goal and the measured number: of tcplife and tcpstates in the storm, and of the slowest
/// tool when starting and stopping.
pub fn goals(starts: &[Starts], storms: &[Storm]) -> Figure {
    let mut figure = Figure::new(
        "goals",
        "Goals",
        "The figures below explain the goals that are not reached. A program run that reports a change of state consists of the parts \
         in \"Parts of a run\" and takes their sum; a tool that reports ten changes per connection pays that sum ten times. A start \
         consists of the parts in \"Parts of a start\"; the kernel's share of them is the same for every loader of these programs.",
        &["goal", "tool", "limit", "measured", "reached"],
    );
    let mut row = |what: &str, of: &str, goal: Limit, digits: usize, value: Option<f64>| {
        figure.row([
            what.into(),
            of.into(),
            limit_text(goal, digits).into(),
            Cell::number(value, digits),
            value.map_or(Cell::Unknown, |value| if goal.is_kept_by(value) { "yes" } else { "no" }.into()),
        ]);
    };
    for (tool, share) in [("tcplife", 0.9), ("tcpstates", 0.85)] {
        let of = |maker| {
            storms.iter().find(|storm| storm.contender.maker == maker && storm.contender.tool == tool)
        };
        let (ours, peer) = (of(Maker::Tcptools), of(Maker::Libbpf));
        let user = ours.zip(peer).and_then(|(ours, peer)| ratio(ours.user?, peer.user?));
        row(
            "connections/s, share of those without a tool",
            tool,
            Limit::AtLeast(share),
            2,
            ours.and_then(Storm::ratio),
        );
        let nanos_per_run = ours.and_then(|ours| Some(ours.nanos_per_run? / 1e3));
        row("kernel time per run, µs", tool, Limit::AtMost(0.25), 2, nanos_per_run);
        let lost = ours.and_then(|ours| ours.worst_loss).map(|loss| loss * 100.0);
        row("rows lost in the storm, %", tool, Limit::AtMost(0.0), 1, lost);
        row("user CPU, share of libbpf-tools'", tool, Limit::AtMost(1.0 / 3.0), 2, user);
    }
    let mut worst = |what: &str, limit: f64, digits: usize, value: fn(&Starts) -> Option<f64>| {
        let measured = starts
            .iter()
            .filter(|start| start.contender.maker == Maker::Tcptools)
            .filter_map(|start| Some((value(start)?, start.contender.tool)));
        let worst = measured.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let (value, tool) = worst.map_or((None, "-"), |(value, tool)| (Some(value), tool));
        row(what, tool, Limit::AtMost(limit), digits, value);
    };
    worst("time from exec until attached, ms", 5.0, 1, |start| start.attached);
    worst("peak resident memory, MB", 4.0, 1, |start| Some(start.peak? / 1e6));
    worst("time from Ctrl-C to exit, ms", 30.0, 1, |start| start.stop);
    figure
}

fn limit_text(goal: Limit, digits: usize) -> String {
    match goal {
        Limit::AtLeast(limit) => format!("≥ {limit:.digits$}"),
        Limit::AtMost(limit) => format!("≤ {limit:.digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Contender;

    #[test]
    fn the_slowest_tool_counts() {
        let start = |tool, attached| Starts {
            contender: Contender::ours(tool, &[]),
            attached: Some(attached),
            first_row: None,
            peak: Some(3.5e6),
            stop: None,
        };
        let figure = goals(&[start("tcplife", 4.0), start("tcptop", 8.0), start("tcpdrop", 3.0)], &[]);
        let rows = |what: &str| {
            let cells = figure.rows.iter().find(|row| row[0] == what.into()).expect("a row");
            cells[1..].iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(rows("time from exec until attached, ms"), ["tcptop", "≤ 5.0", "8.0", "no"]);
        assert_eq!(rows("peak resident memory, MB")[2..], ["3.5", "yes"]);
        assert_eq!(rows("time from Ctrl-C to exit, ms"), ["-", "≤ 30.0", "-", "-"], "not measured");
    }
}
