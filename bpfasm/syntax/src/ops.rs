//! Registers, widths and operators, which both the macro and the assembler need.
//!
//! Names and meanings are those of RFC 9669; the texts are those of LLVM and of the kernel's
//! verifier.

use std::fmt;

/// A 64-bit register: `r0` to `r9`, and the frame pointer `r10` (RFC 9669 section 2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Reg {
    R0 = 0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

impl Reg {
    /// All registers, in order.
    pub const ALL: [Self; 11] = [
        Self::R0,
        Self::R1,
        Self::R2,
        Self::R3,
        Self::R4,
        Self::R5,
        Self::R6,
        Self::R7,
        Self::R8,
        Self::R9,
        Self::R10,
    ];

    /// The register with this number, if it exists.
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// The register's number, 0 to 10.
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.index())
    }
}

/// The number of bytes that a load or a store moves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Size {
    B1,
    B2,
    B4,
    B8,
}

impl Size {
    /// The size in bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::B1 => 1,
            Self::B2 => 2,
            Self::B4 => 4,
            Self::B8 => 8,
        }
    }

    /// The size in bits: 8, 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.bytes() * 8
    }
}

/// Whether an operation works on whole registers (`r1`) or on their lower halves (`w1`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Width {
    /// The lower 32 bits; the upper half of the result is zero.
    W32,
    /// All 64 bits.
    W64,
}

/// Arithmetic with two operands (RFC 9669 section 4.1). Each variant is documented by its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AluOp {
    /// `+=`
    Add,
    /// `-=`
    Sub,
    /// `*=`
    Mul,
    /// `/=`
    Div,
    /// `s/=`
    SDiv,
    /// `%=`
    Mod,
    /// `s%=`
    SMod,
    /// `|=`
    Or,
    /// `&=`
    And,
    /// `^=`
    Xor,
    /// `<<=`
    Lsh,
    /// `>>=`
    Rsh,
    /// `s>>=`
    Arsh,
}

/// The condition of a jump (RFC 9669 section 4.3). Each variant is documented by its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CmpOp {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `&`: at least one of these bits is set
    Set,
    /// `s>`
    SGt,
    /// `s>=`
    SGe,
    /// `s<`
    SLt,
    /// `s<=`
    SLe,
}

/// A byte swap (RFC 9669 section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SwapKind {
    /// `be16 r1`: between host order and big endian.
    Be,
    /// `le16 r1`: between host order and little endian.
    Le,
    /// `bswap16 r1`: swaps on every machine.
    Bswap,
}

/// An atomic operation (RFC 9669 section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AtomicOp {
    /// `lock *(u64 *)(r1 + 0) += r2`
    Add,
    /// `|=`
    Or,
    /// `&=`
    And,
    /// `^=`
    Xor,
    /// `r2 = atomic_fetch_add((u64 *)(r1 + 0), r2)`
    FetchAdd,
    /// `atomic_fetch_or`
    FetchOr,
    /// `atomic_fetch_and`
    FetchAnd,
    /// `atomic_fetch_xor`
    FetchXor,
    /// `r2 = xchg_64(r1 + 0, r2)`
    Xchg,
    /// `r0 = cmpxchg_64(r1 + 0, r0, r2)`
    Cmpxchg,
}

impl Reg {
    /// The register's name as the operand of an operation of this width: `r1` or `w1`.
    #[must_use]
    pub const fn name(self, width: Width) -> &'static str {
        const R: [&str; 11] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10"];
        const W: [&str; 11] = ["w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "w9", "w10"];
        match width {
            Width::W32 => W[self as usize],
            Width::W64 => R[self as usize],
        }
    }
}

impl Size {
    /// The type's name in a store, or in a load that does not extend the sign: `u32`.
    #[must_use]
    pub const fn unsigned(self) -> &'static str {
        match self {
            Self::B1 => "u8",
            Self::B2 => "u16",
            Self::B4 => "u32",
            Self::B8 => "u64",
        }
    }

    /// The type's name in an operation that extends the sign: `s32`.
    #[must_use]
    pub const fn signed(self) -> &'static str {
        match self {
            Self::B1 => "s8",
            Self::B2 => "s16",
            Self::B4 => "s32",
            Self::B8 => "s64",
        }
    }

    /// The size of the type with this name, and whether it is signed.
    #[must_use]
    pub fn from_name(name: &str) -> Option<(Self, bool)> {
        [Self::B1, Self::B2, Self::B4, Self::B8].into_iter().find_map(|size| {
            (size.unsigned() == name)
                .then_some((size, false))
                .or((size.signed() == name).then_some((size, true)))
        })
    }
}

/// Defines the text of each variant once, for reading (`ALL`) and for printing (`text`, `Display`).
macro_rules! written {
    ($type:ident: $($variant:ident $text:literal)*) => {
        impl $type {
            /// All variants with their texts.
            pub const ALL: [(Self, &'static str); [$($text),*].len()] = [$((Self::$variant, $text)),*];

            /// The variant's text.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }
    };
}

written!(AluOp:
    Add "+=" Sub "-=" Mul "*=" Div "/=" Mod "%=" Or "|=" And "&=" Xor "^=" Lsh "<<=" Rsh ">>=" Arsh "s>>=" SDiv "s/=" SMod "s%="
);
written!(CmpOp:
    Eq "==" Ne "!=" Gt ">" Ge ">=" Lt "<" Le "<=" Set "&" SGt "s>" SGe "s>=" SLt "s<" SLe "s<="
);
// The number of bits follows: `be16`.
written!(SwapKind: Be "be" Le "le" Bswap "bswap");

impl AtomicOp {
    /// The operations without a result, and their operators.
    pub const LOCK: [(Self, &'static str); 4] =
        [(Self::Add, "+="), (Self::Or, "|="), (Self::And, "&="), (Self::Xor, "^=")];

    /// The operations that return the old value, and their names.
    pub const FETCH: [(Self, &'static str); 4] = [
        (Self::FetchAdd, "atomic_fetch_add"),
        (Self::FetchOr, "atomic_fetch_or"),
        (Self::FetchAnd, "atomic_fetch_and"),
        (Self::FetchXor, "atomic_fetch_xor"),
    ];

    /// The exchanges with their sizes and names. `cmpxchg` compares with `r0` and stores the old
    /// value there.
    pub const EXCHANGE: [(Self, Size, &'static str); 4] = [
        (Self::Xchg, Size::B8, "xchg_64"),
        (Self::Xchg, Size::B4, "xchg32_32"),
        (Self::Cmpxchg, Size::B8, "cmpxchg_64"),
        (Self::Cmpxchg, Size::B4, "cmpxchg32_32"),
    ];
}
