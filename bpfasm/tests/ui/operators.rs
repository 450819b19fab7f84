//! Operators that do not exist, and pieces that are missing.

use bpfasm::bpf;

fn main() {
    bpf! {
        if r0 >< 4 goto out; //~ 15 `><` is not an operator here; there are == != > >= < <= & s> s>= s< s<=
        if r0 => 4 goto out; //~ 15 `=>` is not an operator here
        if r0 s== 4 goto out; //~ 15 `s==` is not an operator here
        r0 ** 4; //~ 12 `**` is not an operator here; there are = += -= *= /= %= |= &= ^= <<= >>= s>>= s/= s%=
        r0 s+= 4; //~ 12 `s+=` is not an operator here
        r0 == 4; //~ 12 `==` is not an operator here
        r0 = = 4; //~ 14 expected a constant, found `=`
        r0 || 4; //~ 12 `||` is not an operator here
        lock *(u64 *)(r1 + 0) -= r2; //~ 31 `-=` is not an operator here; there are += |= &= ^=
        *(u64 *)(r1 + 0) += r2; //~ 26 `+=` is not an operator here; there are `=`, and `lock *(…) += …` for an atomic operation
        r0 4; //~ 12 expected an operator, one of = += -= *= /= %= |= &= ^= <<= >>= s>>= s/= s%=, found `4`
        if r0 goto out; //~ 15 expected a condition, one of == != > >= < <= & s> s>= s< s<=, found `goto`
        if r0 == 1 out; //~ 20 expected `goto`, found `out`
        frobnicate r0; //~ 9 no statement starts with `frobnicate`; there are `rN = …`
        + 3; //~ 9 no statement starts with `+`
        r1 = *(u64 *)(r2); //~ 25 expected `+ OFF` or `- OFF`, found `)`
        r1 = *(u64 *)(r2 + ); //~ 28 expected a constant, found `)`
        r1 = 5 6; //~ 16 expected `;`, found `6`
        exit r0; //~ 14 expected `;`, found `r0`
        r1 = atomic_fetch_add((u64 *)(r2 + 0) r1); //~ 47 expected `,`, found `r1`
        r1 = 'x'; //~ 14 expected a constant, found `'x'`
        goto; //~ 13 expected a label, `+N` or `-N`, found the end of the statement
        out: exit; exit
        r0 = 0; //~ 9 expected `;`, found `r0`
    };
}
