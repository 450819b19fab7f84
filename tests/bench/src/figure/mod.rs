//! The measurements. Each gives a table, a chart where one helps, and numbers for the headline and the verdict.

pub mod events;
pub mod grow;
pub mod headline;
pub mod parts;
pub mod program;
pub mod start;
pub mod storm;
pub mod stream;

use std::time::Duration;

use crate::contender::{Contender, LeftOut, TOOLS};

/// What is compared, and how long.
#[derive(Debug)]
pub struct Plan {
    /// Ours and the peers that run here.
    pub contenders: Vec<Contender>,
    /// Peers that do not.
    pub left_out: Vec<LeftOut>,
    /// Only what the verdict needs.
    pub short: bool,
}

impl Plan {
    /// Those of these tools, ours first, in the order of the tools.
    pub fn of(&self, tools: &[&str]) -> Vec<&Contender> {
        let mut chosen: Vec<&Contender> =
            self.contenders.iter().filter(|contender| tools.contains(&contender.tool)).collect();
        let place = |tool| TOOLS.iter().position(|known| *known == tool);
        chosen.sort_by_key(|contender| (place(contender.tool), contender.maker));
        chosen
    }

    /// A number of rounds: `long`, or `short` in a short run.
    pub fn rounds(&self, long: usize, short: usize) -> usize {
        if self.short { short } else { long }
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
