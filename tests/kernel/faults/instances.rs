//! The tool as a process: stopped and continued, killed, started many times, with the smallest
//! ring.

use std::os::unix::process::ExitStatusExt;
use std::thread;

use kernel_tests::bulk::{self, Listener};
use kernel_tests::cli::Tool;
use kernel_tests::leak::{self, BpfObjects};
use kernel_tests::requirements::misses_runs;
use kernel_tests::runner::{Alone, Outcome, Test, test};
use nix::sys::signal::Signal;

use crate::accounting::{assert_accounted, start};
use crate::cli::needs_perf_buffers;
use crate::known_tools::{runnable, with_rows};

pub const TESTS: &[Test] = &[
    test("faults::stopped_and_continued", stopped_and_continued),
    test("faults::killed", killed).alone(Alone::BpfObjects),
    test("faults::sixty_four_at_once", sixty_four_at_once).alone(Alone::Time),
    test("faults::two_on_the_same_hooks", two_on_the_same_hooks),
    test("faults::a_ring_of_one_page", a_ring_of_one_page),
];

/// Events that happen while the tool is stopped wait in the ring, and are printed when it
/// continues.
fn stopped_and_continued() -> Outcome {
    const TIMES: u64 = 3;
    let netns = bulk::new_netns();
    let listener = Listener::open();
    for (tool, rows) in with_rows() {
        let running = start(tool, &[], &netns);
        for _ in 0..TIMES {
            running.signal(Signal::SIGSTOP);
            listener.connect().close();
            running.signal(Signal::SIGCONT);
            listener.connect().close();
        }
        listener.wait_closed();
        let output = running.stop();
        let account = assert_accounted(output.assert_code(0), 2 * TIMES * rows as u64);
        assert_eq!((account["lost_ring"], account["lost_map"]), (0, 0), "{account:?}\n{output}");
    }
    Ok(())
}

/// A tool cannot handle SIGKILL: programs, links and maps end with the process.
fn killed() -> Outcome {
    let before = BpfObjects::now()?;
    let _netns = bulk::new_netns();
    let listener = Listener::open();
    for tool in runnable() {
        for options in [&[][..], &["--perf"]] {
            if !options.is_empty() && (tool.rows_per_connection.is_none() || needs_perf_buffers().is_err()) {
                continue;
            }
            let running = Tool::start(tool.name, options);
            assert!(leak::objects_of(running.pid()) >= 4, "{} has BPF objects open while it runs", tool.name);
            listener.connect().close();
            running.signal(Signal::SIGKILL);
            let output = running.finish();
            let signal = output.status.and_then(|status| status.signal());
            assert_eq!(signal, Some(Signal::SIGKILL as i32), "{output}");
        }
    }
    before.assert_none_left();
    Ok(())
}

/// Each instance reports the same as it would alone, and ends normally.
fn sixty_four_at_once() -> Outcome {
    const INSTANCES: usize = 64;
    const CONNECTIONS: u64 = 3;
    let netns = bulk::new_netns();
    let listener = Listener::open();
    let small = ["--ring-size", "64K", "--max-sockets", "4096"];
    let mut running: Vec<Tool> = Vec::new();
    while running.len() < INSTANCES {
        // Each start has a time limit, and a slow machine takes long for all of them.
        running.extend(thread::scope(|scope| {
            let some: Vec<_> = (0..8).map(|_| scope.spawn(|| start("tcplife", &small, &netns))).collect();
            some.into_iter().map(|one| one.join().expect("it starts")).collect::<Vec<_>>()
        }));
    }
    for _ in 0..CONNECTIONS {
        listener.connect().close();
    }
    listener.wait_closed();
    // Stop all at the same time.
    running.iter().for_each(|tool| tool.signal(Signal::SIGINT));
    for tool in running {
        let output = tool.finish();
        let account = assert_accounted(output.assert_code(0), 2 * CONNECTIONS);
        assert_eq!((account["lost_ring"], account["lost_map"]), (0, 0), "{account:?}\n{output}");
    }
    Ok(())
}

/// Two instances report the same events.
fn two_on_the_same_hooks() -> Outcome {
    const CONNECTIONS: u64 = 5;
    let netns = bulk::new_netns();
    let listener = Listener::open();
    for (tool, rows) in with_rows() {
        let both = [start(tool, &[], &netns), start(tool, &[], &netns)];
        for _ in 0..CONNECTIONS {
            listener.connect().close();
        }
        listener.wait_closed();
        for tool in both {
            let output = tool.stop();
            let account = assert_accounted(output.assert_code(0), CONNECTIONS * rows as u64);
            assert_eq!((account["lost_ring"], account["lost_map"]), (0, 0), "{account:?}\n{output}");
        }
    }
    Ok(())
}

/// The smallest ring is enough as long as the reader has time.
fn a_ring_of_one_page() -> Outcome {
    let netns = bulk::new_netns();
    let listener = Listener::open();
    for (tool, rows) in with_rows() {
        let mut running = start(tool, &["--ring-size", "4096"], &netns);
        // More events than fit into the ring, one connection after the other.
        let connections = 100 / rows;
        for number in 1..=connections {
            listener.connect().close();
            if !misses_runs() {
                running.wait_rows(netns.inode(), number * rows);
            }
        }
        listener.wait_closed();
        let output = running.stop();
        let account = assert_accounted(output.assert_code(0), (connections * rows) as u64);
        assert!(misses_runs() || account["lost_ring"] == 0, "{account:?}\n{output}");
    }
    Ok(())
}
