//! The listings of the programs, so that a review sees what a change does to the code that the kernel gets.
//!
//! `BLESS=1 cargo test -p programs golden` writes them anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bpfasm::{Access, Arch, KernelVersion, Object, Refused, Ring, Target, listing};
use programs::filter::{Family, Filter};

use crate::specimens::ALL;

/// `BPF_MAXINSNS`: what kernels before 5.2 take.
const MOST_SLOTS: usize = 4096;

/// What listings are made for, unless they are about another way to read a socket or to send.
pub fn target(access: Access, ring: Ring) -> Target {
    let version = KernelVersion { major: 6, minor: 1, patch: 0 };
    Target {
        version,
        arch: Arch::X86_64,
        access,
        ring,
        trampolines: true,
        kprobes: true,
        refused: Refused::default(),
    }
}

/// The filter of listings that are about filters.
pub fn filter() -> Filter {
    Filter {
        pid: Some(1234),
        family: Some(Family::V4),
        local_ports: vec![22],
        remote_ports: vec![53, 80, 443, 8080, 8443],
        ..Filter::default()
    }
}

/// The representative ones of every tool: each option, each way to read a socket, each ring.
fn objects() -> Vec<(&'static str, Object)> {
    ALL.iter().flat_map(|specimen| (specimen.golden)()).collect()
}

/// All of an object's programs. A program's first line says how many slots it takes: its budget.
fn render(object: &Object) -> String {
    let mut text = String::new();
    for hook in &object.hooks {
        for def in &hook.attach_options {
            let slots = def.program.slots().expect("encodes").len();
            assert!(slots <= MOST_SLOTS, "{} has {slots} slots", def.name);
            write!(
                text,
                "# {}: {:?}, {slots} slots\n{}\n",
                hook.name,
                def.attach,
                listing::listing(&def.program)
            )
            .expect("memory");
        }
    }
    text
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"))
}

/// The first line that is another, with what leads to it.
fn difference(name: &str, expected: &str, found: &str) -> Option<String> {
    let (mut old, mut new) = (expected.lines(), found.lines());
    let mut program = "";
    for line in 1.. {
        let (before, after) = (old.next(), new.next());
        if let Some(header) = after.filter(|line| line.starts_with('#')) {
            program = header;
        }
        if before != after {
            let [before, after] = [before, after].map(|line| line.unwrap_or("(the end)"));
            return Some(format!("{name}.txt:{line}: in `{program}`\n  was: {before}\n  now: {after}"));
        }
        if before.is_none() {
            break;
        }
    }
    None
}

/// The budgets of a file: hook and attachment, and slots.
fn budgets(text: &str) -> Vec<(&str, usize)> {
    let headers = text.lines().filter_map(|line| line.strip_prefix("# ")?.strip_suffix(" slots"));
    headers
        .filter_map(|header| header.rsplit_once(", "))
        .filter_map(|(what, slots)| Some((what, slots.parse().ok()?)))
        .collect()
}

/// Every listing is as it was, and no program grew past its budget.
#[test]
fn listings() {
    let bless = env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for (name, object) in objects() {
        let found = render(&object);
        if bless {
            fs::write(path(name), found).expect("the tree can be written");
            continue;
        }
        let expected = fs::read_to_string(path(name)).unwrap_or_default();
        for ((what, slots), (_, budget)) in budgets(&found).into_iter().zip(budgets(&expected)) {
            if slots > budget {
                wrong.push(format!("{name}: {what} takes {slots} slots, its budget is {budget}"));
            }
        }
        wrong.extend(difference(name, &expected, &found));
    }
    assert!(wrong.is_empty(), "{}\nIf this is meant, BLESS=1 writes the files anew.", wrong.join("\n"));
}

/// What the files are about is what is tested, no more and no less.
#[test]
fn no_listing_is_left_over() {
    let mut files: Vec<_> = fs::read_dir(path("x").parent().expect("a folder"))
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .collect();
    let mut expected: Vec<_> = objects().iter().map(|(name, _)| format!("{name}.txt")).collect();
    files.sort();
    expected.sort();
    assert_eq!(files, expected);
}

/// What a listing says is what the kernel gets: read back, it is the same program.
#[test]
fn listings_assemble_to_the_same_bytes() {
    for (name, object) in objects() {
        for def in object.hooks.iter().flat_map(|hook| &hook.attach_options) {
            let text = listing::listing(&def.program).to_string();
            let fragment =
                bpfasm::asm::parse(&text).unwrap_or_else(|error| panic!("{name}, {}: {error}", def.name));
            let program = bpfasm::Program::link(&def.name, fragment).expect("links");
            assert_eq!(program.bytes(), def.program.bytes(), "{name}, {}", def.name);
            assert_eq!(program.symbols, def.program.symbols, "{name}, {}", def.name);
        }
    }
}
