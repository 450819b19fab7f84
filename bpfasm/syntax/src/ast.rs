//! Statements as the parser returns them.
//!
//! `V` is a piece of Rust, whose value is not known yet. The types mirror the assembler's `Insn`,
//! but allow such a piece wherever the grammar does.

use crate::ops::{AluOp, AtomicOp, CmpOp, Reg, Size, SwapKind, Width};

/// A value that is written in the statement or comes from Rust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Given<T, V> {
    /// Written in the statement.
    Written(T),
    /// A piece of Rust, `{…}`.
    Rust(V),
}

/// A register.
pub type Register<V> = Given<Reg, V>;
/// The name of a label or a map, or a field path.
pub type Name<V> = Given<String, V>;

/// One statement of a block.
#[derive(Clone, Debug)]
pub struct Statement<S, V> {
    /// The statement's content.
    pub kind: StatementKind<V>,
    /// The place of its first token.
    pub span: S,
    /// The whole statement as text, in the language's spacing.
    pub text: String,
}

/// The content of a statement.
#[derive(Clone, Debug)]
pub enum StatementKind<V> {
    /// An instruction.
    Insn(Insn<V>),
    /// `name:`
    Label(Name<V>),
    /// `..fragment`
    Spread(V),
}

/// An instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are those of the assembler's `Insn`, which says what they mean
pub enum Insn<V> {
    Alu { width: Width, op: AluOp, dst: Register<V>, src: Arg<V> },
    Neg { width: Width, dst: Register<V> },
    Mov { width: Width, dst: Register<V>, src: Arg<V> },
    MovSx { width: Width, from: Size, dst: Register<V>, src: Register<V> },
    Swap { kind: SwapKind, size: Size, dst: Register<V> },
    LoadImm64 { dst: Register<V>, imm: Wide<V> },
    Load { size: Size, signed: bool, dst: Register<V>, from: Address<V> },
    Store { size: Size, to: Address<V>, src: Arg<V> },
    Atomic { size: Size, op: AtomicOp, at: Address<V>, src: Register<V> },
    LoadPacket { size: Size, index: Option<Register<V>>, off: Sum<V> },
    Jump { long: bool, dest: Dest<V> },
    JumpIf { width: Width, op: CmpOp, dst: Register<V>, src: Arg<V>, dest: Dest<V> },
    Call(Callee<V>),
    Exit,
}

/// The right side of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arg<V> {
    /// A register.
    Reg(Register<V>),
    /// A constant.
    Const(Sum<V>),
    /// `{…}` alone: a register or a constant, depending on its Rust type.
    Either(V),
}

/// An address: a register plus an offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address<V> {
    /// The register that contains the address.
    pub base: Register<V>,
    /// The offset that is added to it.
    pub off: Sum<V>,
}

/// A constant or an offset: at most one symbol, and numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum<V> {
    /// The symbol, if there is one.
    pub symbol: Option<Symbol<V>>,
    /// The sum of the numbers that are written out.
    pub written: i128,
    /// Numbers from Rust; one is subtracted if its flag is `true`.
    pub rust: Vec<(bool, V)>,
}

/// A value the loader fills in.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are those of the assembler's `Symbol`, which says what they mean
pub enum Symbol<V> {
    Field { path: Name<V>, from: Option<Name<V>> },
    Size(Name<V>),
    Exists(Name<V>),
    BitShift(Name<V>),
    BitMask(Name<V>),
    Enum { name: Name<V>, variant: Name<V> },
    Params(Name<V>),
    Const(Name<V>),
}

/// The constant of a wide load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wide<V> {
    /// `C ll`
    Value(Sum<V>),
    /// `map NAME ll`
    Map(Name<V>),
    /// `map_value NAME + OFF ll`
    MapOffset(Name<V>, Sum<V>),
    /// `map_fd N ll`
    MapFd(Sum<V>),
    /// `map_value_fd N + OFF ll`
    MapValue(Sum<V>, Sum<V>),
    /// `btf_var N ll`
    BtfVar(Sum<V>),
    /// `code_addr LABEL ll`
    CodeAddr(Dest<V>),
    /// `map_idx N ll`
    MapIdx(Sum<V>),
    /// `map_value_idx N + OFF ll`
    MapValueIdx(Sum<V>, Sum<V>),
}

/// Where a jump or a local call goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dest<V> {
    /// To a label.
    Label(Name<V>),
    /// A distance in slots of 8 bytes, from the slot after the instruction.
    Rel(i32),
}

/// The function that a call calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Callee<V> {
    /// A helper's number. The parser looks names up.
    Helper(u32),
    /// A helper's number from Rust.
    HelperRust(V),
    /// A function of the same program.
    Local(Dest<V>),
    /// A kernel function by name.
    Kfunc(Name<V>),
    /// A kernel function by BTF id.
    KfuncId(i32),
}
