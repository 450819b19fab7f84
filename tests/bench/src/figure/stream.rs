//! Bytes a second, and what the tools that count bytes take of them.

use std::time::Duration;

use super::tell;
use crate::contender::Contender;
use crate::fault::{During, Result};
use crate::load::{Kind, Load};
use crate::report::{Cell, Chart, Figure};
use crate::round::{bare, with};
use crate::stats::{median, ratio};

/// Sends of so many bytes.
const SIZES: [(u32, &str); 2] = [(64, "64 bytes"), (64 << 10, "64 KiB")];

/// Small and large sends.
pub fn measure() -> Result<Figure> {
    tell("streams");
    let mut figure = Figure::new(
        "stream",
        "A stream",
        "Bytes a second through a connection on loopback with the tool, as a part of those without. Rounds alternate; medians. \
         Time in programs by the kernel's own count, in a round of its own.",
        &["tool", "sends of", "part of bytes/s", "ns/run", "ns/send"],
    );
    let contenders = [Contender::ours("tcptop", &["-C"]), Contender::ours("tcpsubnet", &[])];
    let mut bars = Vec::new();
    for (bytes, size) in SIZES {
        let load = Load::new(Kind::Stream(bytes), Duration::from_millis(400));
        let mut ratios = vec![Vec::new(); contenders.len()];
        let mut before = bare(load)?.rate();
        for number in 0..7 {
            for turn in 0..contenders.len() {
                let at = if number % 2 == 0 { turn } else { contenders.len() - 1 - turn };
                let round = with(&contenders[at], load, false).during(&contenders[at])?;
                let after = bare(load)?.rate();
                ratios[at].extend(ratio(round.done.rate(), f64::midpoint(before, after)));
                before = after;
            }
        }
        for (contender, ratios) in contenders.iter().zip(ratios) {
            let _on = loader::enable_stats().during("BPF_ENABLE_STATS")?;
            let round = with(contender, Load { time: Duration::from_millis(200), ..load }, true)?;
            figure.row([
                contender.to_string().into(),
                size.into(),
                Cell::number(median(&ratios), 2),
                Cell::number(round.runs.nanos_each(), 0),
                Cell::number(ratio(round.runs.nanos as f64, round.done.events as f64), 0),
            ]);
            bars.extend(median(&ratios).map(|part| (format!("{contender}, {size}"), part)));
        }
    }
    let axis = "bytes/s with the tool, as a part of those without".to_owned();
    figure.chart = Some(Chart::Bars { axis, bars, goal: Some(0.97) });
    Ok(figure)
}
