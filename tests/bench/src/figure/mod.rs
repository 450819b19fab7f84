//! The measurements. Each returns a table, some with a chart, and the numbers that the headline and
//! the verdict need.

pub mod events;
pub mod goals;
pub mod grow;
pub mod headline;
pub mod parts;
pub mod program;
pub mod size;
pub mod start;
pub mod storm;
pub mod stream;

use std::path::PathBuf;
use std::time::Duration;

use crate::contender::{Contender, LeftOut, tools};
use crate::load::{Done, Load};
use crate::round::expected;

/// What a run compares, and how long it measures.
#[derive(Debug)]
pub struct Plan {
    /// The tools of tcptools, and the peers that run here.
    pub contenders: Vec<Contender>,
    /// The peers that do not run here.
    pub left_out: Vec<LeftOut>,
    /// The path of tcptools.
    pub tcptools: PathBuf,
    /// Measure only what the verdict needs.
    pub short: bool,
    /// The machine is emulated: its clock makes all rounds alike, and each takes many times as long
    /// as the clock shows.
    pub emulated: bool,
}

impl Plan {
    /// The contenders with these tools, in the order of the registry, tcptools before its peers.
    pub fn of(&self, tools: &[&str]) -> Vec<&Contender> {
        let mut chosen: Vec<&Contender> =
            self.contenders.iter().filter(|contender| tools.contains(&contender.tool)).collect();
        let place = |tool| self::tools().iter().position(|known| *known == tool);
        chosen.sort_by_key(|contender| (place(contender.tool), contender.maker));
        chosen
    }

    /// The contenders whose number of rows follows from what this load does.
    pub fn with_known_rows(&self, load: Load) -> Vec<&Contender> {
        let nothing = Done { count: 0, time: load.time, events: 0 };
        let known = tools().into_iter().filter(|tool| expected(tool, load, &nothing).is_some());
        self.of(&known.collect::<Vec<_>>())
    }

    /// The number of rounds: `short` in a short run and on an emulated machine, where rounds are
    /// alike.
    pub fn rounds(&self, long: usize, short: usize) -> usize {
        if self.short || self.emulated { short } else { long }
    }

    /// The duration of a round that has this many milliseconds on a real machine.
    fn time(&self, millis: u64) -> Duration {
        Duration::from_millis(if self.emulated { millis / 2 } else { millis })
    }
}

/// Prints on standard error what is being measured, because a run takes minutes.
pub fn progress(what: &str) {
    eprintln!("bench-tools: {what}");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
