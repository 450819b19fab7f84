//! The table of sockets: what earlier events left for later ones, by the address of the socket.
//!
//! The kernel reuses a socket's address within microseconds, so an entry is replaced at a socket's birth and deleted when the
//! socket is destroyed. The entries of tools that ask whose a socket is start with its owner ([`crate::owner`]); all else is the
//! tool's.

use bpfasm::object::{Attach, Hook, Layout, MapDef, MapKind, Need, ProgramDef};
use bpfasm::reg::R6;
use bpfasm::target::{Access, Target};
use bpfasm::{AsmError, Fragment, Program, bpf};

use crate::stack_layout;

/// The map's name.
pub const MAP: &str = "sockets";

/// The map, with room for `max_entries` sockets whose entries look like `value`.
///
/// All of it is allocated at the start: where it grows instead ([`MapDef::grows`]), each connection of a storm takes one to two
/// microseconds more, for the interrupts in which the kernel's allocator is filled up.
#[must_use]
pub fn map(value: Layout, max_entries: u32) -> MapDef {
    let plain = MapDef::new(MAP, MapKind::Hash, 8, value.size.into(), max_entries);
    MapDef { value: Some(value), ..plain }
}

/// Stores the key, which is the address in `r6`. To be done before [`crate::sock::Sock::tcp`] changes what `r6` means to the
/// verifier.
pub fn key() -> Fragment {
    bpf! { *(u64 *)(r10 + {stack_layout::KEY}) = {R6}; }
}

/// `r8` = the socket's entry, or 0.
pub fn lookup() -> Fragment {
    bpf! {
        r1 = map {MAP} ll;
        r2 = r10;
        r2 += {stack_layout::KEY};
        call bpf_map_lookup_elem;
        r8 = r0;
    }
}

/// How an entry is stored when there is one already: `BPF_ANY` and `BPF_NOEXIST`, include/uapi/linux/bpf.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum IfExists {
    Replace = 0,
    Keep = 1,
}

/// Stores the entry built at [`stack_layout::ENTRY`]; `w0` is not 0 when it was not stored.
pub fn store(if_exists: IfExists) -> Fragment {
    bpf! {
        r1 = map {MAP} ll;
        r2 = r10;
        r2 += {stack_layout::KEY};
        r3 = r10;
        r3 += {stack_layout::ENTRY};
        r4 = {if_exists as i32};
        call bpf_map_update_elem;
    }
}

/// Deletes the socket's entry, if there is one.
pub fn forget() -> Fragment {
    bpf! {
        r1 = map {MAP} ll;
        r2 = r10;
        r2 += {stack_layout::KEY};
        call bpf_map_delete_elem;
    }
}

/// Zeroes the entry to be built.
pub fn clear(layout: Layout) -> Fragment {
    assert!(layout.size.is_multiple_of(8) && layout.size <= stack_layout::ENTRY.abs_diff(stack_layout::ZERO));
    let mut fragment = Fragment::new();
    for offset in (0..usize::from(layout.size)).step_by(8) {
        fragment.splice(bpf! { *(u64 *)(r10 + {stack_layout::at(stack_layout::ENTRY, offset)}) = 0; });
    }
    fragment
}

/// A attach option of a hook. Its program is not written where it could not be attached ([`Refused`](bpfasm::target::Refused)).
pub fn attach_option(
    target: &Target,
    name: &'static str,
    attach: Attach,
    body: impl FnOnce() -> Fragment,
) -> Result<ProgramDef, AsmError> {
    let program =
        if target.refused.refuses(&attach) { Program::default() } else { Program::link(name, body())? };
    Ok(ProgramDef { name: name.into(), attach, program })
}

/// The attach form of a tracepoint for this target.
#[must_use]
pub fn tracepoint(name: &'static str, target: &Target) -> Attach {
    match target.access {
        Access::Typed => Attach::TpBtf(name.into()),
        Access::Probed => Attach::RawTp(name.into()),
    }
}

/// A hook with one program on one tracepoint.
pub fn tracepoint_hook(
    hook: &'static str,
    need: Need,
    name: &'static str,
    target: &Target,
    body: Fragment,
) -> Result<Hook, AsmError> {
    hook_at(hook, need, name, tracepoint(name, target), body)
}

/// A hook with one program on one tracepoint, which reads nothing through its arguments, or only by address whatever the target.
/// It needs no types then, and loads in half the time: for a typed one, the kernel goes through its BTF until it finds the
/// tracepoint (`bpf_check_attach_target`, kernel 6.12).
pub fn untyped_hook(
    hook: &'static str,
    need: Need,
    name: &'static str,
    body: Fragment,
) -> Result<Hook, AsmError> {
    hook_at(hook, need, name, Attach::RawTp(name.into()), body)
}

fn hook_at(
    hook: &'static str,
    need: Need,
    name: &'static str,
    attach: Attach,
    body: Fragment,
) -> Result<Hook, AsmError> {
    let program = Program::link(name, body)?;
    Ok(Hook::new(hook, need, vec![ProgramDef { name: name.into(), attach, program }]))
}

/// Forgets a socket when the kernel does.
pub fn destroy_hook() -> Result<Hook, AsmError> {
    let body = bpf! {
        r6 = *(u64 *)(r1 + 0);                          // sk
        ..key();
        ..forget();
        r0 = 0;
        exit;
    };
    untyped_hook(DESTROYED, Need::Required, DESTROY, body)
}

const DESTROYED: &str = "socket destroyed";
/// `tcp_destroy_sock(struct sock *sk)`
const DESTROY: &str = "tcp_destroy_sock";

/// The hook of a socket's end, for a program that forgets the socket, among other things.
pub fn destroyed_hook(target: &Target, program: Fragment) -> Result<Hook, AsmError> {
    tracepoint_hook(DESTROYED, Need::Required, DESTROY, target, program)
}
