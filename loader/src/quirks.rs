//! Peculiarities of a kernel that its types (BTF) reveal.

use btf::{Btf, Index, Wanted};

/// A member that only kernels have which skip BPF programs in process 1: [`spares_init`].
const INIT_OWNED: &str = "bpf_prog_aux.init_owned";
/// The allocator that BPF programs can use in any context, kernel 6.1 (`kernel/bpf/memalloc.c`).
const ALLOCATOR: &str = "bpf_mem_alloc.cache";
/// A member of spin locks that spin (`include/linux/spinlock_types.h`). With PREEMPT_RT they sleep
/// and have another one.
const SPINS: &str = "spinlock.rlock";

/// Whether this kernel runs no BPF program in process 1 or in interrupts that arrive while process
/// 1 runs, and does not count the runs it skips as missed. `None` if the types cannot be read.
///
/// Kernels of kernel.org do not do that. Some that are built for virtual machines do (seen on a
/// 6.18): in `bpf_trace_run` they check a member of `struct bpf_prog_aux` that no other kernel has.
#[must_use]
pub fn spares_init(btf: &Btf) -> Option<bool> {
    let mut wanted = Wanted::new();
    want(&mut wanted);
    btf.index(&wanted).map(|index| Quirks::of(&index).spares_init).ok()
}

/// Adds the names that [`Quirks::of`] looks up.
pub(crate) fn want(wanted: &mut Wanted) {
    for path in [INIT_OWNED, ALLOCATOR, SPINS] {
        wanted.add_field(path);
    }
}

/// The peculiarities that concern every object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quirks {
    /// See [`spares_init`].
    pub(crate) spares_init: bool,
    /// Programs can allocate the entries of a hash map one by one. False with PREEMPT_RT: there a
    /// thread refills the allocator's stock, and a burst of new entries may find it empty.
    pub(crate) grows: bool,
}

impl Quirks {
    /// Looks each peculiarity up; one that cannot be determined counts as absent.
    pub(crate) fn of(index: &Index<'_>) -> Self {
        let has = |path| index.exists(path).unwrap_or(false);
        Self { spares_init: has(INIT_OWNED), grows: has(ALLOCATOR) && has(SPINS) }
    }
}
