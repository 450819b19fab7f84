//! That the test VM sees the mistakes it is made for.

use bpfasm::object::MapDef;
use bpfasm::{Fragment, MapKind, Program, bpf};

use super::check::{backward_jump, check};
use super::code::Code;
use super::kernel::Kernel;
use super::machine::{Machine, Task};
use super::memory::Memory;

/// A table of sixteen-byte values by eight-byte keys, and one value of counters.
fn maps() -> Vec<MapDef> {
    vec![
        MapDef::new("table", MapKind::Hash, 8, 16, 1),
        MapDef::new("counters", MapKind::PercpuArray, 4, 8, 1),
    ]
}

fn machine() -> Machine {
    let task = Task { tgid: 1, tid: 2, comm: [3; 16] };
    Machine::new(Kernel::named("6.18-x86_64"), task, &maps())
}

fn link(fragment: Fragment) -> Program {
    Program::link("test", fragment).expect("links")
}

/// Runs a program on a context of one word.
fn run(fragment: Fragment, machine: Machine, word: u64, typed: bool) -> (Machine, Result<u64, String>) {
    let program = link(fragment);
    let code = Code::new(&program, &maps()).expect("known to rbpf");
    code.run(&program, machine, &Memory::of(&word.to_le_bytes()), typed)
}

/// What the checker says about programs with one mistake each.
#[test]
fn the_checker_sees() {
    let lookup = || {
        bpf! {
            *(u64 *)(r10 - 8) = 0;
            r1 = map table ll;
            r2 = r10;
            r2 += -8;
            call bpf_map_lookup_elem;
        }
    };
    let wrong: [(Fragment, &str); 14] = [
        (bpf! { r0 = r3; exit; }, "r3 was not written"),
        (bpf! { exit; }, "r0 was not written"),
        (bpf! { r2 = r1; call bpf_ktime_get_ns; r0 = r2; exit; }, "r2 was not written"),
        (bpf! { if r1 == 0 goto out; r0 = 0; out: exit; }, "r0 was not written"),
        (bpf! { r0 = *(u32 *)(r10 - 4); exit; }, "byte 0 is not written"),
        (bpf! { *(u32 *)(r10 - 8) = 0; r0 = *(u64 *)(r10 - 8); exit; }, "byte 4 is not written"),
        (
            bpf! { if r1 == 0 goto out; *(u64 *)(r10 - 8) = 0; out: r0 = *(u64 *)(r10 - 8); exit; },
            "byte 0 is not written",
        ),
        (bpf! { *(u64 *)(r10 - 12) = 0; r0 = 0; exit; }, "not aligned"),
        (bpf! { *(u64 *)(r10 + 0) = 0; r0 = 0; exit; }, "outside of the stack"),
        (bpf! { ..lookup(); r0 = *(u64 *)(r0 + 0); exit; }, "may not be there"),
        (bpf! { ..lookup(); if r0 == 0 goto out; r0 = *(u64 *)(r0 + 12); out: exit; }, "outside of a value"),
        (
            bpf! { r1 = map table ll; r2 = r10; r2 += -8; call bpf_map_lookup_elem; exit; },
            "of 8 bytes at r10 -8, byte 0 is not written",
        ),
        (bpf! { r2 = r10; r2 += -8; r1 = 5; call bpf_map_lookup_elem; exit; }, "r1 is not a map"),
        (bpf! { r0 = 0; exit; r0 = 1; exit; }, "nothing leads here"),
    ];
    for (fragment, expected) in wrong {
        let program = link(fragment);
        let found = check(&program, &maps()).expect_err(expected);
        assert!(found.contains(expected), "{found} is not: {expected}");
    }
    let right = link(bpf! { ..lookup(); if r0 == 0 goto out; r0 = *(u64 *)(r0 + 8); out: exit; });
    assert_eq!((check(&right, &maps()), backward_jump(&right)), (Ok(()), None));
}

/// A jump backwards is found, whether or not it makes a loop.
#[test]
fn a_jump_backwards_is_found() {
    let program = link(bpf! { r0 = 0; goto b; a: exit; b: goto a; });
    assert_eq!(check(&program, &[]), Ok(()));
    assert!(backward_jump(&program).is_some_and(|jump| jump.contains("goto a")));
}

/// What a call clobbers, and what was on the stack and in registers before, is not what a program
/// would like.
#[test]
fn nothing_works_by_chance() {
    let kept = bpf! { r1 = 7; call bpf_ktime_get_ns; r0 = r1; exit; };
    assert_ne!(run(kept, machine(), 0, false).1, Ok(7));
    for fresh in [bpf! { r0 = *(u64 *)(r10 - 16); exit; }, bpf! { r0 = r7; exit; }] {
        assert_ne!(run(fresh, machine(), 0, false).1, Ok(0));
    }
}

/// A read outside of what a program was given is refused, and said with the statement.
#[test]
fn memory_is_what_was_given() {
    let machine = || {
        let mut machine = machine();
        let net = Kernel::named("6.18-x86_64").object("net", 1);
        machine.add(net);
        machine
    };
    let read = || bpf! { r1 = *(u64 *)(r1 + 0); r0 = *(u64 *)(r1 + 0); exit; };
    let in_machine = machine();
    let address = in_machine.object(0).address();
    assert!(run(read(), in_machine, address, true).1.is_ok());
    let in_machine = machine();
    let address = in_machine.object(0).address();
    let refused = run(read(), in_machine, address, false).1.expect_err("only a helper may read it");
    assert!(refused.contains("vm/tests.rs") && refused.contains("r0 = *(u64 *)(r1 + 0)"), "{refused}");
    // A probe read of what is nowhere fails, and leaves zeroes.
    let probe = bpf! {
        *(u64 *)(r10 - 8) = -1;
        r1 = r10;
        r1 += -8;
        w2 = 8;
        r3 = 0;
        call bpf_probe_read_kernel;
        if r0 == 0 goto out;
        r0 = *(u64 *)(r10 - 8);
    out:
        exit;
    };
    assert_eq!(run(probe, machine(), 0, false).1, Ok(0));
}

/// A helper refuses memory that is not the program's, and a program that does not end is stopped.
#[test]
fn helpers_are_strict() {
    let stray = bpf! { r1 = map table ll; r2 = r10; r2 += -4; call bpf_map_lookup_elem; exit; };
    assert!(run(stray, machine(), 0, false).1.is_err_and(|wrong| wrong.contains("8 bytes at r10 -4")));
    let no_map = bpf! { r1 = map counters ll; r2 = r10; r2 += -8; call bpf_map_delete_elem; exit; };
    assert!(run(no_map, machine(), 0, false).1.is_err_and(|wrong| wrong.contains("not for a map of kind")));
    let endless = bpf! { again: call bpf_ktime_get_ns; goto again; exit; };
    let ended = std::panic::catch_unwind(|| run(endless, machine(), 0, false).1.is_ok());
    assert!(ended.is_err());
}

/// Tables follow the kernel's rules: how many entries fit, and what may replace what.
#[test]
fn tables_keep_the_rules() {
    const ANY: i32 = 0;
    const NOEXIST: i32 = 1;
    const EXIST: i32 = 2;
    let update = |key: i32, flags: i32| {
        bpf! {
            *(u64 *)(r10 - 8) = {key};
            *(u64 *)(r10 - 16) = {flags};
            *(u64 *)(r10 - 24) = {key};
            r1 = map table ll;
            r2 = r10;
            r2 += -8;
            r3 = r10;
            r3 += -24;
            r4 = {flags};
            call bpf_map_update_elem;
            exit;
        }
    };
    let mut machine = machine();
    for (key, flags, expected) in [
        (1, EXIST, -2),
        (1, NOEXIST, 0),
        (1, NOEXIST, -17),
        (1, ANY, 0),
        (1, EXIST, 0),
        (2, ANY, -7),
        (2, NOEXIST, -7),
    ] {
        let (after, result) = run(update(key, flags), machine, 0, false);
        assert_eq!(result.map(u64::cast_signed), Ok(expected), "{key}, {flags}");
        machine = after;
    }
    let value = machine.value("table", &1_u64.to_ne_bytes()).expect("stored");
    assert_eq!(value[8..], 2_u64.to_ne_bytes(), "the last one stored");
    assert_eq!(machine.len("table"), 1);
}

/// An atomic addition, which the interpreter lacks, adds and leaves its operand alone.
#[test]
fn atomics_add() {
    let count = || {
        bpf! {
            *(u32 *)(r10 - 4) = 0;
            r1 = map counters ll;
            r2 = r10;
            r2 += -4;
            call bpf_map_lookup_elem;
            if r0 == 0 goto out;
            r1 = 3;
            lock *(u64 *)(r0 + 0) += r1;
            r0 = r1;
        out:
            exit;
        }
    };
    let (machine, first) = run(count(), machine(), 0, false);
    let (machine, second) = run(count(), machine, 0, false);
    assert_eq!((first, second), (Ok(3), Ok(3)));
    assert_eq!(machine.value("counters", &[0; 4]), Some(6_u64.to_ne_bytes().to_vec()));
    // With a register whose content is unknown, and without changing any that is used later.
    let by_register = bpf! {
        r9 = r1;
        r8 = 5;
        *(u64 *)(r10 - 8) = 7;
        r1 = *(u64 *)(r9 + 0);
        r0 = r10;
        lock *(u64 *)(r0 - 8) += r1;
        lock *(u32 *)(r10 - 8) += r8;
        r0 = *(u64 *)(r10 - 8);
        r0 += r1;
        r0 += r8;
        exit;
    };
    assert_eq!(run(by_register, machine, 100, false).1, Ok(7 + 100 + 5 + 100 + 5));
    let program = link(
        bpf! { lock *(u64 *)(r1 + 0) += r2; call bpf_ktime_get_ns; r0 += r6; r0 += r7; r0 += r8; r0 += r9; exit; },
    );
    assert!(Code::new(&program, &maps()).is_ok(), "r0 is free");
}

/// A variable length needs a limit on every path, and a buffer of that size.
#[test]
fn lengths_that_vary() {
    let send = |limit: Fragment| {
        let fragment = bpf! {
            r4 = *(u64 *)(r1 + 0);
            ..limit;
            *(u64 *)(r10 - 8) = 0;
            *(u64 *)(r10 - 16) = 0;
            r1 = r10;
            r1 += -16;
            r2 = r4;
            r3 = 0;
            call bpf_probe_read_kernel;
            r0 = 0;
            exit;
        };
        check(&link(fragment), &maps())
    };
    assert!(send(bpf! { r4 += 0; }).is_err_and(|wrong| wrong.contains("a length of Anything")));
    assert_eq!(send(bpf! { r4 &= 15; }), Ok(()));
    assert!(send(bpf! { r4 &= 31; }).is_err_and(|wrong| wrong.contains("outside of the stack")));
    assert_eq!(send(bpf! { if r4 < 17 goto fits; r4 = 16; fits: r4 += 0; }), Ok(()));
    assert!(send(bpf! { if r4 < 17 goto fits; r4 = 17; fits: r4 += 0; }).is_err());
    assert!(
        send(bpf! { if w4 < 17 goto fits; r4 = 16; fits: r4 += 0; }).is_err(),
        "the upper half is not known"
    );
}
