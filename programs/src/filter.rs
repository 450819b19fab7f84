//! Which sockets a command line wants. What is not asked for costs no instruction.

use bpfasm::{Fragment, Reg, Size, bpf};

use crate::sock::Sock;

/// The IP version on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Family {
    V4,
    V6,
}

/// What all tools can filter by.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Filter {
    /// Only sockets of this process.
    pub pid: Option<u32>,
    /// Only this IP version. A socket of `AF_INET6` that talks to a mapped address talks IPv4.
    pub family: Option<Family>,
    /// Only these local ports; empty: any.
    pub local_ports: Vec<u16>,
    /// Only these remote ports; empty: any.
    pub remote_ports: Vec<u16>,
}

/// More ports than this do not fit a program next to everything else.
pub const MAX_PORTS: usize = 1024;

impl Filter {
    /// Jumps to `reject` unless family and ports of the socket in `r6` are wanted.
    pub fn socket(&self, sock: Sock, reject: &'static str) -> Fragment {
        let mut fragment = Fragment::new();
        if let Some(family) = self.family {
            fragment.splice(sock.goto_if_ipv6(family == Family::V4, reject));
        }
        if !self.remote_ports.is_empty() {
            fragment.splice(bpf! {
                ..sock.common(Reg::R1, Size::B2, "sock_common.skc_dport");
                ..any_of(&self.remote_ports, reject);
            });
        }
        if !self.local_ports.is_empty() {
            // Not skc_num: that one is 0 once the port is given back, which is before the change to CLOSE.
            fragment.splice(bpf! {
                ..sock.load(Reg::R1, Size::B2, "inet_sock.inet_sport");
                ..any_of(&self.local_ports, reject);
            });
        }
        fragment
    }

    /// Jumps to `reject` unless the process number `pid` bytes from `r10` is wanted.
    pub fn owner(&self, pid: i16, reject: &'static str) -> Fragment {
        match self.pid {
            None => Fragment::new(),
            Some(wanted) => bpf! {
                w1 = *(u32 *)(r10 + {pid});
                if w1 != {wanted.cast_signed()} goto {reject};
            },
        }
    }
}

/// Jumps to `reject` unless `w1`, a port as it is on the wire, is one of `ports`: a search tree, so that many ports cost
/// little more than a few.
fn any_of(ports: &[u16], reject: &'static str) -> Fragment {
    let mut wire: Vec<u16> = ports.iter().map(|port| port.to_be()).collect();
    wire.sort_unstable();
    wire.dedup();
    bpf! {
        ..search(&wire, reject);
    wanted:
    }
}

/// Jumps to `wanted` or to `reject`. Below five a comparison each is as fast as splitting.
fn search(sorted: &[u16], reject: &'static str) -> Fragment {
    if sorted.len() < 5 {
        let mut fragment = Fragment::new();
        for port in sorted {
            fragment.splice(bpf! { if w1 == {*port} goto wanted; });
        }
        fragment.splice(bpf! { goto {reject}; });
        return fragment;
    }
    let (lower, upper) = sorted.split_at(sorted.len() / 2);
    bpf! {
        if w1 >= {upper[0]} goto upper;
        ..search(lower, reject);
    upper:
        ..search(upper, reject);
    }
}
