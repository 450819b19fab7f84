//! What is said of what was lost, where nobody asked for the account.

use kernel_tests::cli::Tool;
use kernel_tests::netns::Netns;
use kernel_tests::runner::{Outcome, Test};
use kernel_tests::stage::{Stage, Via};
use kernel_tests::traffic;
use nix::sys::signal::Signal;

pub const TESTS: &[Test] = &[("cli::loss_is_said", loss_is_said)];

/// More connections than a ring of a page has room for.
const STORM: u32 = 100;

/// A tool that is stopped while its ring runs over says so when it goes on, and how much it was at the end.
fn loss_is_said() -> Outcome {
    Netns::enter_new();
    let mut tool = Tool::start("tcpstates", &["--ring-size", "4096"]);
    let mut stage = Stage::new(Via::V4);
    tool.signal(Signal::SIGSTOP);
    traffic::start_storm(&mut stage, STORM);
    traffic::end_storm(&mut stage, STORM);
    tool.signal(Signal::SIGCONT);
    let warning = "events are being lost: the ring buffer is full (increase --ring-size)";
    tool.wait_for("a warning", |seen| seen.stderr.lines().any(|line| line.ends_with(warning)));
    let output = tool.stop();
    output.assert_code(0);
    let last = output
        .stderr
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("tcptools: tcpstates: ")?.split_once(" events lost: "));
    let (count, why) = last.unwrap_or_else(|| panic!("the end says what was lost\n{output}"));
    assert!(count.parse::<u64>().is_ok_and(|count| count > 0), "{output}");
    assert!(why.contains(" ring buffer full (increase --ring-size)"), "{output}");
    Ok(())
}
