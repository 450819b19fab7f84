//! Helpers that do not exist, wide loads without `ll`, labels.

use bpfasm::bpf;

fn main() {
    bpf! {
        call bpf_map_lookup_elme; //~ 14 unknown helper `bpf_map_lookup_elme`; did you mean `bpf_map_lookup_elem`?
        call bpf_no_helper_is_called_this; //~ 14 unknown helper `bpf_no_helper_is_called_this`; a kernel function is called with `call kfunc NAME`
        call -; //~ 15 expected a number of slots
        call; //~ 13 expected a helper, its number, `kfunc NAME`, a label or `pc+N`
        call kfunc; //~ 19 expected a kernel function's name
        r1 = map conns; //~ 23 a 64-bit immediate ends with `ll`: `rN = map NAME ll`, `rN = C ll`
        r1 = map_fd 3; //~ 22 a 64-bit immediate ends with `ll`
        r1 = map.conns ll 3; //~ 27 expected `;`
        again: r1 = 0;
        again: exit; //~ 9 the label `again` is already defined in this block
    };
}
