//! Instructions to bits. Nothing else of this crate knows them, but `decode`, which reads them back.
//!
//! A slot is a `struct bpf_insn` read as a little-endian number (RFC 9669 section 3.1): opcode in bits 0 to 7, `dst_reg` 8 to 11,
//! `src_reg` 12 to 15, `offset` 16 to 31, `imm` 32 to 63. All machines we know are little-endian.

use std::fmt;
use std::ops::Deref;

use bpfasm_syntax::limit::Limit;

use crate::insn::{AluOp, AtomicOp, Callee, CmpOp, Dest, Imm64, Insn, Operand, Reg, Size, SwapKind, Width};

/// The slots of one instruction: one, or two for a wide load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slots {
    words: [u64; 2],
    wide: bool,
}

impl Deref for Slots {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        let [first, _] = &self.words;
        if self.wide { &self.words } else { std::slice::from_ref(first) }
    }
}

/// Why an instruction has no encoding.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EncodeError {
    /// A label that is not resolved yet.
    Label,
    /// A jump further than its field reaches.
    JumpTooFar(i32),
    /// A size this instruction does not come in.
    Size(Size),
    /// A stored constant that is wider than the store.
    Stored {
        /// The constant.
        value: i32,
        /// The store.
        size: Size,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label => f.write_str("its label is not resolved"),
            Self::JumpTooFar(distance) => write!(f, "a jump over {distance} slots does not fit in 16 bits"),
            Self::Size(size) => write!(f, "there is no such instruction of {} bytes", size.bytes()),
            Self::Stored { value, size } => write!(f, "{value} does not fit in {} bytes", size.bytes()),
        }
    }
}

impl std::error::Error for EncodeError {}

// RFC 9669 section 3: classes, sources and modes.
pub(crate) const LD: u8 = 0x00;
pub(crate) const LDX: u8 = 0x01;
pub(crate) const ST: u8 = 0x02;
pub(crate) const STX: u8 = 0x03;
pub(crate) const ALU: u8 = 0x04;
pub(crate) const JMP: u8 = 0x05;
pub(crate) const JMP32: u8 = 0x06;
pub(crate) const ALU64: u8 = 0x07;
/// The second operand is a register (`BPF_X`).
pub(crate) const X: u8 = 0x08;
pub(crate) const MODE_IMM: u8 = 0x00;
pub(crate) const MODE_ABS: u8 = 0x20;
pub(crate) const MODE_IND: u8 = 0x40;
pub(crate) const MODE_MEM: u8 = 0x60;
pub(crate) const MODE_MEMSX: u8 = 0x80;
pub(crate) const MODE_ATOMIC: u8 = 0xc0;

pub(crate) const NEG: u8 = 0x80;
pub(crate) const MOV: u8 = 0xb0;
pub(crate) const END: u8 = 0xd0;
pub(crate) const JA: u8 = 0x00;
pub(crate) const CALL: u8 = 0x80;
pub(crate) const EXIT: u8 = 0x90;

/// `src_reg` of a call (section 4.3.1 and 4.3.2).
pub(crate) const CALL_LOCAL: u8 = 1;
pub(crate) const CALL_KFUNC: u8 = 2;

/// In `imm` of an atomic operation: the old value is left in the source register (section 5.3).
pub(crate) const FETCH: i32 = 0x01;

/// The operation's code and, for the signed divisions, the 1 in `offset` (section 4.1).
pub(crate) const fn alu_code(op: AluOp) -> (u8, i16) {
    match op {
        AluOp::Add => (0x00, 0),
        AluOp::Sub => (0x10, 0),
        AluOp::Mul => (0x20, 0),
        AluOp::Div => (0x30, 0),
        AluOp::SDiv => (0x30, 1),
        AluOp::Or => (0x40, 0),
        AluOp::And => (0x50, 0),
        AluOp::Lsh => (0x60, 0),
        AluOp::Rsh => (0x70, 0),
        AluOp::Mod => (0x90, 0),
        AluOp::SMod => (0x90, 1),
        AluOp::Xor => (0xa0, 0),
        AluOp::Arsh => (0xc0, 0),
    }
}

/// Section 4.3.
pub(crate) const fn cmp_code(op: CmpOp) -> u8 {
    match op {
        CmpOp::Eq => 0x10,
        CmpOp::Gt => 0x20,
        CmpOp::Ge => 0x30,
        CmpOp::Set => 0x40,
        CmpOp::Ne => 0x50,
        CmpOp::SGt => 0x60,
        CmpOp::SGe => 0x70,
        CmpOp::Lt => 0xa0,
        CmpOp::Le => 0xb0,
        CmpOp::SLt => 0xc0,
        CmpOp::SLe => 0xd0,
    }
}

/// Section 5.3.
pub(crate) const fn atomic_code(op: AtomicOp) -> i32 {
    match op {
        AtomicOp::Add => 0x00,
        AtomicOp::Or => 0x40,
        AtomicOp::And => 0x50,
        AtomicOp::Xor => 0xa0,
        AtomicOp::FetchAdd => FETCH,
        AtomicOp::FetchOr => 0x40 | FETCH,
        AtomicOp::FetchAnd => 0x50 | FETCH,
        AtomicOp::FetchXor => 0xa0 | FETCH,
        AtomicOp::Xchg => 0xe0 | FETCH,
        AtomicOp::Cmpxchg => 0xf0 | FETCH,
    }
}

/// Section 5.
pub(crate) const fn size_code(size: Size) -> u8 {
    match size {
        Size::B4 => 0x00,
        Size::B2 => 0x08,
        Size::B1 => 0x10,
        Size::B8 => 0x18,
    }
}

const fn alu_class(width: Width) -> u8 {
    match width {
        Width::W32 => ALU,
        Width::W64 => ALU64,
    }
}

/// The fields of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fields {
    pub(crate) code: u8,
    pub(crate) dst: u8,
    pub(crate) src: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

impl Fields {
    const fn new(code: u8) -> Self {
        Self { code, dst: 0, src: 0, off: 0, imm: 0 }
    }

    const fn dst(mut self, reg: Reg) -> Self {
        self.dst = reg.index();
        self
    }

    const fn src(mut self, reg: Reg) -> Self {
        self.src = reg.index();
        self
    }

    const fn off(mut self, off: i16) -> Self {
        self.off = off;
        self
    }

    const fn imm(mut self, imm: i32) -> Self {
        self.imm = imm;
        self
    }

    /// The second operand: a register and the bit that says so, or a constant.
    const fn operand(mut self, operand: Operand) -> Self {
        match operand {
            Operand::Reg(reg) => {
                self.code |= X;
                self.src(reg)
            }
            Operand::Imm(imm) => self.imm(imm),
        }
    }

    pub(crate) fn pack(self) -> u64 {
        u64::from(self.code)
            | u64::from(self.dst & 0xf) << 8
            | u64::from(self.src & 0xf) << 12
            | u64::from(self.off.cast_unsigned()) << 16
            | u64::from(self.imm.cast_unsigned()) << 32
    }

    pub(crate) fn unpack(slot: u64) -> Self {
        let [code, regs, off @ .., i0, i1, i2, i3] = slot.to_le_bytes();
        Self {
            code,
            dst: regs & 0xf,
            src: regs >> 4,
            off: i16::from_le_bytes(off),
            imm: i32::from_le_bytes([i0, i1, i2, i3]),
        }
    }
}

/// Encodes an instruction.
///
/// # Errors
/// When it means something that has no encoding, or its label is not resolved.
pub fn encode(insn: &Insn) -> Result<Slots, EncodeError> {
    let fields = match *insn {
        Insn::LoadImm64 { dst, ref imm } => {
            let (src, low, high) = wide(imm)?;
            let first = Fields { src, ..Fields::new(LD | MODE_IMM | size_code(Size::B8)).dst(dst).imm(low) };
            return Ok(Slots { words: [first.pack(), Fields::new(0).imm(high).pack()], wide: true });
        }
        Insn::Alu { width, op, dst, src } => {
            let (code, off) = alu_code(op);
            Fields::new(alu_class(width) | code).dst(dst).off(off).operand(src)
        }
        Insn::Neg { width, dst } => Fields::new(alu_class(width) | NEG).dst(dst),
        Insn::Mov { width, dst, src } => Fields::new(alu_class(width) | MOV).dst(dst).operand(src),
        Insn::MovSx { width, from, dst, src } => {
            let off = match (from, width) {
                (Size::B1, _) => 8,
                (Size::B2, _) => 16,
                (Size::B4, Width::W64) => 32,
                _ => return Err(EncodeError::Size(from)),
            };
            Fields::new(alu_class(width) | MOV | X).dst(dst).src(src).off(off)
        }
        Insn::Swap { kind, size, dst } => {
            let bits = match size {
                Size::B1 => return Err(EncodeError::Size(size)),
                Size::B2 => 16,
                Size::B4 => 32,
                Size::B8 => 64,
            };
            let code = match kind {
                SwapKind::Le => ALU | END,
                SwapKind::Be => ALU | END | X,
                SwapKind::Bswap => ALU64 | END,
            };
            Fields::new(code).dst(dst).imm(bits)
        }
        Insn::Load { size: size @ Size::B8, signed: true, .. } => return Err(EncodeError::Size(size)),
        Insn::Load { size, signed, dst, base, off } => {
            let mode = if signed { MODE_MEMSX } else { MODE_MEM };
            Fields::new(LDX | mode | size_code(size)).dst(dst).src(base).off(off)
        }
        Insn::Store { size, base, off, src } => {
            let mut fields = Fields::new(MODE_MEM | size_code(size)).dst(base).off(off);
            // Here the class tells a register from a constant, not the bit that does so elsewhere.
            match src {
                Operand::Reg(src) => {
                    fields.code |= STX;
                    fields.src(src)
                }
                Operand::Imm(value) => {
                    if !stored(size, value) {
                        return Err(EncodeError::Stored { value, size });
                    }
                    fields.code |= ST;
                    fields.imm(value)
                }
            }
        }
        Insn::Atomic { size, op, base, off, src } => {
            if !matches!(size, Size::B4 | Size::B8) {
                return Err(EncodeError::Size(size));
            }
            Fields::new(STX | MODE_ATOMIC | size_code(size)).dst(base).src(src).off(off).imm(atomic_code(op))
        }
        Insn::LoadPacket { size: size @ Size::B8, .. } => return Err(EncodeError::Size(size)),
        Insn::LoadPacket { size, index: None, off } => Fields::new(LD | MODE_ABS | size_code(size)).imm(off),
        Insn::LoadPacket { size, index: Some(index), off } => {
            Fields::new(LD | MODE_IND | size_code(size)).src(index).imm(off)
        }
        Insn::Jump { long: false, ref dest } => Fields::new(JMP | JA).off(short(dest)?),
        Insn::Jump { long: true, ref dest } => Fields::new(JMP32 | JA).imm(distance(dest)?),
        Insn::JumpIf { width, op, dst, src, ref dest } => {
            let class = if width == Width::W32 { JMP32 } else { JMP };
            Fields::new(class | cmp_code(op)).dst(dst).off(short(dest)?).operand(src)
        }
        Insn::Call(Callee::Helper(id)) => Fields::new(JMP | CALL).imm(id.cast_signed()),
        Insn::Call(Callee::Local(ref dest)) => {
            Fields { src: CALL_LOCAL, ..Fields::new(JMP | CALL).imm(distance(dest)?) }
        }
        Insn::Call(Callee::Kfunc(id)) => Fields { src: CALL_KFUNC, ..Fields::new(JMP | CALL).imm(id) },
        Insn::Exit => Fields::new(JMP | EXIT),
    };
    Ok(Slots { words: [fields.pack(), 0], wide: false })
}

/// `src_reg` and the two immediates of a wide load (section 5.4).
fn wide(imm: &Imm64) -> Result<(u8, i32, i32), EncodeError> {
    Ok(match *imm {
        Imm64::Value(value) => {
            let [b0, b1, b2, b3, high @ ..] = value.to_le_bytes();
            (0, i32::from_le_bytes([b0, b1, b2, b3]), i32::from_le_bytes(high))
        }
        Imm64::MapFd(fd) => (1, fd, 0),
        Imm64::MapValue { fd, offset } => (2, fd, offset.cast_signed()),
        Imm64::BtfVar(id) => (3, id, 0),
        Imm64::CodeAddr(ref dest) => (4, distance(dest)?, 0),
        Imm64::MapIdx(index) => (5, index, 0),
        Imm64::MapValueIdx { index, offset } => (6, index, offset.cast_signed()),
    })
}

/// Whether a store of this size stores all of this constant.
pub(crate) fn stored(size: Size, value: i32) -> bool {
    // The field of a four-byte store is the value, whichever sign it is read with.
    Limit::Store(size).fits(i128::from(value))
}

fn distance(dest: &Dest) -> Result<i32, EncodeError> {
    match dest {
        Dest::Rel(distance) => Ok(*distance),
        Dest::Label(_) => Err(EncodeError::Label),
    }
}

fn short(dest: &Dest) -> Result<i16, EncodeError> {
    let distance = distance(dest)?;
    i16::try_from(distance).map_err(|_| EncodeError::JumpTooFar(distance))
}
