//! What must hold of any bytes, for [`crate::fuzz`].

use std::net::IpAddr;

use super::list::dump;
use super::proc;
use super::sock_diag::{AF_INET, AF_INET6, Progress, parse};

/// `sizeof(struct nlmsghdr) + sizeof(struct inet_diag_msg)`
const MESSAGE_SIZE: usize = 16 + 72;

/// An answer of `sock_diag`, whole and cut where a `recv` might have. As many sockets as there is
/// room for.
pub(crate) fn answer(data: &[u8]) {
    let mut sockets = Vec::new();
    let progress = parse(data, &mut sockets);
    assert!(sockets.len() <= data.len().div_ceil(MESSAGE_SIZE), "{} sockets", sockets.len());
    if let Ok(Progress::Refused(errno)) = progress {
        assert!(errno.number() > 0, "{errno}");
    }
    // A dump ends, whatever comes, when nothing does.
    let mut pieces = data.chunks(200);
    let mut sockets = Vec::new();
    let _ = dump(
        |buffer| {
            let piece = pieces.next().ok_or(nix::errno::Errno::EPIPE)?;
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        },
        &mut sockets,
    );
    for socket in sockets {
        let family = match socket.local {
            IpAddr::V4(_) => AF_INET,
            IpAddr::V6(_) => AF_INET6,
        };
        assert!(data.contains(&family));
        assert_eq!(socket.local.is_ipv4(), socket.remote.is_ipv4());
    }
}

/// The inode in a link of `/proc/PID/fd`.
pub(crate) fn inode(link: &str) -> Option<u32> {
    proc::socket_inode(link)
}
