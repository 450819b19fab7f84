//! The throughput of a connection with the tools that count bytes.

use std::time::Duration;

use super::{Plan, progress};
use crate::contender::Contender;
use crate::fault::{During, Result};
use crate::load::{Kind, Load};
use crate::report::{Cell, Chart, Figure};
use crate::round::{bare, with};
use crate::stats::{median, ratio};

/// Bytes of a small send: the smaller the sends, the more program runs per byte.
pub const SMALL_SEND: u32 = 64;

/// Bytes per send, and their text.
const SIZES: [(u32, &str); 2] = [(SMALL_SEND, "64 bytes"), (64 << 10, "64 KiB")];

/// The result of a contender.
#[derive(Clone, Debug)]
pub struct Stream {
    pub contender: Contender,
    /// Bytes per send.
    pub bytes: u32,
    /// Bytes per second as a share of those without a tool.
    pub ratio: Option<f64>,
    /// Nanoseconds in its programs per send.
    pub nanos_per_send: Option<f64>,
}

/// Small and large sends.
pub fn measure(plan: &Plan) -> Result<(Vec<Stream>, Figure)> {
    progress("streams");
    let mut figure = Figure::new(
        "stream",
        "A stream",
        "Bytes per second through a connection on loopback, as a share of those without a tool. Rounds with and without a tool \
         alternate; medians. Time in programs is the kernel's own count, in a separate round.",
        &["tool", "size of sends", "share of bytes/s", "ns/run", "ns/send"],
    );
    let contenders = plan.of(&["tcpsubnet", "tcptop"]);
    let (mut streams, mut bars) = (Vec::new(), Vec::new());
    for (bytes, size) in SIZES {
        progress(&format!("sends of {size}"));
        // An emulated machine needs as many and as long rounds: on one CPU, chance decides how long
        // each end runs.
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
                nanos_per_send: ratio(round.runs.nanos as f64, round.done.events as f64),
            };
            figure.row([
                contender.to_string().into(),
                size.into(),
                Cell::number(stream.ratio, 2),
                Cell::number(round.runs.nanos_per_run(), 0),
                Cell::number(stream.nanos_per_send, 0),
            ]);
            bars.extend(stream.ratio.map(|share| (format!("{contender}, {size}"), share)));
            streams.push(stream);
        }
    }
    let axis = "bytes/s with the tool, share of those without".to_owned();
    figure.chart = Some(Chart::Bars { axis, bars, goal: Some(0.97) });
    Ok((streams, figure))
}
