//! Which sockets a command line wants. What is not asked for costs no instruction.

use bpfasm::reg::R6;
use bpfasm::{Fragment, Reg, bpf};
use ipnet::IpNet;

use crate::cgroup;
use crate::endpoints::{Endpoint, Endpoints};
use crate::sock::Sock;
use crate::subnet;

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
    /// Only connections with an end, this one or the other, in one of these; empty: any. Not to
    /// [hold everything](subnet::hold_everything).
    pub subnets: Vec<IpNet>,
    /// Only this network namespace, by the number of `/proc/PID/ns/net`.
    pub netns: Option<u32>,
    /// Only sockets of this cgroup (version 2) and those below it, by the inode of its directory.
    pub cgroup: Option<u64>,
}

/// More ports than this do not fit a program next to everything else.
pub const MAX_PORTS: usize = 1024;

/// More subnets than this do not either.
pub const MAX_SUBNETS: usize = 64;

impl Filter {
    /// Whether nothing is asked for, so that everything is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What can be told of a socket that is about to connect, and what only once it has a local port.
    #[must_use]
    pub fn split_local_ports(mut self) -> (Self, Self) {
        let local_ports = std::mem::take(&mut self.local_ports);
        (self, Self { local_ports, ..Self::default() })
    }

    /// Jumps to `reject` unless the socket in `r6` is wanted, whoever it belongs to.
    pub fn socket(&self, sock: Sock, reject: &'static str) -> Fragment {
        bpf! {
            ..self.endpoints(Endpoints::Sock(sock), reject);
            ..self.cgroup(R6, reject);
        }
    }

    /// Jumps to `reject` unless family, ports, addresses and network namespace are wanted.
    pub fn endpoints(&self, endpoints: Endpoints, reject: &'static str) -> Fragment {
        let mut fragment = Fragment::new();
        if let Some(family) = self.family {
            fragment.splice(endpoints.goto_if_ipv6(family == Family::V4, reject));
        }
        for (side, ports) in [(Endpoint::Remote, &self.remote_ports), (Endpoint::Local, &self.local_ports)] {
            if !ports.is_empty() {
                fragment.splice(bpf! {
                    ..endpoints.port(side);
                    ..any_of(ports, reject);
                });
            }
        }
        if !self.subnets.is_empty() {
            let found = |_| bpf! { goto held; };
            fragment.splice(bpf! {
                ..subnet::first(endpoints, Endpoint::Remote, &self.subnets, &found);
                ..subnet::first(endpoints, Endpoint::Local, &self.subnets, &found);
                goto {reject};
            held:
            });
        }
        if let Some(netns) = self.netns {
            fragment.splice(bpf! {
                ..endpoints.netns();
                if w1 != {netns.cast_signed()} goto {reject};
            });
        }
        fragment
    }

    /// Jumps to `reject` unless the cgroup of the socket in `sk` is wanted. A socket keeps the cgroup of the process that made
    /// it, an accepted one that of its listener.
    pub fn cgroup(&self, sk: Reg, reject: &'static str) -> Fragment {
        self.cgroup.map(|id| cgroup::goto_unless_in(sk, id, reject)).into()
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

    /// Jumps to `reject` unless the current task's process is wanted. For moments in process context.
    pub fn current(&self, reject: &'static str) -> Fragment {
        match self.pid {
            None => Fragment::new(),
            Some(wanted) => bpf! {
                call bpf_get_current_pid_tgid;
                r0 >>= 32;
                if w0 != {wanted.cast_signed()} goto {reject};
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
