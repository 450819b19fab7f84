//! The process that acts: the current task, at moments in process context.
//!
//! For events that are a process's own doing, such as an accept. Whose a socket is at any other
//! moment is the subject of [`crate::owner`].

use bpfasm::target::Access;
use bpfasm::{Fragment, Reg, bpf};

use crate::containers::Containers;
use crate::filter::Filter;
use crate::owner;

/// Jumps to `reject` unless the current task's process, user and container are wanted. Clobbers
/// `r0` to `r5`.
pub fn wanted(filter: &Filter, uid: Option<u32>, containers: &Containers, reject: &'static str) -> Fragment {
    let uid = uid.map(|uid| {
        bpf! {
            call bpf_get_current_uid_gid;
            if w0 != {uid.cast_signed()} goto {reject};
        }
    });
    bpf! {
        ..filter.current(reject);
        ..uid;
        ..containers.current(reject);
    }
}

/// Writes the current task's process, name and user into an event: to `pid`, `comm` and `uid` bytes
/// from `r10`. Clobbers `r0` to `r5`.
pub fn into_event(access: Access, pid: i16, comm: i16, uid: i16) -> Fragment {
    bpf! {
        ..owner::current(access, Reg::R10, pid, comm);
        call bpf_get_current_uid_gid;
        *(u32 *)(r10 + {uid}) = w0;
    }
}
