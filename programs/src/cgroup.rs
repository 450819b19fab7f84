//! Is a socket of a cgroup.
//!
//! The socket's own cgroup (`sock.sk_cgrp_data`) is asked, not the current task's: it is known in a soft interrupt as well. It is
//! the unified hierarchy's (version 2). No helper of tracing programs knows it, so the chain of pointers is followed by probe
//! reads, which lockdown=confidentiality forbids.

use bpfasm::reg::R10;
use bpfasm::{Fragment, Reg, bpf};

use crate::stack_layout::{CGROUP, SCRATCH};

/// How many levels below the wanted cgroup a socket is still found.
pub const MAX_DEPTH: usize = 16;

/// Jumps to `reject` unless the cgroup of the socket in `sk`, or one it lies in, has this number, which is the inode of its
/// directory. Clobbers `r0` to `r5`.
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
                r3 -= cgroup.self;                      // the parent is known by this member
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
        // The first member, whatever its type: a pointer since 5.15, before it a number that holds one, or with the lowest bit
        // set a class of version 1.
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

/// Reads eight bytes at `r3` to the stack; a failed read leaves 0.
fn read(to: i16) -> Fragment {
    bpf! {
        r1 = {R10};
        r1 += {to};
        w2 = 8;
        call bpf_probe_read_kernel;
    }
}
