//! A relocated program as `rbpf` can run it, with everything poisoned that the kernel does not
//! promise.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

use bpfasm::reg::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};
use bpfasm::{
    AluOp, AtomicOp, Callee, Dest, Imm64, Insn, MapDef, Operand, Program, Reg, Size, Symbol, Width, encode,
};

use super::machine::{Machine, map_address};
use super::memory::Memory;

/// Called before the first instruction; no helper of the kernel has this number.
const ENTER: u32 = 0x7fff_0000;

/// Bytes of a slot.
const SLOT: usize = 8;

/// The content of a register that a program may not rely on.
const POISON: i32 = 0x5bad_0000;

thread_local! {
    /// The machine of the program that is running: `rbpf` calls plain functions.
    static RUNNING: RefCell<Option<Machine>> = const { RefCell::new(None) };
}

/// Code for `rbpf`, and which instruction each slot of it comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    /// Where the code of each instruction starts, and where the last ends.
    starts: Vec<usize>,
    /// The slots, eight bytes each.
    bytes: Vec<u8>,
    /// Map addresses, by instruction.
    maps: Vec<(usize, u64)>,
}

impl Code {
    /// Lays a program out. Jumps lead to the code of the same instruction as before.
    pub fn new(program: &Program, maps: &[MapDef]) -> Result<Self, String> {
        let mut code = Self { starts: Vec::new(), bytes: Vec::new(), maps: Vec::new() };
        for (at, symbol) in &program.symbols {
            let Symbol::Map(name) = symbol else { return Err(format!("`{symbol}` is not resolved")) };
            let number = maps.iter().position(|map| map.name == *name);
            code.maps.push((*at, map_address(number.ok_or_else(|| format!("no map `{name}`"))?)));
        }
        for insn in prologue() {
            code.bytes.extend(bytes(&insn)?);
        }
        let mut next = code.bytes.len() / SLOT;
        for insn in &program.insns {
            code.starts.push(next);
            next += match insn {
                // The registers a call clobbers.
                Insn::Call(_) => 6,
                Insn::Atomic { .. } => 4,
                Insn::LoadImm64 { .. } => 2,
                _ => 1,
            };
        }
        code.starts.push(next);
        code.bytes.resize(next * SLOT, 0);
        for at in 0..program.insns.len() {
            code.put(program, at)?;
        }
        Ok(code)
    }

    /// The code of the same program with another instruction at `at`, which takes as many slots.
    pub fn with(&self, program: &Program, at: usize, insn: Insn) -> Result<Self, String> {
        let (mut code, mut program) = (self.clone(), program.clone());
        program.insns[at] = insn;
        code.put(&program, at)?;
        // The constant of an atomic addition comes from the instruction before it.
        if matches!(program.insns.get(at + 1), Some(Insn::Atomic { .. })) {
            code.put(&program, at + 1)?;
        }
        Ok(code)
    }

    /// Writes the code of one instruction.
    fn put(&mut self, program: &Program, at: usize) -> Result<(), String> {
        let room = self.starts[at] * SLOT..self.starts[at + 1] * SLOT;
        let mut code = Vec::new();
        for insn in self.lower(program, at)? {
            code.extend(bytes(&insn)?);
        }
        if code.len() > room.len() {
            return Err(format!("instruction {at} grew"));
        }
        // A shorter one, which stands for a longer one that was removed.
        while code.len() < room.len() {
            code.extend(bytes(&nop())?);
        }
        self.bytes[room].copy_from_slice(&code);
        Ok(())
    }

    fn lower(&self, program: &Program, at: usize) -> Result<Vec<Insn>, String> {
        let insn = &program.insns[at];
        Ok(match insn {
            Insn::Jump { dest, .. } => vec![Insn::Jump { long: false, dest: self.dest(program, at, dest)? }],
            Insn::JumpIf { width, op, dst, src, dest } => {
                // rbpf extends the constant of a 64-bit comparison with zeroes, the kernel with its
                // sign.
                if matches!((width, src), (Width::W64, Operand::Imm(..0))) {
                    return Err(format!("rbpf compares 64 bits with a negative constant wrongly: {insn}"));
                }
                let dest = self.dest(program, at, dest)?;
                vec![Insn::JumpIf { width: *width, op: *op, dst: *dst, src: *src, dest }]
            }
            Insn::Call(Callee::Helper(_)) => {
                let clobbered = [R1, R2, R3, R4, R5].map(poison);
                std::iter::once(*insn).chain(clobbered).collect()
            }
            // rbpf has no atomics. Nothing else runs here, so a plain addition does the same. A
            // register has to do the work: the operand's, if it is a constant loaded just before,
            // or one that the program is done with.
            Insn::Atomic { size: size @ (Size::B4 | Size::B8), op: AtomicOp::Add, base, off, src } => {
                let (size, base, off, src) = (*size, *base, *off, *src);
                let before = at.checked_sub(1).map(|before| &program.insns[before]);
                let constant = match before {
                    Some(Insn::Mov { width: Width::W64, dst, src: Operand::Imm(constant) })
                        if *dst == src && size == Size::B8 =>
                    {
                        *constant
                    }
                    _ => {
                        let free = [R0, R1, R2, R3, R4, R5, R6, R7, R8, R9]
                            .into_iter()
                            .find(|reg| *reg != base && *reg != src && is_done_with(program, at + 1, *reg));
                        let free = free.ok_or_else(|| format!("no register is free for the sum: {insn}"))?;
                        return Ok(vec![
                            Insn::Load { size, signed: false, dst: free, base, off },
                            Insn::Alu {
                                width: Width::W64,
                                op: AluOp::Add,
                                dst: free,
                                src: Operand::Reg(src),
                            },
                            Insn::Store { size, base, off, src: Operand::Reg(free) },
                        ]);
                    }
                };
                vec![
                    Insn::Load { size: Size::B8, signed: false, dst: src, base, off },
                    Insn::Alu { width: Width::W64, op: AluOp::Add, dst: src, src: Operand::Imm(constant) },
                    Insn::Store { size: Size::B8, base, off, src: Operand::Reg(src) },
                    Insn::Mov { width: Width::W64, dst: src, src: Operand::Imm(constant) },
                ]
            }
            Insn::LoadImm64 { dst, imm: Imm64::MapFd(_) } => {
                let address = self.maps.iter().find(|(place, _)| *place == at).map(|(_, address)| *address);
                let address = address.ok_or_else(|| format!("a map without a name: {insn}"))?;
                vec![Insn::LoadImm64 { dst: *dst, imm: Imm64::Value(address) }]
            }
            Insn::LoadImm64 { imm: Imm64::Value(_), .. }
            | Insn::Alu { .. }
            | Insn::Neg { .. }
            | Insn::Mov { .. }
            | Insn::Swap { .. }
            | Insn::Load { signed: false, .. }
            | Insn::Store { .. }
            | Insn::Exit => vec![*insn],
            other => return Err(format!("rbpf does not know: {other}")),
        })
    }

    /// The distance in this code of what is a distance in the program's slots.
    fn dest(&self, program: &Program, at: usize, dest: &Dest) -> Result<Dest, String> {
        let target = target(program, at, dest)?;
        let distance = self.starts[target].cast_signed() - self.starts[at].cast_signed() - 1;
        Ok(Dest::Rel(i32::try_from(distance).map_err(|error| error.to_string())?))
    }

    /// Runs the code in `machine`. `typed` programs may read kernel objects without a helper's
    /// help.
    pub fn run(
        &self,
        program: &Program,
        machine: Machine,
        context: &Memory,
        typed: bool,
    ) -> (Machine, Result<u64, String>) {
        let mut machine = machine;
        let allowed = machine.begin(context, typed);
        RUNNING.set(Some(machine));
        let result = self.execute(&allowed).map_err(|error| self.explain(program, &error));
        let mut machine = RUNNING.take().expect("put there above");
        let result = match machine.end() {
            Some(fault) => Err(fault),
            None => result,
        };
        (machine, result)
    }

    fn execute(&self, allowed: &[Range<u64>]) -> Result<u64, String> {
        let mut vm = rbpf::EbpfVmNoData::new(Some(&self.bytes)).map_err(|error| error.to_string())?;
        vm.register_helper(ENTER, |r10, _, _, _, _| {
            with("enter", |machine| Ok(machine.enter(r10).cast_signed()))
        })
        .map_err(|error| error.to_string())?;
        /// By number.
        static NUMBERED: LazyLock<Vec<(u32, Helper)>> = LazyLock::new(|| {
            let id = |name| bpfasm::helper::id(name).expect("a helper of the kernel");
            HELPERS.iter().map(|(name, helper)| (id(name), *helper)).collect()
        });
        for (id, helper) in NUMBERED.iter() {
            vm.register_helper(*id, *helper).map_err(|error| error.to_string())?;
        }
        for range in allowed {
            vm.register_allowed_memory(range.clone());
        }
        vm.execute_program().map_err(|error| error.to_string())
    }

    /// Says which instruction an error of rbpf's is about.
    fn explain(&self, program: &Program, error: &str) -> String {
        let number: Option<usize> = error
            .split_once("insn #")
            .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>())
            .and_then(|digits| digits.parse().ok());
        // rbpf has counted on when it checks an access.
        let Some(slot) = number.map(|number| number.saturating_sub(1)) else { return error.to_owned() };
        let at = self.starts.partition_point(|start| *start <= slot).saturating_sub(1);
        let place =
            program.source.get(at).copied().flatten().map_or(String::new(), |source| source.to_string());
        format!("instruction {at} (`{}`; {place}): {error}", program.insns[at])
    }
}

/// Whether nothing from this instruction on reads the register's content.
fn is_done_with(program: &Program, from: usize, reg: Reg) -> bool {
    let (mut todo, mut seen) = (vec![from], vec![false; program.insns.len()]);
    while let Some(at) = todo.pop() {
        let Some(insn) = program.insns.get(at).filter(|_| !std::mem::replace(&mut seen[at], true)) else {
            continue;
        };
        let is = |operand: &Operand| *operand == Operand::Reg(reg);
        let (reads, writes) = match insn {
            Insn::Mov { dst, src, .. } => (is(src), *dst == reg),
            Insn::LoadImm64 { dst, .. } => (false, *dst == reg),
            Insn::Load { dst, base, .. } => (*base == reg, *dst == reg),
            Insn::Store { base, src, .. } => (*base == reg || is(src), false),
            // Any of them may be an argument.
            Insn::Call(_) => ((1..=5).contains(&reg.index()), reg.index() <= 5),
            Insn::Jump { .. } => (false, false),
            Insn::JumpIf { dst, src, .. } => (*dst == reg || is(src), false),
            Insn::Exit => (reg == R0, true),
            // Arithmetic reads what it writes; of everything else it is not known.
            Insn::Alu { dst, src, .. } => (*dst == reg || is(src), false),
            Insn::Neg { dst, .. } | Insn::Swap { dst, .. } => (*dst == reg, false),
            Insn::Atomic { base, src, .. } => (*base == reg || *src == reg, false),
            _ => (true, false),
        };
        if reads {
            return false;
        }
        if !writes {
            if !matches!(insn, Insn::Jump { .. }) {
                todo.push(at + 1);
            }
            match insn.dest().map(|dest| target(program, at, dest)) {
                Some(Ok(next)) => todo.push(next),
                Some(Err(_)) => return false,
                None => {}
            }
        }
    }
    true
}

/// The instruction a distance leads to.
pub fn target(program: &Program, at: usize, dest: &Dest) -> Result<usize, String> {
    let Dest::Rel(distance) = dest else { return Err("a label is not resolved".into()) };
    let mut slot = 0_i64;
    let mut starts = Vec::with_capacity(program.insns.len());
    for insn in &program.insns {
        starts.push(slot);
        slot += i64::from(insn.slots());
    }
    starts.binary_search(&(starts[at] + 1 + i64::from(*distance))).map_err(|_| format!("{at} jumps nowhere"))
}

/// Gives the stack's address to the machine and poisons every register but the context's.
fn prologue() -> Vec<Insn> {
    let mov = |dst, src| Insn::Mov { width: Width::W64, dst, src: Operand::Reg(src) };
    let mut insns = vec![mov(R1, R10), Insn::Call(Callee::Helper(ENTER)), mov(R1, R0)];
    insns.extend([R0, R2, R3, R4, R5, R6, R7, R8, R9].map(poison));
    insns
}

fn poison(reg: Reg) -> Insn {
    Insn::Mov { width: Width::W64, dst: reg, src: Operand::Imm(POISON + i32::from(reg.index())) }
}

/// An instruction that does nothing: a jump to the next one.
pub fn nop() -> Insn {
    Insn::Jump { long: false, dest: Dest::Rel(0) }
}

fn bytes(insn: &Insn) -> Result<Vec<u8>, String> {
    let slots = encode(insn).map_err(|error| format!("{insn}: {error}"))?;
    Ok(slots.iter().flat_map(|slot| slot.to_le_bytes()).collect())
}

fn with(name: &str, help: impl FnOnce(&mut Machine) -> Result<i64, String>) -> u64 {
    RUNNING.with_borrow_mut(|machine| {
        let machine = machine.as_mut().expect("helpers are called by running programs");
        let helped = help(machine);
        machine.answer(name, helped)
    })
}

type Helper = fn(u64, u64, u64, u64, u64) -> u64;

/// The arguments' names come first: a macro cannot use names that its caller does not know.
macro_rules! helpers {
    (
        ($r1:ident $r2:ident $r3:ident $r4:ident $r5:ident)
        $($name:literal: $method:ident($($arg:ident),*);)*
    ) => {
        const HELPERS: &[(&str, Helper)] = &[$(
            ($name, |$r1, $r2, $r3, $r4, $r5| {
                let _ = ($r1, $r2, $r3, $r4, $r5);
                with($name, |machine| machine.$method($($arg),*))
            }),
        )*];
    };
}
helpers! {
    (r1 r2 r3 r4 r5)
    "bpf_map_lookup_elem": map_lookup_elem(r1, r2);
    "bpf_map_update_elem": map_update_elem(r1, r2, r3, r4);
    "bpf_map_delete_elem": map_delete_elem(r1, r2);
    "bpf_ktime_get_ns": ktime_get_ns();
    "bpf_get_current_pid_tgid": get_current_pid_tgid();
    "bpf_get_current_uid_gid": get_current_uid_gid();
    "bpf_get_current_comm": get_current_comm(r1, r2);
    "bpf_probe_read_kernel": probe_read_kernel(r1, r2, r3);
    "bpf_ringbuf_output": ringbuf_output(r1, r2, r3, r4);
    "bpf_ringbuf_query": ringbuf_query(r1, r2);
    "bpf_perf_event_output": perf_event_output(r1, r2, r3, r4, r5);
    "bpf_skc_to_tcp_sock": skc_to_tcp_sock(r1);
    "bpf_skc_to_tcp_request_sock": skc_to_tcp_request_sock(r1);
    "bpf_sock_from_file": sock_from_file(r1);
    "bpf_get_func_ret": get_func_ret(r1, r2);
    "bpf_get_stack": get_stack(r1, r2, r3, r4);
    "bpf_get_current_task": get_current_task();
    "bpf_get_current_task_btf": get_current_task_btf();
    "bpf_get_current_cgroup_id": get_current_cgroup_id();
}
