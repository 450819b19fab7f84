//! The system calls by which a process moves bytes through a connection.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::{SpliceFFlags, splice};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::pipe;

/// How many bytes a call moves, unless the call has its own size.
const CHUNK: usize = 16 * 1024;

/// How a process sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendBy {
    Write,
    SendMore,
    Sendfile,
    Splice,
    ZeroCopy,
}

impl SendBy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Write, Self::SendMore, Self::Sendfile, Self::Splice, Self::ZeroCopy];

    /// Sends `bytes` bytes.
    pub(crate) fn send(self, stream: &TcpStream, bytes: usize) -> io::Result<()> {
        let mut left = bytes;
        let data = vec![b'w'; CHUNK];
        while left > 0 {
            let size = left.min(CHUNK);
            let sent = match self {
                Self::Write => (&mut &*stream).write(&data[..size])?,
                // The kernel delays the last segment, but the bytes count as sent.
                Self::SendMore => {
                    send(stream.as_raw_fd(), &data[..size], MsgFlags::from_bits_retain(libc::MSG_MORE))?
                }
                Self::ZeroCopy => {
                    send(stream.as_raw_fd(), &data[..size], MsgFlags::from_bits_retain(libc::MSG_ZEROCOPY))?
                }
                Self::Sendfile => {
                    let mut file = File::from(memfd_create(c"bytes", MFdFlags::empty())?);
                    file.write_all(&data[..size])?;
                    let mut from = 0;
                    sendfile64(stream, &file, Some(&mut from), size)?
                }
                Self::Splice => {
                    let (read, write) = pipe()?;
                    File::from(write).write_all(&data[..size])?;
                    splice(&read, None, stream, None, size, SpliceFFlags::empty())?
                }
            };
            left -= sent;
        }
        Ok(())
    }
}

/// How a process receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecvBy {
    Read,
    /// A few bytes at a time.
    FewBytes,
    /// With `MSG_PEEK` twice, then without.
    Peek,
    /// With `MSG_TRUNC`: the kernel discards the bytes.
    Trunc,
    WaitAll,
    Splice,
}

impl RecvBy {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::FewBytes, Self::Peek, Self::Trunc, Self::WaitAll, Self::Splice];

    /// Receives `bytes` bytes.
    pub(crate) fn recv(self, stream: &TcpStream, bytes: usize) -> io::Result<()> {
        let mut left = bytes;
        let mut data = vec![0; CHUNK];
        while left > 0 {
            let size = left.min(CHUNK);
            let mut by = |size: usize, flags| recv(stream.as_raw_fd(), &mut data[..size], flags);
            let got = match self {
                Self::Read => by(size, MsgFlags::empty())?,
                Self::FewBytes => by(left.min(1 + left % 7), MsgFlags::empty())?,
                Self::Peek => {
                    let seen = by(size, MsgFlags::MSG_PEEK)?;
                    by(seen, MsgFlags::MSG_PEEK)?;
                    by(seen, MsgFlags::empty())?
                }
                Self::Trunc => by(size, MsgFlags::MSG_TRUNC)?,
                Self::WaitAll => by(size, MsgFlags::MSG_WAITALL)?,
                Self::Splice => {
                    let (read, write) = pipe()?;
                    let got = splice(stream.as_fd(), None, &write, None, size, SpliceFFlags::empty())?;
                    File::from(read).read_exact(&mut data[..got])?;
                    got
                }
            };
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= got;
        }
        Ok(())
    }
}
