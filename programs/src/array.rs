//! Arrays of one value.

use bpfasm::{Fragment, bpf};

use crate::stack_layout;

/// `r0` = the only value of an array, on this CPU where each has one. It always exists; the verifier wants the case that it does
/// not to go to `out`.
pub fn only(map: &'static str, out: &'static str) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {stack_layout::ZERO}) = 0;
        r1 = map {map} ll;
        r2 = r10;
        r2 += {stack_layout::ZERO};
        call bpf_map_lookup_elem;
        if r0 == 0 goto {out};
    }
}
