//! 200,000 open sockets.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use kernel_tests::actor::Actor;
use kernel_tests::bulk;
use kernel_tests::cli::Tool;
use kernel_tests::deadline::patient;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::rows::LifeRow;
use kernel_tests::runner::{Alone, Outcome, Test, test};

use crate::cli::assert_balanced_or_idle;

pub const TESTS: &[Test] =
    &[test("faults::two_hundred_thousand_open_sockets", two_hundred_thousand_open_sockets)
        .alone(Alone::Sockets)];

/// The tools that always keep an entry for each open socket and print nothing in intervals.
const TRACK_EVERY_SOCKET: [&str; 3] = ["tcplife", "tcpstates", "tcptracer"];

/// The CPU time of a process, in the kernel and outside. A start only computes, so this is how long
/// it takes even if the machine is busy with other work.
#[track_caller]
fn cpu_time(pid: u32) -> Duration {
    /// `USER_HZ`, which is the same on all machines.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the tool runs");
    // proc(5): behind the name in parentheses comes the third field; utime is the 14th and stime
    // the 15th.
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let ticks =
        rest.split_ascii_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("ticks"));
    TICK * ticks.sum::<u32>()
}

/// Both ends of as many connections as a busy server has. The tools start quickly, have table
/// entries for all of them by default, and know their owners.
fn two_hundred_thousand_open_sockets() -> Outcome {
    /// Enough processes that none needs more files than most systems allow.
    const PROCESSES: usize = 12;
    /// Connections of each process, and how many an actor opens at a time, so that it answers soon.
    const CONNECTIONS_EACH: usize = 8400;
    const AT_ONCE: usize = 700;
    const CLOSED_EACH: usize = 10;
    const START_LIMIT: Duration = Duration::from_millis(600);
    needs(Feature::Memory(4096))?;
    let netns = bulk::new_netns();
    let mut actors: Vec<Actor> = (0..PROCESSES).map(|n| Actor::start(&format!("kt-crowd-{n}"))).collect();
    for _ in 0..CONNECTIONS_EACH / AT_ONCE {
        actors.iter_mut().for_each(|actor| actor.start_open_many(AT_ONCE));
        actors.iter_mut().for_each(|actor| drop(actor.finish()));
    }
    for tool in TRACK_EVERY_SOCKET {
        let running = Tool::start(tool, &["--stats", "--json"]);
        let took = cpu_time(running.pid());
        println!("{tool} starts in {took:?}");
        assert!(took < patient(START_LIMIT), "{tool} took {took:?} to start");
        let account = assert_balanced_or_idle(running.stop().assert_code(0));
        assert_eq!(account["untracked"], 0, "{tool} has entries for all: {account:?}");
    }
    let inode = netns.inode().to_string();
    let tool = Tool::start("tcplife", &["--json", "--existing", "--netns", &inode]);
    actors.iter_mut().for_each(|actor| actor.close_many(CLOSED_EACH));
    let output = tool.stop_after(netns.inode(), 2 * PROCESSES * CLOSED_EACH);
    let mut owners = BTreeMap::new();
    for row in output.rows::<LifeRow>(netns.inode()) {
        assert!(row.existing, "{row:?}\n{output}");
        *owners.entry((row.pid, row.comm)).or_default() += 1;
    }
    let whose = |actor: &Actor| (Some(actor.who().pid), Some(actor.who().comm));
    let expected: BTreeMap<_, usize> = actors.iter().map(|actor| (whose(actor), 2 * CLOSED_EACH)).collect();
    assert_eq!(owners, expected, "{output}");
    Ok(())
}
