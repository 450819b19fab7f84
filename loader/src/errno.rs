//! An error number of the kernel, 524 included.

use std::fmt;

use nix::libc;

/// What a system call answered instead of a result.
///
/// A type of its own because the kernel's internal `ENOTSUPP` (524) reaches user space from `bpf(2)` and no C library knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

#[allow(missing_docs)]
impl Errno {
    pub const PERM: Self = Self(libc::EPERM);
    pub const NOENT: Self = Self(libc::ENOENT);
    pub const INTR: Self = Self(libc::EINTR);
    pub const BIG: Self = Self(libc::E2BIG);
    pub const AGAIN: Self = Self(libc::EAGAIN);
    pub const NOMEM: Self = Self(libc::ENOMEM);
    pub const ACCES: Self = Self(libc::EACCES);
    pub const EXIST: Self = Self(libc::EEXIST);
    pub const NODEV: Self = Self(libc::ENODEV);
    pub const INVAL: Self = Self(libc::EINVAL);
    pub const NOSPC: Self = Self(libc::ENOSPC);
    pub const NOSYS: Self = Self(libc::ENOSYS);
    pub const OPNOTSUPP: Self = Self(libc::EOPNOTSUPP);
    /// `ENOTSUPP` of the kernel's own `include/linux/errno.h`; what 5.10 on arm64 answers to a trampoline.
    pub const NOTSUPP: Self = Self(524);
}

impl Errno {
    /// The number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The calling thread's `errno`.
    pub(crate) fn last() -> Self {
        Self::from(&std::io::Error::last_os_error())
    }
}

impl From<&std::io::Error> for Errno {
    /// An error that did not come from the system counts as `EIO`: something broke that is not the kernel's refusal.
    fn from(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self::from(&error)
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(error: nix::errno::Errno) -> Self {
        Self(error as i32)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NOTSUPP {
            return f.write_str("not supported by this kernel (ENOTSUPP, os error 524)");
        }
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let mut chars = text.chars();
        match chars.next() {
            Some(first) => write!(f, "{}{}", first.to_lowercase(), chars.as_str()),
            None => write!(f, "os error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_no_c_library_knows() {
        assert_eq!(Errno::NOTSUPP.to_string(), "not supported by this kernel (ENOTSUPP, os error 524)");
        assert_eq!(Errno::ACCES.to_string(), "permission denied (os error 13)");
    }

    #[test]
    fn takes_the_number_of_an_io_error() {
        assert_eq!(Errno::from(std::io::Error::from_raw_os_error(28)), Errno::NOSPC);
        assert_eq!(Errno::from(std::io::Error::other("no number")).number(), libc::EIO);
    }
}
