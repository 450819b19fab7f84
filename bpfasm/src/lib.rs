//! An assembler for eBPF whose text is the kernel verifier's own.
//!
//! [`bpf!`] reads instructions of RFC 9669 in the syntax of LLVM's assembler and returns a
//! [`Fragment`]. [`Program::link`] makes a [`Program`] of a fragment, and [`Program::slots`]
//! returns the numbers that the kernel loads. [`asm::parse`] reads the same language at run time,
//! [`decode()`] and [`listing`](listing::listing) are the reverse, and [`elf::write`] writes an
//! [`Object`] of programs and maps to an ELF file. This crate knows neither a kernel nor its types.
//! A value that depends on them is a [`Symbol`], which a loader replaces by a number.
//!
//! ```
//! use bpfasm::{Program, bpf};
//!
//! let port = 443;
//! let fragment = bpf! {
//!         r6 = r1;
//!         w0 = *(u16 *)(r6 + sock_common.skc_dport);   // a field of the kernel, found by the loader
//!         r0 = be16 r0;
//!         if w0 != {port} goto other;                  // a value from Rust
//!         r0 = 1;
//!         exit;
//!     other:
//!         r0 = 0;
//!         exit;
//! };
//! let program = Program::link("is_https", fragment)?;
//! assert_eq!(program.slots()?.len(), 8);
//! # assert_eq!(program.listing().to_string().lines().nth(3), Some("    if w0 != 443 goto other"));
//! # Ok::<(), bpfasm::AsmError>(())
//! ```
//!
//! # The language
//!
//! A statement ends with `;` or, in a text, with a newline. `rN` is a whole register, `wN` its
//! lower 32 bits; an operation that writes `wN` sets the upper half of the register to 0. Both
//! sides of an operation have the same width. Numbers are written as in Rust, without a suffix.
//!
//! Arithmetic ([`Insn::Alu`], [`Insn::Neg`], [`Insn::Mov`], [`Insn::MovSx`], [`Insn::Swap`]), with
//! a register or a constant on the right. Constants have 32 bits, and 64-bit operations extend
//! their sign:
//!
//! ```
//! # let fragment = bpfasm::bpf! {
//! r1 += r2;         w1 += 7;          // += -= *= /= %= |= &= ^= <<= >>=
//! r1 s>>= 3;        w1 s/= w2;        // signed: s>>= s/= s%=
//! r1 = r2;          w1 = -5;
//! r1 = -r1;         w1 = -w1;
//! r1 = (s8)r2;      w1 = (s16)w2;     // copy and extend the sign: s8 s16, into r also s32
//! r1 = be16 r1;     r1 = bswap64 r1;  // be, le, bswap; 16, 32, 64
//! # }; same(&fragment);
//! # fn same(fragment: &bpfasm::Fragment) {
//! #     assert!(!fragment.is_empty());
//! #     for (line, source) in fragment.lines().zip(fragment.sources()) {
//! #         assert_eq!(line.to_string(), source.unwrap().text);
//! #     }
//! # }
//! ```
//!
//! Wide constants ([`Insn::LoadImm64`], two slots):
//!
//! ```
//! # let fragment = bpfasm::bpf! {
//! r1 = 4886718345 ll;
//! r1 = map_fd 5 ll;         r1 = map_value_fd 5 + 8 ll;
//! r1 = map_idx 0 ll;        r1 = map_value_idx 0 + 8 ll;
//! r1 = btf_var 12 ll;       r1 = code_addr function ll;
//! # }; same(&fragment);
//! # fn same(fragment: &bpfasm::Fragment) {
//! #     assert!(!fragment.is_empty());
//! #     for (line, source) in fragment.lines().zip(fragment.sources()) {
//! #         assert_eq!(line.to_string(), source.unwrap().text);
//! #     }
//! # }
//! ```
//!
//! Memory ([`Insn::Load`], [`Insn::Store`], [`Insn::LoadPacket`]). A load of less than 64 bits can
//! also name its register `w1`; the instruction is the same.
//!
//! ```
//! # let fragment = bpfasm::bpf! {
//! r1 = *(u16 *)(r2 + 8);    r1 = *(s16 *)(r10 - 8);    // u8 u16 u32 u64, s8 s16 s32
//! *(u32 *)(r1 + 8) = r2;    *(u64 *)(r10 - 8) = -1;    // u8 u16 u32 u64
//! r0 = *(u16 *)skb[12];     r0 = *(u8 *)skb[r3 + 4];   // legacy packet access: u8 u16 u32
//! # }; same(&fragment);
//! # fn same(fragment: &bpfasm::Fragment) {
//! #     assert!(!fragment.is_empty());
//! #     for (line, source) in fragment.lines().zip(fragment.sources()) {
//! #         assert_eq!(line.to_string(), source.unwrap().text);
//! #     }
//! # }
//! ```
//!
//! Atomic operations ([`Insn::Atomic`]) on `u64` with `r` registers or on `u32` with `w` registers:
//!
//! ```
//! # let fragment = bpfasm::bpf! {
//! lock *(u64 *)(r1 + 0) += r2;                    // += |= &= ^=
//! r2 = atomic_fetch_add((u64 *)(r1 + 0), r2);     // add or and xor; the old value into the operand
//! r2 = xchg_64(r1 + 0, r2);                       // w2 = xchg32_32(r1 + 0, w2)
//! r0 = cmpxchg_64(r1 + 0, r0, r2);                // w0 = cmpxchg32_32(r1 + 0, w0, w2)
//! # }; same(&fragment);
//! # fn same(fragment: &bpfasm::Fragment) {
//! #     assert!(!fragment.is_empty());
//! #     for (line, source) in fragment.lines().zip(fragment.sources()) {
//! #         assert_eq!(line.to_string(), source.unwrap().text);
//! #     }
//! # }
//! ```
//!
//! Jumps ([`Insn::Jump`], [`Insn::JumpIf`]) to a label or over a number of slots, calls
//! ([`Insn::Call`]) and the end ([`Insn::Exit`]). The distance of `goto` has 16 bits, that of
//! `gotol` 32. Helpers are called by name (see [`helper`]) or number:
//!
//! ```
//! # let fragment = bpfasm::bpf! {
//! goto out;                 gotol out;                 goto +3;
//! if r1 == r2 goto out;     if w1 s> -7 goto out;      // == != > >= < <= &, s> s>= s< s<=
//! call bpf_ktime_get_ns;    call kfunc 70000;          // kernel functions by BTF id, or by name: kfunc bpf_sock_destroy
//! call function;            call pc+1;                 // a function of the same program
//! exit;
//! # }; same(&fragment);
//! # fn same(fragment: &bpfasm::Fragment) {
//! #     assert!(!fragment.is_empty());
//! #     for (line, source) in fragment.lines().zip(fragment.sources()) {
//! #         assert_eq!(line.to_string(), source.unwrap().text);
//! #     }
//! # }
//! ```
//!
//! ## Labels and fragments
//!
//! `name:` defines a label. A label belongs to its block: the same name in a block that is spliced
//! in is another label, so a fragment can be used twice. A name that a block does not define means
//! the label of the block around it. Names from Rust follow the same rule: a block that defines
//! `out` itself cannot jump to an outer `out`.
//!
//! `..` splices a [`Fragment`], an `Option` of one (`None` adds nothing), or a `&Fragment`, if it
//! is used several times.
//!
//! ```
//! use bpfasm::{Fragment, Program, Reg, Text, bpf};
//!
//! /// Adds the byte at `r1` unless `r1` is 0; jumps to `full` if the sum is above 1000.
//! fn add(to: Reg, full: impl Into<Text>) -> Fragment {
//!     bpf! {
//!         if r1 == 0 goto out;
//!         r2 = *(u8 *)(r1 + 0);
//!         {to} += r2;
//!         if {to} > 1000 goto {full};
//!     out:
//!     }
//! }
//!
//! let program = Program::link("sum", bpf! {
//!     r0 = 0;
//!     ..add(Reg::R0, "full");
//!     ..add(Reg::R0, "full");
//! full:
//!     exit;
//! })?;
//! assert_eq!(program.insns[4].to_string(), "if r0 > 1000 goto +4");
//! assert_eq!(program.insns[5].to_string(), "if r1 == 0 goto +3");
//! # Ok::<(), bpfasm::AsmError>(())
//! ```
//!
//! ## Symbols
//!
//! A [`Symbol`] can replace a constant or an offset. The instruction contains 0 in its place until
//! a loader fills in the value ([`Insn::fill`]). [`Program::symbols`] lists the symbols.
//!
//! ```
//! # let fragment = bpfasm::bpf! {
//! r1 = map conns ll;                                   // a map; map_value conns + 8 ll: an address in its first value
//! r3 += sock.__sk_common.skc_dport;                    // bytes from the start of a struct
//! r1 = *(u16 *)(r6 + sock.sk_protocol - sock.sk_type); // bytes between two fields
//! r1 = *(u32 *)(r6 + in6_addr.in6_u.u6_addr32[0] + 4); // and a number
//! r1 = sizeof(tcp_sock);
//! if r1 == enum(sock_flags.SOCK_DONE) goto out;
//! r1 >>= shift(inet_connection_sock.icsk_ca_state);    // a bit-field, in a load of its bytes
//! r1 &= mask(inet_connection_sock.icsk_ca_state);
//! r1 = exists(sock.sk_drop_counters);                  // 1 or 0
//! w1 = params(btf_trace_kfree_skb);                    // of a tracepoint or, params(inet_csk_accept), of a function
//! r1 = const TGID;                                     // a number that the loader is given
//! call kfunc bpf_sock_destroy;
//! # };
//! # assert_eq!(fragment.symbols().len(), fragment.insns().len());
//! ```
//!
//! ## Values from Rust
//!
//! In `bpf!`, `{expression}` can replace a constant, an offset, or a term of one (any integer), a
//! register ([`Reg`]; `w{…}` is its lower half), a helper's number, or a name: of a label, a map, a
//! constant, or a path (`field {…}`, `sizeof({…})`). A value that does not fit its place is never
//! truncated: linking returns an error with the value and its place.
//!
//! ```
//! use bpfasm::{AsmError, Program, bpf, reg::R7};
//!
//! const KEY: i16 = -16;
//! let (value, path) = (5u8, "sock.sk_mark");
//! # let fragment =
//! bpf! {
//!     {R7} = {value};
//!     *(u64 *)(r10 + {KEY} + 8) = {R7};
//!     r1 = *(u32 *)(r6 + field {path});
//!     w{R7} += {value} - 1;
//! }
//! # ;
//! # let text: Vec<String> = fragment.lines().map(|line| line.to_string()).collect();
//! # assert_eq!(text, ["r7 = 5", "*(u64 *)(r10 - 8) = r7", "r1 = *(u32 *)(r6 + sock.sk_mark)", "w7 += 4"]);
//!
//! let too_big = Program::link("x", bpf! { r1 += {1u64 << 40}; exit; });
//! assert!(matches!(too_big, Err(AsmError::Range { .. })));
//! ```
//!
//! An error of syntax is a compile error:
//!
//! ```compile_fail
//! bpfasm::bpf! { if r0 >< 4 goto out; }; // error: `><` is not an operator here; there are == != > >= < <= & s> s>= s< s<=
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// The expansion of `bpf!` refers to `::bpfasm`, also within this crate.
extern crate self as bpfasm;

pub mod asm;
pub mod decode;
pub mod elf;
pub mod encode;
pub mod error;
pub mod fragment;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod insn;
mod link;
pub mod listing;
pub mod object;
pub mod program;
#[doc(hidden)]
pub mod rt;
pub mod source;
pub mod symbol;
pub mod target;
mod text;

pub use bpfasm_macros::bpf;
/// Helper functions by name and number (`enum bpf_func_id`).
pub use bpfasm_syntax::helpers as helper;
pub use bpfasm_syntax::limit::Limit;

pub use asm::ParseError;
pub use decode::{DecodeError, decode};
pub use elf::ElfError;
pub use encode::{EncodeError, encode};
pub use error::AsmError;
pub use fragment::Fragment;
pub use insn::{
    AluOp, AtomicOp, Callee, CmpOp, Dest, Imm64, Insn, Label, Operand, Reg, Size, SwapKind, Width,
};
pub use object::{
    Attach, Detach, FieldType, Hook, Layout, MapDef, MapKind, Member, Need, Object, ProgramDef,
};
pub use program::Program;
pub use source::Source;
pub use symbol::{Symbol, Text};
pub use target::{Access, Arch, KernelVersion, Refused, Ring, Target};

/// The registers, to be imported by name: `use bpfasm::reg::*`.
pub mod reg {
    pub use crate::insn::Reg::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};
}
