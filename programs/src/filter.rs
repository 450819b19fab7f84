//! The filters that all tools share. A filter that is not set costs no instruction.

use bpfasm::reg::R6;
use bpfasm::{Fragment, Reg, bpf};
use ipnet::IpNet;

use crate::cgroup;
use crate::endpoints::{Endpoint, Endpoints};
use crate::sock::Sock;
use crate::subnet;

/// The IP version on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

/// The filters. A socket has to pass all that are set.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Filter {
    /// Only sockets of this process.
    pub pid: Option<u32>,
    /// Only this IP version. An `AF_INET6` socket with IPv4-mapped addresses counts as IPv4.
    pub family: Option<Family>,
    /// Only these local ports. Empty: any.
    pub local_ports: Vec<u16>,
    /// Only these remote ports. Empty: any.
    pub remote_ports: Vec<u16>,
    /// Only connections whose local or remote address is in one of these. Empty: any. Must not
    /// [contain every address](subnet::contain_everything).
    pub subnets: Vec<IpNet>,
    /// Only this network namespace, by the inode that `/proc/PID/ns/net` shows.
    pub netns: Option<u32>,
    /// Only sockets of this cgroup (version 2) and the cgroups below it, by the inode of its
    /// directory.
    pub cgroup: Option<u64>,
}

/// The most ports of each kind for which a program stays within the limit of old kernels.
pub const MAX_PORTS: usize = 1024;

/// The most subnets for which it does.
pub const MAX_SUBNETS: usize = 64;

impl Filter {
    /// Whether no filter is set, so that everything passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Splits the filters into those that can be applied to a socket that is about to connect, and
    /// those that need its local port, which it gets later.
    #[must_use]
    pub fn split_local_ports(mut self) -> (Self, Self) {
        let local_ports = std::mem::take(&mut self.local_ports);
        (self, Self { local_ports, ..Self::default() })
    }

    /// Jumps to `reject` unless the socket in `r6` passes all filters but the one by process.
    pub fn socket(&self, sock: Sock, reject: &'static str) -> Fragment {
        bpf! {
            ..self.endpoints(Endpoints::Sock(sock), reject);
            ..self.cgroup(R6, reject);
        }
    }

    /// Jumps to `reject` unless family, ports, addresses and network namespace pass.
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
            let found = |_| bpf! { goto in_subnet; };
            fragment.splice(bpf! {
                ..subnet::first(endpoints, Endpoint::Remote, &self.subnets, &found);
                ..subnet::first(endpoints, Endpoint::Local, &self.subnets, &found);
                goto {reject};
            in_subnet:
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

    /// Jumps to `reject` unless the cgroup of the socket in `sk` passes. A socket keeps the cgroup
    /// of the process that created it; an accepted one has its listener's.
    pub fn cgroup(&self, sk: Reg, reject: &'static str) -> Fragment {
        self.cgroup.map(|id| cgroup::goto_unless_in(sk, id, reject)).into()
    }

    /// Jumps to `reject` unless the process ID at `pid` bytes from `r10` passes.
    pub fn owner(&self, pid: i16, reject: &'static str) -> Fragment {
        match self.pid {
            None => Fragment::new(),
            Some(wanted) => bpf! {
                w1 = *(u32 *)(r10 + {pid});
                if w1 != {wanted.cast_signed()} goto {reject};
            },
        }
    }

    /// Jumps to `reject` unless the current task's process passes. For moments in process context.
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

/// Jumps to `reject` unless `w1`, a port in network order, is one of `ports`. Compiles to a search
/// tree, so that many ports cost little more than a few.
fn any_of(ports: &[u16], reject: &'static str) -> Fragment {
    let mut wire: Vec<u16> = ports.iter().map(|port| port.to_be()).collect();
    wire.sort_unstable();
    wire.dedup();
    bpf! {
        ..search(&wire, reject);
    wanted:
    }
}

/// Jumps to `wanted` or to `reject`. Fewer than five ports are compared one by one, which is as
/// fast as splitting.
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
