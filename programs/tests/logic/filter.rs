//! Which sockets a filter lets through: everything it names, and nothing next to it.

use bpfasm::{Access, Ring};
use ipnet::IpNet;
use programs::cgroup::MAX_DEPTH;
use programs::filter::{Family, Filter, MAX_PORTS, MAX_SUBNETS};

use crate::complete::{Extent, Sweep};
use crate::lab::{Lab, Set, cases};
use crate::spec::{OTHER, OWNER, Spec};
use crate::specimens::reporting;
use crate::tcpstates;
use crate::tool::Tool;
use crate::vm::kernel::Kernel;

/// Checks with every tool that exactly the wanted ones of these sockets are reported.
fn check(lab: &Lab, filter: &Filter, sockets: impl IntoIterator<Item = (Spec, bool)>) {
    let mut tools: Vec<_> = reporting(lab)
        .map(|(specimen, reports)| (specimen.name, specimen.tool(lab, filter), reports))
        .collect();
    for (spec, wanted) in sockets {
        for (name, tool, reports) in &mut tools {
            let reported = reports(tool, &spec);
            assert_eq!(reported, wanted, "{name} {filter:?}: {spec:?}");
            assert_eq!(tool.sent().len(), usize::from(reported), "{name} {filter:?}: {spec:?}");
        }
    }
}

/// A filter for these subnets.
fn in_subnets(subnets: &[&str]) -> Filter {
    let net = |text: &&str| text.parse::<IpNet>().expect("a subnet");
    Filter { subnets: subnets.iter().map(net).collect(), ..Filter::default() }
}

/// The socket with another remote address.
fn with_remote(spec: &Spec, raddr: &str) -> Spec {
    let mut bytes = [0; 16];
    match raddr.parse().expect("an address") {
        std::net::IpAddr::V4(four) => bytes[..4].copy_from_slice(&four.octets()),
        std::net::IpAddr::V6(six) => bytes = six.octets(),
    }
    Spec { raddr: bytes, ..spec.clone() }
}

/// The socket with its endpoints exchanged.
fn turned(spec: &Spec) -> Spec {
    Spec { laddr: spec.raddr, raddr: spec.laddr, ..spec.clone() }
}

/// The address with the bit of this number turned over, counted from its first.
fn flipped(mut address: [u8; 16], bit: usize) -> [u8; 16] {
    address[bit / 8] ^= 0x80 >> (bit % 8);
    address
}

/// Subnets of prefixes of up to this many bits that an address of the socket's has, whose first bit
/// is the `skip`th: the socket is in each, is not when the last bit of the prefix is another, and
/// is when the one after it is. So it is for either end.
fn prefixes(lab: &Lab, spec: &Spec, skip: usize, bits: usize, subnet: impl Fn(usize) -> String) {
    // The other address has no bit in common, so that it is in no subnet but the one of all
    // addresses.
    let mut spec = spec.clone();
    for byte in skip / 8..(skip + bits) / 8 {
        spec.laddr[byte] = !spec.raddr[byte];
    }
    // At the ends of bytes and beside them: each half, and each byte of it, meets its mask.
    for prefix in (0..=bits).filter(|prefix| matches!(prefix % 8, 0 | 1 | 7)) {
        let mut sockets = vec![(spec.clone(), true)];
        for (bit, wanted) in [(prefix.checked_sub(1), false), (Some(prefix).filter(|bit| *bit < bits), true)]
        {
            let Some(bit) = bit else { continue };
            sockets.push((Spec { raddr: flipped(spec.raddr, skip + bit), ..spec.clone() }, wanted));
        }
        let other_end: Vec<_> = sockets.iter().map(|(spec, wanted)| (turned(spec), *wanted)).collect();
        check(lab, &in_subnets(&[&subnet(prefix)]), sockets.into_iter().chain(other_end));
    }
}

/// `count` ports with gaps between them, whose order on the wire is not their order.
fn ports(count: usize) -> Vec<u16> {
    (0..count).map(|at| u16::try_from(at * 61 + 258).expect("fewer than 1070")).collect()
}

/// Ports to try against `ports`: each of them, and each one's neighbours in its own order and in
/// that of the wire.
fn around(ports: &[u16]) -> Vec<u16> {
    // All of many ports would take long; the ends and a part of the middle meet every level of the
    // tree.
    let step = (ports.len() / 37).max(1);
    let mut all = vec![0, 1, u16::MAX];
    for (at, port) in ports.iter().enumerate() {
        all.push(*port);
        if at % step == 0 || at + 1 == ports.len() {
            let swapped = port.swap_bytes();
            all.extend([port.wrapping_sub(1), port.wrapping_add(1), swapped]);
            all.extend([swapped.wrapping_sub(1).swap_bytes(), swapped.wrapping_add(1).swap_bytes()]);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

cases! {
    /// Each of the addresses' families, by what is on the wire.
    fn families(lab) in [Narrow] {
        // Almost mapped: one bit of the prefix is another.
        let mut near = [Spec::MAPPED, Spec::MAPPED, Spec::MAPPED, Spec::MAPPED];
        near[0].raddr[0] = 0x80;
        near[1].raddr[7] = 1;
        near[2].raddr[9] = 1;
        near[3].raddr[11] = 0xfe;
        // Only the remote address counts: a socket bound to :: may talk to either.
        let mut unbound = Spec::MAPPED;
        unbound.laddr = [0; 16];
        let six = [Spec::V6].into_iter().chain(near);
        let four = [Spec::V4, Spec::MAPPED, unbound];
        for (family, is_six) in [(Family::V4, false), (Family::V6, true)] {
            let filter = Filter { family: Some(family), ..Filter::default() };
            check(lab, &filter, six.clone().map(|spec| (spec, is_six)));
            check(lab, &filter, four.clone().map(|spec| (spec, !is_six)));
        }
    }

    /// A local port is not a remote one.
    fn ports_of_one_side(lab) in [Narrow] {
        let local = Filter { local_ports: vec![Spec::V4.lport], ..Filter::default() };
        let remote = Filter { remote_ports: vec![Spec::V4.rport], ..Filter::default() };
        let turned = Spec { lport: Spec::V4.rport, rport: Spec::V4.lport, ..Spec::V4 };
        for filter in [local, remote] {
            check(lab, &filter, [(Spec::V4, true), (turned.clone(), false)]);
        }
    }

    /// Of several filters each must let a socket through.
    fn all_at_once(lab) in [Filtered, Six] {
        let spec = lab.spec();
        let other_family = if spec == Spec::V4 { Spec::V6 } else { Spec::V4 };
        let wrong_local = Spec { lport: spec.lport + 1, ..spec.clone() };
        let wrong_remote = Spec { rport: spec.rport + 1, ..spec.clone() };
        let remote_matters = !lab.filter().remote_ports.is_empty();
        check(lab, &lab.filter(), [
            (spec, true),
            (other_family, false),
            (wrong_local, false),
            (wrong_remote, !remote_matters),
        ]);
        for lport in lab.filter().local_ports {
            check(lab, &lab.filter(), [(Spec { lport, ..lab.spec() }, true)]);
            check(lab, &lab.filter(), [(Spec { lport: lport + 1, ..lab.spec() }, false)]);
            check(lab, &lab.filter(), [(Spec { lport: lport - 1, ..lab.spec() }, false)]);
        }
        for rport in lab.filter().remote_ports {
            check(lab, &lab.filter(), [(Spec { rport, ..lab.spec() }, true)]);
            // Near it in host order, and on the wire.
            for near in [rport.wrapping_add(2), rport.wrapping_sub(256)] {
                let wanted = lab.filter().remote_ports.contains(&near);
                check(lab, &lab.filter(), [(Spec { rport: near, ..lab.spec() }, wanted)]);
            }
        }
    }

    /// A mapped address is IPv4 in every set, and only there.
    fn mapped(lab) in [Filtered, Six] {
        let four = lab.filter().family == Some(Family::V4);
        let mut near = [Spec::MAPPED, Spec::MAPPED, Spec::MAPPED];
        near[0].raddr[0] = 1;
        near[1].raddr[7] = 1;
        near[2].raddr[8] = 1;
        check(lab, &lab.filter(), [(Spec::MAPPED, four)]);
        check(lab, &lab.filter(), near.map(|spec| (spec, !four)));
    }

    /// Addresses of either end, in one of several subnets, by what is on the wire; bits beyond the
    /// prefix do not count.
    fn subnets(lab) in [Narrow] {
        let filter = in_subnets(&["10.0.0.0/8", "198.51.100.77/25", "2001:db8:1:2:ffff::/64", "::ffff:203.0.113.0/121"]);
        for (raddr, wanted) in [
            ("198.51.100.0", true),
            ("198.51.100.127", true),
            ("198.51.100.128", false),
            ("198.51.99.255", false),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("203.0.113.127", true),
            ("203.0.113.128", false),
            ("0.0.0.0", false),
        ] {
            let four = with_remote(&Spec::V4, raddr);
            let mapped = with_remote(&Spec::MAPPED, &format!("::ffff:{raddr}"));
            // The same last bytes, and nothing else in common.
            let six = with_remote(&Spec::V6, &format!("2001:db8::{raddr}"));
            let all = [(four, wanted), (mapped, wanted), (six, false)];
            check(lab, &filter, all.clone());
            check(lab, &filter, all.map(|(spec, wanted)| (turned(&spec), wanted)));
        }
        for (raddr, wanted) in [
            ("2001:db8:1:2::", true),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:1:ffff:ffff:ffff:ffff", false),
            ("2001:db8:1:3::", false),
            ("::", false),
        ] {
            let six = with_remote(&Spec::V6, raddr);
            check(lab, &filter, [(six.clone(), wanted), (turned(&six), wanted)]);
        }
    }

    /// All of one family: a mapped address is IPv4, and no IPv6 subnet contains it.
    fn subnets_of_everything(lab) in [Narrow] {
        for (subnet, four, six) in [
            ("0.0.0.0/0", true, false),
            ("::ffff:0:0/96", true, false),
            ("::/0", false, true),
            ("::/1", false, true),
            ("::fffe:0:0/95", false, false),
        ] {
            check(lab, &in_subnets(&[subnet]), [(Spec::V4, four), (Spec::MAPPED, four), (Spec::V6, six)]);
        }
        check(lab, &in_subnets(&["0.0.0.0/0", "2001:db8::/32", "10.0.0.0/8"]), [
            (Spec::V4, true),
            (Spec::MAPPED, true),
            (Spec::V6, true),
            (with_remote(&Spec { laddr: [0xfe; 16], ..Spec::V6 }, "2001:db9::"), false),
        ]);
    }

    /// The network namespace's whole number.
    fn netns(lab) in [Narrow] {
        let filter = Filter { netns: Some(Spec::V4.netns), ..Filter::default() };
        let near = [1, 1 << 8, 1 << 16, 1 << 31].map(|bit| (Spec { netns: Spec::V4.netns ^ bit, ..Spec::V4 }, false));
        check(lab, &filter, [(Spec::V4, true), (Spec::V6, true), (Spec { netns: 0, ..Spec::V4 }, false)]);
        check(lab, &filter, near);
    }

    /// A socket's cgroup, or one that it lies in; as deep as the programs look.
    fn cgroups(lab) in [Narrow] {
        const ID: u64 = 0x0102_0304_0506_0708;
        let wanted_at = |tool: &mut Tool<'_>, depth: usize, id: u64| {
            // Something above the wanted one, which must not be needed.
            let mut cgroup = tool.cgroup(1, 0);
            cgroup = tool.cgroup(id, cgroup);
            for below in 0..depth {
                cgroup = tool.cgroup(0x7000 + below as u64, cgroup);
            }
            cgroup
        };
        for (specimen, reports) in reporting(lab) {
            let filter = Filter { cgroup: Some(ID), ..Filter::default() };
            let mut tool = specimen.tool(lab, &filter);
            let name = specimen.name;
            for (depth, wanted) in (0..=MAX_DEPTH).map(|depth| (depth, true)).chain([(MAX_DEPTH + 1, false)]) {
                tool.cgroup = wanted_at(&mut tool, depth, ID);
                for spec in [Spec::V4, Spec::V6] {
                    assert_eq!(reports(&mut tool, &spec), wanted, "{name}: {depth} below");
                }
                tool.sent();
            }
            // Other numbers, however little they differ; and the root, above which there is
            // nothing.
            for id in [ID ^ 1, ID ^ 1 << 32, ID ^ 1 << 63, 0] {
                for depth in [0, 1, MAX_DEPTH - 1] {
                    tool.cgroup = wanted_at(&mut tool, depth, id);
                    assert!(!reports(&mut tool, &Spec::V4), "{name}: {id:#x}, {depth} below");
                }
            }
            // No cgroup; a class of version 1, as before 5.15, even if the number beside it looks
            // like the wanted one; memory that cannot be read.
            let inside = wanted_at(&mut tool, 0, ID);
            for other in [0, 1, inside | 1, inside + (1 << 40)] {
                tool.cgroup = other;
                assert!(!reports(&mut tool, &Spec::V4), "{name}: {other:#x}");
            }
            tool.cgroup = inside;
            assert!(reports(&mut tool, &Spec::V4), "{name}");
        }
    }

    /// Only the wanted process, by its number in the initial namespace.
    fn pid(lab) in [Filtered] {
        for pid in [OWNER.tgid, OTHER.tgid, OWNER.tid, OWNER.tgid + 1, 0] {
            let filter = Filter { pid: Some(pid), ..lab.filter() };
            check(lab, &filter, [(lab.spec(), pid == OWNER.tgid)]);
        }
    }
}

/// Both accesses to sockets, on one kernel: what a search decides does not depend on where fields
/// lie, and there is much to try.
fn labs(extent: Extent) -> Vec<Lab> {
    let accesses: &[_] = match extent {
        Extent::Sample => &[Access::Probed],
        Extent::Complete => &[Access::Typed, Access::Probed],
    };
    let lab = |access: &_| Lab::new(Kernel::named("6.18-x86_64"), *access, Ring::RingBuf, Set::Narrow);
    accesses.iter().map(lab).collect()
}

/// Numbers of ports whose trees have different shapes.
fn counts(extent: Extent) -> &'static [usize] {
    match extent {
        Extent::Sample => &[5],
        Extent::Complete => &[1, 2, 4, 5, 9, 64],
    }
}

/// Local ports: each one named, and none beside it; however many.
fn local_ports(extent: Extent) {
    for lab in labs(extent) {
        for &count in counts(extent) {
            let ports = ports(count);
            let filter = Filter { local_ports: ports.clone(), ..Filter::default() };
            let around = around(&ports).into_iter();
            check(&lab, &filter, around.map(|lport| (Spec { lport, ..Spec::V4 }, ports.contains(&lport))));
        }
    }
}

/// Remote ports likewise; the order in which they are named does not matter, nor how often.
fn remote_ports(extent: Extent) {
    for lab in labs(extent) {
        for &count in counts(extent) {
            let mut ports = ports(count);
            ports.reverse();
            ports.push(ports[0]);
            let filter = Filter { remote_ports: ports.clone(), ..Filter::default() };
            let around = around(&ports).into_iter();
            check(&lab, &filter, around.map(|rport| (Spec { rport, ..Spec::V4 }, ports.contains(&rport))));
        }
    }
}

/// IPv4 subnets of every size, also where the socket is of `AF_INET6`.
fn ipv4_prefixes(extent: Extent) {
    for lab in labs(extent) {
        for (spec, skip) in [(Spec::V4, 0), (Spec::MAPPED, 96)] {
            prefixes(&lab, &spec, skip, 32, |prefix| format!("198.51.100.44/{prefix}"));
        }
    }
}

/// And IPv6 subnets.
fn ipv6_prefixes(extent: Extent) {
    for lab in labs(extent) {
        prefixes(&lab, &Spec::V6, 0, 128, |prefix| format!("2001:db8:1:2:3:4:5:6/{prefix}"));
    }
}

/// The most subnets there may be: what is in any one of them is let through, and nothing else.
fn as_many_subnets_as_there_may_be(extent: Extent) {
    for lab in labs(extent) {
        let number = |at: usize| u8::try_from(at).expect("64 at most");
        let subnets: Vec<String> = (0..MAX_SUBNETS)
            .map(|at| match at % 2 {
                0 => format!("100.{}.0.0/16", number(at)),
                _ => format!("2001:db8:{at:x}::/48"),
            })
            .collect();
        let filter = in_subnets(&subnets.iter().map(String::as_str).collect::<Vec<_>>());
        let away = |spec: Spec| Spec { laddr: [0xee; 16], ..spec };
        let sockets = (0..=MAX_SUBNETS).flat_map(|at| {
            let four = with_remote(&away(Spec::V4), &format!("100.{}.255.1", number(at)));
            let six = with_remote(&away(Spec::V6), &format!("2001:db8:{at:x}:ffff::1"));
            [(four, at % 2 == 0 && at < MAX_SUBNETS), (six, at % 2 == 1)]
        });
        check(&lab, &filter, sockets);
    }
}

/// The most ports there may be, on both sides at once: each one is let through, and none beside it.
fn as_many_ports_as_there_may_be(extent: Extent) {
    let lab = labs(extent).pop().expect("the probed one");
    let ports = ports(MAX_PORTS);
    let filter = Filter { local_ports: ports.clone(), remote_ports: ports.clone(), ..Filter::default() };
    let mut tool = tcpstates::SPECIMEN.tool(&lab, &filter);
    for port in around(&ports) {
        let both = [(port, ports[0]), (ports[0], port)];
        for (lport, rport) in both {
            let reported = tcpstates::reports(&mut tool, &Spec { lport, rport, ..Spec::V4 });
            assert_eq!(reported, ports.contains(&port), "{lport}, {rport}");
        }
    }
}

pub const SWEEPS: &[Sweep] = &[
    ("filter: local ports", local_ports),
    ("filter: remote ports", remote_ports),
    ("filter: ipv4 prefixes", ipv4_prefixes),
    ("filter: ipv6 prefixes", ipv6_prefixes),
    ("filter: as many subnets as there may be", as_many_subnets_as_there_may_be),
    ("filter: as many ports as there may be", as_many_ports_as_there_may_be),
];

#[test]
fn small_sweeps() {
    for (name, sweep) in SWEEPS {
        println!("{name}");
        sweep(Extent::Sample);
    }
}
