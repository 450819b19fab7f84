//! The string section. That of split BTF continues the one of its base.

use crate::BtfError;

/// The longest name that is read. The kernel accepts identifiers of up to 511 bytes
/// (`KSYM_NAME_LEN`). In damaged data every type may have the same name of several megabytes; this
/// limit keeps the time to read them proportional to the length of the data.
const MAX_NAME: usize = 1024;

/// The strings by their offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strings<'b> {
    base: &'b [u8],
    split: &'b [u8],
}

impl<'b> Strings<'b> {
    pub(crate) fn new(base: &'b [u8], split: &'b [u8]) -> Self {
        Self { base, split }
    }

    /// All bytes from `offset` to the end of the section.
    #[inline]
    pub(crate) fn tail(&self, offset: u32) -> Option<&'b [u8]> {
        let offset = offset as usize;
        match offset.checked_sub(self.base.len()) {
            None => self.base.get(offset..),
            Some(offset) => self.split.get(offset..),
        }
    }

    /// The string at `offset`. An offset inside a string means the rest of it, so strings may share
    /// their ends.
    pub(crate) fn get(&self, offset: u32) -> Result<&'b str, BtfError> {
        let bad = BtfError::BadString { offset };
        let Some(tail) = self.tail(offset) else { return Err(bad) };
        let window = tail.get(..MAX_NAME).unwrap_or(tail);
        let Some(len) = window.iter().position(|byte| *byte == 0) else { return Err(bad) };
        window.get(..len).and_then(|name| std::str::from_utf8(name).ok()).ok_or(bad)
    }

    /// Whether the string at `offset` is `name`. Reads only as many bytes as `name` has.
    pub(crate) fn is(&self, offset: u32, name: &str) -> Result<bool, BtfError> {
        let tail = self.tail(offset).ok_or(BtfError::BadString { offset })?;
        Ok(tail.strip_prefix(name.as_bytes()).and_then(<[u8]>::first) == Some(&0))
    }
}
