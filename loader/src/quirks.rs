//! What the kernel's types tell about the kernel itself.

use btf::{Btf, Index, Wanted};

/// The member by which a kernel knows the programs that it runs in its first process: [`spares_init`].
const INIT_OWNED: &str = "bpf_prog_aux.init_owned";
/// The allocator for programs at any moment, kernel 6.1 (`kernel/bpf/memalloc.c`).
const ALLOCATOR: &str = "bpf_mem_alloc.cache";
/// Only a spin lock that spins is made of one (`include/linux/spinlock_types.h`); with PREEMPT_RT it sleeps.
const SPINS: &str = "spinlock.rlock";

/// Whether this kernel runs no program in its first process, nor in what interrupts that, and counts none of these runs as missed.
/// `None` without its types. No kernel of kernel.org does so, but some that are built for virtual machines do (seen on a 6.18): at a
/// tracepoint, `bpf_trace_run` goes by this member, which only they have.
#[must_use]
pub fn spares_init(btf: &Btf) -> Option<bool> {
    let mut wanted = Wanted::new();
    want(&mut wanted);
    btf.index(&wanted).map(|index| Quirks::of(&index).spares_init).ok()
}

/// Adds the names that [`Quirks::of`] asks for.
pub(crate) fn want(wanted: &mut Wanted) {
    for path in [INIT_OWNED, ALLOCATOR, SPINS] {
        wanted.add_field(path);
    }
}

/// What goes for every object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quirks {
    /// See [`spares_init`].
    pub(crate) spares_init: bool,
    /// Entries of a hash map can be allocated by programs as they come. With PREEMPT_RT the allocator's stock is filled up by a
    /// thread, and a burst of new entries may find it empty.
    pub(crate) grows: bool,
}

impl Quirks {
    /// What cannot be told is taken for no.
    pub(crate) fn of(index: &Index<'_>) -> Self {
        let has = |path| index.exists(path).unwrap_or(false);
        Self { spares_init: has(INIT_OWNED), grows: has(ALLOCATOR) && has(SPINS) }
    }
}
