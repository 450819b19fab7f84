//! Reading a `struct sock`, in two ways with one contract: the socket is in `r6`, `r0`–`r5` may be clobbered.
//!
//! *Typed* (`tp_btf`): the verifier knows what the pointer points to, a field is one load.
//! *Probed* (`raw_tp`): the pointer is a number. The head of the socket, `struct sock_common` up to the addresses, is copied to
//! the stack by one `bpf_probe_read_kernel`, everything else is a probe read each.

use bpfasm::reg::{R6, R10};
use bpfasm::target::Access;
use bpfasm::{Fragment, Reg, Size, bpf};

use crate::stack_layout::{COMMON, SCRATCH};
use crate::tcp::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM};

/// Bytes of `struct sock_common` that probed access copies: up to the end of the last address.
pub const COMMON_LEN: u16 = COMMON.unsigned_abs();

/// How a program reads its socket.
#[derive(Clone, Copy, Debug)]
pub struct Sock {
    access: Access,
}

impl Sock {
    /// By direct loads or by probe reads.
    #[must_use]
    pub const fn new(access: Access) -> Self {
        Self { access }
    }

    /// How it reads.
    #[must_use]
    pub const fn access(self) -> Access {
        self.access
    }

    /// Makes the socket in `r6` readable, or jumps to `other` when it is not TCP.
    ///
    /// Also MPTCP's own sockets go there (protocol 262): their subflows are ordinary TCP sockets with events of their own.
    pub fn tcp(self, other: &'static str) -> Fragment {
        match self.access {
            // The helper checks that it is a full socket (not a time-wait or request one) of protocol TCP (kernel 5.9).
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

    /// Makes the head of the socket in `r6` readable ([`Sock::common`]), also of a time-wait or request socket, which have nothing
    /// else; or jumps to `other` when it is not of the internet.
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

    /// As [`Sock::tcp`], for moments that a raw socket may come to as well: one of those can be of protocol TCP, too.
    pub fn stream(self, other: &'static str) -> Fragment {
        bpf! {
            ..self.tcp(other);
            ..self.load(Reg::R1, Size::B2, "sock.sk_type");
            if w1 != {SOCK_STREAM} goto {other};
        }
    }

    /// Makes the request for a connection (`struct request_sock`) in `r6` readable: what [`Sock::common`] and those after it
    /// read, which a request has as well.
    pub fn request(self) -> Fragment {
        match self.access {
            Access::Typed => Fragment::new(),
            Access::Probed => copy_common(),
        }
    }

    /// `dst` = a field of the socket, wherever it lies.
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
        // A failed read leaves zeroes, so what is loaded afterwards is never what lay there before.
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

    /// `dst` = a member of `struct sock_common`; clobbers nothing but `dst`.
    pub fn common(self, dst: Reg, size: Size, path: &'static str) -> Fragment {
        self.common_at(dst, size, path, 0)
    }

    /// `dst` = `size` bytes that lie `addend` bytes into a member of `struct sock_common`; clobbers nothing but `dst`.
    pub(crate) fn common_at(self, dst: Reg, size: Size, path: &'static str, addend: i16) -> Fragment {
        match self.access {
            Access::Typed => load(dst, size, R6, path, addend),
            Access::Probed => load(dst, size, R10, path, COMMON + addend),
        }
    }

    /// Stores both addresses on the stack, 16 bytes each at an offset that 8 divides; an IPv4 address takes the first four and
    /// the rest is zero. Clobbers `r1`.
    pub fn addresses(self, local: i16, remote: i16) -> Fragment {
        let v4 = |path, to: i16| {
            bpf! {
                ..self.common(Reg::R1, Size::B4, path);
                *(u64 *)(r10 + {to}) = r1;                  // little endian: the upper four bytes are the next four
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

    /// `w1` = the number of the socket's network namespace, as `/proc/PID/ns/net` shows it.
    pub fn netns(self) -> Fragment {
        bpf! {
            ..self.common(Reg::R1, Size::B8, "sock_common.skc_net.net");
            ..self.load_from(Reg::R1, Reg::R1, Size::B4, "net.ns.inum");
        }
    }
}

/// Copies the head of the socket in `r6`.
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
