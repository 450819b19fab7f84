//! tcpdrop: finding the TCP header behind IP headers of every kind, and packets that are not TCP.

use super::packet::{Packet, extension, v4, v6};
use super::{REPORTED, Socket, events, free, ignored, reported, skb, unfiltered};
use crate::lab::cases;
use crate::spec::Spec;

cases! {
    /// Only IP that carries TCP is looked at.
    fn not_tcp(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for protocol in [0, 0x0806, 0x8847, 0x0008, 0xdd86, 0x0801, 0x86dc, 0xffff] {
            ignored(&mut tool, &Packet { protocol, ..v4() });
            ignored(&mut tool, &Packet { protocol, ..v6(&[]) });
        }
        ignored(&mut tool, &Packet { protocol: 0x86dd, ..v4() });
        ignored(&mut tool, &Packet { protocol: 0x0800, ..v6(&[]) });
        for next in [17, 1, 0, 7, 132, 255] {
            ignored(&mut tool, &v4().with(9, &[next]));
        }
        for next in [17, 58, 50, 59, 7, 61, 135, 255] {
            ignored(&mut tool, &v6(&[]).with(6, &[next]));
        }
        for first in [0x44, 0x40, 0x55, 0x65, 0x05, 0x35] {
            ignored(&mut tool, &v4().with(0, &[first]));
        }
        for first in [0x40, 0x50, 0x70, 0xe0, 0] {
            ignored(&mut tool, &v6(&[]).with(0, &[first]));
        }
    }

    /// A packet that ends too early: without an IP header it is ignored, without the TCP header's
    /// flags it has no ports.
    fn cut_short(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for (packet, ip) in [(v4(), 20), (v6(&[]), 40), (v6(&[extension(0, 16)]), 56)] {
            for len in 0..=packet.bytes.len() {
                let short = Packet { missing: packet.bytes.len() - len, ..packet.clone() };
                // An extension header counts as there when its first eight bytes are.
                let whole = if ip == 56 { 48 } else { ip };
                match len {
                    _ if len < whole => ignored(&mut tool, &short),
                    _ if len < ip + 14 => reported(&mut tool, &short, packet.clone().headless().event),
                    _ => reported(&mut tool, &short, packet.event),
                }
            }
        }
        // The end is right and the memory is not.
        let mut gone = v4();
        gone.bytes.truncate(30);
        let expected = gone.clone().headless().event;
        let skb = skb(&mut tool, &gone, Socket::None);
        tool.set(skb, "sk_buff.tail", 1000);
        assert_eq!(free(&mut tool, skb, 0, 0), REPORTED);
        assert_eq!(events(&mut tool), [(expected, vec![])]);
    }

    /// Where the IP header is: where the kernel noted, or, when it noted nothing, where the packet
    /// starts.
    fn offsets(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for packet in [v4(), v6(&[])] {
            for headroom in [1, 2, 255, 256, 4000] {
                reported(&mut tool, &Packet { headroom, ..packet.clone() }, packet.event);
                let unset = Packet { headroom, network_header: false, ..packet.clone() };
                reported(&mut tool, &unset, packet.event);
            }
            reported(&mut tool, &Packet { headroom: 0, network_header: false, ..packet.clone() }, packet.event);
        }
        // The end may lie farther than two bytes count.
        for packet in [v4(), v6(&[extension(0, 8)])] {
            let mut long = packet.clone();
            long.bytes.resize(65536, 0);
            reported(&mut tool, &long, packet.event);
        }
        // Options make the header longer.
        let Spec { laddr, lport, raddr, rport, .. } = Spec::V4;
        for words in 0..=10 {
            let packet = Packet::ipv4((raddr, rport), (laddr, lport), &vec![0xee; words * 4]);
            reported(&mut tool, &packet, packet.event);
        }
        // A header that says that it is longer than the packet.
        reported(&mut tool, &v4().with(0, &[0x4f]), v4().headless().event);
    }

    /// Only the first fragment has the TCP header.
    fn fragments(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for first in [[0, 0], [0x20, 0], [0x40, 0], [0x80, 0], [0xe0, 0]] {
            reported(&mut tool, &v4().with(6, &first), v4().event);
        }
        for later in [[0, 1], [0x20, 1], [0x01, 0], [0x1f, 0xff], [0x10, 0]] {
            reported(&mut tool, &v4().with(6, &later), v4().headless().event);
        }
        let fragment = |offset: [u8; 2]| {
            let (kind, mut bytes) = extension(44, 8);
            bytes[2..4].copy_from_slice(&offset);
            v6(&[(kind, bytes)])
        };
        for first in [[0, 0], [0, 1], [0, 7]] {
            reported(&mut tool, &fragment(first), v6(&[]).event);
        }
        for later in [[0, 8], [1, 0], [0x80, 0], [0xff, 0xf8]] {
            reported(&mut tool, &fragment(later), v6(&[]).headless().event);
            ignored(&mut tool, &fragment(later).with(40, &[17]));
        }
    }

    /// Extension headers are walked over, four of them.
    fn extensions(lab) in [Narrow, Wide] {
        let mut tool = lab.tcpdrop(&unfiltered(lab));
        for kind in [0, 43, 60] {
            for len in [8, 16, 264, 2048] {
                reported(&mut tool, &v6(&[extension(kind, len)]), v6(&[]).event);
            }
        }
        for len in [12, 16, 24, 28] {
            reported(&mut tool, &v6(&[extension(51, len)]), v6(&[]).event);
        }
        let all = [extension(0, 8), extension(60, 24), extension(43, 16), extension(44, 8), extension(51, 24)];
        for count in 0..=4 {
            reported(&mut tool, &v6(&all[..count]), v6(&[]).event);
            reported(&mut tool, &v6(&all[5 - count..]), v6(&[]).event);
        }
        ignored(&mut tool, &v6(&all));
        // Each kind at each place, whole and cut short.
        for before in 0..4 {
            for (kind, len) in [(0, 16), (43, 24), (60, 8), (44, 8), (51, 12)] {
                let mut walk = vec![extension(0, 8); before];
                walk.push(extension(kind, len));
                let packet = v6(&walk);
                reported(&mut tool, &packet, v6(&[]).event);
                let end = 40 + 8 * before;
                ignored(&mut tool, &packet.clone().with(end, &[17]));
                for there in [end, end + 7] {
                    ignored(&mut tool, &Packet { missing: packet.bytes.len() - there, ..packet.clone() });
                }
                let there = Packet { missing: packet.bytes.len() - end - 8, ..packet.clone() };
                reported(&mut tool, &there, v6(&[]).headless().event);
                if kind == 44 {
                    let later = packet.with(end + 2, &[1, 0]);
                    reported(&mut tool, &later, v6(&[]).headless().event);
                    ignored(&mut tool, &later.with(end, &[17]));
                }
            }
        }
        // What follows is not TCP.
        ignored(&mut tool, &v6(&all[..1]).with(40, &[17]));
        ignored(&mut tool, &v6(&all[..4]).with(40 + 8 + 24 + 16, &[17]));
    }
}
