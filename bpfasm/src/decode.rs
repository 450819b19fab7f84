//! Decodes instructions: the reverse of `encode`.
//!
//! `decode` accepts exactly the slots that `encode` produces. A field that an instruction does not
//! use must be 0, as RFC 9669 requires of programs, so decoding and encoding again gives the same
//! bytes.

use thiserror::Error;

use crate::encode::{
    ALU, ALU64, CALL, CALL_KFUNC, CALL_LOCAL, END, EXIT, Fields, JA, JMP32, LD, LDX, MODE_ABS, MODE_ATOMIC,
    MODE_IMM, MODE_IND, MODE_MEM, MODE_MEMSX, MOV, NEG, ST, STX, X, alu_code, atomic_code, cmp_code,
    size_code, stored,
};
use crate::insn::{AluOp, AtomicOp, Callee, CmpOp, Dest, Imm64, Insn, Operand, Reg, Size, SwapKind, Width};

/// Why slots are not an instruction of RFC 9669.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A slot is missing: the only one, or the second slot of a wide load.
    #[error("the instruction is cut short")]
    Truncated,
    /// RFC 9669 does not define this opcode.
    #[error("unknown operation {0:#04x}")]
    Opcode(u8),
    /// A register number above 10.
    #[error("unknown register r{0}")]
    Register(u8),
    /// RFC 9669 defines the opcode, but not with this value in a field.
    #[error("unknown operation {opcode:#04x} with {field} {value}")]
    Variant {
        /// The opcode: the slot's first byte.
        opcode: u8,
        /// The field: `src_reg`, `offset` or `imm`.
        field: &'static str,
        /// The field's value.
        value: i32,
    },
    /// A field that the instruction does not use is not 0.
    #[error("operation {opcode:#04x} must have 0 in {field}")]
    Reserved {
        /// The opcode: the slot's first byte.
        opcode: u8,
        /// The field: `dst_reg`, `src_reg`, `offset`, `imm`, or `next` for the second slot of a
        /// wide load.
        field: &'static str,
    },
}

/// Decodes the instruction at the start of `slots`; also returns the number of slots that it takes.
///
/// # Errors
/// If `slots` does not start with an instruction of RFC 9669, or is too short.
pub fn decode(slots: &[u64]) -> Result<(Insn, usize), DecodeError> {
    let (&first, rest) = slots.split_first().ok_or(DecodeError::Truncated)?;
    let fields = Fields::unpack(first);
    if fields.code == LD | MODE_IMM | size_code(Size::B8) {
        let next = rest.first().ok_or(DecodeError::Truncated)?;
        return Ok((wide(fields, *next)?, 2));
    }
    let insn = match fields.code & 0x07 {
        LD => packet(fields)?,
        LDX => load(fields)?,
        ST | STX => store(fields)?,
        ALU => alu(fields, Width::W32)?,
        ALU64 => alu(fields, Width::W64)?,
        JMP32 => jump(fields, Width::W32)?,
        // Of the eight classes only JMP remains.
        _ => jump(fields, Width::W64)?,
    };
    Ok((insn, 1))
}

impl Fields {
    fn dst_reg(self) -> Result<Reg, DecodeError> {
        Reg::from_index(self.dst).ok_or(DecodeError::Register(self.dst))
    }

    fn src_reg(self) -> Result<Reg, DecodeError> {
        Reg::from_index(self.src).ok_or(DecodeError::Register(self.src))
    }

    fn is_x(self) -> bool {
        self.code & X != 0
    }

    /// The second operand. The field that does not contain it must be 0.
    fn operand_field(self) -> Result<Operand, DecodeError> {
        if self.is_x() {
            self.zero_imm()?;
            Ok(Operand::Reg(self.src_reg()?))
        } else {
            self.zero_src()?;
            Ok(Operand::Imm(self.imm))
        }
    }

    fn zero(self, field: &'static str, is_zero: bool) -> Result<(), DecodeError> {
        if is_zero { Ok(()) } else { Err(DecodeError::Reserved { opcode: self.code, field }) }
    }

    fn zero_dst(self) -> Result<(), DecodeError> {
        self.zero("dst_reg", self.dst == 0)
    }

    fn zero_src(self) -> Result<(), DecodeError> {
        self.zero("src_reg", self.src == 0)
    }

    fn zero_off(self) -> Result<(), DecodeError> {
        self.zero("offset", self.off == 0)
    }

    fn zero_imm(self) -> Result<(), DecodeError> {
        self.zero("imm", self.imm == 0)
    }

    fn unknown(self) -> DecodeError {
        DecodeError::Opcode(self.code)
    }

    fn variant(self, field: &'static str, value: i32) -> DecodeError {
        DecodeError::Variant { opcode: self.code, field, value }
    }

    fn size(self) -> Size {
        let sizes = [Size::B4, Size::B2, Size::B1, Size::B8];
        sizes.into_iter().find(|&size| size_code(size) == self.code & 0x18).unwrap_or(Size::B8)
    }
}

fn alu(fields: Fields, width: Width) -> Result<Insn, DecodeError> {
    let dst = fields.dst_reg()?;
    match fields.code & 0xf0 {
        NEG if !fields.is_x() => {
            fields.zero_src()?;
            fields.zero_off()?;
            fields.zero_imm()?;
            Ok(Insn::Neg { width, dst })
        }
        MOV => {
            let from = match (fields.is_x(), fields.off, width) {
                (_, 0, _) => return Ok(Insn::Mov { width, dst, src: fields.operand_field()? }),
                (true, 8, _) => Size::B1,
                (true, 16, _) => Size::B2,
                (true, 32, Width::W64) => Size::B4,
                (_, off, _) => return Err(fields.variant("offset", off.into())),
            };
            fields.zero_imm()?;
            Ok(Insn::MovSx { width, from, dst, src: fields.src_reg()? })
        }
        END => {
            fields.zero_src()?;
            fields.zero_off()?;
            let kind = match (width, fields.is_x()) {
                (Width::W32, false) => SwapKind::Le,
                (Width::W32, true) => SwapKind::Be,
                (Width::W64, false) => SwapKind::Bswap,
                (Width::W64, true) => return Err(fields.unknown()),
            };
            let size = match fields.imm {
                16 => Size::B2,
                32 => Size::B4,
                64 => Size::B8,
                other => return Err(fields.variant("imm", other)),
            };
            Ok(Insn::Swap { kind, size, dst })
        }
        code => {
            if !AluOp::ALL.iter().any(|&(op, _)| alu_code(op).0 == code) {
                return Err(fields.unknown());
            }
            let Some((op, _)) = AluOp::ALL.into_iter().find(|&(op, _)| alu_code(op) == (code, fields.off))
            else {
                return Err(fields.variant("offset", fields.off.into()));
            };
            Ok(Insn::Alu { width, op, dst, src: fields.operand_field()? })
        }
    }
}

fn jump(fields: Fields, width: Width) -> Result<Insn, DecodeError> {
    match (fields.code & 0xf0, width, fields.is_x()) {
        (JA, _, false) => {
            fields.zero_dst()?;
            fields.zero_src()?;
            if width == Width::W32 {
                fields.zero_off()?;
                return Ok(Insn::Jump { long: true, dest: Dest::Rel(fields.imm) });
            }
            fields.zero_imm()?;
            Ok(Insn::Jump { long: false, dest: Dest::Rel(fields.off.into()) })
        }
        (CALL, Width::W64, false) => {
            fields.zero_dst()?;
            fields.zero_off()?;
            match fields.src {
                0 => Ok(Insn::Call(Callee::Helper(fields.imm.cast_unsigned()))),
                CALL_LOCAL => Ok(Insn::Call(Callee::Local(Dest::Rel(fields.imm)))),
                CALL_KFUNC => Ok(Insn::Call(Callee::Kfunc(fields.imm))),
                other => Err(fields.variant("src_reg", other.into())),
            }
        }
        (EXIT, Width::W64, false) => {
            fields.zero_dst()?;
            fields.zero_src()?;
            fields.zero_off()?;
            fields.zero_imm()?;
            Ok(Insn::Exit)
        }
        (code, _, _) => {
            let Some((op, _)) = CmpOp::ALL.into_iter().find(|&(op, _)| cmp_code(op) == code) else {
                return Err(fields.unknown());
            };
            let (dst, src) = (fields.dst_reg()?, fields.operand_field()?);
            Ok(Insn::JumpIf { width, op, dst, src, dest: Dest::Rel(fields.off.into()) })
        }
    }
}

fn load(fields: Fields) -> Result<Insn, DecodeError> {
    let size = fields.size();
    let signed = match (fields.code & 0xe0, size) {
        (MODE_MEM, _) => false,
        (MODE_MEMSX, Size::B1 | Size::B2 | Size::B4) => true,
        _ => return Err(fields.unknown()),
    };
    fields.zero_imm()?;
    Ok(Insn::Load { size, signed, dst: fields.dst_reg()?, base: fields.src_reg()?, off: fields.off })
}

fn store(fields: Fields) -> Result<Insn, DecodeError> {
    let size = fields.size();
    match (fields.code & 0x07, fields.code & 0xe0, size) {
        (ST, MODE_MEM, _) => {
            fields.zero_src()?;
            if !stored(size, fields.imm) {
                return Err(fields.variant("imm", fields.imm));
            }
            Ok(Insn::Store { size, base: fields.dst_reg()?, off: fields.off, src: Operand::Imm(fields.imm) })
        }
        (STX, MODE_MEM, _) => {
            fields.zero_imm()?;
            let src = Operand::Reg(fields.src_reg()?);
            Ok(Insn::Store { size, base: fields.dst_reg()?, off: fields.off, src })
        }
        (STX, MODE_ATOMIC, Size::B4 | Size::B8) => {
            let mut ops = AtomicOp::LOCK
                .into_iter()
                .chain(AtomicOp::FETCH)
                .map(|(op, _)| op)
                .chain([AtomicOp::Xchg, AtomicOp::Cmpxchg]);
            let Some(op) = ops.find(|&op| atomic_code(op) == fields.imm) else {
                return Err(fields.variant("imm", fields.imm));
            };
            Ok(Insn::Atomic { size, op, base: fields.dst_reg()?, off: fields.off, src: fields.src_reg()? })
        }
        _ => Err(fields.unknown()),
    }
}

fn packet(fields: Fields) -> Result<Insn, DecodeError> {
    let size = fields.size();
    let index = match (fields.code & 0xe0, size) {
        (MODE_ABS | MODE_IND, Size::B8) => return Err(fields.unknown()),
        (MODE_ABS, _) => {
            fields.zero_src()?;
            None
        }
        (MODE_IND, _) => Some(fields.src_reg()?),
        _ => return Err(fields.unknown()),
    };
    fields.zero_dst()?;
    fields.zero_off()?;
    Ok(Insn::LoadPacket { size, index, off: fields.imm })
}

fn wide(fields: Fields, next: u64) -> Result<Insn, DecodeError> {
    let dst = fields.dst_reg()?;
    fields.zero_off()?;
    let second = Fields::unpack(next);
    let high = second.imm.cast_unsigned();
    fields.zero("next", Fields { imm: 0, ..second } == Fields::unpack(0))?;
    let without_offset = || fields.zero("next", high == 0);
    let imm = match fields.src {
        0 => Imm64::Value(u64::from(high) << 32 | u64::from(fields.imm.cast_unsigned())),
        2 => Imm64::MapValue { fd: fields.imm, offset: high },
        6 => Imm64::MapValueIdx { index: fields.imm, offset: high },
        kind => {
            let imm = match kind {
                1 => Imm64::MapFd(fields.imm),
                3 => Imm64::BtfVar(fields.imm),
                4 => Imm64::CodeAddr(Dest::Rel(fields.imm)),
                5 => Imm64::MapIdx(fields.imm),
                other => return Err(fields.variant("src_reg", other.into())),
            };
            without_offset()?;
            imm
        }
    };
    Ok(Insn::LoadImm64 { dst, imm })
}
