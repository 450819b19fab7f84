//! From a [`bpfasm::Object`] to programs that run in the kernel, and the events they send.
//!
//! This is the only crate that talks to a kernel. The order of steps, and why it is this one:
//!
//! 1. [`kernel_btf`] maps the kernel's type information; [`probe`] finds out what the kernel takes, and the tool builds its
//!    object for that.
//! 2. [`Loader::load`] lifts the memory limit where maps are charged to it (before 5.11), makes one pass over the BTF for the
//!    names the object uses, puts numbers in place of symbols, loads the object's own BTF, and for each hook that is needed
//!    creates the maps and loads the first attach option that the kernel takes. A wrong field or a refused program is found here, before anything
//!    is attached.
//! 3. [`Loaded::attach`] attaches hook by hook, in the object's order. Where the kernel refuses, the hook's next attach option is loaded
//!    and attached. [`Loaded::hooks`] says which one was taken and why not the others.
//! 4. [`Loaded::events`] opens the rings. Where they are perf buffers, before attaching, or the first events are lost.
//! 5. [`Loaded::confine`] gives up what is not needed any more: capabilities and system calls.
//! 6. [`Events::drain`] is called on a bounded period. No program wakes the reader for an event.
//! 7. [`Loaded::detach`], then a last drain: nothing more can arrive.
//!
//! Dropping anything closes it, and what is closed is detached.

#![deny(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("64-bit kernels only: addresses and positions are u64 throughout");

#[cfg(test)]
mod catalogue;
mod debug;
pub mod errno;
pub mod error;
pub mod features;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod host;
pub mod kernel;
mod kernel_btf;
mod link;
mod loaded;
pub mod map;
mod pinned;
mod privileges;
mod prog;
mod quirks;
pub mod relocate;
#[allow(unsafe_code)]
mod ring;
#[allow(unsafe_code)]
mod sys;
mod syscalls;
mod tracefs;
mod verifier;

pub use errno::Errno;
pub use error::{AttachName, Hint, LoadError};
pub use features::{doctor, probe};
pub use kernel_btf::kernel_btf;
pub use loaded::{Confined, HookReport, Loaded, Loader, Note, ProgStats, StatsGuard, enable_stats};
pub use map::{Entries, Map, MapError, PerCpu, Update};
pub use pinned::{PinnedError, PinnedFound, check_pinned};
pub use privileges::{Capability, charges_memlock};
pub use quirks::spares_init;
pub use relocate::{RelocError, relocate, wanted};
#[cfg(feature = "simulation")]
pub use ring::simulation;
pub use ring::{Drained, Events, RingError};
pub use tracefs::root as tracefs;
pub use verifier::VerifierLog;
