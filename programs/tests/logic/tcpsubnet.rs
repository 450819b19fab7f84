//! tcpsubnet: which subnet bytes are counted for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bpfasm::{Access, Object, Ring};
use ipnet::IpNet;
use programs::filter::Filter;
use programs::tcpsubnet::{self, MAP, MAX_COMPARED, Options};
use programs::{stream, trie};

use crate::golden;
use crate::lab::fate::{AGGREGATED, FILTERED, NOTHING};
use crate::lab::state::*;
use crate::lab::{Lab, Set, cases};
use crate::owner::BEFORE_6_3;
use crate::spec::{OTHER, OTHERS, OWNER, Spec};
use crate::specimens::{AttachKind, Specimen, Tracepoint, fitting};
use crate::streams::{RELEASES, Streams, UNTRACKED};
use crate::tool::Tool;

/// What the tests of every tool know of it.
pub const SPECIMEN: Specimen = Specimen {
    name: "tcpsubnet",
    object: |lab, filter, target| {
        let options = Options { filter: filter.clone(), ..lab.subnets(HOLDING) };
        tcpsubnet::object(&options, target).expect("links")
    },
    every: |filter, target, _| {
        let some = nets(HOLDING);
        let all = nets(&["0.0.0.0/0", "::/0"]);
        let six = nets(&["2001:db8::/32", "::/0"]);
        [some.clone(), all, six, many(&some)]
            .map(|subnets| Options { filter: filter.clone(), subnets, max_sockets: 1 << 20 })
            .map(|options| tcpsubnet::object(&options, target).expect("links"))
            .into()
    },
    golden,
    cases: &[CASES],
    reports: None,
    events: &[],
    entry: Some(stream::Entry::LAYOUT),
    fields: &[
        "bpf_iter__task_file.file",
        "bpf_iter__task_file.task",
        "file.f_inode",
        "file.private_data",
        "inet_sock.inet_sport",
        "inode.i_mode",
        "sock.sk_protocol",
        "sock.sk_shutdown",
        "sock.sk_type",
        "sock_common.skc_daddr",
        "sock_common.skc_dport",
        "sock_common.skc_family",
        "sock_common.skc_flags",
        "sock_common.skc_state",
        "sock_common.skc_v6_daddr",
        "sock_common.skc_v6_rcv_saddr",
        "socket.sk",
        "tcp_sock.bytes_acked",
        "tcp_sock.bytes_received",
        "tcp_sock.copied_seq",
        "tcp_sock.rcv_nxt",
        "tcp_sock.snd_una",
        "tcp_sock.write_seq",
    ],
    registers: &["di"],
    optional: &[],
    tracepoints: &[
        Tracepoint { name: "inet_sock_set_state", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "tcp_destroy_sock", first: Some("sock"), lacking: &[] },
        Tracepoint { name: "sock_send_length", first: Some("sock"), lacking: BEFORE_6_3 },
    ],
    attach_kinds: |target| {
        fitting(
            &[AttachKind::TpBtf, AttachKind::RawTp, AttachKind::Fentry, AttachKind::Kprobe, AttachKind::Iter],
            target,
        )
    },
    wanted: &[],
    mutate: false,
};

/// Subnets that contain the addresses of [`Spec`], each more than once, and some that do not.
const HOLDING: &[&str] = &[
    "198.51.100.0/27",
    "2001:db8:1::/49",
    "198.51.100.32/28",
    "198.51.100.44/32",
    "2001:db8:1:2:3:4:5:6/128",
    "198.0.0.0/8",
    "2001:db8::/32",
    "10.0.0.0/8",
];

fn golden() -> Vec<(&'static str, Object)> {
    let typed = golden::target(Access::Typed, Ring::RingBuf);
    let probed = golden::target(Access::Probed, Ring::RingBuf);
    let object = |subnets, filter, target| {
        let options = Options { filter, subnets, max_sockets: 16384 };
        tcpsubnet::object(&options, target).expect("links")
    };
    let some = nets(&["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"]);
    vec![
        ("tcpsubnet-typed", object(some.clone(), Filter::default(), &typed)),
        ("tcpsubnet-filtered-probed", object(some.clone(), golden::filter(), &probed)),
        ("tcpsubnet-many-typed", object(many(&some), Filter::default(), &typed)),
    ]
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a subnet")).collect()
}

/// The same, and behind them enough others for the program to look them up in a map.
fn many(subnets: &[IpNet]) -> Vec<IpNet> {
    let others = (0..=u8::MAX).map(|last| format!("172.16.9.{last}/32").parse().expect("a subnet"));
    subnets.iter().copied().chain(others.take(MAX_COMPARED)).collect()
}

impl Lab {
    /// tcpsubnet's options of this set.
    fn subnets(&self, texts: &[&str]) -> Options {
        let few = nets(texts);
        let subnets = if self.set == Set::Wide { many(&few) } else { few };
        Options { filter: self.filter(), subnets, max_sockets: 2 }
    }

    /// tcpsubnet at work, with its tries filled.
    fn tcpsubnet(&self, options: &Options) -> Tool<'_> {
        let mut tool = self.tool(&format!("tcpsubnet {options:?}"), |target| {
            tcpsubnet::object(options, target).expect("links")
        });
        if options.subnets.len() > MAX_COMPARED {
            for (map, key, value) in trie::entries(&options.subnets) {
                tool.machine().insert(map, &key, &value);
            }
        }
        tool
    }
}

/// The counters that are not 0, by number.
fn counted(tool: &mut Tool<'_>) -> Vec<(u32, u64)> {
    let values = tool.machine().values(MAP).map(|(key, value)| {
        let key = key.try_into().map(u32::from_ne_bytes).expect("four bytes");
        (key, value.try_into().map(u64::from_ne_bytes).expect("eight bytes"))
    });
    values.filter(|(_, bytes)| *bytes != 0).collect()
}

cases! {
    /// Bytes belong to the first subnet that contains the remote address, in the order of the
    /// command line, whether the subnets are compared one by one or looked up.
    fn first_that_holds(lab) in [Narrow, Wide, Filtered, Six] {
        for spec in lab.specs() {
            let mut tool = lab.tcpsubnet(&lab.subnets(HOLDING));
            let sock = tool.sock(&spec);
            assert_eq!(tool.sends(OWNER, sock, 5), AGGREGATED);
            assert_eq!(tool.sends(OWNER, sock, 7), AGGREGATED);
            let number = if spec == Spec::V6 { 1 } else { 2 };
            assert_eq!(counted(&mut tool), [(number, 12)], "{spec:?}");
        }
    }

    /// The first and last address of each subnet belong to it, or to one before it, and their
    /// neighbours outside do not, whichever hook counts the bytes.
    fn ends_of_each(lab) in [Narrow, Wide, Filtered, Six] {
        let nets = nets(HOLDING);
        let mut addresses = Vec::new();
        for net in &nets {
            match net {
                IpNet::V4(net) => {
                    let ends = [net.network(), net.broadcast()].map(u32::from);
                    for end in [ends[0], ends[1], ends[0] - 1, ends[1] + 1] {
                        addresses.extend([IpAddr::from(Ipv4Addr::from(end)), Ipv4Addr::from(end).to_ipv6_mapped().into()]);
                    }
                }
                IpNet::V6(net) => {
                    let ends = [net.network(), net.broadcast()].map(u128::from);
                    let near = [ends[0], ends[1], ends[0] - 1, ends[1] + 1, ends[0] ^ 1 << 64, ends[0] ^ 1 << 127];
                    addresses.extend(near.map(|end| IpAddr::from(Ipv6Addr::from(end))));
                }
            }
        }
        for release in ["", RELEASES[0], RELEASES[1]] {
            let mut tool = lab.tcpsubnet(&lab.subnets(HOLDING));
            let mut expected = BTreeMap::new();
            for (bytes, address) in (1_i16..).zip(&addresses) {
                let spec = to(*address);
                let sock = tool.sock(&spec);
                let canonical = address.to_canonical();
                let number = nets.iter().position(|net| net.contains(&canonical));
                let is_six = canonical.is_ipv6();
                let wanted = match lab.set { Set::Filtered => !is_six, Set::Six => is_six, _ => true };
                let fate = if release.is_empty() {
                    tool.sends(OWNER, sock, i32::from(bytes))
                } else {
                    tool.call(1, OWNER, sock, LISTEN, SYN_RECV);
                    tool.streams(sock, Streams { written: u64::from(bytes.cast_unsigned()), ..Streams::default() });
                    tool.set_sock(sock, "sock_common.skc_state", ESTABLISHED.0.into());
                    tool.releases(release, OWNER, sock)
                };
                tool.destroy(sock);
                match number.filter(|_| wanted) {
                    Some(number) => {
                        assert_eq!(fate, AGGREGATED, "{address}");
                        *expected.entry(u32::try_from(number).expect("few")).or_default() += u64::from(bytes.cast_unsigned());
                    }
                    None => assert_eq!(fate, FILTERED, "{address}"),
                }
                assert_eq!(counted(&mut tool), expected.clone().into_iter().collect::<Vec<_>>(), "{address}");
            }
        }
    }

    /// A wider subnet that is named first gets the bytes, and the /0 of a family contains that
    /// family alone.
    fn order(lab) in [Narrow, Wide] {
        for (texts, four, six) in [
            (&["198.0.0.0/8", "198.51.100.44/32", "2001:db8::/32", "2001:db8:1::/48"][..], Some(0), Some(2)),
            (&["198.51.100.44/32", "198.0.0.0/8", "2001:db8:1::/48", "2001:db8::/32"], Some(0), Some(2)),
            (&["10.0.0.0/8", "0.0.0.0/0", "198.51.100.44/32"], Some(1), None),
            (&["::/0", "2001:db8::/32"], None, Some(0)),
            (&["::ffff:198.51.100.0/120", "::1/128", "2001:db8:1:2::/64"], Some(0), Some(2)),
            (&["0.0.0.0/0", "::/0"], Some(0), Some(1)),
            (&["198.51.100.45/32", "2001:db8:1:2:3:4:5:7/128"], None, None),
            (&["198.51.100.44/30", "2001:db8:1:2:3:4:5:4/126"], Some(0), Some(1)),
        ] {
            let mut tool = lab.tcpsubnet(&lab.subnets(texts));
            for (spec, number) in [(Spec::V4, four), (Spec::V6, six), (Spec::MAPPED, four)] {
                let before = number.map_or(0, |number| u64_at(&mut tool, number));
                let sock = tool.sock(&spec);
                let fate = if number.is_some() { AGGREGATED } else { FILTERED };
                assert_eq!(tool.sends(OWNER, sock, 9), fate, "{texts:?} {spec:?}");
                if let Some(number) = number {
                    assert_eq!(u64_at(&mut tool, number), before + 9, "{texts:?} {spec:?}");
                }
            }
        }
    }

    /// Errors and empty calls send nothing; other sockets are none of the tool's business.
    fn nothing(lab) in [Narrow, Wide, Filtered, Six] {
        let mut tool = lab.tcpsubnet(&lab.subnets(HOLDING));
        let sock = tool.sock(&lab.spec());
        for result in [0, -1, -32, i32::MIN] {
            assert_eq!(tool.sends(OWNER, sock, result), NOTHING);
        }
        let others = OTHERS.iter().map(|&(family, protocol)| Spec { family, protocol, ..lab.spec() });
        for spec in others.chain([Spec { kind: 3, ..lab.spec() }]) {
            let sock = tool.sock(&spec);
            assert_eq!(tool.sends(OWNER, sock, 5), NOTHING, "{spec:?}");
        }
        assert_eq!(counted(&mut tool), []);
        assert_eq!(tool.sends(OWNER, sock, i32::MAX), AGGREGATED);
    }

    /// Only what is wanted, by the process that sends and by the socket.
    fn filtered(lab) in [Filtered, Six] {
        let mut tool = lab.tcpsubnet(&lab.subnets(HOLDING));
        let other = if lab.set == Set::Filtered { FILTERED } else { AGGREGATED };
        let sock = tool.sock(&lab.spec());
        assert_eq!(tool.sends(OTHER, sock, 5), other);
        let sock = tool.sock(&Spec { lport: lab.spec().lport + 1, ..lab.spec() });
        assert_eq!(tool.sends(OWNER, sock, 5), FILTERED);
    }

    /// Before the tracepoint, the same is seen when a socket's lock is given back.
    fn released(lab) in [Narrow, Wide, Filtered, Six] {
        for release in RELEASES {
            let mut tool = lab.tcpsubnet(&lab.subnets(HOLDING));
            let sock = tool.sock(&lab.spec());
            tool.call(1, OWNER, sock, CLOSE, SYN_SENT);
            let mut streams = Streams { syn: 1, ..Streams::default() };
            tool.streams(sock, streams);
            assert_eq!(tool.releases(release, OWNER, sock), NOTHING);
            tool.softirq(2, sock, SYN_SENT, ESTABLISHED);
            streams.written = 1 << 32;
            tool.streams(sock, streams);
            // Unacknowledged bytes are never this many, but acknowledged ones may be.
            streams.acked = (1 << 32) - 5;
            tool.streams(sock, streams);
            assert_eq!(tool.releases(release, OWNER, sock), AGGREGATED);
            let number = if lab.spec() == Spec::V6 { 1 } else { 2 };
            assert_eq!(counted(&mut tool), [(number, 1 << 32)]);
            for (path, value) in [
                ("sock_common.skc_state", CLOSE.0),
                ("sock_common.skc_state", LISTEN.0),
                ("sock.sk_shutdown", 2),
                ("sock.sk_shutdown", 3),
            ] {
                let before = tool.get_sock(sock, path);
                tool.set_sock(sock, path, value.into());
                streams.written += 1;
                tool.streams(sock, streams);
                assert_eq!(tool.releases(release, OWNER, sock), NOTHING, "{path} {value}");
                tool.set_sock(sock, path, before);
            }
            tool.set_sock(sock, "sock.sk_shutdown", 1);
            assert_eq!(tool.releases(release, OWNER, sock), AGGREGATED);
            assert_eq!(counted(&mut tool), [(number, (1 << 32) + 4)]);
            tool.destroy(sock);
            streams.fin = true;
            streams.received = 1 << 33;
            tool.streams(sock, streams);
            assert_eq!(tool.releases(release, OWNER, sock), UNTRACKED);
            let entry = tool.entry(sock).and_then(|bytes| stream::Entry::decode(&bytes));
            assert_eq!(entry, Some(stream::Entry { read: 1 << 33, written: streams.written + 1 }));
        }
    }
}

/// A socket that talks to this address.
fn to(address: IpAddr) -> Spec {
    let mut raddr = [0; 16];
    match address {
        IpAddr::V4(address) => raddr[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => raddr = address.octets(),
    }
    Spec { raddr, ..if address.is_ipv4() { Spec::V4 } else { Spec::V6 } }
}

fn u64_at(tool: &mut Tool<'_>, number: u32) -> u64 {
    let counted = counted(tool);
    counted.iter().find(|(at, _)| *at == number).map_or(0, |(_, bytes)| *bytes)
}
