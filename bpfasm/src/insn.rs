//! Instructions by their meaning. `encode` and `decode` know their bits, `text` knows how they are
//! written.

use std::fmt;

use bpfasm_syntax::limit::Limit;
pub use bpfasm_syntax::ops::{AluOp, AtomicOp, CmpOp, Reg, Size, SwapKind, Width};

/// The second operand of arithmetic, comparison and store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operand {
    /// A register.
    Reg(Reg),
    /// A constant of 32 bits; 64-bit operations extend its sign.
    Imm(i32),
}

/// The name of a place in a fragment, as a number. [`Fragment::dest`](crate::Fragment::dest) gives
/// the number of a name; it has no meaning in another fragment.
///
/// A name belongs to the block that defines it: the same name in a fragment and in the block around
/// it are two labels. A jump to a name that its own block does not define goes to the label of the
/// block it is spliced into.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Label(pub(crate) u32);

/// Displayed as its number, because only the fragment knows the name.
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
    /// A distance in slots of 8 bytes, from the slot after the instruction's first one.
    Rel(i32),
}

/// What a 64-bit immediate stands for (RFC 9669 section 5.4): the `src_reg` values of the wide
/// load.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Imm64 {
    /// `r1 = 0x1234 ll`
    Value(u64),
    /// A map's address, by file descriptor: `r1 = map_fd 5 ll`. The descriptor is 0 while a symbol
    /// stands for it.
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
    /// A map by its index in the `fd_array` of `BPF_PROG_LOAD`: `r1 = map_idx 0 ll`.
    MapIdx(i32),
    /// An address inside a map's first value, the map by index: `r1 = map_value_idx 0 + 8 ll`.
    MapValueIdx {
        /// The map's index in `fd_array`.
        index: i32,
        /// Bytes into the value.
        offset: u32,
    },
}

/// The function that a call calls (RFC 9669 section 4.3.1 and 4.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Callee {
    /// A helper function by its number in `enum bpf_func_id`.
    Helper(u32),
    /// A function of this program.
    Local(Dest),
    /// A kernel function by its BTF id; 0 while a symbol stands for it.
    Kfunc(i32),
}

/// One instruction. Every variant is documented by the text that it is written as. A wide load is
/// one `Insn` and takes two slots.
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
        /// The value that is copied.
        src: Operand,
    },
    /// `r1 = (s8)r2`
    MovSx {
        /// Whole register or lower half.
        width: Width,
        /// The part of the source that is copied: 8 or 16 bits, or 32 into a whole register.
        from: Size,
        /// Result.
        dst: Reg,
        /// Source.
        src: Reg,
    },
    /// `r1 = be16 r1`
    Swap {
        /// The kind of swap.
        kind: SwapKind,
        /// The bits that are swapped: 16, 32 or 64, never [`Size::B1`].
        size: Size,
        /// Operand and result.
        dst: Reg,
    },
    /// `r1 = 0x123456789 ll` and the other wide immediates.
    LoadImm64 {
        /// Result.
        dst: Reg,
        /// The value that is loaded.
        imm: Imm64,
    },
    /// `r1 = *(u16 *)(r2 + 8)`, `r1 = *(s16 *)(r2 + 8)`
    Load {
        /// Bytes read.
        size: Size,
        /// Whether the upper bits of the register become copies of the sign; if not, 0. Never with
        /// [`Size::B8`].
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
        /// The value that is written.
        src: Operand,
    },
    /// `lock *(u64 *)(r1 + 0) += r2`
    Atomic {
        /// [`Size::B4`] or [`Size::B8`].
        size: Size,
        /// The operation.
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
        /// A register whose value is added to `off`.
        index: Option<Reg>,
        /// Offset into the packet.
        off: i32,
    },
    /// `goto out` with a distance of 16 bits, or `gotol out` with 32.
    Jump {
        /// Whether it is a `gotol` (since Linux 6.6).
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
    /// The number of 8-byte slots that the instruction takes: 2 for a wide load, otherwise 1.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        if matches!(self, Self::LoadImm64 { .. }) { 2 } else { 1 }
    }

    /// The destination of a jump or of a local call, or the function whose address is loaded.
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

    /// Writes a number in place of the instruction's symbol: into the offset of a load, store or
    /// atomic operation, otherwise into the constant. Returns `false`, and changes nothing, if the
    /// instruction has no such place or the number does not fit it.
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
