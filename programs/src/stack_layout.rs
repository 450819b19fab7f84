//! Where things lie on a program's stack of 512 bytes, as offsets from `r10`.
//!
//! The copy of `struct sock_common` lies at the very top: its length comes from the running kernel's BTF, and one that does not
//! fit reaches past `r10`, which the verifier refuses. Anywhere else it would overwrite its neighbours in silence.

/// The copied head of `struct sock_common` (probed access only); see [`crate::sock::COMMON_LEN`].
pub const COMMON: i16 = -88;

/// Eight bytes for one probe read.
pub const SCRATCH: i16 = COMMON - 8;

/// The socket's address, the key of the table.
pub const KEY: i16 = SCRATCH - 8;

/// The key of the stats array: a `u32` that is 0.
pub const ZERO: i16 = KEY - 8;

/// A new table entry, built before it is stored; 96 bytes at most.
pub const ENTRY: i16 = ZERO - 96;

/// The cgroup that [`crate::filter`] looks at.
pub const CGROUP: i16 = ENTRY - 8;

/// The event; the rest of the stack.
pub const EVENT: i16 = -512;

/// Room between [`EVENT`] and what lies above it: 296 bytes.
pub const EVENT_MAX: u16 = EVENT.abs_diff(CGROUP);

/// The place of a struct's member, given where the struct starts.
///
/// # Panics
///
/// In a constant, so at compile time, when the offset is past the stack.
#[must_use]
pub const fn at(start: i16, offset: usize) -> i16 {
    assert!(offset < 512);
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "checked above")]
    let offset = offset as i16;
    start + offset
}

/// Where a member of the caller's `Event` lies on the stack.
macro_rules! event {
    ($member:ident) => {
        $crate::stack_layout::at($crate::stack_layout::EVENT, ::std::mem::offset_of!(Event, $member))
    };
}
pub(crate) use event;

/// Where a member of the caller's new `Entry` lies on the stack.
macro_rules! entry {
    ($member:ident) => {
        $crate::stack_layout::at($crate::stack_layout::ENTRY, ::std::mem::offset_of!(Entry, $member))
    };
}
pub(crate) use entry;
