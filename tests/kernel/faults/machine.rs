//! The machine changes: its clock, its CPUs. These tests run only in virtual machines of
//! `vm-tests`.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kernel_tests::bulk::{self, Listener};
use kernel_tests::cli::Tool;
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Availability, Feature, Skip, needs, requires};
use kernel_tests::rows::{LifeRow, TopRow};
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::stage::{Stage, Via};
use kernel_tests::traffic;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_settime};
use nix::unistd::Pid;

use crate::accounting::{assert_accounted, start};
use crate::cli::needs_perf_buffers;
use crate::tcptop::needs_send_hook;

pub const TESTS: &[Test] = &[
    test("faults::clock_set_back", clock_set_back).alone(Alone::Machine),
    test("faults::cpu_offline_and_online", cpu_offline_and_online).alone(Alone::Machine),
    test("faults::cpu_online_after_the_perf_buffers", cpu_online_after_the_perf_buffers)
        .alone(Alone::Machine),
];

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).expect("after 1970")
}

/// The clock is set back by an hour while a connection is open, in the middle of an interval. Rows
/// have the time of the clock; durations are measured by another clock.
fn clock_set_back() -> Outcome {
    const HOUR: Duration = Duration::from_hours(1);
    let long = |nanoseconds: u64| Duration::from_nanos(nanoseconds) >= HOUR;
    needs(Feature::OwnMachine)?;
    needs_send_hook()?;
    let set = |time: SystemTime| {
        let nanoseconds = i64::try_from(since_1970(time).as_nanos()).expect("a time of today");
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::nanoseconds(nanoseconds)).expect("set the clock");
    };
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let mut life = start("tcplife", &[], &netns);
    let mut top = start("tcptop", &[], &netns);
    let pair = stage.open();
    stage.exchange(pair, 1000, 300);
    top.wait_rows(netns.inode(), 2);
    set(SystemTime::now() - HOUR);
    let after = SystemTime::now();
    stage.exchange(pair, 1000, 300);
    traffic::close(&mut stage, pair, (2000, 600));
    life.wait_rows(netns.inode(), 2);
    top.wait_rows(netns.inode(), 4);
    let span = since_1970(after).as_nanos()..=since_1970(SystemTime::now()).as_nanos();
    let (life, top) = (life.stop(), top.stop());
    set(SystemTime::now() + HOUR);
    for row in life.assert_code(0).rows::<LifeRow>(netns.inode()) {
        assert!(span.contains(&u128::from(row.ts)), "{row:?} at {span:?}\n{life}");
        assert!(!long(row.duration_ns), "{row:?}\n{life}");
    }
    let rows = top.assert_code(0).rows::<TopRow>(netns.inode());
    assert!(rows.iter().all(|row| !long(row.interval_ns)), "{top}");
    let times = [rows.first(), rows.last()].map(|row| row.expect("rows").ts);
    assert!(times[1] < times[0], "the clock was set back\n{top}");
    Ok(())
}

/// The second CPU, which tests take offline.
struct Cpu(&'static Path);

impl Drop for Cpu {
    fn drop(&mut self) {
        let _ = fs::write(self.0, "1");
    }
}

impl Cpu {
    fn second() -> Result<Self, Skip> {
        needs(Feature::OwnMachine)?;
        let path = Path::new("/sys/devices/system/cpu/cpu1/online");
        let absent = (!path.exists()).then(|| format!("no {}", path.display()));
        requires("a CPU that can be taken offline", Availability::Optional, absent)?;
        Ok(Self(path))
    }

    fn set(&self, online: bool) {
        fs::write(self.0, if online { "1" } else { "0" }).expect("set a CPU online or offline");
    }
}

/// In the middle of a storm. A ring loses no event. A perf buffer ends with its CPU, and later
/// events there are counted as lost.
fn cpu_offline_and_online() -> Outcome {
    const STORM: u32 = 400;
    let cpu = Cpu::second()?;
    let all = [&["--ring-size", "8M"][..], &["--ring-size", "8M", "--perf"]];
    for options in &all[..if needs_perf_buffers().is_ok() { 2 } else { 1 }] {
        let netns = Netns::enter_new();
        let mut stage = Stage::new(Via::V4);
        let mut tool = start("tcpstates", options, &netns);
        let sessions = tool.read_during(|| {
            traffic::start_storm(&mut stage, STORM);
            for online in [false, true, false, true] {
                cpu.set(online);
            }
            traffic::end_storm(&mut stage, STORM)
        });
        let output = tool.stop();
        let account = assert_accounted(output.assert_code(0), 10 * sessions.len() as u64);
        let perf = options.contains(&"--perf");
        assert!(account["lost_map"] == 0 && (perf || account["lost_ring"] == 0), "{account:?}\n{output}");
    }
    Ok(())
}

/// A CPU that comes online after the perf buffers were opened has none: its events are counted as
/// lost, with a warning.
fn cpu_online_after_the_perf_buffers() -> Outcome {
    const CONNECTIONS: u64 = 5;
    needs_perf_buffers()?;
    let cpu = Cpu::second()?;
    let netns = bulk::new_netns();
    cpu.set(false);
    let mut tool: Tool = start("tcplife", &["--perf", "--strict"], &netns);
    cpu.set(true);
    let mut second = CpuSet::new();
    second.set(1).expect("there are two");
    sched_setaffinity(Pid::from_raw(0), &second).expect("move there");
    let listener = Listener::open();
    for _ in 0..CONNECTIONS {
        listener.connect().close();
    }
    tool.wait_for("a warning", |seen| seen.stderr.contains("events are being lost"));
    let output = tool.stop();
    let account = assert_accounted(output.assert_code(1), 2 * CONNECTIONS);
    assert!(account["lost_ring"] > 0, "{account:?}\n{output}");
    Ok(())
}
