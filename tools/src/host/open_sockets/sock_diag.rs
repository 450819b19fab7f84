//! Messages of `sock_diag(7)`: bytes in, sockets out. No length in them is trusted.

use std::fmt;
use std::net::IpAddr;

use super::socket::Socket;
use loader::Errno;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

/// `IPPROTO_TCP`
const TCP: u8 = 6;
/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x1 | 0x300;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// `NLMSG_DONE`
const DONE: u16 = 3;
/// Every state but `TCP_TIME_WAIT` (6).
const STATES: u32 = 0xfff & !(1 << 6);
/// `sizeof(struct nlmsghdr)`
const HEADER: usize = 16;
/// `sizeof(struct nlmsghdr) + sizeof(struct inet_diag_req_v2)`
const REQUEST: usize = HEADER + 56;

/// A message that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DiagError {
    /// Longer than the buffer.
    Truncated {
        /// Its true length.
        length: usize,
    },
    /// A message's length is less than its header, or more than there is.
    Length {
        /// The length it claims.
        claimed: u32,
        /// Bytes there are.
        room: usize,
    },
    /// A message too short for what it is.
    Short {
        /// `nlmsg_type`
        kind: u16,
        /// Bytes behind its header.
        length: usize,
    },
}

impl fmt::Display for DiagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { length } => write!(f, "an answer of {length} bytes is too long"),
            Self::Length { claimed, room } => write!(f, "a message claims {claimed} bytes, {room} are there"),
            Self::Short { kind, length } => {
                write!(f, "{length} bytes are too few for a message of type {kind}")
            }
        }
    }
}

impl std::error::Error for DiagError {}

/// Whether a dump goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    More,
    Done,
    Refused(Errno),
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: all TCP sockets of a family.
pub(super) fn request(family: u8) -> [u8; REQUEST] {
    let mut out = [0; REQUEST];
    // The length fits; REQUEST is 72.
    let length = u32::try_from(REQUEST).unwrap_or(0).to_ne_bytes();
    let fields: [(usize, &[u8]); 5] = [
        (0, &length),
        (4, &BY_FAMILY.to_ne_bytes()),
        (6, &DUMP.to_ne_bytes()),
        (HEADER, &[family, TCP]),
        (HEADER + 4, &STATES.to_ne_bytes()),
    ];
    for (at, bytes) in fields {
        if let Some(to) = out.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }
    out
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Reads what one `recv` gave: several messages.
pub(super) fn parse(mut bytes: &[u8], sockets: &mut Vec<Socket>) -> Result<Progress, DiagError> {
    while !bytes.is_empty() {
        let room = bytes.len();
        let mut rest = bytes;
        let header = take::<4>(&mut rest).zip(take::<2>(&mut rest)).zip(take::<10>(&mut rest));
        let Some(((claimed, kind), _)) = header else { return Err(DiagError::Length { claimed: 0, room }) };
        let (claimed, kind) = (u32::from_ne_bytes(claimed), u16::from_ne_bytes(kind));
        let bad = DiagError::Length { claimed, room };
        let length = usize::try_from(claimed).map_err(|_| bad)?;
        let body = bytes.get(HEADER..length).ok_or(bad)?;
        let short = DiagError::Short { kind, length: body.len() };
        match kind {
            BY_FAMILY => match body.first() {
                Some(&family @ (AF_INET | AF_INET6)) => sockets.push(socket(family, body).ok_or(short)?),
                Some(_) => {}
                None => return Err(short),
            },
            // Both begin with an errno, negative or 0.
            DONE | ERROR => {
                let (code, _) = body.split_first_chunk::<4>().ok_or(short)?;
                return Ok(match (i32::from_ne_bytes(*code), kind) {
                    (0, ERROR) => Progress::More,
                    (0.., _) => Progress::Done,
                    (code, _) => {
                        Progress::Refused(std::io::Error::from_raw_os_error(code.saturating_neg()).into())
                    }
                });
            }
            _ => {}
        }
        // The next message starts at a multiple of four; the last one may end before it.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Progress::More)
}

/// `struct inet_diag_msg` of one of our families; `None` when it is too short.
fn socket(family: u8, mut body: &[u8]) -> Option<Socket> {
    let body = &mut body;
    let [_family, state, _timer, _retrans] = take(body)?;
    let local_port = u16::from_be_bytes(take(body)?);
    let remote_port = u16::from_be_bytes(take(body)?);
    let (local, remote): ([u8; 16], [u8; 16]) = (take(body)?, take(body)?);
    let interface = u32::from_ne_bytes(take(body)?);
    // Two words, the lower one first, on machines of either byte order.
    let [low, high]: [u32; 2] = [u32::from_ne_bytes(take(body)?), u32::from_ne_bytes(take(body)?)];
    let _expires_rqueue_wqueue: [u8; 12] = take(body)?;
    let (uid, inode) = (u32::from_ne_bytes(take(body)?), u32::from_ne_bytes(take(body)?));
    let address = |bytes: [u8; 16]| match (family, bytes) {
        (AF_INET, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
        (_, bytes) => IpAddr::from(bytes),
    };
    Some(Socket {
        state,
        local: address(local),
        local_port,
        remote: address(remote),
        remote_port,
        interface,
        cookie: u64::from(high) << 32 | u64::from(low),
        uid,
        inode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend([0; 10]);
        out.extend(body);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn body(family: u8) -> Vec<u8> {
        let mut out = vec![family, 1, 0, 0];
        out.extend(443_u16.to_be_bytes());
        out.extend(50_000_u16.to_be_bytes());
        out.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]);
        out.extend(7_u32.to_ne_bytes());
        out.extend([0x5566_7788_u32.to_ne_bytes(), 0x1122_3344_u32.to_ne_bytes()].concat());
        out.extend([0; 12]);
        out.extend(1000_u32.to_ne_bytes());
        out.extend(4242_u32.to_ne_bytes());
        // Attributes follow in real answers.
        out.extend([8, 0, 1, 0, 1, 2, 3, 4]);
        out
    }

    #[test]
    fn asks_for_all_tcp_sockets_of_a_family() {
        let bytes = request(AF_INET6);
        assert_eq!(bytes[..4], 72_u32.to_ne_bytes());
        assert_eq!(bytes[4..8], [20_u16.to_ne_bytes(), 0x301_u16.to_ne_bytes()].concat());
        assert_eq!(bytes[16..20], [10, 6, 0, 0]);
        assert_eq!(bytes[20..24], 0xfbf_u32.to_ne_bytes());
        assert_eq!(bytes[24..], [0; 48]);
    }

    #[test]
    fn reads_sockets_of_both_families_and_the_end() {
        let bytes = [
            message(BY_FAMILY, &body(AF_INET)),
            message(BY_FAMILY, &body(AF_INET6)),
            message(BY_FAMILY, &body(1)),
            message(99, b"who knows"),
        ]
        .concat();
        let mut sockets = Vec::new();
        assert_eq!(parse(&bytes, &mut sockets), Ok(Progress::More));
        let [v4, v6] = &sockets[..] else { panic!("{sockets:?}") };
        assert_eq!(
            *v4,
            Socket {
                state: 1,
                local: "10.0.0.1".parse().unwrap(),
                local_port: 443,
                remote: "0.0.0.0".parse().unwrap(),
                remote_port: 50_000,
                interface: 7,
                cookie: 0x1122_3344_5566_7788,
                uid: 1000,
                inode: 4242,
            }
        );
        assert_eq!(v6.remote, "::ffff:10.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(parse(&message(DONE, &0_i32.to_ne_bytes()), &mut sockets), Ok(Progress::Done));
        let refused = |code: i32| parse(&message(ERROR, &code.to_ne_bytes()), &mut Vec::new());
        assert_eq!(refused(-2), Ok(Progress::Refused(Errno::NOENT)));
        assert_eq!(refused(0), Ok(Progress::More));
        assert!(matches!(refused(i32::MIN), Ok(Progress::Refused(_))));
    }

    #[test]
    fn a_wrong_length_is_an_error() {
        let good = message(BY_FAMILY, &body(AF_INET));
        for claimed in [0, 1, 15, u32::try_from(good.len()).unwrap() + 1, u32::MAX] {
            let mut bytes = good.clone();
            bytes[..4].copy_from_slice(&claimed.to_ne_bytes());
            let error = DiagError::Length { claimed, room: good.len() };
            assert_eq!(parse(&bytes, &mut Vec::new()), Err(error));
        }
        for short in [&body(AF_INET)[..71], &[]] {
            let error = DiagError::Short { kind: BY_FAMILY, length: short.len() };
            assert_eq!(parse(&message(BY_FAMILY, short), &mut Vec::new()), Err(error));
        }
        assert!(matches!(parse(&message(DONE, &[0; 3]), &mut Vec::new()), Err(DiagError::Short { .. })));
    }

    #[test]
    fn each_truncation_and_flipped_byte_gives_sockets_or_an_error() {
        let good = [message(BY_FAMILY, &body(AF_INET6)), message(DONE, &[0; 4])].concat();
        for end in 0..good.len() {
            let _ = parse(&good[..end], &mut Vec::new());
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let mut sockets = Vec::new();
                let _ = parse(&bytes, &mut sockets);
                assert!(sockets.len() <= 1);
            }
        }
    }
}
