//! Runs a load, with or without a tool.

use std::time::Duration;

use crate::contender::Contender;
use crate::fault::Result;
use crate::load::{Done, End, Kind, Load, Loading};
use crate::process::{Running, lines_with};
use crate::program::{self, Runs};

/// Time limit for a tool to attach.
pub const START_LIMIT: Duration = Duration::from_secs(15);
/// Time limit for a tool to print its last rows.
const OUTPUT_LIMIT: Duration = Duration::from_secs(10);

/// The result of a load that a tool has watched.
#[derive(Debug)]
pub struct Round {
    pub done: Done,
    /// Rows that contain the port of the load.
    pub delivered: u64,
    /// Everything the tool printed.
    pub rows: Vec<u8>,
    /// CPU time of the tool in user mode, from the beginning of the load to the exit of the tool.
    pub user: Duration,
    /// Total CPU time of the tool, until it had written all rows.
    pub cpu: Duration,
    /// Runs of its programs during the load, if statistics were asked for.
    pub runs: Runs,
}

/// Runs a load without a tool.
pub fn bare(load: Load) -> Result<Done> {
    Loading::start(load)?.go()
}

/// Runs a load with a tool. With `statistics`, bpftool is asked for the runs of its programs.
pub fn with(contender: &Contender, load: Load, statistics: bool) -> Result<Round> {
    let mut loading = Loading::start(load)?;
    let mut running = Running::start(contender.command())?;
    running.wait_attached(START_LIMIT)?;
    let ids = running.programs();
    let runs = || if statistics { program::runs(&ids) } else { Ok(Runs::default()) };
    let (runs_before, user_before, cpu_before) = (runs()?, running.user()?, running.cpu()?);
    let done = loading.go()?;
    let runs = runs()?.since(runs_before);
    running.wait_quiet(OUTPUT_LIMIT)?;
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

/// The number of rows that a correct tool prints about a load; `None` if it does not follow from
/// what the load counts.
pub fn expected(tool: &str, load: Load, done: &Done) -> Option<u64> {
    let each = match (tool, load.kind) {
        ("tcplife", Kind::Storm(_) | Kind::Steady(_)) => 2,
        ("tcpconnlat", Kind::Storm(_) | Kind::Steady(_)) => 1,
        // Connect, accept, and a close on each side.
        ("tcptracer", Kind::Storm(End::Fin) | Kind::Steady(_)) => 4,
        // The client's SYN_SENT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE; the server's SYN_RECV,
        // ESTABLISHED, CLOSE_WAIT, LAST_ACK, CLOSE.
        ("tcpstates", Kind::Storm(End::Fin) | Kind::Steady(_)) => 10,
        // The same without the states between ESTABLISHED and CLOSE.
        ("tcpstates", Kind::Storm(End::Rst)) => 6,
        ("tcplife" | "tcpconnlat" | "tcpdrop", Kind::Refused) => 1,
        _ => return None,
    };
    // The load closes its listener while the tool runs.
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
