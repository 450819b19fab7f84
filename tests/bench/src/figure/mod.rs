//! The measurements. Each gives a table, a chart where one helps, and numbers for the headline and the verdict.

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

/// What is compared, and how long.
#[derive(Debug)]
pub struct Plan {
    /// Ours and the peers that run here.
    pub contenders: Vec<Contender>,
    /// Peers that do not.
    pub left_out: Vec<LeftOut>,
    /// The file of tcptools.
    pub tcptools: PathBuf,
    /// Only what the verdict needs.
    pub short: bool,
    /// The machine is emulated: its clock makes rounds alike, and each takes many times as long as it says.
    pub emulated: bool,
}

impl Plan {
    /// Those of these tools, ours first, in the order of the tools.
    pub fn of(&self, tools: &[&str]) -> Vec<&Contender> {
        let mut chosen: Vec<&Contender> =
            self.contenders.iter().filter(|contender| tools.contains(&contender.tool)).collect();
        let place = |tool| self::tools().iter().position(|known| *known == tool);
        chosen.sort_by_key(|contender| (place(contender.tool), contender.maker));
        chosen
    }

    /// Those of the tools whose number of rows follows from what this load does.
    pub fn with_known_rows(&self, load: Load) -> Vec<&Contender> {
        let nothing = Done { count: 0, time: load.time, events: 0 };
        let known = tools().into_iter().filter(|tool| expected(tool, load, &nothing).is_some());
        self.of(&known.collect::<Vec<_>>())
    }

    /// A number of rounds: `long`, or `short` in a short run and where rounds are alike.
    pub fn rounds(&self, long: usize, short: usize) -> usize {
        if self.short || self.emulated { short } else { long }
    }

    /// How long a round is, of so many milliseconds.
    fn time(&self, millis: u64) -> Duration {
        Duration::from_millis(if self.emulated { millis / 2 } else { millis })
    }
}

/// Tells on standard error what is being measured: a run takes minutes.
pub fn tell(what: &str) {
    eprintln!("bench-tools: {what}");
}

/// In milliseconds.
fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
