//! Fragments to programs: labels become distances.

use std::collections::{HashMap, HashSet};

use crate::encode::encode;
use crate::error::AsmError;
use crate::fragment::{Fragment, Item, Label, Source, insn_dest_mut};
use crate::insn::{Callee, Dest, Imm64, Insn};
use crate::program::Program;
use crate::symbol::{Symbol, Text};

impl Program {
    /// Makes a program of a fragment: resolves its labels, checks that every jump lands on an instruction of it and that every
    /// instruction has an encoding.
    ///
    /// Labels that different blocks call the same are told apart by a number in [`Program::labels`].
    ///
    /// # Errors
    /// The first thing that is wrong, with the statement that is.
    pub fn link(name: &str, fragment: Fragment) -> Result<Self, AsmError> {
        let mut program = Self::default();
        let mut defined: HashMap<Label, (usize, Option<Source>)> = HashMap::new();
        let mut labels = Vec::new();
        for item in fragment.items {
            match item {
                Item::Wrong(error) => return Err(error),
                Item::Label { label, source } => {
                    check_name(&label.name, source)?;
                    if let Some(&(_, first)) = defined.get(&label) {
                        let first = first.map(|source| source.line);
                        return Err(AsmError::DuplicateLabel { label: label.name, source, first });
                    }
                    defined.insert(label.clone(), (program.insns.len(), source));
                    labels.push((program.insns.len(), label));
                }
                Item::Insn { insn, symbol, source } => {
                    if let Some(symbol) = symbol {
                        let at = program.insns.len();
                        if !takes_symbol(&insn, &symbol) {
                            return Err(AsmError::SymbolPlace { at, source });
                        }
                        for name in symbol.names() {
                            check_path(name, source)?;
                        }
                        program.symbols.push((at, symbol));
                    }
                    program.insns.push(insn);
                    program.source.push(source);
                }
            }
        }
        if program.insns.is_empty() {
            return Err(AsmError::Empty);
        }
        program.resolve(&defined)?;
        program.labels = unique(labels);
        program.functions = program.find_functions(name)?;
        for (at, insn) in program.insns.iter().enumerate() {
            encode(insn).map_err(|error| AsmError::Encode { at, error, source: program.source_of(at) })?;
        }
        Ok(program)
    }

    /// The slot at which each instruction starts, and the slot after the last.
    pub(crate) fn starts(&self) -> Result<Vec<i64>, AsmError> {
        let mut next = 0i64;
        let mut starts = Vec::with_capacity(self.insns.len() + 1);
        starts.push(next);
        for insn in &self.insns {
            next += i64::from(insn.slots());
            starts.push(next);
        }
        if i32::try_from(next).is_err() { Err(AsmError::TooLong) } else { Ok(starts) }
    }

    /// Turns labels into distances and checks those that are written out.
    fn resolve(&mut self, defined: &HashMap<Label, (usize, Option<Source>)>) -> Result<(), AsmError> {
        let starts = self.starts()?;
        for (at, insn) in self.insns.iter_mut().enumerate() {
            let source = self.source.get(at).copied().flatten();
            let short = is_short(insn);
            let from = next_slot(at, &starts);
            let Some(dest) = insn_dest_mut(insn) else { continue };
            let distance = match dest {
                Dest::Rel(distance) => i64::from(*distance),
                Dest::Label(label) => {
                    let Some(&(target, _)) = defined.get(label) else {
                        return Err(AsmError::UndefinedLabel { label: label.name.clone(), source });
                    };
                    let distance = starts.get(target).copied().unwrap_or_default() - from;
                    if short && i16::try_from(distance).is_err() {
                        return Err(AsmError::JumpTooFar { label: label.name.clone(), distance, at, source });
                    }
                    distance
                }
            };
            // The slot after the last instruction is no place to go.
            let inside =
                starts.binary_search(&(from + distance)).is_ok_and(|target| target + 1 < starts.len());
            match i32::try_from(distance) {
                Ok(distance) if inside => *dest = Dest::Rel(distance),
                _ => return Err(AsmError::JumpOutside { distance, at, source }),
            }
        }
        Ok(())
    }

    /// The instruction that an instruction refers to.
    pub(crate) fn target(&self, at: usize, starts: &[i64]) -> Option<usize> {
        let insn = self.insns.get(at)?;
        let Some(Dest::Rel(distance)) = insn.dest() else { return None };
        starts.binary_search(&(next_slot(at, starts) + i64::from(*distance))).ok()
    }

    /// The program itself and whatever is called or has its address taken.
    fn find_functions(&self, name: &str) -> Result<Vec<(usize, Text)>, AsmError> {
        let starts = self.starts()?;
        let mut entries: Vec<usize> = (0..self.insns.len())
            .filter(|&at| {
                matches!(
                    self.insns.get(at),
                    Some(Insn::Call(Callee::Local(_)) | Insn::LoadImm64 { imm: Imm64::CodeAddr(_), .. })
                )
            })
            .filter_map(|at| self.target(at, &starts))
            .filter(|&at| at > 0)
            .collect();
        entries.sort_unstable();
        entries.dedup();
        let mut functions = vec![(0, Text::Owned(name.to_owned()))];
        for at in entries {
            let label = self.labels.iter().find_map(|(place, label)| (*place == at).then(|| label.clone()));
            functions.push((at, label.unwrap_or_else(|| Text::Owned(format!("{name}_{at}")))));
        }
        Ok(functions)
    }

    pub(crate) fn source_of(&self, at: usize) -> Option<Source> {
        self.source.get(at).copied().flatten()
    }
}

/// The slot that distances of this instruction count from: the one after its first. The kernel's `BPF_PSEUDO_FUNC` counts like a
/// call, from the slot after the first, though the load has two.
fn next_slot(at: usize, starts: &[i64]) -> i64 {
    starts.get(at).copied().unwrap_or_default() + 1
}

/// Whether its distance has 16 bits.
fn is_short(insn: &Insn) -> bool {
    matches!(insn, Insn::Jump { long: false, .. } | Insn::JumpIf { .. })
}

/// Whether a symbol has a place in this instruction: a kernel function in a call of one, a map in a load of one, everything else
/// where there is an offset or a constant.
fn takes_symbol(insn: &Insn, symbol: &Symbol) -> bool {
    use crate::insn::Operand::Imm;
    match (symbol, insn) {
        (Symbol::Kfunc(_), Insn::Call(Callee::Kfunc(_)))
        | (Symbol::Map(_), Insn::LoadImm64 { imm: Imm64::MapFd(_) | Imm64::MapValue { .. }, .. }) => true,
        (Symbol::Kfunc(_) | Symbol::Map(_), _) => false,
        (
            _,
            Insn::Load { .. }
            | Insn::Store { .. }
            | Insn::Atomic { .. }
            | Insn::LoadImm64 { imm: Imm64::Value(_), .. }
            | Insn::Alu { src: Imm(_), .. }
            | Insn::Mov { src: Imm(_), .. }
            | Insn::JumpIf { src: Imm(_), .. },
        ) => true,
        _ => false,
    }
}

fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn check_name(name: &Text, source: Option<Source>) -> Result<(), AsmError> {
    if is_word(name) { Ok(()) } else { Err(AsmError::Name { name: name.clone(), source }) }
}

/// `sock`, `sock.__sk_common.skc_dport`, `in6_addr.in6_u.u6_addr32[0]`
fn check_path(path: &Text, source: Option<Source>) -> Result<(), AsmError> {
    let member = |part: &str| {
        let (name, mut indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        while let Some((index, rest)) = indices.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            if index.is_empty() || !index.bytes().all(|b| b.is_ascii_digit()) {
                return false;
            }
            indices = rest;
        }
        is_word(name) && indices.is_empty()
    };
    if path.split('.').all(member) { Ok(()) } else { Err(AsmError::Name { name: path.clone(), source }) }
}

/// Gives labels of the same name numbers; the block that was written outermost keeps the name.
fn unique(mut labels: Vec<(usize, Label)>) -> Vec<(usize, Text)> {
    labels.sort_by_key(|(at, label)| (label.scope, *at));
    let mut taken: HashSet<Text> = labels.iter().map(|(_, label)| label.name.clone()).collect();
    let mut used = HashSet::new();
    let mut named = Vec::with_capacity(labels.len());
    for (at, label) in labels {
        let mut name = label.name;
        if !used.insert(name.clone()) {
            let mut number = 2u32;
            let other = loop {
                let other = Text::Owned(format!("{name}_{number}"));
                if taken.insert(other.clone()) {
                    break other;
                }
                number += 1;
            };
            name = other;
        }
        named.push((at, name));
    }
    // Stable: labels of one place stay in the order of their blocks.
    named.sort_by_key(|(at, _)| *at);
    named
}
