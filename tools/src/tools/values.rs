//! Values that columns of several tools have.

use programs::tcp::State;
use rows::Value;

/// A process id; 0 means that the owner is unknown.
pub fn pid(pid: u32) -> Value<'static> {
    Value::Number(pid.into()).if_known(pid != 0)
}

/// The name of the process with this id.
pub fn comm(pid: u32, comm: &[u8; 16]) -> Value<'_> {
    Value::Comm(comm).if_known(pid != 0)
}

/// The inode of a network namespace; 0 means that it is unknown.
pub fn netns(inode: u32) -> Value<'static> {
    Value::Number(inode.into()).if_known(inode != 0)
}

/// The name of a TCP state, or its number if the state is newer than this program.
pub fn state(state: State) -> Value<'static> {
    state.name().map_or(Value::Number(state.0.into()), Value::Word)
}

/// A number of nanoseconds, which is at most `u64::MAX`.
pub fn nanoseconds(ns: u128) -> Value<'static> {
    Value::Number(u64::try_from(ns).unwrap_or(u64::MAX))
}
