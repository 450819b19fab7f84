//! Registers that do not exist, that are the wrong half, or the wrong one.

use bpfasm::bpf;

fn main() {
    bpf! {
        r11 = 0; //~ 9 unknown register `r11`; there are r0 to r10 and w0 to w10
        r1 = w99; //~ 14 unknown register `w99`
        r1 = r01; //~ 14 unknown register `r01`
        r1 += w2; //~ 15 `r1` and `w2` in one statement; both sides are r registers or both are w registers
        w1 = r2; //~ 14 `w1` and `r2` in one statement
        w1 = -r1; //~ 15 `w1` and `r1` in one statement
        r1 = -r2; //~ 15 this must be the same register: `rN = -rN`
        if w1 == r2 goto +1; //~ 18 `w1` and `r2` in one statement
        r1 = be16 r2; //~ 19 this must be the same register: `rN = be16 rN`
        w1 = be16 w1; //~ 9 `w1` is half a register; a byte swap takes r0 to r10
        r1 = *(u64 *)(w2 + 0); //~ 23 `w2` is half a register; an address takes r0 to r10
        r1 = *(u64 *)(10 + 0); //~ 23 expected a register, found `10`
        w1 = *(u64 *)(r2 + 0); //~ 16 `u64` is not a type here; there are u8 u16 u32 with a w register
        *(u64 *)(r1 + 0) = w2; //~ 28 `w2` is half a register; a store of `u64` takes r0 to r10
        w1 = 7 ll; //~ 9 `w1` is half a register; a 64-bit immediate takes r0 to r10
        lock *(u64 *)(r1 + 0) += w2; //~ 34 `w2` is half a register; `u64` takes r0 to r10
        r2 = atomic_fetch_or((u32 *)(r1 + 0), r2); //~ 9 `r2` is a whole register; `u32` takes w0 to w10
        w2 = atomic_fetch_or((u32 *)(r1 + 0), w3); //~ 47 this must be the same register
        r2 = xchg_64(r1 + 0, r3); //~ 30 this must be the same register
        r1 = cmpxchg_64(r3 + 0, r1, r2); //~ 9 this must be the same register: `r0 = cmpxchg_64(rM + OFF, r0, rN)`
        r0 = cmpxchg_64(r3 + 0, r1, r2); //~ 33 this must be the same register
        r1 = *(u8 *)skb[3]; //~ 9 this must be the same register: `r0 = *(u16 *)skb[…]`
    };
}
