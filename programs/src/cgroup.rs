//! Testing whether a socket belongs to a cgroup of version 2, the unified hierarchy.
//!
//! What counts is the socket's own cgroup (`sock.sk_cgrp_data`), because that is known in a soft
//! interrupt as well. Tracing programs have no helper for it, so the program follows the pointers
//! by probe reads, which lockdown=confidentiality forbids.

use bpfasm::reg::R10;
use bpfasm::{Fragment, Reg, bpf};

use crate::stack_layout::{CGROUP, SCRATCH};

/// A socket is found up to this many levels below the wanted cgroup.
pub const MAX_DEPTH: usize = 16;

/// Jumps to `reject` unless the cgroup of the socket in `sk`, or one that contains it, has this ID,
/// which is the inode of its directory. Clobbers `r0` to `r5`.
pub fn goto_unless_in(sk: Reg, id: u64, reject: &'static str) -> Fragment {
    let mut levels = Fragment::new();
    for level in 0..=MAX_DEPTH {
        if level > 0 {
            levels.splice(bpf! {
                r3 = *(u64 *)(r10 + {CGROUP});
                r3 += cgroup.self.parent;
                ..read(CGROUP);
                r3 = *(u64 *)(r10 + {CGROUP});
                if r3 == 0 goto {reject};               // that was the root
                r3 -= cgroup.self;                      // the pointer is to this member of the parent
                *(u64 *)(r10 + {CGROUP}) = r3;
            });
        }
        levels.splice(bpf! {
            r3 = *(u64 *)(r10 + {CGROUP});
            r3 += cgroup.kn;
            ..read(SCRATCH);
            r3 = *(u64 *)(r10 + {SCRATCH});
            r3 += kernfs_node.id;
            ..read(SCRATCH);
            r1 = *(u64 *)(r10 + {SCRATCH});
            r2 = {id} ll;
            if r1 == r2 goto inside;
        });
    }
    bpf! {
        // The first member of sk_cgrp_data, whatever its type. Since 5.15 it is the pointer;
        // before, a number that is the pointer, or something of version 1 if the lowest bit is set.
        r3 = {sk};
        r3 += sock.sk_cgrp_data;
        ..read(CGROUP);
        r1 = *(u64 *)(r10 + {CGROUP});
        if r1 == 0 goto {reject};
        if r1 & 1 goto {reject};
        ..levels;
        goto {reject};
    inside:
    }
}

/// Copies eight bytes at `r3` to the stack; 0 if they cannot be read.
fn read(to: i16) -> Fragment {
    bpf! {
        r1 = {R10};
        r1 += {to};
        w2 = 8;
        call bpf_probe_read_kernel;
    }
}
