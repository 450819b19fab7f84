//! Reading a `struct sock`, by two methods with one contract: the socket is in `r6`, and `r0` to
//! `r5` may be clobbered.
//!
//! - *Typed* access (`tp_btf`): the verifier knows what the pointer points to, so a field is one
//!   load.
//! - *Probed* access (`raw_tp`): to the verifier the pointer is a mere number. One
//!   `bpf_probe_read_kernel` copies the head of the socket, which is `struct sock_common` up to the
//!   addresses, to the stack. Every other field is a probe read of its own.

use bpfasm::reg::{R6, R10};
use bpfasm::target::Access;
use bpfasm::{Fragment, Reg, Size, bpf};

use crate::stack_layout::{COMMON, SCRATCH};
use crate::tcp::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM};

/// The space for the part of `struct sock_common` that probed access copies, which ends with the
/// last address.
pub const COMMON_LEN: u16 = COMMON.unsigned_abs();

/// How a program reads its socket.
#[derive(Clone, Copy, Debug)]
pub struct Sock {
    access: Access,
}

impl Sock {
    #[must_use]
    pub const fn new(access: Access) -> Self {
        Self { access }
    }

    #[must_use]
    pub const fn access(self) -> Access {
        self.access
    }

    /// Makes the socket in `r6` readable, or jumps to `other` if it is not a TCP socket.
    ///
    /// MPTCP's own sockets (protocol 262) are not. Their subflows are ordinary TCP sockets, which
    /// have events of their own.
    pub fn tcp(self, other: &'static str) -> Fragment {
        match self.access {
            // The helper checks that this is a full socket (not a time-wait or request one) of
            // protocol TCP (kernel 5.9).
            Access::Typed => bpf! {
                r1 = r6;
                call bpf_skc_to_tcp_sock;
                if r0 == 0 goto {other};
                r6 = r0;
            },
            Access::Probed => bpf! {
                ..self.common_head(other);
                ..self.load(Reg::R1, Size::B2, "sock.sk_protocol");
                if w1 != {IPPROTO_TCP} goto {other};
            },
        }
    }

    /// Makes the head of the socket in `r6` readable ([`Sock::common`]), or jumps to `other` if its
    /// family is neither IPv4 nor IPv6. Time-wait and request sockets have no more than this head.
    pub fn common_head(self, other: &'static str) -> Fragment {
        let copy = match self.access {
            Access::Typed => Fragment::new(),
            Access::Probed => copy_common(),
        };
        bpf! {
            ..copy;
            ..self.common(Reg::R1, Size::B2, "sock_common.skc_family");
            if w1 == {AF_INET} goto inet;
            if w1 != {AF_INET6} goto {other};
        inet:
        }
    }

    /// As [`Sock::tcp`], for moments that raw sockets have as well: a raw socket can be of protocol
    /// TCP.
    pub fn stream(self, other: &'static str) -> Fragment {
        bpf! {
            ..self.tcp(other);
            ..self.load(Reg::R1, Size::B2, "sock.sk_type");
            if w1 != {SOCK_STREAM} goto {other};
        }
    }

    /// Makes the request for a connection (`struct request_sock`) in `r6` readable, as far as
    /// [`Sock::common`], [`Sock::addresses`] and [`Sock::netns`] go.
    pub fn request(self) -> Fragment {
        match self.access {
            Access::Typed => Fragment::new(),
            Access::Probed => copy_common(),
        }
    }

    /// `dst` = any field of the socket.
    pub fn load(self, dst: Reg, size: Size, path: &'static str) -> Fragment {
        match self.access {
            Access::Typed => load(dst, size, R6, path, 0),
            Access::Probed => self.probe(R6, dst, size, path),
        }
    }

    /// `dst` = a field of the struct that `base` points to.
    pub fn load_from(self, base: Reg, dst: Reg, size: Size, path: &'static str) -> Fragment {
        match self.access {
            Access::Typed => load(dst, size, base, path, 0),
            Access::Probed => self.probe(base, dst, size, path),
        }
    }

    fn probe(self, base: Reg, dst: Reg, size: Size, path: &'static str) -> Fragment {
        // A failed read leaves zeroes, so the load never yields an older value.
        let plain = match size {
            Size::B1 => bpf! { {dst} = *(u8 *)(r10 + {SCRATCH}); },
            Size::B2 => bpf! { {dst} = *(u16 *)(r10 + {SCRATCH}); },
            Size::B4 => bpf! { {dst} = *(u32 *)(r10 + {SCRATCH}); },
            Size::B8 => bpf! { {dst} = *(u64 *)(r10 + {SCRATCH}); },
        };
        bpf! {
            r3 = {base};
            r3 += field {path};
            r1 = r10;
            r1 += {SCRATCH};
            w2 = sizeof({path});
            call bpf_probe_read_kernel;
            ..plain;
        }
    }

    /// `dst` = a member of `struct sock_common`. Clobbers nothing else.
    pub fn common(self, dst: Reg, size: Size, path: &'static str) -> Fragment {
        self.common_at(dst, size, path, 0)
    }

    /// `dst` = `size` bytes that lie `addend` bytes into a member of `struct sock_common`. Clobbers
    /// nothing else.
    pub(crate) fn common_at(self, dst: Reg, size: Size, path: &'static str, addend: i16) -> Fragment {
        match self.access {
            Access::Typed => load(dst, size, R6, path, addend),
            Access::Probed => load(dst, size, R10, path, COMMON + addend),
        }
    }

    /// Stores both addresses on the stack, 16 bytes each at an offset that is a multiple of 8. An
    /// IPv4 address takes the first four bytes, the rest is zero. Clobbers `r1`.
    pub fn addresses(self, local: i16, remote: i16) -> Fragment {
        let v4 = |path, to: i16| {
            bpf! {
                ..self.common(Reg::R1, Size::B4, path);
                *(u64 *)(r10 + {to}) = r1;                  // and zeroes behind it: little endian
                *(u64 *)(r10 + {to + 8}) = 0;
            }
        };
        let v6 = |path, to: i16| {
            bpf! {
                ..self.common_at(Reg::R1, Size::B8, path, 0);
                *(u64 *)(r10 + {to}) = r1;
                ..self.common_at(Reg::R1, Size::B8, path, 8);
                *(u64 *)(r10 + {to + 8}) = r1;
            }
        };
        bpf! {
            ..self.common(Reg::R1, Size::B2, "sock_common.skc_family");
            if w1 == {AF_INET6} goto v6;
            ..v4("sock_common.skc_daddr", remote);
            ..v4("sock_common.skc_rcv_saddr", local);
            goto done;
        v6:
            ..v6("sock_common.skc_v6_daddr", remote);
            ..v6("sock_common.skc_v6_rcv_saddr", local);
        done:
        }
    }

    /// `w1` = the inode of the socket's network namespace, as `/proc/PID/ns/net` shows it.
    pub fn netns(self) -> Fragment {
        bpf! {
            ..self.common(Reg::R1, Size::B8, "sock_common.skc_net.net");
            ..self.load_from(Reg::R1, Reg::R1, Size::B4, "net.ns.inum");
        }
    }
}

/// Copies the head of the socket in `r6` to the stack.
fn copy_common() -> Fragment {
    bpf! {
        r1 = r10;
        r1 += {COMMON};
        w2 = sock_common.skc_v6_rcv_saddr + 16;
        r3 = r6;
        call bpf_probe_read_kernel;
    }
}

/// One load through a field symbol.
fn load(dst: Reg, size: Size, base: Reg, path: &'static str, addend: i16) -> Fragment {
    match size {
        Size::B1 => bpf! { {dst} = *(u8 *)({base} + field {path} + {addend}); },
        Size::B2 => bpf! { {dst} = *(u16 *)({base} + field {path} + {addend}); },
        Size::B4 => bpf! { {dst} = *(u32 *)({base} + field {path} + {addend}); },
        Size::B8 => bpf! { {dst} = *(u64 *)({base} + field {path} + {addend}); },
    }
}
