//! Instructions as what they mean. Bits live in `encode`, text in `text`.

use std::fmt;

use bpfasm_syntax::limit::Limit;
pub use bpfasm_syntax::ops::{AluOp, AtomicOp, CmpOp, Reg, Size, SwapKind, Width};

/// The second operand of arithmetic, comparison and store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operand {
    /// A register.
    Reg(Reg),
    /// A constant; 64-bit operations extend its sign.
    Imm(i32),
}

/// A place in a fragment that an instruction of it goes to, by the number of its name there ([`Fragment::dest`]).
///
/// A name belongs to the block that defines it: the same name in a fragment and in the block around it are two labels. A jump
/// to a name its own block does not define means the label of the block it is spliced into.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Label(pub(crate) u32);

/// By its number: its name is its fragment's.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "label {}", self.0)
    }
}

/// Where a jump or a local call goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dest {
    /// A label of the same fragment.
    Label(Label),
    /// This many slots past the next instruction.
    Rel(i32),
}

/// What a 64-bit immediate stands for (RFC 9669 section 5.4): the `src_reg` values of the wide load.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Imm64 {
    /// `r1 = 0x1234 ll`
    Value(u64),
    /// A map's address, by file descriptor: `r1 = map_fd 5 ll`. A symbol leaves the descriptor 0.
    MapFd(i32),
    /// An address inside a map's first value: `r1 = map_value_fd 5 + 8 ll`.
    MapValue {
        /// The map's file descriptor.
        fd: i32,
        /// Bytes into the value.
        offset: u32,
    },
    /// A kernel variable by BTF id: `r1 = btf_var 12 ll`.
    BtfVar(i32),
    /// A local function's address, for callbacks: `r1 = code_addr label ll`.
    CodeAddr(Dest),
    /// A map by index into the load's fd array: `r1 = map_idx 0 ll`.
    MapIdx(i32),
    /// An address inside a map's first value, the map by index: `r1 = map_value_idx 0 + 8 ll`.
    MapValueIdx {
        /// Index into the fd array.
        index: i32,
        /// Bytes into the value.
        offset: u32,
    },
}

/// What a call calls (RFC 9669 section 4.3.1 and 4.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Callee {
    /// A helper function by its number in `enum bpf_func_id`.
    Helper(u32),
    /// A function of this program.
    Local(Dest),
    /// A kernel function by BTF id; 0 until a symbol is resolved.
    Kfunc(i32),
}

/// One instruction. A wide load is one `Insn` that takes two slots.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Insn {
    /// `r1 += r2`, `w1 s/= 3`
    Alu {
        /// Whole register or lower half.
        width: Width,
        /// The operator.
        op: AluOp,
        /// First operand and result.
        dst: Reg,
        /// Second operand.
        src: Operand,
    },
    /// `r1 = -r1`
    Neg {
        /// Whole register or lower half.
        width: Width,
        /// Operand and result.
        dst: Reg,
    },
    /// `r1 = r2`, `w1 = 7`
    Mov {
        /// Whole register or lower half.
        width: Width,
        /// Result.
        dst: Reg,
        /// What is copied.
        src: Operand,
    },
    /// `r1 = (s8)r2`
    MovSx {
        /// Whole register or lower half.
        width: Width,
        /// Which part of the source is taken: 8, 16, or (into 64) 32 bits.
        from: Size,
        /// Result.
        dst: Reg,
        /// Source.
        src: Reg,
    },
    /// `r1 = be16 r1`
    Swap {
        /// Which swap.
        kind: SwapKind,
        /// 16, 32 or 64 bits (never [`Size::B1`]).
        size: Size,
        /// Operand and result.
        dst: Reg,
    },
    /// `r1 = 0x123456789 ll` and the other wide immediates.
    LoadImm64 {
        /// Result.
        dst: Reg,
        /// What is loaded.
        imm: Imm64,
    },
    /// `r1 = *(u16 *)(r2 + 8)`, `r1 = *(s16 *)(r2 + 8)`
    Load {
        /// Bytes read.
        size: Size,
        /// Extend the sign instead of zeroes; not with [`Size::B8`].
        signed: bool,
        /// Result.
        dst: Reg,
        /// Address.
        base: Reg,
        /// Added to the address.
        off: i16,
    },
    /// `*(u16 *)(r1 + 8) = r2`, `*(u32 *)(r1 + 8) = 0`
    Store {
        /// Bytes written.
        size: Size,
        /// Address.
        base: Reg,
        /// Added to the address.
        off: i16,
        /// What is written.
        src: Operand,
    },
    /// `lock *(u64 *)(r1 + 0) += r2`
    Atomic {
        /// [`Size::B4`] or [`Size::B8`].
        size: Size,
        /// Which operation.
        op: AtomicOp,
        /// Address.
        base: Reg,
        /// Added to the address.
        off: i16,
        /// Operand, and where a fetching form leaves the old value (`cmpxchg` leaves it in `r0`).
        src: Reg,
    },
    /// `r0 = *(u16 *)skb[12]`, `r0 = *(u16 *)skb[r3]`: legacy packet access (RFC 9669 section 5.5).
    LoadPacket {
        /// 1, 2 or 4 bytes.
        size: Size,
        /// A register is added to `off`.
        index: Option<Reg>,
        /// Offset into the packet.
        off: i32,
    },
    /// `goto out`; `long` makes it `gotol`, with 32 bits of reach.
    Jump {
        /// `gotol`
        long: bool,
        /// Where to.
        dest: Dest,
    },
    /// `if r1 s> 3 goto out`
    JumpIf {
        /// Whole registers or lower halves.
        width: Width,
        /// The condition.
        op: CmpOp,
        /// Left side.
        dst: Reg,
        /// Right side.
        src: Operand,
        /// Where to.
        dest: Dest,
    },
    /// `call bpf_map_lookup_elem`
    Call(Callee),
    /// `exit`
    Exit,
}

impl Insn {
    /// Slots of eight bytes this instruction takes: 2 for a wide load, else 1.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        if matches!(self, Self::LoadImm64 { .. }) { 2 } else { 1 }
    }

    /// Where it goes, if it goes anywhere: the destination of a jump, of a local call, or of the function whose address it loads.
    #[must_use]
    pub const fn dest(&self) -> Option<&Dest> {
        match self {
            Self::Jump { dest, .. }
            | Self::JumpIf { dest, .. }
            | Self::Call(Callee::Local(dest))
            | Self::LoadImm64 { imm: Imm64::CodeAddr(dest), .. } => Some(dest),
            _ => None,
        }
    }

    pub(crate) const fn dest_mut(&mut self) -> Option<&mut Dest> {
        match self {
            Self::Jump { dest, .. }
            | Self::JumpIf { dest, .. }
            | Self::Call(Callee::Local(dest))
            | Self::LoadImm64 { imm: Imm64::CodeAddr(dest), .. } => Some(dest),
            _ => None,
        }
    }

    /// Puts a number where a symbol of this instruction stands: the offset of a load, store or atomic operation, else the
    /// constant. Says whether there is such a place and the number fits it.
    #[must_use]
    pub fn fill(&mut self, value: i64) -> bool {
        match self {
            Self::Load { off, .. } | Self::Store { off, .. } | Self::Atomic { off, .. } => {
                i16::try_from(value).map(|value| *off = value).is_ok()
            }
            Self::Alu { width, src: Operand::Imm(imm), .. }
            | Self::Mov { width, src: Operand::Imm(imm), .. }
            | Self::JumpIf { width, src: Operand::Imm(imm), .. } => {
                Limit::Imm(*width).field(value.into()).map(|value| *imm = value).is_some()
            }
            Self::LoadImm64 { imm: Imm64::Value(wide), .. } => {
                *wide = value.cast_unsigned();
                true
            }
            Self::LoadImm64 { imm: Imm64::MapFd(fd) | Imm64::MapValue { fd, .. }, .. } => {
                i32::try_from(value).map(|value| *fd = value).is_ok()
            }
            Self::Call(Callee::Kfunc(id)) => i32::try_from(value).map(|value| *id = value).is_ok(),
            _ => false,
        }
    }
}
