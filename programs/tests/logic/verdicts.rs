//! The checked-in list of what the complete run ([`crate::complete`]) passed for, and the tests
//! that compare it with this tree.
//!
//! The list is `programs/tests/verdicts.txt`. It has a line for everything that the outcome of the
//! complete run depends on:
//!
//! - `input`: the tests of a tool, the tests of several tools, the ways to change a program, the
//!   test VM, the kernels' types, the version of rbpf.
//! - `program`: a program with an option set. Each of the four fingerprints is for one target
//!   (typed, typed with a perf buffer, probed, probed with a perf buffer; `-` if there is no such
//!   program), over the bytes for all kernels. The set `all` stands for every combination of the
//!   tool's options.
//!
//! Only the complete run writes the list. A change to a program or to a test therefore makes `cargo
//! test` fail until the complete run has passed for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, iter};

use bpfasm::{Object, Symbol};
use programs::filter::{Family, Filter, MAX_PORTS};

use crate::fingerprint::Fingerprint;
use crate::lab::{SETS, TARGETS, labs};
use crate::specimens::{Specimen, tools};
use crate::tool::relocated;
use crate::vm::kernel::{KERNELS, Kernel};

/// Keys and values.
pub type Lines = BTreeMap<String, String>;

const HEAD: &str = "\
# What the complete run passed for. Only that run writes this file:
#     cargo test -p programs --test logic -- --ignored --nocapture complete_run
# See programs/tests/logic/verdicts.rs.
";

fn list() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verdicts.txt")
}

/// The files of these tests, by their paths below `programs/tests/logic`.
fn sources() -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logic");
    let (mut sources, mut folders) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the tests' own folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below it").to_str().expect("UTF-8").to_owned();
                sources.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    sources
}

/// The input that a source file belongs to; `None` if the outcome of the complete run does not
/// depend on it.
fn input_of(file: &str) -> Option<String> {
    let top = file.split('/').next().expect("one part");
    let top = top.strip_suffix(".rs").unwrap_or(top);
    Some(match top {
        "main" | "golden" | "verdicts" | "fingerprint" => return None,
        "mutants" | "equivalents" => "changes to programs".to_owned(),
        "vm" => "test VM".to_owned(),
        tool if tools().any(|known| known.name == tool) => format!("tests of {tool}"),
        _ => "tests of several tools".to_owned(),
    })
}

/// The source without lines that are comments or blank: to mend a comment takes no complete run.
fn code(source: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = source.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    lines.filter(|line| !matches!(line.trim_ascii_start(), [] | [b'/', b'/', ..]))
}

/// The version of rbpf that these tests are built with.
fn rbpf_version() -> String {
    let lock = include_str!("../../../Cargo.lock");
    let (_, package) = lock.split_once("name = \"rbpf\"\nversion = \"").expect("rbpf is in the lock file");
    package.split('"').next().expect("a version").to_owned()
}

/// Everything but the programs that the outcome of the complete run depends on.
pub fn inputs() -> Lines {
    let mut fingerprints: BTreeMap<String, Fingerprint> = BTreeMap::new();
    for (file, source) in sources() {
        let Some(input) = input_of(&file) else { continue };
        let fingerprint = fingerprints.entry(input).or_insert(Fingerprint::EMPTY);
        fingerprint.add_sized(file.as_bytes());
        code(&source).for_each(|line| fingerprint.add_sized(line));
    }
    let kernels = fingerprints.entry("kernels' types".to_owned()).or_insert(Fingerprint::EMPTY);
    for kernel in KERNELS.iter() {
        kernels.add_sized(kernel.name.as_bytes());
        kernels.add_sized(kernel.bytes);
    }
    let lines = fingerprints.into_iter().map(|(input, fingerprint)| (input, fingerprint.hex()));
    let rbpf = ("version of rbpf".to_owned(), rbpf_version());
    lines.chain([rbpf]).map(|(input, value)| (format!("input {input}"), value)).collect()
}

/// A filter without conditions, and two with every condition there is: small ones, and large ones
/// of the other family.
fn filters() -> [Filter; 3] {
    let subnets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a subnet")).collect();
    let ports = |count: usize| (0..count).map(|at| u16::try_from(at * 61 + 7).expect("a port")).collect();
    let small = Filter {
        pid: Some(1),
        family: Some(Family::V6),
        local_ports: ports(1),
        remote_ports: ports(1),
        subnets: subnets(&["2001:db8::/32"]),
        netns: Some(1),
        cgroup: Some(1),
    };
    let large = Filter {
        pid: Some(u32::MAX),
        family: Some(Family::V4),
        local_ports: ports(MAX_PORTS),
        remote_ports: ports(9),
        subnets: subnets(&["10.0.0.0/8", "192.0.2.0/25", "2001:db8::/33"]),
        netns: Some(u32::MAX),
        cgroup: Some(u64::MAX),
    };
    [Filter::default(), small, large]
}

/// The fingerprints of programs with an option set by their names, one for each target.
#[derive(Default)]
struct Programs(BTreeMap<String, [Option<Fingerprint>; TARGETS.len()]>);

impl Programs {
    /// Adds what a kernel gets of an object. Names of labels and of maps do not count.
    fn add(&mut self, tool: &str, set: &str, target: usize, kernel: &Kernel, object: &Object) {
        for program in relocated(kernel, object) {
            let key = format!("program {tool}/{}, {set}", program.name);
            let fingerprint = self.0.entry(key).or_default()[target].get_or_insert(Fingerprint::EMPTY);
            fingerprint.add_sized(kernel.name.as_bytes());
            fingerprint.add_sized(format!("{:?}", program.attach).as_bytes());
            fingerprint.add_sized(&program.program.bytes().expect("encodes"));
            for (at, symbol) in &program.program.symbols {
                let Symbol::Map(name) = symbol else { panic!("{symbol} was not resolved") };
                let map = object.maps.iter().position(|map| map.name == *name).expect("a map of the object");
                let def = &object.maps[map];
                for number in [def.kind.number(), def.key_size, def.value_size, def.max_entries, def.flags] {
                    fingerprint.add(&number.to_le_bytes());
                }
                fingerprint.add(&(*at as u64).to_le_bytes());
                fingerprint.add(&(map as u64).to_le_bytes());
            }
        }
    }

    /// Adds every program of a tool with each option set.
    fn add_tool(&mut self, tool: &Specimen) {
        for set in SETS {
            for (lab, target) in labs(set).zip((0..TARGETS.len()).cycle()) {
                let object = (tool.object)(&lab, &lab.filter(), &lab.target());
                self.add(tool.name, &format!("{set:?}").to_lowercase(), target, lab.kernel, &object);
            }
        }
        for filter in filters() {
            for kernel in KERNELS.iter() {
                for (target, (access, ring)) in TARGETS.into_iter().enumerate() {
                    for object in (tool.every)(&filter, &kernel.target(access, ring), 4096) {
                        self.add(tool.name, "all", target, kernel, &object);
                    }
                }
            }
        }
    }

    fn lines(self) -> impl Iterator<Item = (String, String)> {
        self.0.into_iter().map(|(key, fingerprints)| {
            let columns = fingerprints.map(|found| found.map_or("-".to_owned(), Fingerprint::hex));
            (key, columns.join(" "))
        })
    }
}

/// The programs of a tool.
fn programs(tool: &Specimen) -> Lines {
    let mut programs = Programs::default();
    programs.add_tool(tool);
    programs.lines().collect()
}

/// The list as it is checked in.
fn checked_in() -> Lines {
    let text = fs::read_to_string(list()).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("verdicts.txt: `{line}`"));
        (key.to_owned(), value.to_owned())
    };
    lines.map(pair).collect()
}

/// Writes the list; says how much of it changed.
pub fn write() -> String {
    let old = checked_in();
    let new: Lines = inputs().into_iter().chain(tools().flat_map(programs)).collect();
    let changed = difference(&old, &new).len();
    let lines = new.iter().map(|(key, value)| format!("{key}: {value}\n"));
    let text: String = iter::once(HEAD.to_owned()).chain(lines).collect();
    fs::write(list(), text).expect("the tree can be written");
    format!("{} lines in programs/tests/verdicts.txt, {changed} of them changed", new.len())
}

/// The keys that are not the same, with what happened to each.
fn difference(old: &Lines, new: &Lines) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changes = keys.into_iter().filter_map(|key| match (old.get(key), new.get(key)) {
        (Some(old), Some(new)) if old == new => None,
        (Some(_), Some(_)) => Some(format!("changed: {key}")),
        (None, _) => Some(format!("new: {key}")),
        (_, None) => Some(format!("gone: {key}")),
    });
    changes.collect()
}

/// Panics unless these lines are the checked-in ones whose keys start like this.
fn compare(prefix: &str, found: &Lines) {
    let mut expected = checked_in();
    expected.retain(|key, _| key.starts_with(prefix));
    let differences = difference(&expected, found);
    assert!(
        differences.is_empty(),
        "the complete run has not passed for this tree ({} lines of programs/tests/verdicts.txt differ):\n  {}\n\
         Run ./test --all, which does the complete run and writes the list anew, or only that run:\n  \
         cargo test -p programs --test logic -- --ignored --nocapture complete_run",
        differences.len(),
        differences.join("\n  ")
    );
}

/// The complete run passed with these tests.
#[test]
fn the_complete_run_passed_with_these_tests() {
    compare("input ", &inputs());
}

/// The list has no tool that there is not.
#[test]
fn the_list_is_about_these_tools() {
    let tool = |key: &String| Some(key.strip_prefix("program ")?.split_once('/')?.0.to_owned());
    let listed: BTreeSet<String> = checked_in().keys().filter_map(tool).collect();
    let expected: BTreeSet<String> = tools().map(|tool| tool.name.to_owned()).collect();
    assert_eq!(listed, expected, "tools in programs/tests/verdicts.txt; ./test --all writes it anew");
}

/// The complete run passed for these programs.
#[test]
fn the_complete_run_passed_for_these_programs() {
    let found = tools().flat_map(programs).collect();
    compare("program ", &found);
}
