//! Values from Rust of a wrong type: the error is about the value.

use bpfasm::{Reg, bpf};

fn main() {
    let text = "text";
    let small = 3u8;
    bpf! {
        r1 = {text}; //~ 15 `&str` is neither an integer nor a register
        r1 = *(u8 *)(r2 + {text}); //~ 28 `&str` is not an integer
        {small} = 3; //~ 10 mismatched types
        r1 = {Reg::R1} + 1; //~ 15 `bpfasm::Reg` is not an integer
        {Reg::R1} = -{Reg::R2}; //~ 23 `bpfasm::Reg` is not an integer
        ..small; //~ 11 `u8` is not a fragment: a `Fragment` is expected here
        goto {small}; //~ 15 the trait bound
        r1 = {missing}; //~ 15 cannot find value `missing` in this scope
    };
}
