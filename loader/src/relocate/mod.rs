//! Replaces the symbols of a program by numbers, which come from BTF. No system call is made, so a
//! program can be relocated for any kernel whose BTF is at hand, without privileges.
//!
//! There are two steps, because maps have descriptors only once they exist: [`relocate`] resolves
//! everything else, and the loader fills in the descriptors just before it loads a program.

use std::cell::RefCell;
use std::rc::Rc;

use bpfasm::{Attach, Callee, Imm64, Insn, Object, Operand, Program, Size, Source, Symbol, Text};
use btf::{BtfError, Class, Field, Index, Lookup, Want, Wanted};

use crate::quirks;

mod error;

pub use error::RelocError;

/// The helper number of the `call` that replaces an instruction with an absent field, if the
/// program is prepared for that by `exists`.
///
/// The verifier never sees it, because it only follows the branch that the constant from `exists`
/// selects. If a program reads the field outside of that branch, the verifier's message has this
/// number, and [`VerifierLog`](crate::VerifierLog) explains it.
pub const POISON: u32 = 0x0bad_2310;

/// The names that an object's symbols and attach points look up in BTF.
#[must_use]
pub fn wanted(object: &Object) -> Wanted {
    let mut wanted = Wanted::new();
    want(&mut wanted, object);
    wanted
}

/// Adds the names that an object looks up in BTF, and those that the loader looks up for it. One
/// pass over the BTF can then serve several users.
pub fn want(wanted: &mut Wanted, object: &Object) {
    quirks::want(wanted);
    for def in object.hooks.iter().flat_map(|hook| &hook.attach_options) {
        match &def.attach {
            Attach::TpBtf(name) => wanted.add(Want::Tracepoint, name),
            Attach::Fentry(name) | Attach::Fexit(name) => wanted.add(Want::Func, name),
            Attach::Iter(name) => wanted.add(Want::Func, &iter_func(name)),
            _ => {}
        }
        for (_, symbol) in &def.program.symbols {
            match symbol {
                Symbol::Field { path, from, .. } => {
                    wanted.add_field(path);
                    if let Some(from) = from {
                        wanted.add_field(from);
                    }
                }
                Symbol::Size(path)
                | Symbol::Exists(path)
                | Symbol::BitShift(path)
                | Symbol::BitMask(path) => {
                    wanted.add_field(path);
                }
                Symbol::Params(name) => match tracepoint_of(name) {
                    Some(tracepoint) => wanted.add(Want::Tracepoint, tracepoint),
                    None => wanted.add(Want::Func, name),
                },
                Symbol::Enum { name, .. } => wanted.add(Want::Enum, name),
                Symbol::Kfunc(name) => wanted.add(Want::Func, name),
                _ => {}
            }
        }
    }
}

/// The kernel function that declares an iterator (`DEFINE_BPF_ITER_FUNC` in `include/linux/bpf.h`).
pub(crate) fn iter_func(target: &str) -> String {
    format!("bpf_iter_{target}")
}

/// The tracepoint that a typedef `btf_trace_NAME` belongs to (`include/trace/bpf_probe.h`).
fn tracepoint_of(name: &str) -> Option<&str> {
    name.strip_prefix("btf_trace_")
}

/// Replaces every symbol except maps by its number. The result's `symbols` has the maps only.
///
/// If the program checks by `exists` that a field or an enumerator is there, or something it is
/// part of, an absent one is not an error: the instruction becomes a call of [`POISON`], in a
/// branch that the program itself makes unreachable.
///
/// # Errors
/// If a symbol is absent and not checked for, does not fit in its instruction, or accesses a field
/// with the wrong width.
pub fn relocate(program: &Program, index: &Index<'_>, consts: &[(Text, i32)]) -> Result<Program, RelocError> {
    relocate_with(program, &Answers::new(index), consts)
}

/// As [`relocate`], for several programs that share their lookups.
pub(crate) fn relocate_with<'a>(
    program: &'a Program,
    answers: &Answers<'a>,
    consts: &[(Text, i32)],
) -> Result<Program, RelocError> {
    let mut out = program.clone();
    out.symbols.clear();
    let resolver = Resolver { program, answers, consts };
    for (at, symbol) in &program.symbols {
        if matches!(symbol, Symbol::Map(_)) {
            out.symbols.push((*at, symbol.clone()));
            continue;
        }
        let site = Site { symbol, source: program.source.get(*at).copied().flatten() };
        let insn = out.insns.get_mut(*at).ok_or_else(|| site.place())?;
        resolver.apply(insn, &site)?;
    }
    Ok(out)
}

/// Replaces the maps that [`relocate`] left by their descriptors.
pub(crate) fn resolve_maps(
    program: &mut Program,
    mut fd_of: impl FnMut(&str) -> Option<i32>,
) -> Result<(), RelocError> {
    for (at, symbol) in std::mem::take(&mut program.symbols) {
        let site = Site { symbol: &symbol, source: program.source.get(at).copied().flatten() };
        let Symbol::Map(name) = &symbol else { return Err(site.place()) };
        let fd = fd_of(name).ok_or_else(|| RelocError::Map { name: name.clone(), source: site.source })?;
        match program.insns.get_mut(at) {
            Some(Insn::LoadImm64 { imm: Imm64::MapFd(slot) | Imm64::MapValue { fd: slot, .. }, .. }) => {
                *slot = fd
            }
            _ => return Err(site.place()),
        }
    }
    Ok(())
}

/// A symbol and its statement.
struct Site<'a> {
    symbol: &'a Symbol,
    source: Option<Source>,
}

impl Site<'_> {
    fn name(&self) -> String {
        self.symbol.to_string()
    }

    fn place(&self) -> RelocError {
        RelocError::Place { symbol: self.name(), source: self.source }
    }

    fn range(&self, value: i64) -> RelocError {
        RelocError::Range { symbol: self.name(), value, source: self.source }
    }

    fn btf(&self, error: BtfError) -> RelocError {
        RelocError::Btf { symbol: self.name(), error, source: self.source }
    }
}

/// The value of a symbol.
enum Value {
    Number(i64),
    /// The symbol is absent, and the program is prepared for that.
    Poison,
}

/// The results of lookups so far. The programs of an object name the same few fields many times.
pub(crate) struct Answers<'a> {
    index: &'a Index<'a>,
    fields: RefCell<Vec<(&'a str, Answer)>>,
    exist: RefCell<Vec<(&'a str, bool)>>,
}

type Answer = Lookup<Rc<Field>>;

impl<'a> Answers<'a> {
    pub(crate) fn new(index: &'a Index<'a>) -> Self {
        Self { index, fields: RefCell::default(), exist: RefCell::default() }
    }

    fn field(&self, path: &'a str) -> Result<Answer, BtfError> {
        if let Some((_, found)) = self.fields.borrow().iter().find(|(known, _)| *known == path) {
            return Ok(found.clone());
        }
        let found = self.index.field(path)?.map(Rc::new);
        self.fields.borrow_mut().push((path, found.clone()));
        Ok(found)
    }

    fn exists(&self, path: &'a str) -> Result<bool, BtfError> {
        if let Some((_, exists)) = self.exist.borrow().iter().find(|(known, _)| *known == path) {
            return Ok(*exists);
        }
        let exists = self.index.exists(path)?;
        self.exist.borrow_mut().push((path, exists));
        Ok(exists)
    }
}

struct Resolver<'r, 'a> {
    program: &'a Program,
    answers: &'r Answers<'a>,
    consts: &'r [(Text, i32)],
}

impl<'a> Resolver<'_, 'a> {
    fn apply(&self, insn: &mut Insn, site: &Site<'a>) -> Result<(), RelocError> {
        match self.value(insn, site)? {
            Value::Number(value) => put(insn, value, site),
            Value::Poison => {
                *insn = match insn {
                    // It must keep its two slots, or every jump across it would change its target.
                    Insn::LoadImm64 { dst, .. } => {
                        Insn::LoadImm64 { dst: *dst, imm: Imm64::Value(u64::from(POISON)) }
                    }
                    _ => Insn::Call(Callee::Helper(POISON)),
                };
                Ok(())
            }
        }
    }

    fn value(&self, insn: &Insn, site: &Site<'a>) -> Result<Value, RelocError> {
        let number = match site.symbol {
            Symbol::Field { path, from, addend } => {
                let Some(field) = self.field(path, site)? else { return Ok(Value::Poison) };
                self.check_width(insn, path, &field, site)?;
                let start = match from {
                    None => 0,
                    Some(from) => match self.field(from, site)? {
                        Some(field) => i64::from(field.offset.0),
                        None => return Ok(Value::Poison),
                    },
                };
                i64::from(field.offset.0) - start + i64::from(*addend)
            }
            Symbol::Size(path) => match self.field(path, site)? {
                Some(field) => i64::from(field.size.0),
                None => return Ok(Value::Poison),
            },
            Symbol::Exists(path) => i64::from(self.answers.exists(path).map_err(|error| site.btf(error))?),
            Symbol::BitShift(path) => match self.field(path, site)? {
                Some(field) => field.bits.map_or(0, |bits| i64::from(bits.shift.0)),
                None => return Ok(Value::Poison),
            },
            Symbol::BitMask(path) => match self.field(path, site)? {
                // On this kernel it is not a bit-field, so its mask is all of its bits.
                Some(field) => field.bits.map_or_else(
                    || {
                        1_i64
                            .checked_shl(field.size.0.saturating_mul(8))
                            .map_or(i64::MAX, |past| past.wrapping_sub(1))
                    },
                    |bits| i64::try_from(bits.mask()).unwrap_or(i64::MAX),
                ),
                None => return Ok(Value::Poison),
            },
            Symbol::Enum { name, variant } => {
                let value = self.answers.index.enum_value(name, variant).map_err(|error| site.btf(error))?;
                match value {
                    Lookup::Absent(_) if self.guarded(&format!("{name}.{variant}")) => {
                        return Ok(Value::Poison);
                    }
                    value => present(value, site)?,
                }
            }
            Symbol::Params(name) => i64::try_from(self.params(name, site)?).unwrap_or(i64::MAX),
            Symbol::Const(name) => {
                let found = self.consts.iter().find(|(known, _)| known == name);
                let missing = || RelocError::Const { name: name.clone(), source: site.source };
                i64::from(found.ok_or_else(missing)?.1)
            }
            Symbol::Kfunc(name) => {
                let func = self.answers.index.func(name).map_err(|error| site.btf(error))?;
                i64::from(present(func, site)?.type_id.0)
            }
            _ => return Err(site.place()),
        };
        Ok(Value::Number(number))
    }

    /// The number of arguments of a tracepoint or a function.
    fn params(&self, name: &str, site: &Site<'_>) -> Result<usize, RelocError> {
        let lookup = match tracepoint_of(name) {
            Some(tracepoint) => {
                self.answers.index.tracepoint(tracepoint).map(|found| found.map(|it| it.args.len()))
            }
            None => self.answers.index.func(name).map(|found| found.map(|it| it.params.len())),
        };
        present(lookup.map_err(|error| site.btf(error))?, site)
    }

    /// The field, or `None` if it is absent and the program is prepared for that.
    fn field(&self, path: &'a str, site: &Site<'a>) -> Result<Option<Rc<Field>>, RelocError> {
        match self.answers.field(path).map_err(|error| site.btf(error))? {
            Lookup::Found(field) => Ok(Some(field)),
            Lookup::Absent(_) if self.guarded(path) => Ok(None),
            Lookup::Absent(why) => Err(RelocError::Absent { symbol: site.name(), why, source: site.source }),
        }
    }

    /// Whether the program checks by `exists` for `path` or for something it is part of.
    fn guarded(&self, path: &str) -> bool {
        self.program.symbols.iter().any(|(_, symbol)| match symbol {
            Symbol::Exists(asked) => path
                .strip_prefix(&**asked)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])),
            _ => false,
        })
    }

    /// Checks that a load or store accesses the whole field and nothing else. Part of an array or a
    /// struct is allowed. So is the storage unit of a bit-field, if the program uses its `mask`.
    fn check_width(
        &self,
        insn: &Insn,
        path: &Text,
        field: &Field,
        site: &Site<'_>,
    ) -> Result<(), RelocError> {
        let Some(size) = access(insn) else { return Ok(()) };
        let access_bits = size.bits();
        // A bit-field's `size` is that of its storage unit.
        let whole = field.size.0.saturating_mul(8);
        let fits = match (&field.bits, &field.class) {
            (Some(bits), _) => {
                let masked = self
                    .program
                    .symbols
                    .iter()
                    .any(|(_, symbol)| matches!(symbol, Symbol::BitMask(of) if of == path));
                access_bits == whole && (masked || (bits.shift.0 == 0 && bits.width.0 == whole))
            }
            (None, Class::Composite { .. } | Class::Array { .. }) => access_bits <= whole,
            (None, _) => access_bits == whole,
        };
        let field_bits = field.bits.map_or(whole, |bits| bits.width.0);
        let wrong = || RelocError::Width { path: path.clone(), field_bits, access_bits, source: site.source };
        fits.then_some(()).ok_or_else(wrong)
    }
}

fn present<T>(lookup: Lookup<T>, site: &Site<'_>) -> Result<T, RelocError> {
    match lookup {
        Lookup::Found(value) => Ok(value),
        Lookup::Absent(why) => Err(RelocError::Absent { symbol: site.name(), why, source: site.source }),
    }
}

/// The width of an instruction's memory access, if it has one.
fn access(insn: &Insn) -> Option<Size> {
    match insn {
        Insn::Load { size, .. } | Insn::Store { size, .. } | Insn::Atomic { size, .. } => Some(*size),
        _ => None,
    }
}

/// Writes a value into the operand that [`Symbol`] describes: the offset of a memory access, the
/// immediate of any other instruction.
fn put(insn: &mut Insn, value: i64, site: &Site<'_>) -> Result<(), RelocError> {
    let imm = || i32::try_from(value).map_err(|_| site.range(value));
    match insn {
        Insn::Load { off, .. } | Insn::Store { off, .. } | Insn::Atomic { off, .. } => {
            *off = i16::try_from(value).map_err(|_| site.range(value))?;
        }
        Insn::Alu { src: src @ Operand::Imm(_), .. }
        | Insn::Mov { src: src @ Operand::Imm(_), .. }
        | Insn::JumpIf { src: src @ Operand::Imm(_), .. } => *src = Operand::Imm(imm()?),
        Insn::LoadImm64 { imm: Imm64::Value(to), .. } => *to = u64::from_ne_bytes(value.to_ne_bytes()),
        Insn::LoadPacket { off, .. } => *off = imm()?,
        Insn::Call(Callee::Helper(id)) => *id = u32::try_from(value).map_err(|_| site.range(value))?,
        Insn::Call(Callee::Kfunc(id)) => *id = imm()?,
        _ => return Err(site.place()),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
