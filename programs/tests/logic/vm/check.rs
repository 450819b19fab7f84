//! Checks of a program without running it: nothing is read before it was written, on any path.
//!
//! The kernel's verifier checks this and more, on a kernel. Here it is checked for every option set
//! of every target: registers that a call clobbered, stack bytes that a path forgot, values that
//! may not be there, and stack accesses out of place.

use bpfasm::{
    AluOp, Callee, CmpOp, Imm64, Insn, MapDef, MapKind, Operand, Program, Reg, Size, Symbol, Width,
};

use super::code::target;

/// What is known of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Nothing was written there, or a call clobbered it.
    Unset,
    /// This number.
    Number(i64),
    /// A number from 0 to this.
    UpTo(u32),
    /// Some number or an address outside of what is ours.
    Anything,
    /// `r10` and this.
    Stack(i32),
    /// A map, by its place in the object.
    Map(usize),
    /// One that was looked up in an array of maps.
    MapOrNull(usize),
    /// This far into a value of a map.
    Value { map: usize, offset: i32, or_null: bool },
}

impl Known {
    /// The largest value that a number may have; `None` if it may have more than 32 bits, or is not
    /// a number.
    fn most(self) -> Option<u32> {
        match self {
            Self::Number(number) => u32::try_from(number).ok(),
            Self::UpTo(most) => Some(most),
            _ => None,
        }
    }

    /// The same number, known to be no more than this.
    fn at_most(self, most: i64) -> Self {
        match (self, u32::try_from(most)) {
            (Self::Anything, Ok(most)) => Self::UpTo(most),
            (Self::UpTo(known), Ok(most)) => Self::UpTo(known.min(most)),
            _ => self,
        }
    }
}

/// What is known when control reaches an instruction.
#[derive(Clone, PartialEq, Eq)]
struct State {
    regs: [Known; 11],
    /// From `r10 - 512` up: which bytes are written.
    stack: [bool; 512],
}

impl State {
    fn start() -> Self {
        let mut regs = [Known::Unset; 11];
        regs[1] = Known::Anything;
        regs[10] = Known::Stack(0);
        Self { regs, stack: [false; 512] }
    }

    /// What is true on both of two paths.
    fn meet(&mut self, other: &Self) {
        for (mine, other) in self.regs.iter_mut().zip(other.regs) {
            *mine = match (*mine, other) {
                (mine, other) if mine == other => mine,
                (Known::Unset, _) | (_, Known::Unset) => Known::Unset,
                // A value, and the 0 of a lookup that found none.
                (Known::Value { map, offset, .. }, Known::Number(0))
                | (Known::Number(0), Known::Value { map, offset, .. }) => {
                    Known::Value { map, offset, or_null: true }
                }
                (Known::Value { map, offset, .. }, Known::Value { map: map2, offset: offset2, .. })
                    if (map, offset) == (map2, offset2) =>
                {
                    Known::Value { map, offset, or_null: true }
                }
                (mine, other) => match (mine.most(), other.most()) {
                    (Some(mine), Some(other)) => Known::UpTo(mine.max(other)),
                    _ => Known::Anything,
                },
            };
        }
        for (mine, other) in self.stack.iter_mut().zip(other.stack) {
            *mine &= other;
        }
    }

    fn set(&mut self, reg: Reg, known: Known) {
        self.regs[usize::from(reg.index())] = known;
    }

    fn read(&self, reg: Reg) -> Result<Known, String> {
        match self.regs[usize::from(reg.index())] {
            Known::Unset => Err(format!("{reg} was not written")),
            known => Ok(known),
        }
    }

    fn operand(&self, operand: Operand) -> Result<Known, String> {
        match operand {
            Operand::Reg(reg) => self.read(reg),
            Operand::Imm(imm) => Ok(Known::Number(imm.into())),
        }
    }

    /// The bytes `r10 + offset` and on.
    fn stack(&mut self, offset: i32, len: u32) -> Result<&mut [bool], String> {
        let start = offset.checked_add(512).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| self.stack.get_mut(start..start + len as usize));
        bytes.ok_or_else(|| format!("{len} bytes at r10 {offset:+} are outside of the stack"))
    }

    fn stack_read(&mut self, offset: i32, len: u32) -> Result<(), String> {
        match self.stack(offset, len)?.iter().position(|written| !written) {
            Some(byte) => Err(format!("of {len} bytes at r10 {offset:+}, byte {byte} is not written")),
            None => Ok(()),
        }
    }

    fn stack_write(&mut self, offset: i32, len: u32) -> Result<(), String> {
        self.stack(offset, len)?.fill(true);
        Ok(())
    }
}

/// Finds what is wrong with a relocated program; `maps` are its object's.
pub fn check(program: &Program, maps: &[MapDef]) -> Result<(), String> {
    let mut states: Vec<Option<State>> = vec![None; program.insns.len()];
    states[0] = Some(State::start());
    let fail = |at: usize, what: String| {
        let source = program.source[at].map_or(String::new(), |source| format!(" ({source})"));
        format!("instruction {at}: {}{source}: {what}", program.insns[at])
    };
    // What is known only becomes less from pass to pass. Without a jump backwards one pass finds
    // all, and one more sees so.
    let mut changed = true;
    while std::mem::take(&mut changed) {
        for at in 0..program.insns.len() {
            let Some(state) = states[at].clone() else { continue };
            for (next, after) in step(program, maps, at, state).map_err(|what| fail(at, what))? {
                let slot = states.get_mut(next).ok_or_else(|| fail(at, "runs off the end".into()))?;
                let mut met = slot.clone().unwrap_or_else(|| after.clone());
                met.meet(&after);
                if slot.as_ref() != Some(&met) {
                    *slot = Some(met);
                    changed = true;
                }
            }
        }
    }
    // What only a comparison of constants keeps control from is another kernel's.
    let mut reached = vec![false; program.insns.len()];
    let mut todo = vec![0];
    while let Some(at) = todo.pop() {
        let Some(insn) = program.insns.get(at).filter(|_| !std::mem::replace(&mut reached[at], true)) else {
            continue;
        };
        if let Some(dest) = insn.dest() {
            todo.push(target(program, at, dest).map_err(|what| fail(at, what))?);
        }
        if !matches!(insn, Insn::Jump { .. } | Insn::Exit) {
            todo.push(at + 1);
        }
    }
    match reached.iter().position(|reached| !reached) {
        Some(at) => Err(fail(at, "nothing leads here".into())),
        None => Ok(()),
    }
}

/// The first jump that does not go forwards. A program without one ends, as the oldest verifiers
/// demand.
pub fn backward_jump(program: &Program) -> Option<String> {
    (0..program.insns.len()).find_map(|at| {
        let dest = program.insns[at].dest()?;
        let backwards = target(program, at, dest).is_ok_and(|target| target <= at);
        let source = program.source[at].map_or(String::new(), |source| source.to_string());
        backwards.then(|| format!("instruction {at}: {source}"))
    })
}

/// What is true after an instruction, for each instruction that may be next.
fn step(
    program: &Program,
    maps: &[MapDef],
    at: usize,
    mut state: State,
) -> Result<Vec<(usize, State)>, String> {
    match &program.insns[at] {
        Insn::Mov { width, dst, src } => {
            let known = match (width, state.operand(*src)?) {
                (Width::W64, known) => known,
                (Width::W32, Known::Number(number)) => Known::Number(number & 0xffff_ffff),
                (Width::W32, known @ Known::UpTo(_)) => known,
                (Width::W32, _) => Known::UpTo(u32::MAX),
            };
            state.set(*dst, known);
        }
        Insn::Alu { width, op, dst, src } => {
            let known = match (width, op, state.read(*dst)?, state.operand(*src)?) {
                (Width::W64, AluOp::Add, Known::Stack(offset), Known::Number(add)) => {
                    Known::Stack(offset + i32::try_from(add).map_err(|error| error.to_string())?)
                }
                (
                    Width::W64,
                    AluOp::Add,
                    Known::Value { map, offset, or_null: false },
                    Known::Number(add),
                ) => {
                    let add = i32::try_from(add).map_err(|error| error.to_string())?;
                    Known::Value { map, offset: offset + add, or_null: false }
                }
                // A mask with its highest bit set leaves of 64 bits more than 32.
                (
                    _,
                    AluOp::And,
                    Known::Number(_) | Known::UpTo(_) | Known::Anything,
                    Known::Number(mask @ 0..),
                ) => Known::Anything.at_most(mask),
                (_, AluOp::Add, Known::UpTo(most), Known::Number(add @ 0..)) => {
                    let sum = u32::try_from(add).ok().and_then(|add| most.checked_add(add));
                    sum.map_or(Known::Anything, Known::UpTo)
                }
                (_, AluOp::Lsh, Known::UpTo(most), Known::Number(by @ 0..32)) => {
                    Known::Anything.at_most(i64::from(most) << by)
                }
                (_, AluOp::Rsh, Known::UpTo(most), Known::Number(by @ 0..32)) => Known::UpTo(most >> by),
                (Width::W32, _, Known::Number(_) | Known::UpTo(_) | Known::Anything, _) => {
                    Known::UpTo(u32::MAX)
                }
                (_, _, Known::Number(_) | Known::UpTo(_) | Known::Anything, _) => Known::Anything,
                (_, _, known, _) => return Err(format!("arithmetic on {known:?}")),
            };
            state.set(*dst, known);
        }
        Insn::Neg { dst, .. } | Insn::Swap { dst, .. } => match state.read(*dst)? {
            Known::Number(_) | Known::UpTo(_) | Known::Anything => state.set(*dst, Known::Anything),
            known => return Err(format!("arithmetic on {known:?}")),
        },
        Insn::LoadImm64 { dst, imm } => {
            let symbol = program.symbols.iter().find(|(place, _)| *place == at).map(|(_, symbol)| symbol);
            let known = match (imm, symbol) {
                (Imm64::MapFd(_), Some(Symbol::Map(name))) => {
                    let map = maps.iter().position(|map| map.name == *name);
                    Known::Map(map.ok_or_else(|| format!("no map {name}"))?)
                }
                (Imm64::Value(value), None) => Known::Number(value.cast_signed()),
                _ => return Err("a wide load of what?".into()),
            };
            state.set(*dst, known);
        }
        Insn::Load { size, signed: false, dst, base, off } => {
            access(&mut state, maps, *base, *off, *size, State::stack_read)?;
            let most = match size {
                Size::B1 => Known::UpTo(u8::MAX.into()),
                Size::B2 => Known::UpTo(u16::MAX.into()),
                Size::B4 => Known::UpTo(u32::MAX),
                Size::B8 => Known::Anything,
            };
            state.set(*dst, most);
        }
        Insn::Store { size, base, off, src } => {
            state.operand(*src)?;
            access(&mut state, maps, *base, *off, *size, State::stack_write)?;
        }
        Insn::Atomic { size, base, off, src, .. } => {
            state.read(*src)?;
            access(&mut state, maps, *base, *off, *size, State::stack_read)?;
        }
        Insn::Call(Callee::Helper(id)) => call(&mut state, maps, *id)?,
        Insn::Jump { dest, .. } => return Ok(vec![(target(program, at, dest)?, state)]),
        Insn::JumpIf { width, op, dst, src, dest } => {
            let (left, right) = (state.read(*dst)?, state.operand(*src)?);
            let next = target(program, at, dest)?;
            // As the verifier, which is how code behind `exists(...)` may name what a kernel lacks.
            if let (CmpOp::Eq | CmpOp::Ne, Known::Number(left), Known::Number(right)) = (op, left, right) {
                let compared = if *width == Width::W64 { u64::MAX } else { u32::MAX.into() };
                let same = (left ^ right).cast_unsigned() & compared == 0;
                return Ok(vec![(if (*op == CmpOp::Eq) == same { next } else { at + 1 }, state)]);
            }
            let (mut taken, mut fallen) = (state.clone(), state);
            let is_whole = *width == Width::W64 || left.most().is_some();
            if let (Known::Anything | Known::UpTo(_), Known::Number(limit @ 0..), true) =
                (left, right, is_whole)
            {
                match op {
                    CmpOp::Gt => fallen.set(*dst, left.at_most(limit)),
                    CmpOp::Ge => fallen.set(*dst, left.at_most(limit - 1)),
                    CmpOp::Le => taken.set(*dst, left.at_most(limit)),
                    CmpOp::Lt => taken.set(*dst, left.at_most(limit - 1)),
                    _ => {}
                }
            }
            let there = match left {
                Known::Value { map, offset, .. } => Some(Known::Value { map, offset, or_null: false }),
                Known::MapOrNull(map) => Some(Known::Map(map)),
                _ => None,
            };
            if let (Some(there), Known::Number(0), Width::W64) = (there, right, width) {
                let (null, value) = match op {
                    CmpOp::Eq => (&mut taken, &mut fallen),
                    CmpOp::Ne => (&mut fallen, &mut taken),
                    other => return Err(format!("{other} of an address")),
                };
                null.set(*dst, Known::Number(0));
                value.set(*dst, there);
            }
            return Ok(vec![(next, taken), (at + 1, fallen)]);
        }
        Insn::Exit => {
            state.read(Reg::R0)?;
            return Ok(Vec::new());
        }
        other => return Err(format!("the checker does not know {other}")),
    }
    Ok(vec![(at + 1, state)])
}

/// Memory that an instruction touches itself.
fn access(
    state: &mut State,
    maps: &[MapDef],
    base: Reg,
    off: i16,
    size: Size,
    on_stack: fn(&mut State, i32, u32) -> Result<(), String>,
) -> Result<(), String> {
    match state.read(base)? {
        Known::Stack(offset) => {
            let offset = offset + i32::from(off);
            // The verifier takes no other, whatever the machine does.
            if offset.rem_euclid(size.bytes().cast_signed()) != 0 {
                return Err(format!("r10 {offset:+} is not aligned to {} bytes", size.bytes()));
            }
            on_stack(state, offset, size.bytes())
        }
        Known::Value { or_null: true, .. } => Err("the value may not be there".into()),
        Known::Value { map, offset, .. } => in_value(&maps[map], offset + i32::from(off), size.bytes()),
        Known::Anything => Ok(()),
        known => Err(format!("no address: {known:?}")),
    }
}

fn in_value(map: &MapDef, offset: i32, len: u32) -> Result<(), String> {
    let inside = u32::try_from(offset).is_ok_and(|offset| offset + len <= map.value_size);
    inside
        .then_some(())
        .ok_or_else(|| format!("{len} bytes at {offset} are outside of a value of {}", map.name))
}

/// What a helper does with an argument.
#[derive(Clone, Copy)]
enum Arg {
    /// Takes it as it is.
    Any,
    /// A map.
    Map,
    /// The address of a key of the map.
    Key,
    /// The address of a value of the map.
    Value,
    /// The address of as many bytes to read as this register says.
    In(Reg),
    /// The address of as many bytes to fill as this register says.
    Out(Reg),
    /// The address of eight bytes to fill.
    Out8,
}

fn call(state: &mut State, maps: &[MapDef], id: u32) -> Result<(), String> {
    use Arg::{Any, In, Key, Map, Out, Out8, Value};
    let name = bpfasm::helper::name(id).ok_or_else(|| format!("no helper {id}"))?;
    let args: &[Arg] = match name {
        "bpf_map_lookup_elem" | "bpf_map_delete_elem" => &[Map, Key],
        "bpf_map_update_elem" => &[Map, Key, Value, Any],
        "bpf_ktime_get_ns"
        | "bpf_get_current_pid_tgid"
        | "bpf_get_current_uid_gid"
        | "bpf_get_current_task"
        | "bpf_get_current_task_btf"
        | "bpf_get_current_cgroup_id" => &[],
        "bpf_get_stack" => &[Any, Out(Reg::R3), Any, Any],
        "bpf_get_current_comm" => &[Out(Reg::R2), Any],
        "bpf_probe_read_kernel" => &[Out(Reg::R2), Any, Any],
        "bpf_ringbuf_output" => &[Map, In(Reg::R3), Any, Any],
        "bpf_ringbuf_query" => &[Map, Any],
        "bpf_perf_event_output" => &[Any, Map, Any, In(Reg::R5), Any],
        "bpf_skc_to_tcp_sock" | "bpf_skc_to_tcp_request_sock" | "bpf_sock_from_file" => &[Any],
        "bpf_get_func_ret" => &[Any, Out8],
        other => return Err(format!("the checker does not know {other}")),
    };
    let mut map = None;
    for (arg, reg) in args.iter().zip([Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5]) {
        let known = state.read(reg)?;
        let of_map =
            |size: fn(&MapDef) -> u32| map.map(|map: usize| size(&maps[map])).ok_or("no map before it");
        let length = |state: &State, reg| {
            let known = state.read(reg)?;
            // Of a length that varies, bytes up to the most must be there to read, but none is sure
            // to be filled.
            let exact = matches!(known, Known::Number(_));
            known.most().map(|most| (most, exact)).ok_or_else(|| format!("a length of {known:?}"))
        };
        let (len, fill) = match arg {
            Any => continue,
            Map => {
                let Known::Map(at) = known else { return Err(format!("{reg} is not a map: {known:?}")) };
                map = Some(at);
                continue;
            }
            Key => (of_map(|map| map.key_size)?, false),
            Value => (of_map(|map| map.value_size)?, false),
            In(size) => (length(state, *size)?.0, false),
            Out(size) => match length(state, *size)? {
                (len, true) => (len, true),
                (len, false) => {
                    if let Known::Stack(offset) = known {
                        state.stack(offset, len)?;
                        continue;
                    }
                    (len, false)
                }
            },
            Out8 => (8, true),
        };
        match known {
            Known::Stack(offset) if fill => state.stack_write(offset, len)?,
            Known::Stack(offset) => state.stack_read(offset, len)?,
            Known::Value { map, offset, or_null: false } => in_value(&maps[map], offset, len)?,
            other => return Err(format!("{reg} is not an address of {len} bytes: {other:?}")),
        }
    }
    for reg in [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5] {
        state.set(reg, Known::Unset);
    }
    let result = match (name, map) {
        ("bpf_map_lookup_elem", Some(map)) if maps[map].kind == MapKind::ArrayOfMaps => {
            // They are all of one shape, so one of them stands for all.
            let inner =
                maps[map].inner.first().and_then(|inner| maps.iter().position(|map| map.name == *inner));
            Known::MapOrNull(inner.ok_or("an array of no maps")?)
        }
        ("bpf_map_lookup_elem", Some(map)) => Known::Value { map, offset: 0, or_null: true },
        _ => Known::Anything,
    };
    state.set(Reg::R0, result);
    Ok(())
}
