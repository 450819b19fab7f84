//! One load, with a tool that watches or without.

use std::time::Duration;

use crate::contender::Contender;
use crate::fault::Result;
use crate::load::{Done, End, Kind, Load, Loading};
use crate::process::{Running, lines_with};
use crate::program::{self, Runs};

/// What starting may take, at most.
pub const START: Duration = Duration::from_secs(15);
/// What printing the rest may take.
const REST: Duration = Duration::from_secs(10);

/// A load that a tool has watched.
#[derive(Debug)]
pub struct Round {
    /// What the load did.
    pub done: Done,
    /// Rows that name its port.
    pub delivered: u64,
    /// Everything the tool printed.
    pub rows: Vec<u8>,
    /// The tool's CPU in user mode, from the beginning of the load to its own end.
    pub user: Duration,
    /// The tool's CPU in all, until it had written what there was.
    pub cpu: Duration,
    /// Runs of its programs meanwhile, if statistics are on.
    pub runs: Runs,
}

/// Without a tool.
pub fn bare(load: Load) -> Result<Done> {
    Loading::start(load)?.go()
}

/// With a tool. `statistics` says that runs of programs are counted, which bpftool is asked about.
pub fn with(contender: &Contender, load: Load, statistics: bool) -> Result<Round> {
    let mut loading = Loading::start(load)?;
    let mut running = Running::start(contender.command())?;
    running.wait_attached(START)?;
    let ids = running.programs();
    let runs = || if statistics { program::runs(&ids) } else { Ok(Runs::default()) };
    let (runs_before, user_before, cpu_before) = (runs()?, running.user()?, running.cpu()?);
    let done = loading.go()?;
    let runs = runs()?.since(runs_before);
    running.wait_quiet(REST)?;
    let cpu = running.cpu()?.saturating_sub(cpu_before);
    let stopped = running.stop()?;
    Ok(Round {
        done,
        delivered: lines_with(&stopped.rows, loading.port),
        rows: stopped.rows,
        user: stopped.user.saturating_sub(user_before),
        cpu,
        runs,
    })
}

/// Rows that a right tool prints about a load; `None` where that follows from no number of the load's.
pub fn expected(tool: &str, load: Load, done: &Done) -> Option<u64> {
    let each = match (tool, load.kind) {
        ("tcplife", Kind::Storm(_) | Kind::Steady(_)) => 2,
        ("tcpconnlat", Kind::Storm(_) | Kind::Steady(_)) => 1,
        // Connect, accept, and a close on either side.
        ("tcptracer", Kind::Storm(End::Fin) | Kind::Steady(_)) => 4,
        // The client's SYN_SENT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE; the server's SYN_RECV, ESTABLISHED, CLOSE_WAIT,
        // LAST_ACK, CLOSE.
        ("tcpstates", Kind::Storm(End::Fin) | Kind::Steady(_)) => 10,
        // Without those between ESTABLISHED and CLOSE.
        ("tcpstates", Kind::Storm(End::Rst)) => 6,
        ("tcplife" | "tcpconnlat" | "tcpdrop", Kind::Refused) => 1,
        _ => return None,
    };
    // The listener is closed while the tool watches.
    let listener = u64::from(tool == "tcpstates");
    Some(done.count * each + listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_from_connections() {
        let done = Done { count: 100, time: Duration::from_secs(1), events: 0 };
        let rows = |tool, kind| expected(tool, Load::new(kind, Duration::ZERO), &done);
        assert_eq!(rows("tcplife", Kind::Storm(End::Rst)), Some(200));
        assert_eq!(rows("tcpstates", Kind::Storm(End::Fin)), Some(1001));
        assert_eq!(rows("tcpstates", Kind::Storm(End::Rst)), Some(601));
        assert_eq!(rows("tcptracer", Kind::Steady(3000)), Some(400));
        assert_eq!(rows("tcptop", Kind::Stream(64)), None);
    }
}
