//! Thousands of sockets of every kind. When they are closed, the tables are empty.

use std::env;
use std::fs;
use std::path::Path;

use kernel_tests::bulk::{self, Kind, Listener};
use kernel_tests::cli::{Tool, tcptools};
use kernel_tests::deadline::{WAIT_LIMIT, wait_until};
use kernel_tests::requirements::{Feature, misses_runs, needs};
use kernel_tests::runner::{Alone, Outcome, Test, test};
use loader::Map;

use crate::cli::assert_balanced_or_idle;
use crate::known_tools::FACTS;

pub const TESTS: &[Test] =
    &[test("faults::tables_are_empty_in_the_end", tables_are_empty_in_the_end).alone(Alone::Sockets)];

/// The variable with the number of sockets, for a soak of hours. `KERNEL_TESTS_PATIENCE` must make
/// the time limits longer then.
const SOAK: &str = "KERNEL_TESTS_SOAK";
const SOCKETS: u64 = 20_000;

/// Each entry belongs to an open socket. Other programs have sockets too, so there may be as many
/// entries as open sockets.
fn tables_are_empty_in_the_end() -> Outcome {
    needs(Feature::ProbeReads)?;
    let sockets = match env::var(SOAK) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SOAK} is {text:?}: expected a number")),
        Err(_) => SOCKETS,
    };
    let _netns = bulk::new_netns();
    let listener = Listener::open();
    let running: Vec<(&str, Tool)> =
        FACTS.iter().filter_map(|tool| Some((tool.name, watch(tool.name, tool.tracks_sockets?)))).collect();
    let mut lived = 0;
    while lived < sockets {
        for kind in Kind::ALL {
            lived += kind.make_and_end(&listener);
        }
    }
    println!("{lived} sockets");
    for (tool, running) in running {
        let table = table_of(running.pid()).unwrap_or_else(|| panic!("{tool} has no table"));
        wait_until(&format!("end of the entries of {tool} after {lived} sockets"), WAIT_LIMIT, || {
            let (entries, open) = (table.entries().expect("a table").len() as u64, bulk::open_sockets());
            if entries <= open { Ok(()) } else { Err(format!("{entries} entries, {open} open sockets")) }
        });
        drop(table);
        let output = running.stop();
        let account = assert_balanced_or_idle(output.assert_code(0));
        // Whether a packet is retransmitted is a matter of luck.
        assert!(account["seen"] > 0 || tool == "tcpretrans", "{tool}: {account:?}");
        // On other machines, other programs may fill the table meanwhile.
        assert!(
            needs(Feature::OwnMachine).is_err() || misses_runs() || account["untracked"] == 0,
            "{tool}: {account:?}"
        );
        println!("{tool}: {account:?}");
    }
    Ok(())
}

#[track_caller]
fn watch(tool: &str, args: &[&str]) -> Tool {
    let command = tcptools([&[tool, "--json", "--stats", "-v", "--ring-size", "8M"][..], args].concat());
    let null = fs::File::options().write(true).open("/dev/null").expect("/dev/null");
    let mut running = Tool::spawn_to(command, null.into());
    running.wait_attached(tool);
    running
}

/// The table of sockets of a tool: its hash map whose key is an address.
fn table_of(pid: u32) -> Option<Map> {
    let files = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fdinfo")).ok()?;
    files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok()).find_map(|info| {
        let number =
            |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u32>().ok());
        let is_table = (number("map_type:"), number("key_size:")) == (Some(HASH), Some(ADDRESS));
        if is_table { Map::of_id(number("map_id:")?).ok() } else { None }
    })
}

/// `BPF_MAP_TYPE_HASH`, and the size of an address.
const HASH: u32 = 1;
const ADDRESS: u32 = 8;
