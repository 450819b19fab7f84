//! Every program of every option on every kernel: it links, it resolves, nothing is read before it is written, and its structs
//! fit where they are put.

use std::collections::BTreeSet;

use bpfasm::{Access, Arch, Attach, MapKind, Object, Ring, Symbol, Target};
use btf::Lookup;
use programs::filter::{Family, Filter, MAX_PORTS};
use programs::{frame, sock, stats, table, tcplife, tcpstates};

use crate::vm::check::{backward_jump, check};
use crate::vm::kernel::{KERNELS, Kernel};

/// Every combination of what a filter may ask for, and the largest.
fn filters() -> Vec<Filter> {
    let mut filters = Vec::new();
    for pid in [None, Some(u32::MAX)] {
        for family in [None, Some(Family::V4), Some(Family::V6)] {
            for local_ports in [vec![], vec![0], vec![22, 80, 443, 8080, 65535]] {
                for remote_ports in [vec![], vec![65535]] {
                    filters.push(Filter {
                        pid,
                        family,
                        local_ports: local_ports.clone(),
                        remote_ports,
                        ..Filter::default()
                    });
                }
            }
        }
    }
    let ports: Vec<u16> =
        (1..=u16::try_from(MAX_PORTS).expect("fits")).map(|port| port.wrapping_mul(63)).collect();
    let (pid, family) = (Some(u32::MAX), Some(Family::V6));
    filters.push(Filter {
        pid,
        family,
        local_ports: ports.clone(),
        remote_ports: ports,
        ..Filter::default()
    });
    filters
}

/// Every way a kernel may take the programs, with all that it can attach.
fn targets(kernel: &Kernel) -> impl Iterator<Item = Target> {
    [Access::Typed, Access::Probed]
        .into_iter()
        .flat_map(|access| [Ring::RingBuf, Ring::PerfEventArray].map(|ring| kernel.target(access, ring)))
}

fn objects(filter: &Filter, target: &Target, ring_bytes: u32) -> Vec<Object> {
    let filter = || filter.clone();
    let mut objects = Vec::new();
    for (existing, failed) in [(false, false), (false, true), (true, false), (true, true)] {
        let options = tcplife::Options { filter: filter(), existing, failed, max_sockets: 1, ring_bytes };
        objects.push(tcplife::object(&options, target).expect("links"));
    }
    let options = tcpstates::Options { filter: filter(), max_sockets: 1 << 20, ring_bytes };
    objects.push(tcpstates::object(&options, target).expect("links"));
    objects
}

/// Every program of these objects, by what it is called.
fn programs(objects: &[Object]) -> impl Iterator<Item = (String, &Object, &bpfasm::ProgramDef)> {
    objects.iter().flat_map(|object| {
        let defs = object.hooks.iter().flat_map(|hook| &hook.rungs);
        defs.map(move |def| (format!("{}/{}", object.name, def.name), object, def))
    })
}

/// Every combination links and encodes, into no more than old kernels take.
#[test]
fn every_combination_links() {
    // Of a kernel, only its machine matters here.
    for kernel in [Kernel::named("6.18-x86_64"), Kernel::named("7.3-aarch64")] {
        for target in targets(kernel) {
            for filter in filters() {
                for (name, _, def) in programs(&objects(&filter, &target, 1 << 22)) {
                    let slots = def.program.slots().unwrap_or_else(|error| panic!("{name}: {error}")).len();
                    assert!(slots <= 4096, "{name} with {filter:?} has {slots} slots");
                }
            }
        }
    }
}

/// What a kernel cannot attach is not tried.
#[test]
fn rungs_follow_the_target() {
    let kernel = Kernel::named("6.18-x86_64");
    for target in targets(kernel) {
        for (trampolines, kprobes) in [(false, false), (false, true), (true, false), (true, true)] {
            let target = Target { trampolines, kprobes, ..target.clone() };
            for object in objects(&Filter::default(), &target, 4096) {
                let attached = |wanted: fn(&Attach) -> bool| {
                    object.hooks.iter().flat_map(|hook| &hook.rungs).any(|def| wanted(&def.attach))
                };
                assert_eq!(attached(|attach| matches!(attach, Attach::Fexit(_))), trampolines);
                assert_eq!(attached(|attach| matches!(attach, Attach::Kretprobe(_))), kprobes);
                assert_eq!(
                    attached(|attach| matches!(attach, Attach::TpBtf(_))),
                    target.access == Access::Typed
                );
                assert_eq!(
                    attached(|attach| matches!(attach, Attach::RawTp(_))),
                    target.access == Access::Probed
                );
            }
        }
    }
}

/// On every kernel every symbol resolves, and the programs read nothing that was not written.
#[test]
fn every_program_is_sound_on_every_kernel() {
    let full = Filter {
        pid: Some(1),
        family: Some(Family::V4),
        local_ports: vec![1, 2, 3, 4, 5, 6],
        remote_ports: vec![1, 2, 3, 4, 5, 6],
        ..Filter::default()
    };
    for kernel in KERNELS.iter() {
        for target in targets(kernel) {
            for filter in
                [Filter::default(), full.clone(), Filter { family: Some(Family::V6), ..Filter::default() }]
            {
                let objects = objects(&filter, &target, 4096);
                for (name, object, def) in programs(&objects) {
                    let program = loader::relocate(&def.program, &kernel.index, &object.consts)
                        .unwrap_or_else(|error| panic!("{name} on {kernel:?}: {error}"));
                    check(&program, &object.maps)
                        .unwrap_or_else(|wrong| panic!("{name} on {kernel:?}: {wrong}"));
                }
            }
        }
    }
}

/// No program jumps backwards: the oldest verifiers see at once that each ends.
#[test]
fn no_program_jumps_backwards() {
    let mut wrong = BTreeSet::new();
    for target in targets(Kernel::named("6.18-x86_64")) {
        for (name, _, def) in programs(&objects(&Filter::default(), &target, 4096)) {
            wrong.extend(backward_jump(&def.program).map(|jump| format!("{name}: {jump}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every field that a program uses is there on every kernel: none is needed that came later or went away.
#[test]
fn fields() {
    let filter = Filter {
        family: Some(Family::V6),
        local_ports: vec![1],
        remote_ports: vec![1],
        pid: Some(1),
        ..Filter::default()
    };
    for kernel in KERNELS.iter() {
        let mut used = BTreeSet::new();
        let objects: Vec<Object> =
            targets(kernel).flat_map(|target| objects(&filter, &target, 4096)).collect();
        for (name, _, def) in programs(&objects) {
            for (_, symbol) in &def.program.symbols {
                match symbol {
                    Symbol::Field { path, from: None, .. } | Symbol::Size(path) => {
                        _ = used.insert(path.to_string())
                    }
                    Symbol::Map(_) | Symbol::Enum { .. } => {}
                    other => panic!("{name}: {other} is not looked at here"),
                }
            }
        }
        let absent: Vec<_> =
            used.iter().filter(|path| !kernel.index.field(path).expect("asked for").is_found()).collect();
        assert!(absent.is_empty(), "{kernel:?} has no {absent:?}");
        let result = match kernel.arch {
            Arch::X86_64 => "pt_regs.ax",
            Arch::Aarch64 => "user_pt_regs.regs",
        };
        let expected: BTreeSet<_> = FIELDS.into_iter().chain([result]).map(str::to_owned).collect();
        assert_eq!(used, expected, "{kernel:?}");
    }
}

/// The fields that programs use, but for the register of a function's result. One more is one more that every kernel must
/// have.
const FIELDS: [&str; 29] = [
    "bpf_iter__task_file.file",
    "bpf_iter__task_file.task",
    "file.f_inode",
    "file.private_data",
    "inet_sock.inet_sport",
    "inode.i_mode",
    "net.ns.inum",
    "sock.sk_err",
    "sock.sk_lock.owned",
    "sock.sk_protocol",
    "sock.sk_type",
    "sock_common.skc_daddr",
    "sock_common.skc_dport",
    "sock_common.skc_family",
    "sock_common.skc_flags",
    "sock_common.skc_net.net",
    "sock_common.skc_rcv_saddr",
    "sock_common.skc_state",
    "sock_common.skc_v6_daddr",
    "sock_common.skc_v6_rcv_saddr",
    "socket.sk",
    "task_struct.comm",
    "task_struct.tgid",
    "tcp_sock.bytes_acked",
    "tcp_sock.bytes_received",
    "tcp_sock.bytes_retrans",
    "tcp_sock.bytes_sent",
    "tcp_sock.snd_una",
    "tcp_sock.write_seq",
];

/// The tracepoints that programs attach to, and the kernels that lack one.
#[test]
fn tracepoints_that_kernels_lack() {
    let mut absent = Vec::new();
    for kernel in KERNELS.iter() {
        for name in ["inet_sock_set_state", "tcp_destroy_sock", "sock_send_length", "sock_recv_length"] {
            match kernel.index.tracepoint(name).expect("asked for") {
                Lookup::Found(found) => {
                    assert_eq!(found.args[0].pointee(), Some("sock"), "{name} on {kernel:?}")
                }
                Lookup::Absent(_) => absent.push((kernel.name, name)),
            }
        }
    }
    // Both came with 6.3.
    let lengths = ["sock_send_length", "sock_recv_length"];
    let expected: Vec<_> = ["5.10-x86_64", "5.10-aarch64", "6.1-x86_64"]
        .into_iter()
        .flat_map(|kernel| lengths.map(|name| (kernel, name)))
        .collect();
    assert_eq!(absent, expected);
}

/// The copied head of a socket fits its place on every kernel, and nothing but the addresses' end decides its length.
#[test]
fn the_head_of_a_socket_fits_the_frame() {
    for kernel in KERNELS.iter() {
        let place = kernel.place("sock_common.skc_v6_rcv_saddr");
        assert_eq!(
            (place.offset + place.size, place.size),
            (usize::from(sock::COMMON_LEN), 16),
            "{kernel:?}"
        );
        for path in [
            "sock_common.skc_daddr",
            "sock_common.skc_dport",
            "sock_common.skc_family",
            "sock_common.skc_v6_daddr",
            "sock_common.skc_net.net",
            "sock_common.skc_state",
        ] {
            let field = kernel.place(path);
            assert!(field.offset + field.size <= usize::from(sock::COMMON_LEN), "{path} on {kernel:?}");
        }
    }
}

/// Events and entries fit their places on the stack, and maps are made for them.
#[test]
fn structs_fit() {
    let entry = frame::ENTRY.abs_diff(frame::ZERO);
    for (size, room) in [
        (tcplife::Entry::SIZE, entry),
        (tcpstates::Entry::SIZE, entry),
        (tcplife::Event::SIZE, frame::EVENT_MAX),
        (tcpstates::Event::SIZE, frame::EVENT_MAX),
    ] {
        assert!(size <= room, "{size} bytes where there is room for {room}");
        // An entry is cleared eight bytes at a time, and an event is sent whole.
        assert!(size.is_multiple_of(8), "{size}");
    }
    let target = Kernel::named("6.18-x86_64").target(Access::Typed, Ring::RingBuf);
    for (object, entry) in objects(&Filter::default(), &target, 8192)
        .iter()
        .zip([tcplife::Entry::LAYOUT; 4].into_iter().chain([tcpstates::Entry::LAYOUT]))
    {
        let map = |name| object.maps.iter().find(|map| map.name == name).expect("a map of the object");
        let sockets = map(table::MAP);
        assert_eq!(
            (sockets.kind, sockets.key_size, sockets.value_size),
            (MapKind::Hash, 8, entry.size.into())
        );
        assert_eq!(sockets.value, Some(entry));
        let books = map(stats::MAP);
        assert_eq!(
            (books.kind, books.key_size, books.value_size, books.max_entries),
            (MapKind::PercpuArray, 4, 64, 1)
        );
        assert_eq!(map("events").max_entries, 8192);
        for layout in [entry, tcplife::Event::LAYOUT, tcpstates::Event::LAYOUT] {
            let end = layout.members.last().map(|member| member.offset);
            assert!(end < Some(layout.size), "{}", layout.name);
        }
    }
}
