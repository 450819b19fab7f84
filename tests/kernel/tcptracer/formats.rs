//! Table and CSV of tcptracer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kernel_tests::actor::Actor;
use kernel_tests::cli::{Output, Tool, run, tcptools};
use kernel_tests::netns::Netns;
use kernel_tests::peer;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::stage::Stage;
use kernel_tests::traffic;

use super::Action;

pub const TESTS: &[Test] = &[
    test("tcptracer::table", table),
    test("tcptracer::table_in_words", table_in_words),
    test("tcptracer::csv", csv),
    test("tcptracer::wrong_usage", wrong_usage),
];

/// Has the tool watch one connection of this address, and returns its output and the actions.
#[track_caller]
fn watch(options: &[&str], address: IpAddr) -> (Output, Vec<Action>) {
    let mut tool = Tool::spawn(tcptools([&["tcptracer"], options].concat()));
    tool.wait_for("the headings", |seen| seen.stdout.contains("DPORT"));
    let (client, server) = (Actor::start("kt-client"), Actor::start("kt-server"));
    let mut stage = Stage::between(client, server, address, address, 1);
    let actions = Action::all(&[traffic::server_closes_first(&mut stage)]);
    tool.wait_for("the rows", |seen| seen.stdout.lines().count() > actions.len());
    let output = tool.stop();
    output.assert_code(0).assert_complete_lines();
    (output, actions)
}

/// The rows without their times, which must be in order and begin with 0.
#[track_caller]
fn times_cut(output: &Output, width: usize, digits: usize) -> Vec<String> {
    let mut last = 0.0;
    output
        .stdout
        .lines()
        .skip(1)
        .enumerate()
        .map(|(at, line)| {
            let (time, rest) = line.split_at(width + 1);
            let text = time.trim_end();
            let (_, fraction) = text.split_once('.').unwrap_or((text, ""));
            assert_eq!(fraction.len(), digits, "{text:?}\n{output}");
            let time: f64 = text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number\n{output}"));
            assert!(time >= last && (at > 0 || time == 0.0), "{text:?}\n{output}");
            last = time;
            rest.to_owned()
        })
        .collect()
}

fn shown(address: SocketAddr) -> String {
    if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() }
}

/// The columns of an action from COMM on.
fn tail(action: &Action) -> String {
    let (local, remote) = (action.local, action.remote);
    let ip = if local.is_ipv4() { 4 } else { 6 };
    format!(
        "{:<16} {ip:<2} {:<16} {:<16} {:<6} {:<6}",
        action.who.comm,
        shown(local),
        shown(remote),
        local.port(),
        remote.port()
    )
}

fn letter(action: &Action) -> &'static str {
    match action.kind {
        "connect" => "C",
        "accept" => "A",
        _ => "X",
    }
}

/// Compares lines in any order, because events of two CPUs may be printed in another order.
#[track_caller]
fn assert_lines(mut seen: Vec<String>, mut expected: Vec<String>, output: &Output) {
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "{output}");
}

fn table() -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new().inode().to_string();
    let (output, actions) = watch(&["-t", "-N", &netns, "-U"], Ipv6Addr::LOCALHOST.into());
    let heading =
        "TIME(s)   UID    T  PID    COMM             IP SADDR            DADDR            SPORT  DPORT";
    assert_eq!(output.stdout.lines().next(), Some(heading), "{output}");
    let line = |action: &Action| {
        let letter = letter(action);
        format!("0      {letter:<2} {:<6} {}", action.who.pid, tail(action)).trim_end().to_owned()
    };
    assert_lines(times_cut(&output, 9, 3), actions.iter().map(line).collect(), &output);
    Ok(())
}

/// `-v`: words for letters, nanoseconds, and the namespace.
fn table_in_words() -> Outcome {
    let netns = Netns::enter_new().inode();
    let address = peer::unique_address();
    let (output, actions) = watch(&["-v", "-t", "--addr", &address.to_string()], address);
    let heading = "TIME(ns)       TYPE         PID    COMM             IP SADDR            DADDR            SPORT  DPORT  NETNS";
    assert_eq!(output.stdout.lines().next(), Some(heading), "{output}");
    let line =
        |action: &Action| format!("{:<12} {:<6} {} {netns}", action.kind, action.who.pid, tail(action));
    assert_lines(times_cut(&output, 14, 0), actions.iter().map(line).collect(), &output);
    Ok(())
}

fn csv() -> Outcome {
    let netns = Netns::enter_new().inode().to_string();
    let (output, actions) = watch(&["--csv", "-N", &netns], Ipv4Addr::LOCALHOST.into());
    assert_eq!(output.stdout.lines().next(), Some("T,PID,COMM,IP,SADDR,DADDR,SPORT,DPORT"), "{output}");
    let line = |action: &Action| {
        let letter = letter(action);
        let [from, to] = [action.local, action.remote].map(|end| end.ip());
        let (local, remote) = (action.local.port(), action.remote.port());
        format!("{letter},{},{},4,{from},{to},{local},{remote}", action.who.pid, action.who.comm)
    };
    let rows = output.stdout.lines().skip(1).map(str::to_owned).collect();
    assert_lines(rows, actions.iter().map(line).collect(), &output);
    Ok(())
}

fn wrong_usage() -> Outcome {
    for (args, named) in [
        (&["-p", "-1"][..], "-1"),
        (&["-p", "x"], "x"),
        (&["-u", "root"], "root"),
        (&["-u", "4294967296"], "4294967296"),
        (&["-N", "no-such-name"], "no-such-name"),
        (&["-4", "-6"], "--ipv6"),
        (&["surplus"], "surplus"),
    ] {
        run([&["tcptracer"], args].concat()).assert_wrong_usage(named);
    }
    Ok(())
}
