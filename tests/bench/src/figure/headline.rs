//! The first table of a report: for the README, tcplife and tcpstates and their peers; on an
//! emulated machine, ratios of all tools that libbpf-tools has as well.

use super::start::Starts;
use super::storm::Storm;
use super::stream::{SMALL_SEND, Stream};
use crate::contender::{Contender, LIBBPF, Maker};
use crate::report::{Cell, Figure};
use crate::stats::ratio;

/// Tools whose peers run on every kernel.
const HEADLINE_TOOLS: [&str; 2] = ["tcplife", "tcpstates"];

/// A column for each contender, a row for each cost.
pub fn headline(starts: &[Starts], storms: &[Storm]) -> Figure {
    let contenders: Vec<&Contender> = storms
        .iter()
        .map(|storm| &storm.contender)
        .filter(|contender| HEADLINE_TOOLS.contains(&contender.tool))
        .collect();
    let names = contenders.iter().map(|contender| contender.to_string());
    let columns = std::iter::once(String::new()).chain(names).collect();
    let mut figure = Figure::new(
        "headline",
        "In short",
        "Medians. The sections below say how each figure is measured.",
        &[],
    );
    figure.columns = columns;
    let storm = |contender: &Contender| storms.iter().find(|storm| storm.contender == *contender);
    let start = |contender: &Contender| starts.iter().find(|start| start.contender == *contender);
    let mut row = |name: &str, digits, value: &dyn Fn(&Contender) -> Option<f64>| {
        let cells = contenders.iter().map(|contender| Cell::number(value(contender), digits));
        figure.row(std::iter::once(Cell::from(name)).chain(cells));
    };
    row("connections/s in a storm, share of those without a tool", 2, &|one| storm(one)?.ratio());
    row("rows lost in the storm, worst round, %", 1, &|one| storm(one)?.worst_loss.map(|loss| loss * 100.0));
    row("kernel time per run of the program, µs", 2, &|one| {
        storm(one)?.nanos_per_run.map(|nanos| nanos / 1e3)
    });
    row("user CPU per connection, µs", 1, &|one| storm(one)?.user);
    row("time from exec until attached, ms", 1, &|one| start(one)?.attached);
    row("time from exec to the first row, ms", 1, &|one| start(one)?.first_row);
    row("peak resident memory, MB", 1, &|one| start(one)?.peak.map(|bytes| bytes / 1e6));
    row("time from Ctrl-C to exit, ms", 1, &|one| start(one)?.stop);
    figure
}

/// A column for each tool that libbpf-tools has as well, a row for each cost.
pub fn ratios(starts: &[Starts], storms: &[Storm], streams: &[Stream]) -> Figure {
    let is = |contender: &Contender, maker, tool| contender.maker == maker && contender.tool == tool;
    let start = |maker, tool| starts.iter().find(|start| is(&start.contender, maker, tool));
    let storm = |maker, tool| storms.iter().find(|storm| is(&storm.contender, maker, tool));
    let stream = |maker, tool| {
        streams.iter().find(|stream| stream.bytes == SMALL_SEND && is(&stream.contender, maker, tool))
    };
    // tcptop prints no row per connection: it is measured with sends.
    let share = |maker, tool| storm(maker, tool).map_or_else(|| stream(maker, tool)?.ratio, Storm::ratio);
    let in_kernel = |maker, tool| {
        storm(maker, tool)
            .map_or_else(|| stream(maker, tool)?.nanos_per_send, |storm| storm.nanos_per_connection)
    };
    let is_measured =
        |&tool: &&'static str| start(Maker::Libbpf, tool).is_some() || share(Maker::Libbpf, tool).is_some();
    let tools: Vec<&'static str> = LIBBPF.into_iter().filter(is_measured).collect();
    let mut figure = Figure::new(
        "ratios",
        "In short",
        "The cost of libbpf-tools as a multiple of the cost of tcptools. Then, for each of the two: the share of connections/s that is \
         left, and the rows lost in the worst round. For tcptop, sends of 64 bytes take the place of connections.",
        &[],
    );
    figure.columns = std::iter::once("").chain(tools.iter().copied()).map(str::to_owned).collect();
    let mut row = |name: &str, digits, value: &dyn Fn(&'static str) -> Option<f64>| {
        let values: Vec<Option<f64>> = tools.iter().map(|tool| value(tool)).collect();
        if values.iter().any(Option::is_some) {
            let cells = values.into_iter().map(|value| Cell::number(value, digits));
            figure.row(std::iter::once(Cell::from(name)).chain(cells));
        }
    };
    let mut multiple = |name: &str, value: &dyn Fn(Maker, &'static str) -> Option<f64>| {
        row(name, 1, &|tool| ratio(value(Maker::Libbpf, tool)?, value(Maker::Tcptools, tool)?));
    };
    multiple("time in BPF programs per connection", &in_kernel);
    multiple("CPU of the tool per connection", &|maker, tool| storm(maker, tool)?.cpu);
    multiple("time from exec until attached", &|maker, tool| start(maker, tool)?.attached);
    multiple("time from exec to the first row", &|maker, tool| start(maker, tool)?.first_row);
    multiple("peak resident memory", &|maker, tool| start(maker, tool)?.peak);
    multiple("time from Ctrl-C to exit", &|maker, tool| start(maker, tool)?.stop);
    for maker in [Maker::Tcptools, Maker::Libbpf] {
        let lost = |tool: &'static str| storm(maker, tool)?.worst_loss.map(|loss| loss * 100.0);
        row(&format!("connections/s, share of those without a tool: {maker}"), 2, &|tool| share(maker, tool));
        row(&format!("rows lost, %: {maker}"), 1, &lost);
    }
    figure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(maker: Maker, tool: &'static str) -> Contender {
        let mut contender = Contender::ours(tool, &[]);
        contender.maker = maker;
        contender
    }

    fn start(maker: Maker, tool: &'static str, attached: f64) -> Starts {
        Starts {
            contender: of(maker, tool),
            attached: Some(attached),
            first_row: None,
            peak: None,
            stop: None,
        }
    }

    fn stream(maker: Maker, bytes: u32, share: f64, nanos_per_send: f64) -> Stream {
        Stream {
            contender: of(maker, "tcptop"),
            bytes,
            ratio: Some(share),
            nanos_per_send: Some(nanos_per_send),
        }
    }

    #[test]
    fn ratios_are_of_tools_that_both_have() {
        let starts = [
            start(Maker::Tcptools, "tcpdrop", 1.0),
            start(Maker::Tcptools, "tcplife", 5.0),
            start(Maker::Libbpf, "tcplife", 40.0),
        ];
        let streams = [
            stream(Maker::Tcptools, SMALL_SEND, 0.9, 200.0),
            stream(Maker::Libbpf, SMALL_SEND, 0.5, 700.0),
            stream(Maker::Libbpf, SMALL_SEND * 2, 0.1, 9.0),
        ];
        let figure = ratios(&starts, &[], &streams);
        assert_eq!(figure.columns, ["", "tcplife", "tcptop"]);
        let of = |name: &str| {
            let row = figure.rows.iter().find(|row| row[0].to_string() == name);
            row.map(|row| row[1..].iter().map(Cell::to_string).collect::<Vec<_>>())
        };
        assert_eq!(of("time from exec until attached"), Some(vec!["8.0".into(), "-".into()]));
        assert_eq!(of("time in BPF programs per connection"), Some(vec!["-".into(), "3.5".into()]));
        assert_eq!(of("time from Ctrl-C to exit"), None, "it was not measured");
        let left = of("connections/s, share of those without a tool: libbpf-tools");
        assert_eq!(left, Some(vec!["-".into(), "0.50".into()]));
        assert_eq!(ratios(&starts[..2], &[], &[]).columns.len(), 1, "there is nothing to compare");
    }
}
