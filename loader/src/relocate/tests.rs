//! Every kind of symbol, with types made for these tests.

use super::*;
use bpfasm::{Fragment, Hook, Need, ProgramDef, bpf};
use btf::{Absent, Bits, Btf, Builder, Bytes, IntEncoding, MemberDef, TypeId};

/// ```c
/// struct common { u32 family; u16 port; u8 addr[16]; };
/// struct sock { struct common common; u16 protocol; u32 low:3, state:5, :8, whole:8; void *next; };
/// enum flags { DONE = 3, ODD = -2, HUGE = 1 << 40 };
/// ```
fn types() -> Btf {
    let mut b = Builder::new();
    let int8 = b.int("u8", 1, IntEncoding::Unsigned).unwrap();
    let int16 = b.int("u16", 2, IntEncoding::Unsigned).unwrap();
    let int32 = b.int("u32", 4, IntEncoding::Unsigned).unwrap();
    let addr = b.array(int8, int32, 16).unwrap();
    let pointer = b.ptr(TypeId::VOID).unwrap();
    let at = |name, ty, offset| MemberDef::new(name, ty, Bytes(offset)).unwrap();
    let common = b
        .strukt("common", Bytes(24), &[at("family", int32, 0), at("port", int16, 4), at("addr", addr, 6)])
        .unwrap();
    let bits =
        |name, offset, width| MemberDef { name, ty: int32, offset: Bits(offset), width: Some(Bits(width)) };
    b.strukt(
        "sock",
        Bytes(40),
        &[
            at("common", common, 0),
            at("protocol", int16, 24),
            bits("low", 28 * 8, 3),
            bits("state", 28 * 8 + 3, 5),
            bits("whole", 28 * 8 + 16, 8),
            at("next", pointer, 32),
        ],
    )
    .unwrap();
    b.enumeration64("flags", Bytes(8), true, &[("DONE", 3), ("ODD", -2), ("HUGE", 1 << 40)]).unwrap();
    let proto = b.func_proto(TypeId::VOID, &[]).unwrap();
    b.func("do_it", proto, btf::Linkage::Static).unwrap();
    let proto = b.func_proto(int32, &[("sk", pointer), ("flags", int32)]).unwrap();
    b.func("accept", proto, btf::Linkage::Static).unwrap();
    b.func("bpf_iter_sockets", proto, btf::Linkage::Static).unwrap();
    let traced =
        b.func_proto(TypeId::VOID, &[("__data", pointer), ("skb", pointer), ("location", pointer)]).unwrap();
    let traced = b.ptr(traced).unwrap();
    b.typedef("btf_trace_free", traced).unwrap();
    Btf::from_source(b.finish().unwrap()).unwrap()
}

fn object(fragment: Fragment) -> Object {
    let program = Program::link("test", fragment).unwrap();
    let attach_option = ProgramDef { name: "test".into(), attach: Attach::RawTp("x".into()), program };
    Object {
        name: "t".into(),
        license: "GPL".into(),
        hooks: vec![Hook::new("h", Need::Required, vec![attach_option])],
        maps: vec![],
        consts: vec![("ANSWER".into(), 42)],
    }
}

fn resolve(fragment: Fragment) -> Result<Program, RelocError> {
    let btf = types();
    let object = object(fragment);
    let index = btf.index(&wanted(&object)).unwrap();
    relocate(&object.hooks[0].attach_options[0].program, &index, &object.consts)
}

fn text(fragment: Fragment) -> Vec<String> {
    let program = resolve(fragment).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(program.symbols, []);
    program.insns.iter().map(ToString::to_string).collect()
}

fn lines(fragment: Fragment) -> Vec<String> {
    let program = Program::link("want", fragment).unwrap();
    program.insns.iter().map(ToString::to_string).collect()
}

#[test]
fn numbers_replace_the_operand_of_the_instruction() {
    let got = text(bpf! {
        r3 += sock.common.port;
        w0 = *(u16 *)(r6 + sock.protocol);
        w0 = *(u16 *)(r10 + sock.common.port - 64);
        w0 = *(u32 *)(r3 + sock.common.family - sock.common.addr);
        r1 = sizeof(sock);
        r1 = sizeof(sock.protocol);
        if r1 == enum(flags.DONE) goto out;
        r2 = enum(flags.ODD);
        r2 = enum(flags.HUGE) ll;
        r1 = exists(sock.next);
        r1 = exists(sock.prev);
        r1 = exists(gone);
        w1 = params(do_it);
        r1 += params(accept);
        if w1 < params(btf_trace_free) goto out;
        w1 = const ANSWER;
        *(u64 *)(r1 + sock.next) = r2;
        call kfunc do_it;
    out:
        exit;
    });
    let want = lines(bpf! {
        r3 += 4;
        w0 = *(u16 *)(r6 + 24);
        w0 = *(u16 *)(r10 - 60);
        w0 = *(u32 *)(r3 - 6);
        r1 = 40;
        r1 = 2;
        if r1 == 3 goto out;
        r2 = -2;
        r2 = 0x10000000000 ll;
        r1 = 1;
        r1 = 0;
        r1 = 0;
        w1 = 0;
        r1 += 2;
        if w1 < 2 goto out;
        w1 = 42;
        *(u64 *)(r1 + 32) = r2;
        call {0};
    out:
        exit;
    });
    assert_eq!(got[..17], want[..17]);
    let program = resolve(bpf! { call kfunc do_it; exit; }).unwrap();
    assert!(matches!(program.insns[0], Insn::Call(Callee::Kfunc(id)) if id > 0));
}

#[test]
fn bit_fields_are_loaded_whole_and_masked() {
    let got = text(bpf! {
        w1 = *(u8 *)(r6 + sock.state);
        w1 >>= shift(sock.state);
        w1 &= mask(sock.state);
        w2 = *(u8 *)(r6 + sock.whole);
        w2 >>= shift(sock.protocol);
        w2 &= mask(sock.protocol);
        exit;
    });
    let want = lines(bpf! {
        w1 = *(u8 *)(r6 + 28);
        w1 >>= 3;
        w1 &= 31;
        w2 = *(u8 *)(r6 + 30);
        w2 >>= 0;
        w2 &= 0xffff;
        exit;
    });
    assert_eq!(got, want);
}

/// The macro writes no symbol there, but the crate's users can.
#[test]
fn packet_offsets_and_helper_numbers_take_symbols() {
    let answer = || Symbol::Const("ANSWER".into());
    let program = Program {
        insns: vec![
            Insn::LoadPacket { size: Size::B2, index: None, off: 0 },
            Insn::Call(Callee::Helper(0)),
            Insn::Exit,
        ],
        source: vec![None; 3],
        symbols: vec![(0, answer()), (1, answer())],
        ..Program::default()
    };
    let btf = types();
    let index = btf.index(&Wanted::new()).unwrap();
    let relocated = relocate(&program, &index, &[("ANSWER".into(), 42)]).unwrap();
    assert!(matches!(relocated.insns[0], Insn::LoadPacket { off: 42, .. }));
    assert!(matches!(relocated.insns[1], Insn::Call(Callee::Helper(42))));
    let exit = Program { insns: vec![Insn::Exit], symbols: vec![(0, answer())], ..program };
    let error = relocate(&exit, &index, &[("ANSWER".into(), 42)]);
    assert!(matches!(error, Err(RelocError::Place { .. })), "{error:?}");
}

#[test]
fn attach_points_are_looked_up_with_the_symbols() {
    let btf = types();
    let found = |attach: Attach, is_found: fn(&Index<'_>) -> bool| {
        let mut object = object(bpf! { r0 = 0; exit; });
        object.hooks[0].attach_options[0].attach = attach;
        is_found(&btf.index(&wanted(&object)).unwrap())
    };
    let do_it = |index: &Index<'_>| index.func("do_it").is_ok_and(|found| found.is_found());
    assert!(found(Attach::Fentry("do_it".into()), do_it));
    assert!(found(Attach::Fexit("do_it".into()), do_it));
    assert!(!found(Attach::Kprobe("do_it".into()), do_it), "a kprobe has no BTF id");
    assert!(found(Attach::TpBtf("free".into()), |index| {
        index.tracepoint("free").is_ok_and(|found| found.is_found())
    }));
    assert!(found(Attach::Iter("sockets".into()), |index| {
        index.func("bpf_iter_sockets").is_ok_and(|found| found.is_found())
    }));
    assert_eq!(iter_func("tcp"), "bpf_iter_tcp");
}

#[test]
fn an_access_is_as_wide_as_the_field() {
    type Case = (Fragment, &'static str, u32, u32);
    let cases: [Case; 7] = [
        (bpf! { w1 = *(u32 *)(r6 + sock.protocol); exit; }, "sock.protocol", 16, 32),
        (bpf! { w1 = *(u8 *)(r6 + sock.protocol); exit; }, "sock.protocol", 16, 8),
        (bpf! { w1 = *(u32 *)(r6 + sock.next); exit; }, "sock.next", 64, 32),
        (bpf! { *(u8 *)(r6 + sock.protocol) = 1; exit; }, "sock.protocol", 16, 8),
        // Without a mask, the bits of neighbouring fields would be read too.
        (bpf! { w1 = *(u8 *)(r6 + sock.state); exit; }, "sock.state", 5, 8),
        (bpf! { w1 = *(u8 *)(r6 + sock.low); exit; }, "sock.low", 3, 8),
        (bpf! { w1 = *(u16 *)(r6 + sock.whole); w1 &= mask(sock.whole); exit; }, "sock.whole", 8, 16),
    ];
    for (fragment, field, expected_field, expected_access) in cases {
        match resolve(fragment) {
            Err(RelocError::Width { path, field_bits, access_bits, source: Some(_) }) => {
                assert_eq!((&*path, field_bits, access_bits), (field, expected_field, expected_access));
            }
            other => panic!("{field}: {other:?}"),
        }
    }
    // Signedness and addends do not matter, and parts of an array may be read.
    assert!(resolve(bpf! { r1 = *(s16 *)(r6 + sock.protocol + 100); exit; }).is_ok());
    assert!(resolve(bpf! { r1 = *(u64 *)(r6 + sock.common.addr + 8); exit; }).is_ok());
    assert!(resolve(bpf! { r1 = *(u8 *)(r6 + sock.common.addr[15]); exit; }).is_ok());
}

#[test]
fn an_absent_symbol_needs_a_guard() {
    let absent = |fragment| match resolve(fragment) {
        Err(RelocError::Absent { symbol, why, source: Some(source) }) => (symbol, why, source.text),
        other => panic!("{other:?}"),
    };
    let (symbol, why, statement) = absent(bpf! { w1 = *(u32 *)(r6 + sock.gone + 4); exit; });
    assert_eq!(symbol, "sock.gone + 4");
    assert!(matches!(why, Absent::Member { member, .. } if member == "gone"));
    assert!(statement.contains("sock.gone"), "{statement}");
    absent(bpf! { r1 = sizeof(none); exit; });
    absent(bpf! { w1 = params(none); exit; });
    absent(bpf! { w1 = params(btf_trace_none); exit; });
    absent(bpf! { r1 = enum(flags.NONE); exit; });
    absent(bpf! { call kfunc none; exit; });
    // The guard of another field does not count, even if its name is a prefix.
    absent(bpf! { r1 = exists(sock.gon); r1 = sizeof(sock.gone); exit; });
    let got = text(bpf! {
        w1 = exists(sock.gone);
        if w1 == 0 goto out;
        w2 = *(u32 *)(r6 + sock.gone.inner);
        r2 += sock.gone;
        r2 = sizeof(sock.gone) ll;
        w1 = exists(flags.GONE);
        if w2 == enum(flags.GONE) goto out;
        w1 = exists(flags.DONE);
        r1 = enum(flags.DONE);
    out:
        exit;
    });
    let want = lines(bpf! {
        w1 = 0;
        if w1 == 0 goto out;
        call {POISON};
        call {POISON};
        r2 = {u64::from(POISON)} ll;
        w1 = 0;
        call {POISON};
        w1 = 1;
        r1 = 3;
    out:
        exit;
    });
    assert_eq!(got, want);
}

#[test]
fn a_value_that_does_not_fit_is_an_error() {
    for fragment in [
        bpf! { w1 = *(u16 *)(r6 + sock.protocol + 40000); exit; },
        bpf! { r1 = enum(flags.HUGE); exit; },
        bpf! { r1 &= mask(sock.next); exit; },
    ] {
        assert!(matches!(resolve(fragment), Err(RelocError::Range { source: Some(_), .. })));
    }
    assert!(
        matches!(resolve(bpf! { r1 = const NONE; exit; }), Err(RelocError::Const { name, .. }) if name == "NONE")
    );
}

#[test]
fn maps_are_resolved_last() {
    let mut program =
        resolve(bpf! { r1 = map one ll; r2 = map_value two + 8 ll; r3 = sizeof(sock); exit; }).unwrap();
    assert_eq!(program.symbols, [(0, Symbol::Map("one".into())), (1, Symbol::Map("two".into()))]);
    let mut without = program.clone();
    assert!(
        matches!(resolve_maps(&mut without, |_| None), Err(RelocError::Map { name, .. }) if name == "one")
    );
    resolve_maps(&mut program, |name| Some(if name == "one" { 7 } else { 9 })).unwrap();
    assert_eq!(program.symbols, []);
    assert!(matches!(program.insns[0], Insn::LoadImm64 { imm: Imm64::MapFd(7), .. }));
    assert!(matches!(program.insns[1], Insn::LoadImm64 { imm: Imm64::MapValue { fd: 9, offset: 8 }, .. }));
}

#[test]
fn an_index_without_the_name_is_a_btf_error() {
    let btf = types();
    let index = btf.index(&Wanted::new()).unwrap();
    let program = Program::link("x", bpf! { r1 = sizeof(sock); exit; }).unwrap();
    assert!(matches!(
        relocate(&program, &index, &[]),
        Err(RelocError::Btf { error: BtfError::NotIndexed { .. }, .. })
    ));
}
