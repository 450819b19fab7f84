//! Reading the headers of a packet, at any stage of the kernel's processing.
//!
//! Of the `struct sk_buff`, only the offset of the network header can be relied on. The offset of
//! the transport header is set late, and points to the IP header until then, so the program walks
//! from the IP header to the TCP header itself. The packet's bytes are read by probe reads with
//! both kinds of access, and never beyond the end of what was received.
//!
//! During the walk `r7` is the start of the packet's memory and `r8` the offset of the next header
//! in it.

use bpfasm::target::Access;
use bpfasm::{Fragment, Reg, Size, bpf};

use crate::stack_layout::{ENTRY, SCRATCH};
use crate::tcp::{AF_INET, AF_INET6, IPPROTO_TCP};

/// Where to store a packet's addresses, ports and flags: offsets from `r10`.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// `u16`, `AF_INET` or `AF_INET6`
    pub family: i16,
    /// 16 bytes, an IPv4 address in the first four
    pub saddr: i16,
    /// 16 bytes
    pub daddr: i16,
    /// `u16`, network order
    pub sport: i16,
    /// `u16`, network order
    pub dport: i16,
    /// `u8`: byte 13 of the TCP header
    pub flags: i16,
    /// `u16`: 1 if the packet has its TCP header; else 0, and ports and flags are 0
    pub transport: i16,
}

/// A copy of the header that is being read.
const HEADER: i16 = ENTRY;

/// `ETH_P_IP`, include/uapi/linux/if_ether.h.
const ETH_P_IP: u16 = 0x0800;
/// `ETH_P_IPV6`, include/uapi/linux/if_ether.h.
const ETH_P_IPV6: u16 = 0x86dd;

/// Bytes of an IPv4 header without options.
const IPV4_LEN: i32 = 20;
/// Its members: the fragment's offset, the type of the next header, the source address.
const IPV4_FRAGMENT: i16 = HEADER + 6;
const IPV4_PROTOCOL: i16 = HEADER + 9;
const IPV4_SADDR: i16 = HEADER + 12;
/// The bits of [`IPV4_FRAGMENT`] that are the offset.
const IPV4_OFFSET: u16 = 0x1fff;

/// Bytes of an IPv6 header.
const IPV6_LEN: i32 = 40;
/// Its members: the type of the next header, the source address.
const IPV6_NEXT: i16 = HEADER + 6;
const IPV6_SADDR: i16 = HEADER + 8;
/// The most extension headers of IPv6 that are skipped.
pub const MAX_EXTENSIONS: usize = 4;
/// Bytes of the shortest extension header. All begin with the type of the next header; in most, the
/// length follows.
const EXTENSION_LEN: i32 = 8;
/// Extension headers, include/uapi/linux/in6.h and in.h.
const NEXTHDR_HOP: i32 = 0;
const NEXTHDR_ROUTING: i32 = 43;
const NEXTHDR_FRAGMENT: i32 = 44;
const NEXTHDR_AUTH: i32 = 51;
const NEXTHDR_DEST: i32 = 60;
/// The bits of a fragment header's bytes 2 and 3 that are the offset.
const IPV6_OFFSET: u16 = 0xfff8;

/// Bytes of a TCP header up to its flags.
const TCP_LEN: i32 = 14;
const TCP_FLAGS: i16 = HEADER + 13;

/// Stores addresses, ports and flags of the packet whose `struct sk_buff` is in `r6`, or jumps to
/// `other` if it is not a TCP packet.
///
/// The second and later fragments of a TCP packet have no TCP header, nor has a packet that ends
/// too early. Clobbers `r0` to `r5`, `r7`, `r8`, and the stack from [`ENTRY`] up.
pub fn tcp(access: Access, place: Place, other: &'static str) -> Fragment {
    let skb = Skb { access };
    bpf! {
        ..skb.open();
        ..skb.load(Reg::R1, Size::B2, "sk_buff.protocol");
        if w1 == {ETH_P_IP.to_be()} goto ipv4;
        if w1 != {ETH_P_IPV6.to_be()} goto {other};
        ..skb.network();
        ..ipv6(skb, place, other);
    ipv4:
        ..skb.network();
        ..ipv4(skb, place, other);
    transport:
        ..skb.read(TCP_LEN, "no_header");
        w1 = *(u16 *)(r10 + {HEADER});
        *(u16 *)(r10 + {place.sport}) = w1;
        w1 = *(u16 *)(r10 + {HEADER + 2});
        *(u16 *)(r10 + {place.dport}) = w1;
        w1 = *(u8 *)(r10 + {TCP_FLAGS});
        *(u8 *)(r10 + {place.flags}) = w1;
        *(u16 *)(r10 + {place.transport}) = 1;
        goto done;
    no_header:
        *(u16 *)(r10 + {place.sport}) = 0;
        *(u16 *)(r10 + {place.dport}) = 0;
        *(u8 *)(r10 + {place.flags}) = 0;
        *(u16 *)(r10 + {place.transport}) = 0;
    done:
    }
}

/// Falls through if a whole TCP header can follow at `r8`, and jumps to `no_header` if it cannot.
fn ipv4(skb: Skb, place: Place, other: &'static str) -> Fragment {
    bpf! {
        ..skb.read(IPV4_LEN, other);
        w1 = *(u8 *)(r10 + {IPV4_PROTOCOL});
        if w1 != {IPPROTO_TCP} goto {other};
        w1 = *(u8 *)(r10 + {HEADER});
        w2 = w1;
        w2 >>= 4;
        if w2 != 4 goto {other};
        w1 &= 15;                                       // words of four bytes
        if w1 < 5 goto {other};
        w1 <<= 2;
        r8 += r1;
        *(u16 *)(r10 + {place.family}) = {AF_INET};
        w1 = *(u32 *)(r10 + {IPV4_SADDR});
        *(u64 *)(r10 + {place.saddr}) = r1;             // and zeroes behind it: little endian
        *(u64 *)(r10 + {place.saddr + 8}) = 0;
        w1 = *(u32 *)(r10 + {IPV4_SADDR + 4});
        *(u64 *)(r10 + {place.daddr}) = r1;
        *(u64 *)(r10 + {place.daddr + 8}) = 0;
        w1 = *(u16 *)(r10 + {IPV4_FRAGMENT});
        if w1 & {IPV4_OFFSET.to_be()} goto no_header;
    }
}

/// Jumps to `transport` if a whole TCP header can follow at `r8`, and to `no_header` if it cannot.
fn ipv6(skb: Skb, place: Place, other: &'static str) -> Fragment {
    let mut extensions = Fragment::new();
    for _ in 0..MAX_EXTENSIONS {
        extensions.splice(extension(skb, other));
    }
    let copy = |from: i16, to: i16| {
        bpf! {
            r1 = *(u64 *)(r10 + {from});
            *(u64 *)(r10 + {to}) = r1;
        }
    };
    bpf! {
        ..skb.read(IPV6_LEN, other);
        w1 = *(u8 *)(r10 + {HEADER});
        w1 >>= 4;
        if w1 != 6 goto {other};
        *(u16 *)(r10 + {place.family}) = {AF_INET6};
        ..copy(IPV6_SADDR, place.saddr);
        ..copy(IPV6_SADDR + 8, place.saddr + 8);
        ..copy(IPV6_SADDR + 16, place.daddr);
        ..copy(IPV6_SADDR + 24, place.daddr + 8);
        r8 += {IPV6_LEN};
        w1 = *(u8 *)(r10 + {IPV6_NEXT});
        ..extensions;
        if w1 == {IPPROTO_TCP} goto transport;
        goto {other};
    }
}

/// Where a step keeps the type of its header. This is not the start of a stack slot: there the
/// verifier would remember the value (from 6.8 on) and follow each type through all steps, which
/// took it a millisecond.
const HEADER_TYPE: i16 = SCRATCH + 1;

/// One step of the walk: skips the extension header at `r8`, whose type is in `w1`. Leaves the type
/// of the next header there.
fn extension(skb: Skb, other: &'static str) -> Fragment {
    bpf! {
        if w1 == {IPPROTO_TCP} goto transport;
        if w1 == {NEXTHDR_HOP} goto skip;
        if w1 == {NEXTHDR_ROUTING} goto skip;
        if w1 == {NEXTHDR_DEST} goto skip;
        if w1 == {NEXTHDR_FRAGMENT} goto skip;
        if w1 != {NEXTHDR_AUTH} goto {other};
    skip:
        *(u8 *)(r10 + {HEADER_TYPE}) = w1;
        ..skb.read(EXTENSION_LEN, other);
        w3 = *(u8 *)(r10 + {HEADER_TYPE});
        w1 = *(u8 *)(r10 + {HEADER});
        w2 = *(u8 *)(r10 + {HEADER + 1});
        if w3 == {NEXTHDR_FRAGMENT} goto fragment;
        if w3 == {NEXTHDR_AUTH} goto auth;
        w2 += 1;                                        // words of eight bytes, without the first
        w2 <<= 3;
        goto advance;
    auth:
        w2 += 2;                                        // words of four bytes, without the first two
        w2 <<= 2;
        goto advance;
    fragment:
        w2 = *(u16 *)(r10 + {HEADER + 2});
        w2 &= {IPV6_OFFSET.to_be()};
        if w2 == 0 goto first;
        if w1 == {IPPROTO_TCP} goto no_header;
        goto {other};
    first:
        w2 = {EXTENSION_LEN};
    advance:
        r8 += r2;
    }
}

/// Reading a packet whose `struct sk_buff` is in `r6`.
#[derive(Clone, Copy)]
struct Skb {
    access: Access,
}

impl Skb {
    /// Makes the fields from `protocol` to `data` readable. Probed access copies them to the top of
    /// the stack, where the head of a socket ([`COMMON`](crate::stack_layout::COMMON)) is copied
    /// later. The copy ends at the top, so that pointers are aligned.
    fn open(self) -> Fragment {
        match self.access {
            Access::Typed => Fragment::new(),
            Access::Probed => bpf! {
                r1 = r10;
                r1 += sk_buff.protocol - sk_buff.data - 8;
                w2 = sk_buff.data - sk_buff.protocol + 8;
                r3 = r6;
                r3 += sk_buff.protocol;
                call bpf_probe_read_kernel;
            },
        }
    }

    /// `dst` = a field from `protocol` to `data`. Clobbers nothing else.
    fn load(self, dst: Reg, size: Size, path: &'static str) -> Fragment {
        match (self.access, size) {
            (Access::Typed, Size::B2) => bpf! { {dst} = *(u16 *)(r6 + field {path}); },
            (Access::Typed, Size::B4) => bpf! { {dst} = *(u32 *)(r6 + field {path}); },
            (Access::Typed, _) => bpf! { {dst} = *(u64 *)(r6 + field {path}); },
            (Access::Probed, Size::B2) => {
                bpf! { {dst} = *(u16 *)(r10 + field {path} - sk_buff.data - 8); }
            }
            (Access::Probed, Size::B4) => {
                bpf! { {dst} = *(u32 *)(r10 + field {path} - sk_buff.data - 8); }
            }
            (Access::Probed, _) => {
                bpf! { {dst} = *(u64 *)(r10 + field {path} - sk_buff.data - 8); }
            }
        }
    }

    /// `r7` = the start of the packet's memory, `r8` = the offset of the network header.
    fn network(self) -> Fragment {
        bpf! {
            ..self.load(Reg::R7, Size::B8, "sk_buff.head");
            ..self.load(Reg::R8, Size::B2, "sk_buff.network_header");
            if w8 != 0 goto set;
            // Not set: the driver handed the packet over without its link header.
            ..self.load(Reg::R8, Size::B8, "sk_buff.data");
            r8 -= r7;
        set:
        }
    }

    /// Copies this many bytes from `r8` to [`HEADER`], or jumps to `short` if the packet ends
    /// before.
    fn read(self, bytes: i32, short: &'static str) -> Fragment {
        bpf! {
            r1 = r8;
            r1 += {bytes};
            ..self.load(Reg::R2, Size::B4, "sk_buff.tail");
            if r1 > r2 goto {short};
            r1 = r10;
            r1 += {HEADER};
            w2 = {bytes};
            r3 = r7;
            r3 += r8;
            call bpf_probe_read_kernel;
            if w0 != 0 goto {short};
        }
    }
}
