//! A run from start to end: when rows are printed, what ends the run, and that it leaves nothing
//! behind.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use kernel_tests::cli::{Tool, tcptools};
use kernel_tests::leak::{self, BpfObjects};
use kernel_tests::netns::Netns;
use kernel_tests::rows::LifeRow;
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::stage::{Stage, Via};
use kernel_tests::traffic;
use nix::sys::signal::Signal;

use crate::known_tools::{runnable, with_rows};

pub const TESTS: &[Test] = &[
    test("cli::rows_come_while_it_runs", rows_come_while_it_runs),
    test("cli::stopping_prints_what_is_pending", stopping_prints_what_is_pending),
    test("cli::count", count),
    test("cli::duration", duration),
    test("cli::closed_pipe", closed_pipe),
    test("cli::full_disk", full_disk),
    test("cli::no_bpf_object_is_left", no_bpf_object_is_left).alone(Alone::BpfObjects),
    test("cli::interrupted_start_leaves_nothing", interrupted_start_leaves_nothing).alone(Alone::BpfObjects),
];

/// Rows are printed at once, as complete lines, while the tool runs.
fn rows_come_while_it_runs() -> Outcome {
    let netns = Netns::enter_new();
    // Rows of other tests would be half read when the last row is there.
    let mut tool = Tool::start("tcpstates", &["--json", "--netns", &netns.inode().to_string()]);
    let mut stage = Stage::new(Via::V4);
    let mut total = 1;
    tool.wait_rows(netns.inode(), total);
    for _ in 0..3 {
        traffic::client_closes_first(&mut stage);
        total += 10;
        tool.wait_rows(netns.inode(), total);
        tool.seen().assert_complete_lines();
    }
    tool.stop().assert_code(0);
    Ok(())
}

/// Stopped right after a connection, with its events still in the ring.
fn stopping_prints_what_is_pending() -> Outcome {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let netns = Netns::enter_new();
        let mut stage = Stage::new(Via::V4);
        let tool = Tool::start("tcplife", &["--json"]);
        traffic::client_resets(&mut stage);
        tool.signal(signal);
        let output = tool.finish();
        output.assert_code(0).assert_complete_lines();
        assert_eq!(output.rows::<LifeRow>(netns.inode()).len(), 2, "{signal}\n{output}");
    }
    Ok(())
}

fn count() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let port = stage.listener.port().to_string();
    let tool = Tool::start("tcplife", &["--json", "--count", "3", "-L", &port]);
    for _ in 0..5 {
        traffic::client_closes_first(&mut stage);
    }
    let output = tool.finish();
    assert_eq!(output.assert_code(0).stdout.lines().count(), 3, "{output}");
    Ok(())
}

fn duration() -> Outcome {
    let tool = Tool::start("tcplife", &["--json", "--duration", "1"]);
    let attached = Instant::now();
    let output = tool.finish();
    output.assert_code(0);
    // Whether it counts from the tool's start or from attaching makes less difference than half a
    // second.
    assert!(
        attached.elapsed() > Duration::from_millis(500),
        "it ended after {:?}\n{output}",
        attached.elapsed()
    );
    Ok(())
}

/// The reader closes the pipe, as `| head -1` does. The next row cannot be written, which is not a
/// failure.
fn closed_pipe() -> Outcome {
    Netns::enter_new();
    for (tool, _) in with_rows() {
        for format in [&["--json"][..], &[]] {
            let mut running = Tool::start(tool, format);
            running.close_stdout();
            traffic::client_closes_first(&mut Stage::new(Via::V4));
            let output = running.finish();
            output.assert_code(0);
            assert!(output.stderr_since_attached().is_empty(), "no message\n{output}");
        }
    }
    Ok(())
}

/// Every write fails: one line, exit code 1, so that no row is lost without a message.
fn full_disk() -> Outcome {
    let full = || File::options().write(true).open("/dev/full").expect("open /dev/full");
    Netns::enter_new();
    for (tool, _) in with_rows() {
        let mut running = Tool::spawn_to(tcptools([tool, "--json", "-v"]), full().into());
        running.wait_attached(tool);
        traffic::client_closes_first(&mut Stage::new(Via::V4));
        let output = running.finish();
        output.assert_code(1);
        let lines = output.stderr_since_attached();
        assert!(
            matches!(lines[..], [line] if line.starts_with("tcptools: ") && line.contains("No space left")),
            "one line on the error\n{output}"
        );
        // The headings cannot be written either.
        let output = Tool::spawn_to(tcptools([tool]), full().into()).finish();
        assert!(output.assert_code(1).one_line().contains("No space left"), "{output}");
    }
    Ok(())
}

fn no_bpf_object_is_left() -> Outcome {
    let before = BpfObjects::now()?;
    Netns::enter_new();
    for tool in runnable() {
        let running = Tool::start(tool.name, &["--json"]);
        // A program, its link, a table and a ring. Without them the test would prove nothing.
        assert!(leak::objects_of(running.pid()) >= 4, "the tool has BPF objects open while it runs");
        traffic::client_closes_first(&mut Stage::new(Via::V4));
        running.stop().assert_code(0);
    }
    before.assert_none_left();
    Ok(())
}

/// Ctrl-C at any moment of the start, a quarter of a millisecond apart.
fn interrupted_start_leaves_nothing() -> Outcome {
    const STEP: Duration = Duration::from_micros(250);
    let before = BpfObjects::now()?;
    // The tools have messages about sockets of other programs too.
    let netns = Netns::enter_new().inode().to_string();
    let interrupt = |tool: &str| {
        for step in 0..32 {
            let running = Tool::spawn(tcptools([tool, "--json", "--netns", &netns]));
            // Not a wait: the test is about this delay.
            thread::sleep(STEP * step);
            running.signal(Signal::SIGINT);
            let output = running.finish();
            let status = output.status.expect("it ended");
            // Until the tool handles the signal, the kernel ends the process.
            let killed = status.signal() == Some(Signal::SIGINT as i32);
            assert!(killed || status.code() == Some(0), "step {step}\n{output}");
            output.assert_complete_lines();
            assert_eq!(output.complaints(), [""; 0], "step {step}\n{output}");
        }
    };
    let tools: Vec<_> = runnable().collect();
    for pair in tools.chunks(2) {
        thread::scope(|scope| {
            pair.iter().for_each(|tool| drop(scope.spawn(|| interrupt(tool.name))));
        });
    }
    before.assert_none_left();
    Ok(())
}
