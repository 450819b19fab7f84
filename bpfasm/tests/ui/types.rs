//! Types that a load, a store or a conversion does not take.

use bpfasm::bpf;

fn main() {
    bpf! {
        r1 = *(u12 *)(r2 + 0); //~ 16 `u12` is not a type here; there are u8 u16 u32 u64 s8 s16 s32
        r1 = *(s64 *)(r2 + 0); //~ 16 `s64` is not a type here; there are u8 u16 u32 u64 s8 s16 s32
        r1 = *(u64)(r2 + 0); //~ 19 expected `*)`, found `)`
        w1 = *(s8 *)(r2 + 0); //~ 16 `s8` is not a type here; there are u8 u16 u32 with a w register
        *(s8 *)(r1 + 0) = r2; //~ 11 `s8` is not a type here; there are u8 u16 u32 u64
        *(int *)(r1 + 0) = r2; //~ 11 `int` is not a type here
        lock *(u16 *)(r1 + 0) += r2; //~ 16 `u16` is not a type here; there are u32 u64
        r1 = atomic_fetch_add((u8 *)(r2 + 0), r1); //~ 32 `u8` is not a type here; there are u32 u64
        r1 = (u8)r2; //~ 15 `u8` is not a type here; there are s8 s16 s32
        w1 = (s32)w2; //~ 15 `s32` is not a type here; there are s8 s16
        r0 = *(u64 *)skb[0]; //~ 16 `u64` is not a type here; there are u8 u16 u32
    };
}
