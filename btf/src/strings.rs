//! The string section: a base's, continued by that of BTF split from it.

use crate::BtfError;

/// Longest name read. The kernel takes identifiers of up to 511 bytes (`KSYM_NAME_LEN`); the bound keeps
/// damaged data, where every type may be named by the same megabytes, from costing more than it is long.
const MAX_NAME: usize = 1024;

/// Names by offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strings<'b> {
    base: &'b [u8],
    split: &'b [u8],
}

impl<'b> Strings<'b> {
    pub(crate) fn new(base: &'b [u8], split: &'b [u8]) -> Self {
        Self { base, split }
    }

    /// Everything from `offset` to the end of its section.
    #[inline]
    pub(crate) fn tail(&self, offset: u32) -> Option<&'b [u8]> {
        let offset = offset as usize;
        match offset.checked_sub(self.base.len()) {
            None => self.base.get(offset..),
            Some(offset) => self.split.get(offset..),
        }
    }

    /// The string at `offset`. Any offset inside a string names its tail, so strings may share their ends.
    pub(crate) fn get(&self, offset: u32) -> Result<&'b str, BtfError> {
        let bad = BtfError::BadString { offset };
        let Some(tail) = self.tail(offset) else { return Err(bad) };
        let window = tail.get(..MAX_NAME).unwrap_or(tail);
        let Some(len) = window.iter().position(|byte| *byte == 0) else { return Err(bad) };
        window.get(..len).and_then(|name| std::str::from_utf8(name).ok()).ok_or(bad)
    }

    /// Whether the string at `offset` is `name`, without reading further than that takes.
    pub(crate) fn is(&self, offset: u32, name: &str) -> Result<bool, BtfError> {
        let tail = self.tail(offset).ok_or(BtfError::BadString { offset })?;
        Ok(tail.strip_prefix(name.as_bytes()).and_then(<[u8]>::first) == Some(&0))
    }
}
