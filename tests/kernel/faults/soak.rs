//! Sockets of every kind by the thousand, and tables that are empty when they are gone.

use std::env;
use std::fs;
use std::path::Path;

use kernel_tests::cli::{Tool, tcptools};
use kernel_tests::crowd::{self, Door, Kind};
use kernel_tests::deadline::{LIMIT, wait_until};
use kernel_tests::gate::{Feature, misses_runs, needs};
use kernel_tests::runner::{Outcome, Test};
use loader::Map;

use crate::cli::assert_balanced_or_idle;

pub const TESTS: &[Test] = &[("faults::no_entry_is_left", no_entry_is_left)];

/// How many sockets: a number in this variable makes it a soak of hours. Limits are to be longer then, by
/// `KERNEL_TESTS_PATIENCE`.
const SOAK: &str = "KERNEL_TESTS_SOAK";
const SOCKETS: u64 = 20_000;

/// Every tool that has a table of sockets, in the way in which it has one.
const WATCHERS: [(&str, &[&str]); 7] = [
    ("tcpconnlat", &["--failed"]),
    ("tcpdrop", &["--owner"]),
    ("tcplife", &["--failed", "--existing"]),
    ("tcpretrans", &["--owner"]),
    ("tcpstates", &[]),
    ("tcptop", &[]),
    ("tcptracer", &[]),
];

/// An entry is for a socket that lives. Other processes of the machine have some as well, so what is left may be as many as
/// there are, and no more.
fn no_entry_is_left() -> Outcome {
    needs(Feature::ProbeReads)?;
    let sockets = match env::var(SOAK) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SOAK} is {text:?}, and has to be a number")),
        Err(_) => SOCKETS,
    };
    let _netns = crowd::arena();
    let door = Door::open();
    let running: Vec<Tool> = WATCHERS.iter().map(|(tool, args)| watch(tool, args)).collect();
    let mut lived = 0;
    while lived < sockets {
        for kind in Kind::ALL {
            lived += kind.live(&door);
        }
    }
    println!("{lived} sockets");
    for ((tool, _), running) in WATCHERS.iter().zip(running) {
        let table = table_of(running.pid()).unwrap_or_else(|| panic!("{tool} has no table"));
        wait_until(&format!("end of the entries of {tool} after {lived} sockets"), LIMIT, || {
            let (entries, open) = (table.entries().expect("a table").len() as u64, crowd::open_sockets());
            if entries <= open { Ok(()) } else { Err(format!("{entries} entries, {open} open sockets")) }
        });
        drop(table);
        let output = running.stop();
        let account = assert_balanced_or_idle(output.assert_code(0));
        // What is sent again is a matter of luck.
        assert!(account["seen"] > 0 || *tool == "tcpretrans", "{tool}: {account:?}");
        // Elsewhere others may fill the table meanwhile.
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

/// The table of sockets of a tool: its hash map with an address for a key.
fn table_of(pid: u32) -> Option<Map> {
    let files = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fdinfo")).ok()?;
    files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok()).find_map(|info| {
        let number =
            |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u32>().ok());
        let is_table = (number("map_type:"), number("key_size:")) == (Some(HASH), Some(ADDRESS));
        if is_table { Map::of_id(number("map_id:")?).ok() } else { None }
    })
}

/// `BPF_MAP_TYPE_HASH`, and bytes of an address.
const HASH: u32 = 1;
const ADDRESS: u32 = 8;
