//! What the tests know of each tool, in one list. The test below fails if a tool of the registry
//! has no entry, or no tests of the kinds that every tool needs.

use std::collections::BTreeSet;

use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};

use crate::accounting::{rings, storm};
use crate::tcptop::needs_send_hook;

pub const TESTS: &[Test] = &[test("known_tools::every_tool_has_its_tests", every_tool_has_its_tests)];

/// A tool, as the tests that run all tools need to know it.
pub struct Facts {
    pub name: &'static str,
    /// Options with which it does all it can.
    pub full: &'static [&'static str],
    /// How many rows it prints at once for a connection that is opened and closed without trouble.
    /// `None` for tools that print rows for other events or once in an interval.
    pub rows_per_connection: Option<usize>,
    /// Options with which it keeps an entry for each open socket; `None` if it never does.
    pub tracks_sockets: Option<&'static [&'static str]>,
    /// What the kernel must have.
    needs: fn() -> Outcome,
}

/// All tools, by name.
pub const FACTS: &[Facts] = &[
    Facts {
        name: "tcpconnlat",
        full: &["--failed", "-t"],
        rows_per_connection: Some(1),
        tracks_sockets: Some(&["--failed"]),
        needs: nothing,
    },
    Facts {
        name: "tcpdrop",
        full: &["--owner", "--purged"],
        rows_per_connection: None,
        tracks_sockets: Some(&["--owner"]),
        needs: || needs(Feature::ProbeReads),
    },
    Facts {
        name: "tcplife",
        full: &["--existing", "--failed", "-T"],
        rows_per_connection: Some(2),
        tracks_sockets: Some(&["--failed", "--existing"]),
        needs: nothing,
    },
    Facts {
        name: "tcpretrans",
        full: &["--owner", "-l"],
        rows_per_connection: None,
        tracks_sockets: Some(&["--owner"]),
        needs: nothing,
    },
    Facts {
        name: "tcpstates",
        full: &[],
        rows_per_connection: Some(10),
        tracks_sockets: Some(&[]),
        needs: nothing,
    },
    Facts {
        name: "tcpsubnet",
        full: &["--sort"],
        rows_per_connection: None,
        tracks_sockets: None,
        needs: needs_send_hook,
    },
    Facts {
        name: "tcptop",
        full: &[],
        rows_per_connection: None,
        tracks_sockets: Some(&[]),
        needs: needs_send_hook,
    },
    Facts {
        name: "tcptracer",
        full: &[],
        rows_per_connection: Some(4),
        tracks_sockets: Some(&[]),
        needs: nothing,
    },
];

fn nothing() -> Outcome {
    Ok(())
}

/// The names of all tools, in order.
pub fn names() -> Vec<&'static str> {
    tools::tool_names().collect()
}

/// The tools that this kernel can run.
pub fn runnable() -> impl Iterator<Item = &'static Facts> {
    FACTS.iter().filter(|tool| (tool.needs)().is_ok())
}

/// The tools with rows for every connection, and how many.
pub fn with_rows() -> impl Iterator<Item = (&'static str, usize)> {
    FACTS.iter().filter_map(|tool| Some((tool.name, tool.rows_per_connection?)))
}

/// How many rows a tool prints for a connection, if it has rows for every connection.
pub fn rows_per_connection(tool: &str) -> Option<usize> {
    with_rows().find(|(name, _)| *name == tool).map(|(_, rows)| rows)
}

fn every_tool_has_its_tests() -> Outcome {
    let names = names();
    let listed: Vec<&str> = FACTS.iter().map(|facts| facts.name).collect();
    assert_eq!(listed, names, "FACTS has all tools of the registry");
    assert!(storm::watched().eq(names.iter().copied()), "all tools run in the storm");
    let all = crate::all_tests();
    let tests: BTreeSet<&str> = all.iter().map(Test::name).collect();
    for Facts { name, tracks_sockets, .. } in FACTS {
        assert!(
            tests.iter().any(|test| test.starts_with(&format!("{name}::"))),
            "{name} has tests of its own"
        );
        let full_table = format!("accounting::full_table_{name}");
        assert!(tracks_sockets.is_none() || tests.contains(&*full_table), "no test {full_table}");
        // The other tools add up in the kernel and send nothing that a ring could lose.
        if rings::sends_events(name) {
            for kind in ["tool_stopped", "output_blocked", "perf_buffers"] {
                let test = format!("accounting::{kind}_{name}");
                assert!(tests.contains(&*test), "no test {test}");
            }
        } else {
            assert!(
                rings::ADD_UP_IN_THE_KERNEL.contains(name),
                "{name} sends events or adds up in the kernel"
            );
        }
    }
    Ok(())
}
