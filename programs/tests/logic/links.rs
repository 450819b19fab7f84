//! Every program of every option on every kernel: it links, it resolves, nothing is read before it
//! is written, and its structs fit where they are put.

use std::collections::BTreeSet;

use bpfasm::{Access, Arch, Attach, MapKind, Object, Program, ProgramDef, Refused, Ring, Symbol, Target};
use btf::Lookup;
use programs::filter::{Family, Filter, MAX_PORTS};
use programs::{emit, sock, stack_layout, stats, table};

use crate::complete::{Extent, Sweep};
use crate::specimens::{ALL, AttachKind, Lacking, Specimen, Tracepoint};
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

/// Every object of every tool.
fn objects(filter: &Filter, target: &Target, ring_bytes: u32) -> Vec<Object> {
    ALL.iter().flat_map(|specimen| (specimen.every)(filter, target, ring_bytes)).collect()
}

/// Every program of these objects, by what it is called.
fn programs(objects: &[Object]) -> impl Iterator<Item = (String, &Object, &ProgramDef)> {
    objects.iter().flat_map(|object| {
        let defs = object.hooks.iter().flat_map(|hook| &hook.attach_options);
        defs.map(move |def| (format!("{}/{}", object.name, def.name), object, def))
    })
}

/// Every combination links and encodes, into at most what old kernels take.
fn every_combination_links(extent: Extent) {
    // Of the kernel, only the architecture matters here.
    let kernels = [Kernel::named("6.18-x86_64"), Kernel::named("7.3-aarch64")];
    let targets = kernels.into_iter().flat_map(Kernel::targets);
    let step = if extent == Extent::Sample { 7 } else { 1 };
    for target in targets.step_by(step) {
        // The last one is the largest.
        for filter in filters().iter().rev().step_by(step) {
            for (name, _, def) in programs(&objects(filter, &target, 1 << 22)) {
                let slots = def.program.slots().unwrap_or_else(|error| panic!("{name}: {error}")).len();
                assert!(slots <= 4096, "{name} with {filter:?} has {slots} slots");
            }
        }
    }
}

pub const SWEEPS: &[Sweep] = &[
    ("every combination links", every_combination_links),
    ("every program is sound on every kernel", every_program_is_sound),
];

#[test]
fn combinations_link() {
    every_combination_links(Extent::Sample);
}

#[test]
fn programs_are_sound() {
    every_program_is_sound(Extent::Sample);
}

/// Attach options that a kernel does not support are left out.
#[test]
fn attach_options_follow_the_target() {
    let kernel = Kernel::named("6.18-x86_64");
    for target in kernel.targets() {
        for (trampolines, kprobes) in [(false, false), (false, true), (true, false), (true, true)] {
            let target = Target { trampolines, kprobes, ..target.clone() };
            for specimen in ALL {
                let kinds: BTreeSet<AttachKind> = (specimen.every)(&Filter::default(), &target, 4096)
                    .iter()
                    .flat_map(|object| &object.hooks)
                    .flat_map(|hook| &hook.attach_options)
                    .map(|def| AttachKind::of(&def.attach))
                    .collect();
                let expected: BTreeSet<AttachKind> = (specimen.attach_kinds)(&target).into_iter().collect();
                assert_eq!(kinds, expected, "{} on {target:?}", specimen.name);
                assert!(
                    kinds.iter().all(|kind| kind.fits(&target)),
                    "{} on {target:?}: {kinds:?}",
                    specimen.name
                );
            }
        }
    }
}

/// Attach options that a host refuses have a name and no program; the others do not change.
#[test]
fn no_program_is_written_for_refused_attach_points() {
    let kernel = Kernel::named("6.18-x86_64");
    let refused = Refused { trampolines: true, kprobes: true, tracepoints: true };
    let mut unwritten = 0;
    for target in kernel.targets() {
        let strict = Target { refused, ..target.clone() };
        for specimen in ALL {
            let attach_options = |target| {
                let objects = (specimen.every)(&Filter::default(), target, 4096);
                let hooks = objects.into_iter().flat_map(|object| object.hooks);
                hooks.flat_map(|hook| hook.attach_options).collect::<Vec<_>>()
            };
            let (all, some) = (attach_options(&target), attach_options(&strict));
            assert_eq!(all.len(), some.len(), "{} on {target:?}", specimen.name);
            for (def, strict) in all.into_iter().zip(some) {
                let bars = refused.refuses(&def.attach);
                unwritten += usize::from(bars);
                let program = if bars { Program::default() } else { def.program };
                assert_eq!(strict, ProgramDef { program, ..def }, "{} on {target:?}", specimen.name);
            }
        }
    }
    assert!(unwritten > 0);
}

/// On every kernel every symbol resolves, and the programs read nothing that was not written.
fn every_program_is_sound(extent: Extent) {
    let full = Filter {
        pid: Some(1),
        family: Some(Family::V4),
        local_ports: vec![1, 2, 3, 4, 5, 6],
        remote_ports: vec![1, 2, 3, 4, 5, 6],
        ..Filter::default()
    };
    let filters = [full, Filter::default(), Filter { family: Some(Family::V6), ..Filter::default() }];
    // Two kernels, and another target on each.
    let (filters, step) = if extent == Extent::Sample { (&filters[..1], 17) } else { (&filters[..], 1) };
    let targets = KERNELS.iter().flat_map(|kernel| kernel.targets().map(move |target| (kernel, target)));
    for (kernel, target) in targets.step_by(step) {
        for filter in filters {
            let objects = objects(filter, &target, 4096);
            for (name, object, def) in programs(&objects) {
                let program = loader::relocate(&def.program, &kernel.index, &object.consts)
                    .unwrap_or_else(|error| panic!("{name} on {kernel:?}: {error}"));
                check(&program, &object.maps).unwrap_or_else(|wrong| panic!("{name} on {kernel:?}: {wrong}"));
            }
        }
    }
}

/// No program jumps backwards, so that the oldest verifiers see that each ends.
#[test]
fn no_program_jumps_backwards() {
    let mut wrong = BTreeSet::new();
    for target in Kernel::named("6.18-x86_64").targets() {
        for (name, _, def) in programs(&objects(&Filter::default(), &target, 4096)) {
            wrong.extend(backward_jump(&def.program).map(|jump| format!("{name}: {jump}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the programs of an object use: fields that must be there, and fields of which they ask
/// whether they are.
fn used(objects: &[Object]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut used, mut optional) = (BTreeSet::new(), BTreeSet::new());
    for (name, _, def) in programs(objects) {
        let asked: Vec<&str> = def
            .program
            .symbols
            .iter()
            .filter_map(|(_, symbol)| if let Symbol::Exists(path) = symbol { Some(&**path) } else { None })
            .collect();
        let guarded = |path: &str| {
            let part = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
            asked.iter().any(|asked| path.strip_prefix(asked).is_some_and(part))
        };
        for (_, symbol) in &def.program.symbols {
            let paths: &[_] = match symbol {
                Symbol::Field { path, from: Some(from), .. } => &[path, from],
                Symbol::Field { path, from: None, .. }
                | Symbol::Size(path)
                | Symbol::Exists(path)
                | Symbol::BitShift(path)
                | Symbol::BitMask(path) => &[path],
                Symbol::Map(_) | Symbol::Enum { .. } | Symbol::Params(_) | Symbol::Const(_) => &[],
                other => panic!("{name}: {other} is not looked at here"),
            };
            for path in paths {
                let set = if guarded(path) { &mut optional } else { &mut used };
                set.insert(path.to_string());
            }
        }
    }
    (used, optional)
}

/// A filter that reads what filters of an event's own kind read.
pub fn every_kind() -> Filter {
    Filter {
        family: Some(Family::V6),
        local_ports: vec![1],
        remote_ports: vec![1],
        pid: Some(1),
        ..Filter::default()
    }
}

/// Every field that a program uses is there on every kernel: none is needed that came later or went
/// away, but for those that the program asks for.
#[test]
fn fields() {
    let filter = every_kind();
    for specimen in ALL {
        let name = specimen.name;
        for kernel in KERNELS.iter() {
            let there = |path: &str| kernel.index.exists(path).expect("asked for");
            let (mut used, optional) = used(&specimen.everywhere(kernel, &filter));
            let absent: Vec<_> = used.iter().filter(|path| !there(path)).collect();
            assert!(absent.is_empty(), "{name}: {kernel:?} has no {absent:?}");
            let registers: BTreeSet<_> = match kernel.arch {
                Arch::X86_64 => {
                    specimen.registers.iter().map(|register| format!("pt_regs.{register}")).collect()
                }
                Arch::Aarch64 => {
                    let name = |register: &&str| match *register {
                        "orig_ax" => "pt_regs.syscallno",
                        "cs" => "user_pt_regs.pstate",
                        _ => "user_pt_regs.regs",
                    };
                    specimen.registers.iter().map(|register| name(register).to_owned()).collect()
                }
            };
            let is_register =
                |path: &String| path.starts_with("pt_regs.") || path.starts_with("user_pt_regs.");
            assert_eq!(
                used.extract_if(.., is_register).collect::<BTreeSet<_>>(),
                registers,
                "{name} on {kernel:?}"
            );
            assert_eq!(
                used,
                specimen.fields.iter().copied().map(str::to_owned).collect(),
                "{name} on {kernel:?}"
            );
            let expected = specimen.optional.iter().map(|lacking| lacking.name.to_owned()).collect();
            assert_eq!(optional, expected, "{name} on {kernel:?}");
            for Lacking { name: path, kernels } in specimen.optional {
                assert_eq!(there(path), !kernels.contains(&kernel.name), "{name}: {path} on {kernel:?}");
            }
        }
    }
}

/// The tracepoints that programs attach to, and the kernels that lack one.
#[test]
fn tracepoints_that_kernels_lack() {
    for specimen in ALL {
        let tool = specimen.name;
        let mut attached = BTreeSet::new();
        for object in KERNELS.iter().flat_map(|kernel| specimen.everywhere(kernel, &Filter::default())) {
            for def in object.hooks.iter().flat_map(|hook| &hook.attach_options) {
                if let Attach::TpBtf(name) | Attach::RawTp(name) = &def.attach {
                    attached.insert(name.to_string());
                }
            }
        }
        let expected = specimen.tracepoints.iter().map(|tracepoint| tracepoint.name.to_owned()).collect();
        assert_eq!(attached, expected, "{tool}");
        for Tracepoint { name, first, lacking } in specimen.tracepoints {
            let mut absent = Vec::new();
            let mut firsts = BTreeSet::new();
            for kernel in KERNELS.iter() {
                match kernel.index.tracepoint(name).expect("asked for") {
                    Lookup::Found(found) => {
                        _ = firsts.insert(found.args[0].pointee().map(str::to_owned));
                    }
                    Lookup::Absent(_) => absent.push(kernel.name),
                }
            }
            assert_eq!(absent, *lacking, "{tool}: {name}");
            match first {
                Some(first) => assert_eq!(firsts, [Some((*first).to_owned())].into(), "{tool}: {name}"),
                None => assert!(firsts.len() > 1 || firsts.contains(&None), "{tool}: {name}: {firsts:?}"),
            }
        }
    }
}

/// The copied head of a socket fits its place on every kernel, and nothing but the addresses' end
/// decides its length.
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
    let target = Kernel::named("6.18-x86_64").target(Access::Typed, Ring::RingBuf);
    for Specimen { name, events, entry, every, .. } in ALL {
        let room = stack_layout::ENTRY.abs_diff(stack_layout::ZERO);
        let entries = entry.iter().map(|entry| (entry, room));
        for (layout, room) in entries.chain(events.iter().map(|event| (event, stack_layout::EVENT_MAX))) {
            let size = layout.size;
            assert!(size <= room, "{name}: {size} bytes where there is room for {room}");
            // An entry is cleared eight bytes at a time, and an event is sent whole.
            assert!(size.is_multiple_of(8), "{name}: {size}");
            let end = layout.members.last().map(|member| member.offset);
            assert!(end < Some(size), "{}", layout.name);
        }
        let (mut has_sockets, mut has_ring) = (false, false);
        for object in every(&Filter::default(), &target, 8192) {
            let map = |name: &str| object.maps.iter().find(|map| map.name == name);
            if let Some(sockets) = map(table::MAP) {
                let found = (sockets.kind, sockets.key_size, sockets.value_size, sockets.value);
                let expected = entry.map(|entry| (MapKind::Hash, 8, entry.size.into(), Some(entry)));
                assert_eq!(Some(found), expected, "{name}");
                has_sockets = true;
            }
            let account = map(stats::MAP).expect("every tool keeps an account");
            assert_eq!(
                (account.kind, account.key_size, account.value_size, account.max_entries),
                (MapKind::PercpuArray, 4, 64, 1)
            );
            let ring = map(emit::MAP);
            has_ring |= ring.is_some();
            assert!(ring.is_none_or(|ring| ring.max_entries == 8192), "{name}");
        }
        // Some options may do without either.
        assert_eq!(has_sockets, entry.is_some(), "{name} has no table");
        assert!(has_ring || events.is_empty(), "{name} has no ring");
    }
}
