//! The words of the instruction set that both the macro and the assembler need: registers, widths, operators.
//!
//! Names and meanings are those of RFC 9669; the text forms are LLVM's and the kernel verifier's.

use std::fmt;

/// A 64-bit register, `r0` to `r10` (RFC 9669 section 2.1 leaves eleven: ten general ones and the frame pointer).
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
    /// Every register, in order.
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

    /// The register of this number, if there is one.
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// Its number, 0 to 10.
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

/// How many bytes a load or a store moves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Size {
    B1,
    B2,
    B4,
    B8,
}

impl Size {
    /// Bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::B1 => 1,
            Self::B2 => 2,
            Self::B4 => 4,
            Self::B8 => 8,
        }
    }

    /// Bits: 8, 16, 32 or 64.
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

/// Two-operand arithmetic (RFC 9669 section 4.1), as the text writes it.
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

/// The condition of a jump (RFC 9669 section 4.3), as the text writes it.
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
    /// `&`: any of these bits set
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
    /// `bswap16 r1`: always.
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
    /// Its name as the operand of an operation of this width: `r1` or `w1`.
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
    /// Its name in a load or a store that does not extend the sign.
    #[must_use]
    pub const fn unsigned(self) -> &'static str {
        match self {
            Self::B1 => "u8",
            Self::B2 => "u16",
            Self::B4 => "u32",
            Self::B8 => "u64",
        }
    }

    /// Its name where the sign is extended.
    #[must_use]
    pub const fn signed(self) -> &'static str {
        match self {
            Self::B1 => "s8",
            Self::B2 => "s16",
            Self::B4 => "s32",
            Self::B8 => "s64",
        }
    }

    /// The size and the signedness that a type's name means.
    #[must_use]
    pub fn from_name(name: &str) -> Option<(Self, bool)> {
        [Self::B1, Self::B2, Self::B4, Self::B8].into_iter().find_map(|size| {
            (size.unsigned() == name)
                .then_some((size, false))
                .or((size.signed() == name).then_some((size, true)))
        })
    }
}

/// Says once how each variant is written, for reading (`ALL`) and for printing (`text`, `Display`).
macro_rules! written {
    ($type:ident: $($variant:ident $text:literal)*) => {
        impl $type {
            /// Every variant and how the text writes it.
            pub const ALL: [(Self, &'static str); [$($text),*].len()] = [$((Self::$variant, $text)),*];

            /// How the text writes it.
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
    /// The operations without a result and the operators that write them.
    pub const LOCK: [(Self, &'static str); 4] =
        [(Self::Add, "+="), (Self::Or, "|="), (Self::And, "&="), (Self::Xor, "^=")];

    /// The operations written like a function of a typed address.
    pub const FETCH: [(Self, &'static str); 4] = [
        (Self::FetchAdd, "atomic_fetch_add"),
        (Self::FetchOr, "atomic_fetch_or"),
        (Self::FetchAnd, "atomic_fetch_and"),
        (Self::FetchXor, "atomic_fetch_xor"),
    ];

    /// The exchanges, whose name says the size; `cmpxchg` compares with `r0` and leaves the old value there.
    pub const EXCHANGE: [(Self, Size, &'static str); 4] = [
        (Self::Xchg, Size::B8, "xchg_64"),
        (Self::Xchg, Size::B4, "xchg32_32"),
        (Self::Cmpxchg, Size::B8, "cmpxchg_64"),
        (Self::Cmpxchg, Size::B4, "cmpxchg32_32"),
    ];
}
