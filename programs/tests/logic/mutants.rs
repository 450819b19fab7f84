//! The proof that the cases see what the programs do: each instruction of each program is changed
//! as a slip of the pen would (another offset, another constant, another width, a jump always or
//! never taken, a statement left out), one at a time, and some case must fail.
//!
//! The complete run makes every change; `cargo test` makes a few of each tool.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

use bpfasm::{
    Access, AluOp, Callee, CmpOp, Dest, Imm64, Insn, MapDef, Operand, Program, Reg, Ring, Size, Symbol, Width,
};
use programs::stack_layout;

use crate::complete::{SHARED_CASES, on_every_cpu};
use crate::equivalents::EQUIVALENTS;
use crate::lab::{Case, Lab, Mutant, SETS, Set};
use crate::specimens::{Specimen, tools};
use crate::tool::Ready;
use crate::vm::check::check;
use crate::vm::code::{Code, nop};
use crate::vm::kernel::Kernel;
use crate::vm::machine::map_address;

/// One change to an instruction.
struct Change {
    /// Which instruction.
    at: usize,
    /// In a few words.
    what: &'static str,
    /// The instruction that replaces it.
    insn: Insn,
}

/// A target and an option set, on the kernel that [`lab`] names.
type Place = (Access, Ring, Set);

/// Where the programs are changed: for both accesses with every set, for the other ring with one
/// set.
fn places() -> Vec<Place> {
    let mut places = Vec::new();
    for access in [Access::Typed, Access::Probed] {
        places.extend(SETS.map(|set| (access, Ring::RingBuf, set)));
        places.push((access, Ring::PerfEventArray, Set::Narrow));
    }
    places
}

fn changes(program: &Program) -> Vec<Change> {
    let mut changes = Vec::new();
    for (at, insn) in program.insns.iter().enumerate() {
        let mut add = |what, insn| changes.push(Change { at, what, insn });
        match insn {
            Insn::JumpIf { width, op, dst, src, dest } => {
                add("always", Insn::Jump { long: false, dest: *dest });
                add("never", nop());
                let (width, dst) = (*width, *dst);
                if let Operand::Imm(imm) = src {
                    let src = Operand::Imm(imm.wrapping_add(1));
                    add("constant + 1", Insn::JumpIf { width, op: *op, dst, src, dest: *dest });
                }
                let neighbour = match op {
                    CmpOp::Ge => Some(CmpOp::Gt),
                    CmpOp::Gt => Some(CmpOp::Ge),
                    CmpOp::Lt => Some(CmpOp::Le),
                    CmpOp::Le => Some(CmpOp::Lt),
                    _ => None,
                };
                if let Some(op) = neighbour {
                    add("off by one", Insn::JumpIf { width, op, dst, src: *src, dest: *dest });
                }
            }
            // A jump to the next instruction is nothing already.
            Insn::Jump { dest: Dest::Rel(0), .. } | Insn::Exit => {}
            Insn::Jump { .. } => add("never", nop()),
            Insn::Load { size, signed, dst, base, off } => {
                for (what, off) in offsets(*size, *off) {
                    add(what, Insn::Load { size: *size, signed: *signed, dst: *dst, base: *base, off });
                }
                if let Some(size) = half(*size) {
                    add("half", Insn::Load { size, signed: *signed, dst: *dst, base: *base, off: *off });
                }
            }
            Insn::Store { size, base, off, src } => {
                for (what, off) in offsets(*size, *off) {
                    add(what, Insn::Store { size: *size, base: *base, off, src: *src });
                }
                if let Some(size) = half(*size) {
                    add("half", Insn::Store { size, base: *base, off: *off, src: *src });
                }
                if let Operand::Imm(imm) = src {
                    let src = Operand::Imm(imm.wrapping_add(1));
                    add("constant + 1", Insn::Store { size: *size, base: *base, off: *off, src });
                }
                add("left out", nop());
            }
            Insn::Atomic { size, op, base, off, src } => {
                for (what, off) in offsets(*size, *off) {
                    add(what, Insn::Atomic { size: *size, op: *op, base: *base, off, src: *src });
                }
                add("left out", nop());
            }
            Insn::Mov { width, dst, src: Operand::Imm(imm) } => {
                // One less: a helper's size that is too small loses something.
                let src = Operand::Imm(imm.wrapping_sub(1));
                add("constant - 1", Insn::Mov { width: *width, dst: *dst, src });
            }
            Insn::Mov { src: Operand::Reg(_), .. }
            | Insn::Alu { src: Operand::Reg(_), .. }
            | Insn::Swap { .. } => {
                add("left out", nop());
            }
            Insn::Alu { width, op, dst, src: Operand::Imm(imm) } => {
                let with = |imm| Insn::Alu { width: *width, op: *op, dst: *dst, src: Operand::Imm(imm) };
                add("constant + 1", with(imm.wrapping_add(1)));
                if *op == AluOp::Add && *width == Width::W64 {
                    add("constant + 8", with(imm.wrapping_add(8)));
                    add("constant - 8", with(imm.wrapping_sub(8)));
                }
                add("left out", nop());
            }
            Insn::LoadImm64 { dst, imm: Imm64::MapFd(_) } => {
                for map in 0..3 {
                    let imm = Imm64::Value(map_address(map));
                    add("another map", Insn::LoadImm64 { dst: *dst, imm });
                }
            }
            Insn::LoadImm64 { dst, imm: Imm64::Value(value) } => {
                for (what, value) in
                    [("constant + 1", value.wrapping_add(1)), ("constant - 1", value.wrapping_sub(1))]
                {
                    add(what, Insn::LoadImm64 { dst: *dst, imm: Imm64::Value(value) });
                }
            }
            Insn::Call(Callee::Helper(_)) => {
                let src = Operand::Imm(0);
                add("left out", Insn::Mov { width: Width::W64, dst: Reg::R0, src });
            }
            other => panic!("how to break `{other}` is not known"),
        }
    }
    changes
}

fn offsets(size: Size, off: i16) -> Vec<(&'static str, i16)> {
    let bytes = i16::try_from(size.bytes()).expect("8 at most");
    let mut offsets =
        vec![("offset + width", off.wrapping_add(bytes)), ("offset - width", off.wrapping_sub(bytes))];
    if bytes > 1 {
        offsets.push(("offset + 1", off.wrapping_add(1)));
    }
    offsets
}

fn half(size: Size) -> Option<Size> {
    match size {
        Size::B1 => None,
        Size::B2 => Some(Size::B1),
        Size::B4 => Some(Size::B2),
        Size::B8 => Some(Size::B4),
    }
}

thread_local! {
    /// Whether a panic of this thread is expected, and not to be printed.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a case fails.
fn fails(case: &Case, lab: &Lab) -> bool {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                print(info);
            }
        }));
    });
    EXPECTED.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| (case.run)(lab)));
    EXPECTED.set(false);
    result.is_err()
}

/// A program, and the cases and places that execute it.
struct Subject {
    name: String,
    program: Program,
    code: Code,
    fingerprint: u64,
    /// By instruction; in the program itself they are replaced by numbers.
    symbols: Vec<(usize, Symbol)>,
    maps: Vec<MapDef>,
    runs: Vec<(Case, Place)>,
}

fn lab(place: Place) -> Lab {
    let (access, ring, set) = place;
    Lab::new(Kernel::named("6.18-x86_64"), access, ring, set)
}

/// Every program of these tools that the cases execute at these places.
fn subjects(tools: &[&Specimen], cases: &[Case], places: &[Place]) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = Vec::new();
    let mut number: HashMap<u64, usize> = HashMap::new();
    for &place in places {
        let lab_here = lab(place);
        for specimen in tools {
            let object = (specimen.object)(&lab_here, &lab_here.filter(), &lab_here.target());
            let (tool, maps) = (object.name.clone(), object.maps.clone());
            let symbols: Vec<_> = object
                .hooks
                .iter()
                .flat_map(|hook| &hook.attach_options)
                .map(|def| def.program.symbols.clone())
                .collect();
            for (ready, symbols) in Ready::new(lab_here.kernel, object).programs.into_iter().zip(symbols) {
                assert_eq!(check(&ready.program, &maps), Ok(()), "{tool}/{}", ready.name);
                number.entry(ready.fingerprint).or_insert_with(|| {
                    subjects.push(Subject {
                        name: format!("{tool}/{} {place:?}", ready.name),
                        program: ready.program,
                        code: ready.code,
                        fingerprint: ready.fingerprint,
                        symbols,
                        maps: maps.clone(),
                        runs: Vec::new(),
                    });
                    subjects.len() - 1
                });
            }
        }
        for case in cases.iter().filter(|case| case.sets.contains(&place.2)) {
            let lab = lab(place);
            (case.run)(&lab);
            for fingerprint in lab.ran.into_inner() {
                if let Some(subject) = number.get(&fingerprint) {
                    subjects[*subject].runs.push((*case, place));
                }
            }
        }
    }
    subjects
}

/// Makes one change to a program. The cases are tried in the order of `order`, and one that fails
/// goes to its front.
fn survives(subject: &Subject, change: &Change, order: &mut Vec<usize>) -> bool {
    let Ok(code) = subject.code.with(&subject.program, change.at, change.insn) else {
        panic!("{}: instruction {} {}: no code", subject.name, change.at, change.what);
    };
    if code == subject.code {
        return false;
    }
    for at in 0..order.len() {
        let (case, place) = &subject.runs[order[at]];
        let mut lab = lab(*place);
        lab.mutant = Some(Mutant { of: subject.fingerprint, code: code.clone() });
        if fails(case, &lab) {
            let run = order.remove(at);
            order.insert(0, run);
            return false;
        }
    }
    // A changed program that the checker refuses is seen too. A map is known to it by its symbol,
    // which did not change.
    if matches!(change.insn, Insn::LoadImm64 { .. }) {
        return true;
    }
    let mut program = subject.program.clone();
    program.insns[change.at] = change.insn;
    check(&program, &subject.maps).is_ok()
}

impl Subject {
    /// The changed instruction: its program, what it is, the symbol in it or before it, and the
    /// member of a table entry that it stores.
    fn describe(&self, change: &Change) -> String {
        let insn = &self.program.insns[change.at];
        let symbol = self.symbols.iter().rfind(|(at, _)| *at <= change.at);
        let symbol = symbol.map_or(String::new(), |(at, symbol)| {
            if *at == change.at { format!(" <{symbol}>") } else { format!(" after <{symbol}>") }
        });
        let entry = match insn {
            Insn::Store { base: Reg::R10, off, .. }
                if (stack_layout::ENTRY..stack_layout::ZERO).contains(off) =>
            {
                format!(" [entry + {}]", off - stack_layout::ENTRY)
            }
            _ => String::new(),
        };
        format!("{}, instruction {}: `{insn}`{symbol}{entry}", self.name, change.at)
    }

    /// Which instructions this kernel comes to: not those behind a jump that goes by what `exists`
    /// there. Others come to them.
    fn reached(&self) -> Vec<bool> {
        let insns = &self.program.insns;
        let mut starts = vec![0];
        for insn in insns {
            starts.push(starts.last().expect("one") + i64::from(insn.slots()));
        }
        let known = |at: usize| -> Option<bool> {
            let asked = at.checked_sub(1)?;
            self.symbols
                .iter()
                .find(|(known, symbol)| *known == asked && matches!(symbol, Symbol::Exists(_)))?;
            match (&insns[asked], &insns[at]) {
                (
                    Insn::Mov { src: Operand::Imm(value), .. },
                    Insn::JumpIf { op: CmpOp::Eq, src: Operand::Imm(imm), .. },
                ) => Some(value == imm),
                _ => None,
            }
        };
        let mut reached = vec![false; insns.len()];
        let mut next = vec![0];
        while let Some(at) = next.pop() {
            if std::mem::replace(&mut reached[at], true) {
                continue;
            }
            let (falls, jumps) = match (&insns[at], known(at)) {
                (Insn::Exit, _) => (false, false),
                (Insn::Jump { .. }, _) => (false, true),
                (Insn::JumpIf { .. }, Some(jumps)) => (!jumps, jumps),
                (Insn::JumpIf { .. }, None) => (true, true),
                _ => (true, false),
            };
            if falls {
                next.push(at + 1);
            }
            if let (true, Some(Dest::Rel(distance))) = (jumps, insns[at].dest()) {
                let to = starts[at + 1] + i64::from(*distance);
                next.push(starts.binary_search(&to).expect("the start of an instruction"));
            }
        }
        reached
    }

    /// The changes to try. In the other ring's programs only the sending is another.
    fn changes(&self) -> Vec<Change> {
        let mut changes = changes(&self.program);
        let reached = self.reached();
        changes.retain(|change| reached[change.at]);
        if self.name.contains("PerfEventArray") {
            changes.retain(|change| {
                self.program.source[change.at].is_some_and(|source| source.file.ends_with("emit.rs"))
            });
        }
        changes
    }
}

/// The equivalent that a change is, by its position in [`EQUIVALENTS`]; `Err` says which change
/// went unseen.
fn judge(subject: &Subject, change: &Change, order: &mut Vec<usize>) -> Result<Option<usize>, String> {
    if !survives(subject, change, order) {
        return Ok(None);
    }
    let source = subject.program.source[change.at].expect("written in a file").to_string();
    let description = subject.describe(change);
    // Names of labels are not a part of what equivalents are recognised by.
    let statement =
        source.rsplit_once(" goto ").map_or(source.clone(), |(before, _)| format!("{before} goto"));
    let text = format!("{description} ({statement})");
    match EQUIVALENTS.iter().position(|equivalent| equivalent.covers(change.what, &text)) {
        Some(known) => Ok(Some(known)),
        None => Err(format!("{}: {description} ({source})", change.what)),
    }
}

/// Every change to any one instruction of any program makes some case fail. Returns the number of
/// changes.
pub fn no_change_goes_unseen() -> usize {
    let tools: Vec<_> = tools().filter(|tool| tool.mutate).collect();
    let own = tools.iter().flat_map(|tool| tool.cases).copied();
    let cases: Vec<Case> = own.chain(SHARED_CASES).flatten().copied().collect();
    let subjects = subjects(&tools, &cases, &places());
    let total = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let used: Vec<AtomicUsize> = EQUIVALENTS.iter().map(|_| AtomicUsize::new(0)).collect();
    on_every_cpu(&subjects, |subject| {
        let mut order: Vec<usize> = (0..subject.runs.len()).collect();
        for change in subject.changes() {
            total.fetch_add(1, Ordering::Relaxed);
            match judge(subject, &change, &mut order) {
                Ok(known) => known.iter().for_each(|known| _ = used[*known].fetch_add(1, Ordering::Relaxed)),
                Err(unseen) => survivors.lock().expect("no panic in here").push(unseen),
            }
        }
    });
    let mut survivors = survivors.into_inner().expect("no panic in there");
    survivors.sort();
    let total = total.into_inner();
    assert!(
        survivors.is_empty(),
        "{} of {total} changes go unseen:\n{}",
        survivors.len(),
        survivors.join("\n")
    );
    let unused = EQUIVALENTS.iter().zip(used).filter(|(_, used)| used.load(Ordering::Relaxed) == 0);
    let unused: Vec<_> = unused.map(|(equivalent, _)| equivalent.place).collect();
    assert!(unused.is_empty(), "listed as equivalents, but there are no such changes: {unused:#?}");
    total
}

/// How many programs of each tool the sample changes, the longest first, and how often each.
const SAMPLE: (usize, usize) = (4, 5);

/// A few changes to programs of every tool, spread evenly over the programs for one target. All of
/// them are seen, or in tools that the complete run does not change, most of them.
#[test]
fn a_few_changes_to_every_tool_are_seen() {
    let sets = [Set::Narrow, Set::Wide].map(|set| (Access::Typed, Ring::RingBuf, set));
    for tool in tools() {
        let shared = [crate::owner::CASES, crate::owner_hooks::CASES, crate::emit::CASES];
        let cases: Vec<Case> = shared.iter().chain(tool.cases).copied().flatten().copied().collect();
        let mut programs = subjects(&[tool], &cases, &sets);
        programs.retain(|subject| !subject.runs.is_empty());
        programs.sort_by_key(|subject| Reverse(subject.program.insns.len()));
        let (mut seen, mut unseen) = (0, Vec::new());
        for subject in programs.iter().take(SAMPLE.0) {
            let mut order: Vec<usize> = (0..subject.runs.len()).collect();
            let changes = subject.changes();
            for change in changes.iter().step_by((changes.len() / SAMPLE.1).max(1)) {
                match judge(subject, change, &mut order) {
                    Ok(None) => seen += 1,
                    Ok(Some(_)) => {}
                    Err(change) => unseen.push(change),
                }
            }
        }
        let most_unseen = if tool.mutate { 0 } else { seen / 4 };
        assert!(
            seen > 0 && unseen.len() <= most_unseen,
            "{}: {seen} changes are seen, and not:\n{}",
            tool.name,
            unseen.join("\n")
        );
    }
}
