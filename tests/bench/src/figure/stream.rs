//! Bytes a second, and what the tools that count bytes take of them.

use std::time::Duration;

use super::{Plan, tell};
use crate::contender::Contender;
use crate::fault::{During, Result};
use crate::load::{Kind, Load};
use crate::report::{Cell, Chart, Figure};
use crate::round::{bare, with};
use crate::stats::{median, ratio};

/// The smallest send, of which there are the most.
pub const SMALL: u32 = 64;

/// Sends of so many bytes.
const SIZES: [(u32, &str); 2] = [(SMALL, "64 bytes"), (64 << 10, "64 KiB")];

/// What a stream came to for a contender.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Who.
    pub contender: Contender,
    /// Bytes of each send.
    pub bytes: u32,
    /// Bytes a second with it, as a part of those without.
    pub ratio: Option<f64>,
    /// Nanoseconds of its programs for each send.
    pub each_send: Option<f64>,
}

/// Small and large sends.
pub fn measure(plan: &Plan) -> Result<(Vec<Stream>, Figure)> {
    tell("streams");
    let mut figure = Figure::new(
        "stream",
        "A stream",
        "Bytes a second through a connection on loopback with the tool, as a part of those without. Rounds alternate; medians. \
         Time in programs by the kernel's own count, in a round of its own.",
        &["tool", "sends of", "part of bytes/s", "ns/run", "ns/send"],
    );
    let contenders = plan.of(&["tcpsubnet", "tcptop"]);
    let (mut streams, mut bars) = (Vec::new(), Vec::new());
    for (bytes, size) in SIZES {
        tell(&format!("sends of {size}"));
        // Not fewer nor shorter where the clock counts instructions: on one CPU chance decides who of the two ends runs how long.
        let load = Load::new(Kind::Stream(bytes), Duration::from_millis(400));
        let mut ratios = vec![Vec::new(); contenders.len()];
        let mut before = bare(load)?.rate();
        for number in 0..7 {
            for turn in 0..contenders.len() {
                let at = if number % 2 == 0 { turn } else { contenders.len() - 1 - turn };
                let round = with(contenders[at], load, false).during(contenders[at])?;
                let after = bare(load)?.rate();
                ratios[at].extend(ratio(round.done.rate(), f64::midpoint(before, after)));
                before = after;
            }
        }
        for (&contender, ratios) in contenders.iter().zip(ratios) {
            let _on = loader::enable_stats().during("BPF_ENABLE_STATS")?;
            let round = with(contender, Load { time: Duration::from_millis(200), ..load }, true)?;
            let stream = Stream {
                contender: contender.clone(),
                bytes,
                ratio: median(&ratios),
                each_send: ratio(round.runs.nanos as f64, round.done.events as f64),
            };
            figure.row([
                contender.to_string().into(),
                size.into(),
                Cell::number(stream.ratio, 2),
                Cell::number(round.runs.nanos_each(), 0),
                Cell::number(stream.each_send, 0),
            ]);
            bars.extend(stream.ratio.map(|part| (format!("{contender}, {size}"), part)));
            streams.push(stream);
        }
    }
    let axis = "bytes/s with the tool, as a part of those without".to_owned();
    figure.chart = Some(Chart::Bars { axis, bars, goal: Some(0.97) });
    Ok((streams, figure))
}
