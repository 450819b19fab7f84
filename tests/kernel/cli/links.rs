//! A link named like a tool is that tool.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use kernel_tests::cli::{Tool, binary, run};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::scratch::Scratch;
use kernel_tests::stage::{Stage, Via};
use kernel_tests::traffic;

use crate::known_tools;

pub const TESTS: &[Test] = &[
    test("cli::links_by_name", links_by_name),
    test("cli::links_are_made", links_are_made),
    test("cli::links_replace_nothing", links_replace_nothing),
];

/// Runs a link on real connections until it has printed this many rows.
#[track_caller]
fn watches(link: &Path, tool: &str, rows: usize) {
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let mut command = Command::new(link);
    command.args(["--json", "-v"]);
    let mut running = Tool::spawn(command);
    running.wait_attached(tool);
    traffic::client_closes_first(&mut stage);
    running.wait_rows(netns.inode(), rows);
    running.stop().assert_code(0);
}

fn links_by_name() -> Outcome {
    let scratch = Scratch::new();
    let link = scratch.path("tcplife");
    symlink(binary(), &link).expect("symlink");
    watches(&link, "tcplife", 2);
    Ok(())
}

/// `tcptools links DIR` makes a link for each tool and no other file. Links that exist already are
/// not an error.
fn links_are_made() -> Outcome {
    let scratch = Scratch::new();
    let dir = scratch.path(".");
    for _ in 0..2 {
        let output = run([Path::new("links"), &dir]);
        output.assert_code(0).assert_no_stdout();
        assert_eq!(output.stderr, "", "{output}");
    }
    let names = fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("ASCII")).collect();
    names.sort();
    assert_eq!(names, known_tools::names());
    for tool in known_tools::names() {
        if tool == "tcpdrop" && needs(Feature::ProbeReads).is_err() {
            continue; // See tcpdrop::lockdown_is_explained.
        }
        let rows = known_tools::rows_per_connection(tool).unwrap_or(0);
        let link = scratch.path(tool);
        let is_ours = fs::canonicalize(&link).ok() == fs::canonicalize(binary()).ok();
        assert!(is_ours, "{} leads elsewhere", link.display());
        watches(&link, tool, rows);
    }
    Ok(())
}

/// A file with the name of a tool may belong to another program.
fn links_replace_nothing() -> Outcome {
    let scratch = Scratch::new();
    let own = scratch.file("tcplife", b"mine");
    for (dir, named) in [(scratch.path("."), own.clone()), (scratch.path("missing"), scratch.path("missing"))]
    {
        let output = run([Path::new("links"), &dir]);
        output.assert_code(1).assert_no_stdout();
        let name = named.file_name().and_then(|name| name.to_str()).expect("ASCII");
        assert!(output.one_line().contains(name), "the line must name {name}\n{output}");
    }
    assert_eq!(fs::read(&own).expect("still a file"), b"mine");
    Ok(())
}
