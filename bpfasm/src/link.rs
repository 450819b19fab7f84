//! Fragments to programs: labels become distances.

use crate::encode::encode;
use crate::error::AsmError;
use crate::fragment::{Fragment, Name, Place};
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
    /// A statement that cannot be; else the first thing that is wrong, with the statement that is.
    pub fn link(name: &str, fragment: Fragment) -> Result<Self, AsmError> {
        let Fragment { insns, source, symbols, names, wrong, .. } = fragment;
        if let Some(error) = wrong {
            return Err(error);
        }
        let mut program = Self { insns, source, symbols, ..Self::default() };
        if program.insns.is_empty() {
            return Err(AsmError::Empty);
        }
        for name in &names {
            if let Some(place) = name.place
                && !is_word(&name.text)
            {
                return Err(AsmError::Name { name: name.text.clone(), source: place.source });
            }
        }
        for (at, symbol) in &program.symbols {
            let source = program.source_of(*at);
            if !program.insns.get(*at).is_some_and(|insn| takes_symbol(insn, symbol)) {
                return Err(AsmError::SymbolPlace { at: *at, source });
            }
            if let Some(name) = symbol.names().find(|name| !is_path(name)) {
                return Err(AsmError::Name { name: name.clone(), source });
            }
        }
        program.resolve(&names)?;
        program.labels = unique(names);
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
    fn resolve(&mut self, names: &[Name]) -> Result<(), AsmError> {
        let starts = self.starts()?;
        for (at, insn) in self.insns.iter_mut().enumerate() {
            let source = self.source.get(at).copied().flatten();
            let short = is_short(insn);
            let from = next_slot(at, &starts);
            let Some(dest) = insn.dest_mut() else { continue };
            let distance = match dest {
                Dest::Rel(distance) => i64::from(*distance),
                Dest::Label(label) => {
                    let name = names.get(label.0 as usize);
                    let text = || name.map_or_else(|| label.to_string().into(), |name| name.text.clone());
                    let Some(place) = name.and_then(|name| name.place) else {
                        return Err(AsmError::UndefinedLabel { label: text(), source });
                    };
                    let distance = starts.get(place.at).copied().unwrap_or_default() - from;
                    if short && i16::try_from(distance).is_err() {
                        return Err(AsmError::JumpTooFar { label: text(), distance, at, source });
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
    name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// `sock`, `sock.__sk_common.skc_dport`, `in6_addr.in6_u.u6_addr32[0]`
fn is_path(path: &str) -> bool {
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
    path.split('.').all(member)
}

/// Gives labels of the same name numbers; the block that was written outermost keeps the name.
fn unique(names: Vec<Name>) -> Vec<(usize, Text)> {
    let mut labels: Vec<(u32, Place, Text)> =
        names.into_iter().filter_map(|name| Some((name.scope, name.place?, name.text))).collect();
    labels.sort_unstable_by_key(|(scope, place, _)| (*scope, place.order));
    // A number that was tried for a name is not tried for it again.
    let mut taken: Vec<(Text, u32)> = labels.iter().map(|(.., name)| (name.clone(), 0)).collect();
    taken.sort_unstable();
    taken.dedup();
    let find = |taken: &[(Text, u32)], name: &str| taken.binary_search_by(|(known, _)| (**known).cmp(name));
    let mut named = Vec::with_capacity(labels.len());
    for (scope, place, name) in labels {
        let known = find(&taken, &name).ok();
        let mut number = known.and_then(|at| taken.get(at)).map_or(0, |(_, number)| *number) + 1;
        let name = if number == 1 {
            name
        } else {
            loop {
                let other = format!("{name}_{number}");
                if find(&taken, &other).is_err() {
                    break Text::Owned(other);
                }
                number += 1;
            }
        };
        if let Some((_, last)) = known.and_then(|at| taken.get_mut(at)) {
            *last = number;
        }
        named.push((place, scope, name));
    }
    // Labels of one place in the order of their blocks.
    named.sort_unstable_by_key(|(place, scope, _)| (place.at, *scope, place.order));
    named.into_iter().map(|(place, _, name)| (place.at, name)).collect()
}
