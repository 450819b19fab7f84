//! Loads a [`bpfasm::Object`] into the running kernel and reads the events that its programs send.
//!
//! This is the only crate of the project that talks to a kernel. The steps, in their order:
//!
//! 1. [`kernel_btf`] opens the kernel's type information. [`probe`] finds out what the kernel
//!    supports, so that the caller can build an object for it.
//! 2. [`Loader::load`] raises the memory limit if maps are charged to it (before 5.11), looks up
//!    the names that the object uses in one pass over the BTF, replaces symbols by numbers, and
//!    loads the object's own BTF. Then, for each hook that is needed, it creates the maps and loads
//!    the first attach option that the kernel accepts. A wrong field or a refused program is found
//!    here, before anything is attached.
//! 3. [`Loaded::attach`] attaches hook by hook, in the object's order. If the kernel refuses one,
//!    its next attach option is loaded and attached. [`Loaded::hooks`] reports which one is used,
//!    and why not a better one.
//! 4. [`Loaded::events`] opens the event buffer. Perf buffers must be opened before step 3, or the
//!    first events are lost.
//! 5. [`Loaded::confine`] drops privileges that are not needed any more: capabilities and system
//!    calls.
//! 6. [`Events::drain`] reads events. It is called periodically, because programs do not wake the
//!    reader for each event.
//! 7. [`Loaded::detach`], then a last drain: nothing can arrive after it.
//!
//! Everything is closed, and so detached, when it is dropped. `examples/count_forks.rs` is a
//! complete program.

#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("64-bit kernels only: addresses and positions are u64 throughout");

mod attach_name;
mod chain;
mod debug;
mod empty_program;
pub mod errno;
pub mod error;
pub mod features;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hint;
mod host;
pub mod kernel;
mod kernel_btf;
mod link;
mod loaded;
pub mod map;
#[cfg(test)]
mod message_tests;
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

pub use attach_name::AttachName;
pub use errno::Errno;
pub use error::LoadError;
pub use features::{AttachPoints, IteratorProbe, doctor, probe};
pub use hint::Hint;
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
