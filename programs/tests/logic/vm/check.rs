//! What can be told about a program without running it: nothing is read before it was written, on any path.
//!
//! The kernel's verifier checks this and more, on a kernel. Here it is checked for every option set of every target: registers
//! that a call clobbered, stack bytes that a path forgot, values that may not be there, and stack accesses out of place.

use bpfasm::{AluOp, Callee, CmpOp, Imm64, Insn, MapDef, Operand, Program, Reg, Size, Symbol, Width};

use super::code::target;

/// What is known of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Nothing was written there, or a call clobbered it.
    Unset,
    /// This number.
    Number(i64),
    /// Some number or an address outside of what is ours.
    Anything,
    /// `r10` and this.
    Stack(i32),
    /// A map, by its place in the object.
    Map(usize),
    /// This far into a value of a map.
    Value { map: usize, offset: i32, or_null: bool },
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

    /// What holds on both of two paths.
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
                _ => Known::Anything,
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
            Known::Unset => Err(format!("{reg} holds nothing")),
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
    // What is known only becomes less from pass to pass. Without a jump backwards one pass finds all, and one more sees so.
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
    match states.iter().position(Option::is_none) {
        Some(at) => Err(fail(at, "nothing leads here".into())),
        None => Ok(()),
    }
}

/// The first jump that does not go forwards. A program without one ends, and the oldest verifier sees that it does.
pub fn backward_jump(program: &Program) -> Option<String> {
    (0..program.insns.len()).find_map(|at| {
        let dest = program.insns[at].dest()?;
        let backwards = target(program, at, dest).is_ok_and(|target| target <= at);
        let source = program.source[at].map_or(String::new(), |source| source.to_string());
        backwards.then(|| format!("instruction {at}: {source}"))
    })
}

/// What holds after an instruction, for each instruction that may be next.
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
                (Width::W32, _) => Known::Anything,
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
                (_, _, Known::Number(_) | Known::Anything, _) => Known::Anything,
                (_, _, known, _) => return Err(format!("arithmetic on {known:?}")),
            };
            state.set(*dst, known);
        }
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
        Insn::Load { size, dst, base, off, .. } => {
            access(&mut state, maps, *base, *off, *size, State::stack_read)?;
            state.set(*dst, Known::Anything);
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
            let (mut taken, mut fallen) = (state.clone(), state);
            if let (Known::Value { map, offset, .. }, Known::Number(0), Width::W64) = (left, right, width) {
                let there = Known::Value { map, offset, or_null: false };
                let (null, value) = match op {
                    CmpOp::Eq => (&mut taken, &mut fallen),
                    CmpOp::Ne => (&mut fallen, &mut taken),
                    other => return Err(format!("{other} of an address")),
                };
                null.set(*dst, Known::Number(0));
                value.set(*dst, there);
            }
            return Ok(vec![(target(program, at, dest)?, taken), (at + 1, fallen)]);
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
        "bpf_ktime_get_ns" | "bpf_get_current_pid_tgid" => &[],
        "bpf_get_current_comm" => &[Out(Reg::R2), Any],
        "bpf_probe_read_kernel" => &[Out(Reg::R2), Any, Any],
        "bpf_ringbuf_output" => &[Map, In(Reg::R3), Any, Any],
        "bpf_ringbuf_query" => &[Map, Any],
        "bpf_perf_event_output" => &[Any, Map, Any, In(Reg::R5), Any],
        "bpf_skc_to_tcp_sock" | "bpf_sock_from_file" => &[Any],
        "bpf_get_func_ret" => &[Any, Out8],
        other => return Err(format!("the checker does not know {other}")),
    };
    let mut map = None;
    for (arg, reg) in args.iter().zip([Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5]) {
        let known = state.read(reg)?;
        let of_map =
            |size: fn(&MapDef) -> u32| map.map(|map: usize| size(&maps[map])).ok_or("no map before it");
        let length = |state: &State, reg| match state.read(reg)? {
            Known::Number(len) => u32::try_from(len).map_err(|error| error.to_string()),
            other => Err(format!("a length of {other:?}")),
        };
        let (len, fill) = match arg {
            Any => continue,
            Map => {
                let Known::Map(at) = known else { return Err(format!("{reg} is no map: {known:?}")) };
                map = Some(at);
                continue;
            }
            Key => (of_map(|map| map.key_size)?, false),
            Value => (of_map(|map| map.value_size)?, false),
            In(size) => (length(state, *size)?, false),
            Out(size) => (length(state, *size)?, true),
            Out8 => (8, true),
        };
        match known {
            Known::Stack(offset) if fill => state.stack_write(offset, len)?,
            Known::Stack(offset) => state.stack_read(offset, len)?,
            Known::Value { map, offset, or_null: false } => in_value(&maps[map], offset, len)?,
            other => return Err(format!("{reg} is no address of {len} bytes: {other:?}")),
        }
    }
    for reg in [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5] {
        state.set(reg, Known::Unset);
    }
    let result = match (name, map) {
        ("bpf_map_lookup_elem", Some(map)) => Known::Value { map, offset: 0, or_null: true },
        _ => Known::Anything,
    };
    state.set(Reg::R0, result);
    Ok(())
}
