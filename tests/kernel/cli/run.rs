//! A run from its start to its end: when rows come, what ends it, and that nothing of it is left.

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

/// Nobody has to wait for a full buffer: the row is there, whole, while the tool runs on.
fn rows_come_while_it_runs() -> Outcome {
    let netns = Netns::enter_new();
    let mut tool = Tool::start("tcpstates", &["--json"]);
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
    // Counted from the tool's start or from attaching; a second is long against the difference.
    assert!(
        attached.elapsed() > Duration::from_millis(500),
        "it ended after {:?}\n{output}",
        attached.elapsed()
    );
    Ok(())
}

/// As `| head -1` does: the reader goes, the next row finds nobody, and that is no failure.
fn closed_pipe() -> Outcome {
    Netns::enter_new();
    for (tool, _) in with_rows() {
        for format in [&["--json"][..], &[]] {
            let mut running = Tool::start(tool, format);
            running.close_stdout();
            traffic::client_closes_first(&mut Stage::new(Via::V4));
            let output = running.finish();
            output.assert_code(0);
            assert!(output.stderr_since_attached().is_empty(), "nothing is wrong\n{output}");
        }
    }
    Ok(())
}

/// Every write fails: one line, exit code 1, and no row is lost in silence.
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
            "one line on what is wrong\n{output}"
        );
        // The header fails before there is any row.
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
        // A program, its link, and at least a table and a ring; otherwise there would be nothing to leave.
        assert!(leak::objects_of(running.pid()) >= 4, "the tool holds BPF objects while it runs");
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
    for tool in runnable() {
        for step in 0..32 {
            let running = Tool::spawn(tcptools([tool.name, "--json"]));
            // Not a wait: the delay is what is tested.
            thread::sleep(STEP * step);
            running.signal(Signal::SIGINT);
            let output = running.finish();
            let status = output.status.expect("it ended");
            // Before the tool has taken over the signal, the kernel ends it.
            let killed = status.signal() == Some(Signal::SIGINT as i32);
            assert!(killed || status.code() == Some(0), "step {step}\n{output}");
            output.assert_complete_lines();
            assert_eq!(output.complaints(), [""; 0], "step {step}\n{output}");
        }
    }
    before.assert_none_left();
    Ok(())
}
