//! Error numbers of the kernel, including those that no C library knows.

use std::fmt;

use nix::libc;

/// The error number of a failed system call. `{}` is the error as text, in lower case.
///
/// It is not `nix`'s type, because `bpf(2)` can return the kernel's internal `ENOTSUPP` (524),
/// which no C library knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// The errors that this crate distinguishes, named as in `errno(3)` without the `E`.
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
    /// `ENOTSUPP` of the kernel's own `include/linux/errno.h`. For example 5.10 on arm64 returns it
    /// for a trampoline.
    pub const NOTSUPP: Self = Self(524);
}

impl Errno {
    /// The positive error number.
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
    /// Takes the number of an error from the operating system. Any other error becomes `EIO`, so
    /// that it is not mistaken for a refusal by the kernel.
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
    fn enotsupp_has_a_text() {
        assert_eq!(Errno::NOTSUPP.to_string(), "not supported by this kernel (ENOTSUPP, os error 524)");
        assert_eq!(Errno::ACCES.to_string(), "permission denied (os error 13)");
    }

    #[test]
    fn io_errors_keep_their_number() {
        assert_eq!(Errno::from(std::io::Error::from_raw_os_error(28)), Errno::NOSPC);
        assert_eq!(Errno::from(std::io::Error::other("no number")).number(), libc::EIO);
    }
}
