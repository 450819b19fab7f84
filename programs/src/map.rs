//! Looking a key up in a map.

use bpfasm::{Fragment, bpf};

use crate::stack_layout;

/// `r0` = the address of the value whose key lies `key` bytes from `r10`, or 0. Clobbers `r1` to
/// `r5`.
pub fn lookup(map: &'static str, key: i16) -> Fragment {
    lookup_in(bpf! { r1 = map {map} ll; }, key)
}

/// As [`lookup`], in a map that is only known at run time: `load_map` leaves it in `r1`.
pub fn lookup_in(load_map: Fragment, key: i16) -> Fragment {
    bpf! {
        ..load_map;
        r2 = r10;
        r2 += {key};
        call bpf_map_lookup_elem;
    }
}

/// `r0` = the address of the only value of an array (this CPU's, if the array is per CPU). It
/// always exists, but the verifier insists on a branch for the case that it does not: that one goes
/// to `out`.
pub fn only_value(map: &'static str, out: &'static str) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {stack_layout::ZERO}) = 0;
        ..lookup(map, stack_layout::ZERO);
        if r0 == 0 goto {out};
    }
}
