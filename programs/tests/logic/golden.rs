//! What the kernel gets, in files, so that a review sees what a change does to it: one typical
//! listing of every tool, and a table of what each program costs with other options and on other
//! targets.
//!
//! `BLESS=1 cargo test -p programs golden` writes these files anew. That the other listings did not
//! change is seen by [`crate::verdicts`].

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bpfasm::{
    Access, AluOp, Arch, Insn, KernelVersion, Object, Operand, Program, Refused, Reg, Ring, Target, listing,
};
use programs::filter::{Family, Filter};

use crate::specimens::{ALL, tools};

/// `BPF_MAXINSNS`: the most instruction slots that kernels before 5.2 accept.
const MAX_SLOTS: usize = 4096;

/// The name of the table of costs.
const COSTS: &str = "costs";

/// The target of listings, unless they are about another access to sockets or another ring.
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

/// Objects of every tool that represent its options, both accesses to sockets and both rings.
fn objects() -> Vec<(&'static str, Object)> {
    ALL.iter().flat_map(|specimen| (specimen.golden)()).collect()
}

/// All of an object's programs, each under a line with its attach point and its number of slots.
fn render(object: &Object) -> String {
    let mut text = String::new();
    for hook in &object.hooks {
        for def in &hook.attach_options {
            let slots = def.program.slots().expect("encodes").len();
            let listing = listing::listing(&def.program);
            writeln!(text, "# {}: {:?}, {slots} slots\n{listing}", hook.name, def.attach).expect("memory");
        }
    }
    text
}

/// The bytes of its stack that a program uses: down to the lowest address that it names.
fn stack_bytes(program: &Program) -> u16 {
    let mut lowest = 0_i16;
    let mut copies = [false; 11];
    for insn in &program.insns {
        match insn {
            Insn::Load { base: Reg::R10, off, .. }
            | Insn::Store { base: Reg::R10, off, .. }
            | Insn::Atomic { base: Reg::R10, off, .. } => lowest = lowest.min(*off),
            // `r2 = r10; r2 += -104;` is the address of a key, a value or a buffer.
            Insn::Alu { op: AluOp::Add, dst, src: Operand::Imm(imm), .. }
                if copies[usize::from(dst.index())] =>
            {
                lowest = lowest.min(i16::try_from(*imm).expect("an offset of the stack"));
            }
            _ => {}
        }
        if let Insn::Mov { dst, src, .. } = insn {
            copies[usize::from(dst.index())] = *src == Operand::Reg(Reg::R10);
        }
    }
    lowest.unsigned_abs()
}

/// The table of costs: of each object, the slots and the bytes of stack that its programs take.
fn costs() -> String {
    let mut text = String::from("# slots, bytes of stack, program\n");
    for (name, object) in objects() {
        writeln!(text, "{name}").expect("memory");
        for hook in &object.hooks {
            for def in &hook.attach_options {
                let slots = def.program.slots().expect("encodes").len();
                assert!(slots <= MAX_SLOTS, "{name}: {} has {slots} slots", def.name);
                let stack = stack_bytes(&def.program);
                writeln!(text, "{slots:6} {stack:4}  {}: {:?}", hook.name, def.attach).expect("memory");
            }
        }
    }
    text
}

/// The files by name: the first object of each tool is the typical one.
fn files() -> Vec<(&'static str, String)> {
    let typical = tools().map(|tool| {
        let (_, object) = (tool.golden)().swap_remove(0);
        (tool.name, render(&object))
    });
    typical.chain([(COSTS, costs())]).collect()
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"))
}

/// The first line that differs, under the heading it belongs to.
fn difference(name: &str, expected: &str, found: &str) -> Option<String> {
    let (mut old, mut new) = (expected.lines(), found.lines());
    let mut heading = "";
    for line in 1.. {
        let (before, after) = (old.next(), new.next());
        if let Some(header) = after.filter(|line| !line.starts_with(' ') && !line.ends_with(':')) {
            heading = header;
        }
        if before != after {
            let [before, after] = [before, after].map(|line| line.unwrap_or("(the end)"));
            return Some(format!("{name}.txt:{line}: in `{heading}`\n  was: {before}\n  now: {after}"));
        }
        if before.is_none() {
            break;
        }
    }
    None
}

/// The typical listing of each tool and the table of costs are as they were.
#[test]
fn listings_and_costs() {
    let bless = env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut differences = Vec::new();
    for (name, found) in files() {
        if bless {
            fs::write(path(name), found).expect("the tree can be written");
            continue;
        }
        let expected = fs::read_to_string(path(name)).unwrap_or_default();
        differences.extend(difference(name, &expected, &found));
    }
    assert!(
        differences.is_empty(),
        "{}\nIf this is meant: BLESS=1 cargo test -p programs golden",
        differences.join("\n")
    );
}

/// The folder has no file that no test reads.
#[test]
fn no_listing_is_left_over() {
    let mut found: Vec<_> = fs::read_dir(path("x").parent().expect("a folder"))
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .collect();
    let mut expected: Vec<_> =
        tools().map(|tool| tool.name).chain([COSTS]).map(|name| format!("{name}.txt")).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// A listing says what the kernel gets: read back, it is the same program.
#[test]
fn listings_assemble_to_the_same_bytes() {
    for (name, object) in objects() {
        for def in object.hooks.iter().flat_map(|hook| &hook.attach_options) {
            let text = listing::listing(&def.program).to_string();
            let fragment =
                bpfasm::asm::parse(&text).unwrap_or_else(|error| panic!("{name}, {}: {error}", def.name));
            let program = Program::link(&def.name, fragment).expect("links");
            assert_eq!(program.bytes(), def.program.bytes(), "{name}, {}", def.name);
            assert_eq!(program.symbols, def.program.symbols, "{name}, {}", def.name);
        }
    }
}
