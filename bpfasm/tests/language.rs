//! The instructions and the source places that `bpf!` makes of each form.

use bpfasm::reg::*;
use bpfasm::{
    AsmError, Callee, Fragment, Imm64, Insn, Limit, Operand, Program, Size, Source, Symbol, Text, Width, asm,
    bpf,
};

/// Every form, one statement per line, in the language's spacing.
#[rustfmt::skip]
fn every_form() -> Fragment {
    bpf! {
        r1 += r2;
        w1 -= w2;
        r3 *= 3;
        r3 /= -3;
        r3 s/= 3;
        w3 %= w4;
        w3 s%= 4;
        r5 |= r6;
        r5 &= 0xff;
        w5 ^= 0xffffffff;
        r7 <<= 3;
        r7 >>= r8;
        r7 s>>= 5;
        r1 = -r1;
        w1 = -w1;
        r1 = r10;
        w1 = w2;
        r1 = 5;
        w1 = -5;
        r1 = 1_000;
        r1 = (s8)r2;
        r1 = (s32)r2;
        w1 = (s16)w2;
        r1 = be16 r1;
        r1 = le64 r1;
        r1 = bswap32 r1;
        r1 = 0x123456789 ll;
        r1 = -1 ll;
        r1 = map conns ll;
        r1 = map_value stats + 8 ll;
        r1 = map_fd 5 ll;
        r1 = map_value_fd 5 + 8 ll;
        r1 = btf_var 12 ll;
        r1 = map_idx 1 ll;
        r1 = map_value_idx 1 + 8 ll;
        r1 = code_addr out ll;
        r1 = *(u8 *)(r2 + 0);
        w1 = *(u32 *)(r2 + 0x10);
        r1 = *(u64 *)(r10 - 8);
        r1 = *(s16 *)(r2 - 8);
        *(u8 *)(r1 + 1) = 255;
        *(u32 *)(r1 + 8) = w2;
        *(u64 *)(r1 + 8) = -1;
        *(u16 *)(r1 + sock.sk_type) = r2;
        lock *(u64 *)(r1 + 0) += r2;
        lock *(u32 *)(r1 - 4) ^= w2;
        r2 = atomic_fetch_add((u64 *)(r1 + 0), r2);
        w2 = atomic_fetch_xor((u32 *)(r1 + 4), w2);
        r2 = xchg_64(r1 + 0, r2);
        w2 = xchg32_32(r1 + 0, w2);
        r0 = cmpxchg_64(r1 + 0, r0, r2);
        w0 = cmpxchg32_32(r1 + 0, w0, w2);
        r0 = *(u16 *)skb[12];
        r0 = *(u32 *)skb[r3];
        r0 = *(u8 *)skb[r3 - 4];
        goto out;
        goto +3;
        gotol -2;
        gotol out;
        if r1 == r2 goto out;
        if w1 != 7 goto +1;
        if r1 s>= -7 goto out;
        if r1 & 0x80 goto pc+1;
        if w1 s< w2 goto out;
        call bpf_map_lookup_elem;
        call 12;
        call out;
        call pc-1;
        call kfunc bpf_sock_destroy;
        call kfunc 70000;
        r3 += sock.__sk_common.skc_dport;
        r3 = sock.sk_protocol - sock.sk_type - 4;
        r3 += in6_addr.in6_u.u6_addr32[2];
        w0 = *(u16 *)(r6 + sock.sk_protocol + 2);
        r1 = sizeof(tcp_sock);
        r1 = exists(sock.sk_drop_counters);
        r1 >>= shift(inet_connection_sock.icsk_ca_state);
        w1 &= mask(inet_connection_sock.icsk_ca_state);
        if r1 == enum(sock_flags.SOCK_DONE) goto out;
        if w1 < params(btf_trace_kfree_skb) goto out;
        r1 = const TGID ll;
        out:
        exit;
    }
}

#[test]
fn the_macro_and_the_text_assembler_agree_on_every_form() {
    let program = every_form();
    let here: Vec<&str> = include_str!("language.rs").lines().collect();
    for element in program.sources() {
        let source = element.expect("a statement has a place");
        let line = here[usize::try_from(source.line).unwrap() - 1];
        assert_eq!(source.file, file!());
        assert_eq!(source.text, line.trim().trim_end_matches(';'), "line {}", source.line);
    }
    let text: String = program.sources().iter().map(|source| format!("{}\n", source.unwrap().text)).collect();
    let parsed = asm::parse(&format!("{text}\n")).unwrap();
    assert_eq!(parsed.insns(), program.insns());
    assert_eq!(parsed.symbols(), program.symbols());
}

#[test]
fn a_listing_assembles_to_the_same_program() {
    let inner = || bpf! { if r1 == 0 goto out; goto last; out: };
    let whole = bpf! {
        if r1 == 0 goto out;
        ..every_form();
        ..inner();
        ..bpf! { ..inner(); goto out; };
        r0 = 0;
    out:
    out_2:
    last:
        exit;
    };
    // Distances that are written out must land on an instruction.
    let program = Program::link("whole", whole).unwrap();
    let text = program.listing().to_string();
    let again =
        Program::link("whole", asm::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))).unwrap();
    assert_eq!(again.insns, program.insns, "{text}");
    assert_eq!(again.symbols, program.symbols);
    assert_eq!(again.labels, program.labels);
    assert_eq!(again.functions, program.functions);
    assert_eq!(again.listing().to_string(), text);
    let sources = program.listing().with_sources().to_string();
    assert!(sources.contains("// bpfasm/tests/language.rs:"), "{sources}");
    assert_eq!(Program::link("whole", asm::parse(&sources).unwrap()).unwrap().bytes(), program.bytes());
}

#[test]
fn the_listing_shows_names() {
    let inner = bpf! { if r1 == 0 goto out; r1 = 1; out: };
    let program = Program::link(
        "x",
        bpf! {
            ..inner.clone();
            ..inner;
            r1 = map conns ll;
            *(u16 *)(r10 + sock.sk_type - 8) = 7;
            if w1 s> 3 goto out;
            call kfunc bpf_f;
            call twice;
        out:
            exit;
        twice:
            r0 = r1;
            exit;
        },
    )
    .unwrap();
    let expected = "    if r1 == 0 goto out_2\n    r1 = 1\nout_2:\n    if r1 == 0 goto out_3\n    r1 = 1\nout_3:\n    \
        r1 = map conns ll\n    *(u16 *)(r10 + sock.sk_type - 8) = 7\n    if w1 s> 3 goto out\n    call kfunc bpf_f\n    \
        call twice\nout:\n    exit\ntwice:\n    r0 = r1\n    exit\n";
    assert_eq!(program.listing().to_string(), expected);
    assert_eq!(program.functions, [(0, Text::from("x")), (10, Text::from("twice"))]);
}

#[test]
fn values_come_from_rust() {
    const OFFSET: i16 = -24;
    let (port, wide, reg, path) = (443u16, u64::MAX, R7, String::from("sock.sk_mark"));
    let label = format!("to_{port}");
    let helper = bpfasm::helper::id("bpf_get_prandom_u32").unwrap();
    let fragment = bpf! {
        {reg} = {port};
        w{reg} += 2;
        r{reg} = {R3};
        r1 = {wide} ll;
        *(u64 *)({reg} + {OFFSET} + 8) = {reg};
        r1 = *(u32 *)(r10 - {8});
        r3 = {port} - 3 + {port};
        r3 += field {path.clone()} - field {"sock.sk_type"} + {OFFSET};
        r2 = sizeof({path});
        w2 = params({"inet_csk_accept"});
        r1 = map {"conns"} ll;
        if w{reg} == {0xffff_ffffu32} goto {label.clone()};
        call {helper};
        r0 = *(u8 *)skb[{port}];
    {label}:
        exit;
    };
    let insns: Vec<String> = fragment.lines().map(|line| line.to_string()).collect();
    assert_eq!(
        insns,
        [
            "r7 = 443",
            "w7 += 2",
            "r7 = r3",
            "r1 = -1 ll",
            "*(u64 *)(r7 - 16) = r7",
            "r1 = *(u32 *)(r10 - 8)",
            "r3 = 883",
            "r3 += sock.sk_mark - sock.sk_type - 24",
            "r2 = sizeof(sock.sk_mark)",
            "w2 = params(inet_csk_accept)",
            "r1 = map conns ll",
            "if w7 == -1 goto to_443",
            "call bpf_get_prandom_u32",
            "r0 = *(u8 *)skb[443]",
            "exit",
        ]
    );
    let field = Symbol::Field { path: "sock.sk_mark".into(), from: Some("sock.sk_type".into()), addend: -24 };
    let symbols: Vec<_> = fragment.symbols().iter().map(|(_, symbol)| symbol.clone()).collect();
    assert_eq!(
        symbols,
        [
            field,
            Symbol::Size("sock.sk_mark".into()),
            Symbol::Params("inet_csk_accept".into()),
            Symbol::Map("conns".into())
        ]
    );
    assert_eq!(
        fragment.sources().first().copied().flatten().map(|source| source.text),
        Some("{reg} = {port}"),
        "Rust in a statement is kept as it was written"
    );
}

#[test]
fn a_value_that_does_not_fit_is_an_error_with_its_line() {
    let program = |fragment| Program::link("x", fragment).unwrap_err();
    let line = line!() + 1;
    let error = program(bpf! { r0 = 0; r1 += {1u64 << 31}; exit; });
    let source = Source { file: file!(), line, text: "r1 += {1u64 << 31}" };
    assert_eq!(
        error,
        AsmError::Range { value: 1 << 31, limit: Limit::Imm(Width::W64), source: Some(source) }
    );
    assert_eq!(
        error.to_string(),
        format!(
            "bpfasm/tests/language.rs:{line}: r1 += {{1u64 << 31}}: 2147483648 does not fit: a 64-bit operation takes \
             -2147483648 to 2147483647; `rN = C ll` loads more"
        )
    );
    let limit = |fragment| match program(fragment) {
        AsmError::Range { value, limit, source: Some(_) } => (value, limit),
        other => panic!("{other}"),
    };
    let (big, negative) = (40_000, -1);
    assert_eq!(limit(bpf! { r1 = *(u8 *)(r1 + {big}); }), (40_000, Limit::Offset));
    assert_eq!(limit(bpf! { *(u8 *)(r1 + 0) = {big}; }), (40_000, Limit::Store(Size::B1)));
    assert_eq!(limit(bpf! { call {negative}; }), (-1, Limit::Unsigned32));
    assert_eq!(limit(bpf! { r1 = map_value m + {negative} ll; }), (-1, Limit::Unsigned32));
    assert_eq!(limit(bpf! { r1 = {u64::MAX} + 1 ll; }), (1 << 64, Limit::Wide));
    assert_eq!(limit(bpf! { r1 += sock.sk_type + {u32::MAX}; }), (u32::MAX.into(), Limit::Signed32));
    assert_eq!(
        limit(bpf! { ..bpf! { r1 = {i64::MIN}; }; exit; }).0,
        i64::MIN.into(),
        "also from an inner block"
    );
}

#[test]
fn macros_may_make_statements() {
    macro_rules! set {
        ($reg:ident, $value:expr, $size:literal) => {
            bpf! { $reg = {$value}; $reg += $size; }
        };
    }
    let insns: Vec<String> = set!(r3, 2 + 3, -4).insns().iter().map(ToString::to_string).collect();
    assert_eq!(insns, ["r3 = 5", "r3 += -4"]);
}

#[test]
fn a_value_may_return_early() {
    fn with(limit: Option<u16>) -> Option<Fragment> {
        Some(bpf! { r1 = {limit?}; })
    }
    assert!(with(None).is_none());
    assert_eq!(with(Some(3)).unwrap().insns()[0].to_string(), "r1 = 3");
}

#[test]
fn names_of_the_expansion_do_not_meet_names_of_the_user() {
    let (block, insn, symbol) = (1, 2, R3);
    let insns: Vec<String> =
        bpf! { r1 = {block}; r2 = {insn}; {symbol} = r1; }.insns().iter().map(ToString::to_string).collect();
    assert_eq!(insns, ["r1 = 1", "r2 = 2", "r3 = r1"]);
    assert!(bpf! {}.is_empty());
}

#[test]
fn instructions_may_be_made_by_hand() {
    let mut fragment = Fragment::new();
    fragment.push(Insn::Mov { width: Width::W64, dst: R0, src: Operand::Imm(7) }, None, None);
    fragment.push(Insn::LoadImm64 { dst: R1, imm: Imm64::MapFd(0) }, Some(Symbol::Map("m".into())), None);
    fragment.push(Insn::Call(Callee::Helper(1)), None, None);
    fragment.push(Insn::Exit, None, None);
    let program = Program::link("x", fragment).unwrap();
    assert_eq!(program.slots().unwrap(), [0x7_0000_00b7, 0x1118, 0, 0x1_0000_0085, 0x95]);
    assert_eq!(program.bytes().unwrap()[..8], [0xb7, 0, 0, 0, 7, 0, 0, 0]);
}

#[test]
fn fragments_are_optional_and_many() {
    let some = |value: i32| (value > 0).then(|| bpf! { if r1 == {value} goto out; r0 += {value}; out: });
    let fragment =
        bpf! { ..some(0); ..some(1); ..[2, 3].into_iter().filter_map(some).collect::<Fragment>(); exit; };
    let program = Program::link("x", fragment).unwrap();
    let text: Vec<String> = program.insns.iter().map(ToString::to_string).collect();
    let pair = |value| [format!("if r1 == {value} goto +1"), format!("r0 += {value}")];
    assert_eq!(
        text,
        [pair(1), pair(2), pair(3)].concat().into_iter().chain(["exit".to_owned()]).collect::<Vec<_>>()
    );
}
