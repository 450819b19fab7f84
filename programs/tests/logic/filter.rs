//! Which sockets a command line wants: everything it names, and nothing next to it.

use bpfasm::{Access, Ring};
use programs::filter::{Family, Filter, MAX_PORTS};

use crate::lab::{Lab, Set, cases};
use crate::spec::{OTHER, OWNER, Spec};
use crate::specimens::telling;
use crate::tcpstates;
use crate::vm::kernel::Kernel;

/// Checks with every tool that of these sockets exactly the wanted ones are told.
fn check(lab: &Lab, filter: &Filter, sockets: impl IntoIterator<Item = (Spec, bool)>) {
    let mut tools: Vec<_> =
        telling(lab).map(|(specimen, tells)| (specimen.name, specimen.tool(lab, filter), tells)).collect();
    for (spec, wanted) in sockets {
        for (name, tool, tells) in &mut tools {
            let told = tells(tool, &spec);
            assert_eq!(told, wanted, "{name} {filter:?}: {spec:?}");
            assert_eq!(tool.sent().len(), usize::from(told), "{name} {filter:?}: {spec:?}");
        }
    }
}

/// `count` ports with gaps between them, whose order on the wire is not their order.
fn ports(count: usize) -> Vec<u16> {
    (0..count).map(|at| u16::try_from(at * 61 + 258).expect("fewer than 1070")).collect()
}

/// Ports to try against `ports`: each of them, and each one's neighbours in its own order and in that of the wire.
fn around(ports: &[u16]) -> Vec<u16> {
    // All of many ports would take long; the ends and a part of the middle meet every level of the tree.
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

    /// Only the wanted process, by its number in the initial namespace.
    fn pid(lab) in [Filtered] {
        for pid in [OWNER.tgid, OTHER.tgid, OWNER.tid, OWNER.tgid + 1, 0] {
            let filter = Filter { pid: Some(pid), ..lab.filter() };
            check(lab, &filter, [(lab.spec(), pid == OWNER.tgid)]);
        }
    }
}

/// Both ways to read a socket, on one kernel: what a search decides has nothing to do with where fields lie, and there is much
/// to try.
fn labs() -> [Lab; 2] {
    [Access::Typed, Access::Probed]
        .map(|access| Lab::new(Kernel::named("6.18-x86_64"), access, Ring::RingBuf, Set::Narrow))
}

/// Local ports: each one named, and none beside it; however many.
#[test]
fn local_ports() {
    for lab in labs() {
        for count in [1, 2, 4, 5, 9, 64] {
            let ports = ports(count);
            let filter = Filter { local_ports: ports.clone(), ..Filter::default() };
            let around = around(&ports).into_iter();
            check(&lab, &filter, around.map(|lport| (Spec { lport, ..Spec::V4 }, ports.contains(&lport))));
        }
    }
}

/// Remote ports likewise; the order in which they are named does not matter, nor how often.
#[test]
fn remote_ports() {
    for lab in labs() {
        for count in [1, 2, 4, 5, 9, 64] {
            let mut ports = ports(count);
            ports.reverse();
            ports.push(ports[0]);
            let filter = Filter { remote_ports: ports.clone(), ..Filter::default() };
            let around = around(&ports).into_iter();
            check(&lab, &filter, around.map(|rport| (Spec { rport, ..Spec::V4 }, ports.contains(&rport))));
        }
    }
}

/// The most ports there may be, on both sides at once: each one is let through, and none beside it.
#[test]
fn as_many_ports_as_there_may_be() {
    let [_, lab] = labs();
    let ports = ports(MAX_PORTS);
    let filter = Filter { local_ports: ports.clone(), remote_ports: ports.clone(), ..Filter::default() };
    let mut tool = tcpstates::SPECIMEN.tool(&lab, &filter);
    for port in around(&ports) {
        let both = [(port, ports[0]), (ports[0], port)];
        for (lport, rport) in both {
            let told = tcpstates::tells(&mut tool, &Spec { lport, rport, ..Spec::V4 });
            assert_eq!(told, ports.contains(&port), "{lport}, {rport}");
        }
    }
}
