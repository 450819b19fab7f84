//! Fixed places on a program's stack of 512 bytes, as offsets from `r10`.
//!
//! | bytes from `r10` | what lies there |
//! |---|---|
//! | -88 to 0 | [`COMMON`]: the copied head of the socket (probed access) |
//! | -96 | [`SCRATCH`]: one probe read |
//! | -104 | [`KEY`]: the socket's address |
//! | -112 | [`ZERO`]: the key of arrays |
//! | -208 to -112 | [`ENTRY`]: a new table entry |
//! | -216 | [`CGROUP`]: a cgroup's address |
//! | -512 to -216 | [`EVENT`]: the event |
//!
//! The copy of `struct sock_common` is at the very top, because its length comes from the running
//! kernel's BTF. A copy that is too long reaches past `r10` there, and the verifier refuses the
//! program. Anywhere else it would silently overwrite its neighbours.

/// The copied head of `struct sock_common` (probed access only).
pub const COMMON: i16 = -88;

/// Eight bytes for one probe read.
pub const SCRATCH: i16 = COMMON - 8;

/// The socket's address, the key of the table.
pub const KEY: i16 = SCRATCH - 8;

/// The key of the stats array: a `u32` that is 0.
pub const ZERO: i16 = KEY - 8;

/// A new table entry, built before it is stored; 96 bytes at most.
pub const ENTRY: i16 = ZERO - 96;

/// The address of the cgroup that a filter is looking at.
pub const CGROUP: i16 = ENTRY - 8;

/// The event; the rest of the stack.
pub const EVENT: i16 = -512;

/// The largest event, in bytes: 296.
pub const EVENT_MAX: u16 = EVENT.abs_diff(CGROUP);

/// The place of a struct's member, if the struct starts at `start`.
///
/// # Panics
///
/// At compile time in a constant, if the offset is beyond the stack.
#[must_use]
pub const fn at(start: i16, offset: usize) -> i16 {
    assert!(offset < 512);
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "checked above")]
    let offset = offset as i16;
    start + offset
}

/// The place of a member of the caller's `Event`.
macro_rules! event {
    ($member:ident) => {
        $crate::stack_layout::at($crate::stack_layout::EVENT, ::std::mem::offset_of!(Event, $member))
    };
}
pub(crate) use event;

/// The place of a member of the caller's new `Entry`.
macro_rules! entry {
    ($member:ident) => {
        $crate::stack_layout::at($crate::stack_layout::ENTRY, ::std::mem::offset_of!(Entry, $member))
    };
}
pub(crate) use entry;
