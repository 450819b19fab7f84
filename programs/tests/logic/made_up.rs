//! A made-up tool that uses what no tool uses yet, to test that these parts work together.

use bpfasm::object::{Attach, Hook, MapDef, Need, Object, ProgramDef};
use bpfasm::{Access, Arch, Fragment, MapKind, Program, Ring, bpf};
use programs::{LICENSE, emit, stats};

use crate::lab::{Lab, RING_BYTES, Set, fate};
use crate::spec::OWNER;
use crate::vm::check::check;
use crate::vm::kernel::{KERNELS, Kernel};

fn map(name: &'static str, kind: MapKind, key_size: u32, value_size: u32) -> MapDef {
    MapDef::new(name, kind, key_size, value_size, 2)
}

fn object(ring: Ring, attach: Attach, program: Fragment) -> Object {
    let program = Program::link("probe", program).expect("links");
    let attach_options = vec![ProgramDef { name: "probe".into(), attach, program }];
    let maps = vec![
        stats::map(),
        emit::map(ring, RING_BYTES),
        map("scratch", MapKind::PercpuArray, 4, 64),
        map("subnets", MapKind::LpmTrie, 8, 8),
    ];
    let hooks = vec![Hook::new("probe", Need::Required, attach_options)];
    Object { name: "made up".into(), license: LICENSE.into(), hooks, maps, consts: Vec::new() }
}

/// Sends cgroup, task, the value of the subnet that the second argument's bytes lie in, and then
/// the kernel's stack.
fn program(arch: Arch) -> Fragment {
    let (first, second) = match arch {
        Arch::X86_64 => ("pt_regs.di", "pt_regs.si"),
        Arch::Aarch64 => ("user_pt_regs.regs[0]", "user_pt_regs.regs[1]"),
    };
    bpf! {
        r9 = r1;
        r6 = *(u64 *)(r9 + field {first});
        r7 = *(u64 *)(r9 + field {second});
        *(u32 *)(r10 - 4) = 1;
        r1 = map scratch ll;
        r2 = r10;
        r2 += -4;
        call bpf_map_lookup_elem;
        if r0 == 0 goto out;
        r8 = r0;
        call bpf_get_current_cgroup_id;
        *(u64 *)(r8 + 0) = r0;
        call bpf_get_current_task;
        *(u64 *)(r8 + 8) = r0;
        // The length of the packet, and the bytes after its start.
        r1 = r8;
        r1 += 16;
        w2 = sizeof(sk_buff.len);
        r3 = r6;
        r3 += sk_buff.len;
        call bpf_probe_read_kernel;
        *(u32 *)(r10 - 16) = 32;
        r1 = r10;
        r1 += -12;
        w2 = 4;
        r3 = r7;
        call bpf_probe_read_kernel;
        r1 = map subnets ll;
        r2 = r10;
        r2 += -16;
        call bpf_map_lookup_elem;
        if r0 == 0 goto out;
        r0 = *(u64 *)(r0 + 0);
        *(u32 *)(r8 + 20) = w0;
        r1 = r9;
        r2 = r8;
        r2 += 24;
        w3 = 40;
        r4 = 1;
        call bpf_get_stack;
        if r0 s< 0 goto out;
        if r0 > 40 goto out;
        r5 = r0;
        r5 += 24;
        r1 = r9;
        r2 = map events ll;
        w3 = -1;
        r4 = r8;
        call bpf_perf_event_output;
    out:
        w0 = 0;
        exit;
    }
}

/// A probe at a function's entry with arguments, memory without a type, a subnet, a stack, and an
/// event from a map's value as long as what there is to say.
#[test]
fn from_a_value_and_of_any_length() {
    for kernel in KERNELS.iter() {
        let lab = Lab::new(kernel, Access::Probed, Ring::PerfEventArray, Set::Narrow);
        let attach = Attach::Kprobe("tcp_v4_rcv".into());
        let object = object(lab.ring, attach, program(kernel.arch));
        let relocated = loader::relocate(&object.hooks[0].attach_options[0].program, &kernel.index, &[])
            .expect("resolves");
        assert_eq!(check(&relocated, &object.maps), Ok(()), "{kernel:?}");
        let mut tool = lab.tool("made up", |_| object);
        let skb = tool.object("sk_buff");
        tool.set(skb, "sk_buff.len", 0x0102_0304);
        let (skb, data) = (tool.address(skb), tool.bytes(&[10, 1, 2, 3]));
        tool.at(1, OWNER);
        let machine = tool.machine();
        let prefix = |bits: u32, data: [u8; 4]| [bits.to_ne_bytes(), data].concat();
        machine.insert("subnets", &prefix(8, [10, 0, 0, 0]), &8_u64.to_ne_bytes());
        machine.insert("subnets", &prefix(16, [10, 1, 0, 0]), &16_u64.to_ne_bytes());
        (machine.cgroup, machine.task_struct) = (0x1111, 0x2222);
        for (trace, sent) in [
            (None, None),
            (Some(vec![1]), Some(vec![])),
            (Some(vec![1, 2, 3]), Some(vec![2, 3])),
            (Some(vec![1, 2, 3, 4, 5, 6, 7, 8]), Some(vec![2, 3, 4, 5, 6])),
        ] {
            tool.machine().stack_trace = trace;
            assert_eq!(tool.enters("probe", &[skb, data]), fate::NOTHING);
            let expected: Option<Vec<u8>> = sent.map(|sent: Vec<u64>| {
                let words = [&[0x1111, 0x2222, 16 << 32 | 0x0102_0304], sent.as_slice()].concat();
                words.iter().flat_map(|word| word.to_ne_bytes()).collect()
            });
            assert_eq!(tool.sent().into_iter().map(|sent| sent.bytes).next(), expected);
        }
        // Outside of every subnet, and not readable at all.
        let outside = tool.bytes(&[11, 1, 2, 3]);
        for nowhere in [outside, data + 1, 0] {
            assert_eq!(tool.enters("probe", &[skb, nowhere]), fate::NOTHING);
            assert_eq!(tool.sent(), []);
        }
    }
}

/// Code for kernels that have a field is not run on those that have not.
#[test]
fn code_for_other_kernels() {
    for (kernel, expected) in [("5.10-x86_64", 0), ("7.3-x86_64", 7)] {
        let program = bpf! {
            r9 = r1;
            *(u64 *)(r10 - 8) = 0;
            r2 = exists(sock.sk_drop_counters);
            if r2 == 0 goto lacking;
            r3 = *(u64 *)(r9 + 0);
            r1 = r10;
            r1 += -8;
            w2 = 8;
            r3 += sock.sk_drop_counters;
            call bpf_probe_read_kernel;
        lacking:
            r1 = map scratch ll;
            r2 = r10;
            r2 += -12;
            *(u32 *)(r10 - 12) = 0;
            call bpf_map_lookup_elem;
            if r0 == 0 goto out;
            r1 = *(u64 *)(r10 - 8);
            lock *(u64 *)(r0 + 8) += r1;
        out:
            w0 = 0;
            exit;
        };
        let kernel = Kernel::named(kernel);
        let lab = Lab::new(kernel, Access::Probed, Ring::RingBuf, Set::Narrow);
        let object = object(lab.ring, Attach::RawTp("tcp_probe".into()), program);
        let relocated = loader::relocate(&object.hooks[0].attach_options[0].program, &kernel.index, &[])
            .expect("resolves");
        assert_eq!(check(&relocated, &object.maps), Ok(()), "{kernel:?}");
        let mut tool = lab.tool("made up for other kernels", |_| object);
        let sock = tool.object("sock");
        if expected != 0 {
            tool.set(sock, "sock.sk_drop_counters", expected);
        }
        let sock = tool.address(sock);
        for times in [1, 2] {
            tool.run("probe", &[sock]);
            let value = tool.machine().value("scratch", &[0; 4]).expect("always there");
            assert_eq!(value[8..16], (times * expected).to_ne_bytes());
        }
    }
}
