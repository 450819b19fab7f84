//! Linking: labels, distances, functions.

use bpfasm::{AsmError, Callee, Dest, Fragment, Imm64, Insn, Program, Text, asm, bpf};

fn link(fragment: Fragment) -> Result<Program, AsmError> {
    Program::link("x", fragment)
}

/// This many instructions of one slot.
fn padding(count: usize) -> Fragment {
    let mut fragment = Fragment::new();
    for _ in 0..count {
        fragment.push(Insn::Exit, None, None);
    }
    fragment
}

#[test]
fn distances_count_slots() {
    let program = link(bpf! {
        back:
        if r1 == 0 goto on;
        r1 = 1 ll;
        r2 = 2 ll;
    on:
        goto back;
    })
    .unwrap();
    let distances: Vec<_> = program.insns.iter().filter_map(Insn::dest).collect();
    assert_eq!(distances, [&Dest::Rel(4), &Dest::Rel(-6)]);
    assert_eq!(program.labels, [(0, Text::from("back")), (3, Text::from("on"))]);
    assert_eq!(program.source.len(), program.insns.len());
}

#[test]
fn labels_belong_to_their_block() {
    let inner = || bpf! { goto out; r1 = 1; out: goto end; };
    let program = link(bpf! {
        goto out;
        ..inner();
        ..bpf! { ..inner(); goto out; end: };
    out:
    end:
        exit;
    })
    .unwrap();
    let text: Vec<String> = program.insns.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        ["goto +7", "goto +1", "r1 = 1", "goto +4", "goto +1", "r1 = 1", "goto +1", "goto +0", "exit"],
        "an inner `out` is another label, and what a block does not define is looked up around it"
    );
}

#[test]
fn labels_of_one_place_stay_in_the_order_of_their_blocks_and_definition() {
    let program = link(bpf! {
        goto second;
        call second;
    first:
        ..bpf! { goto inner; inner: };
    third:
    second:
        exit;
    })
    .unwrap();
    let names: Vec<&str> = program.labels.iter().map(|(_, name)| name.as_ref()).collect();
    assert_eq!(names, ["first", "third", "second", "inner"]);
    assert_eq!(program.functions, [(0, "x".into()), (3, "third".into())]);
}

#[test]
fn a_label_means_nothing_in_another_fragment() {
    let jump = bpf! { goto out; out: }.insns()[0];
    let mut other = Fragment::new();
    other.push(jump, None, None);
    let undefined = |fragment| match link(fragment) {
        Err(AsmError::UndefinedLabel { label, .. }) => label.into_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(undefined(other.clone()), "label 0");
    assert_eq!(undefined(bpf! { top: r0 = 0; ..other; exit; }), "label 0");
    // A label without a definition is not listed and changes nothing.
    let mut asked = Fragment::new();
    let dest = asked.dest("nowhere");
    assert!(asked.is_empty());
    asked.push(Insn::Jump { long: false, dest }, None, None);
    assert_eq!(undefined(bpf! { ..asked; exit; }), "nowhere");
}

#[test]
fn many_labels_take_no_longer_each() {
    let text: String = (0..40_000).map(|number| format!("l{number}: if r1 == 0 goto l{number}\n")).collect();
    let program = link(asm::parse(&format!("{text}exit")).unwrap()).unwrap();
    assert_eq!(program.labels.len(), 40_000);
}

#[test]
fn an_undefined_label_is_an_error_with_its_line() {
    let line = line!() + 1;
    let error = link(bpf! { r0 = 0; goto nowhere; exit; }).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("bpfasm/tests/link.rs:{line}: goto nowhere: the label `nowhere` is not defined")
    );
    // A label inside a spliced block is not seen from outside.
    let error = link(bpf! { goto hidden; ..bpf! { hidden: }; exit; }).unwrap_err();
    assert!(matches!(error, AsmError::UndefinedLabel { label, .. } if label == "hidden"));
}

#[test]
fn a_label_may_be_defined_once() {
    let name = || "again".to_owned();
    let line = line!() + 2;
    let error = link(bpf! {
        {name()}: r0 = 0;
        {name()}: exit;
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "bpfasm/tests/link.rs:{}: {{name()}}:: the label `again` is already defined in this block, in line {line}",
            line + 1
        )
    );
    let error = asm::parse("again: exit\nagain: exit").unwrap_err();
    assert_eq!(error.to_string(), "2:1: the label `again` is already defined in this block");
}

#[test]
fn a_jump_reaches_as_far_as_its_field() {
    let reach = 32767;
    let fits = bpf! { goto far; ..padding(reach); far: exit; };
    assert_eq!(link(fits).unwrap().insns[0].to_string(), "goto +32767");
    let too_far =
        link(bpf! { r1 = 1 ll; if r1 == 0 goto far; ..padding(reach + 1); far: exit; }).unwrap_err();
    match too_far {
        AsmError::JumpTooFar { label, distance: 32768, at: 1, source: Some(source) } => {
            assert_eq!((label.as_ref(), source.text), ("far", "if r1 == 0 goto far"));
        }
        other => panic!("{other}"),
    }
    let back = link(bpf! { far: ..padding(reach + 1); goto far; exit; }).unwrap_err();
    assert!(matches!(back, AsmError::JumpTooFar { distance: -32769, .. }), "{back}");
    let long = link(bpf! { gotol far; call far; ..padding(reach + 1); far: exit; }).unwrap();
    assert_eq!(long.insns[0].to_string(), "gotol +32769");
    assert_eq!(long.insns[1].to_string(), "call pc+32768");
}

#[test]
fn a_jump_lands_on_an_instruction() {
    for text in
        ["goto +1\nr1 = 1 ll\nexit", "goto +1\nexit", "goto -2\nexit", "gotol +2147483647", "call pc-3"]
    {
        let error = link(asm::parse(text).unwrap()).unwrap_err();
        assert!(matches!(error, AsmError::JumpOutside { at: 0, .. }), "{text}: {error}");
    }
    let error = link(bpf! { goto out; out: }).unwrap_err();
    assert!(matches!(error, AsmError::JumpOutside { distance: 0, at: 0, .. }), "{error}");
    assert!(link(bpf! { exit; out: }).is_ok(), "a label at the end that nothing jumps to");
}

#[test]
fn a_program_has_instructions() {
    assert_eq!(link(Fragment::new()), Err(AsmError::Empty));
    assert_eq!(link(bpf! { out: }), Err(AsmError::Empty));
}

#[test]
fn names_from_rust_are_names() {
    let name = |fragment| match link(fragment) {
        Err(AsmError::Name { name, .. }) => name.into_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(name(bpf! { {"not a name"}: exit; }), "not a name");
    assert_eq!(name(bpf! { r1 = map {"a\nexit"} ll; exit; }), "a\nexit");
    assert_eq!(name(bpf! { r1 = field {"sock..sk"}; exit; }), "sock..sk");
    assert_eq!(name(bpf! { r1 = field {"sock.a[]"}; exit; }), "sock.a[]");
    assert_eq!(name(bpf! { r1 = field {"sock.a"} - field {""}; exit; }), "");
    assert!(link(bpf! { r1 = field {"in6_addr.in6_u.u6_addr32[3]"}; exit; }).is_ok());
}

#[test]
fn functions_start_where_they_are_called() {
    let program = link(bpf! {
        r1 = 1 ll;
        r2 = code_addr callback ll;
        call function;
        exit;
    function:
        call function;
        exit;
    callback:
        exit;
    })
    .unwrap();
    assert_eq!(program.functions, [(0, "x".into()), (4, "function".into()), (6, "callback".into())]);
    // The kernel counts both from the slot after the first slot of the instruction.
    assert_eq!(
        program.insns[1],
        Insn::LoadImm64 { dst: bpfasm::Reg::R2, imm: Imm64::CodeAddr(Dest::Rel(5)) }
    );
    assert_eq!(program.insns[2], Insn::Call(Callee::Local(Dest::Rel(1))));
    let unnamed = link(asm::parse("call pc+1\nexit\nexit").unwrap()).unwrap();
    assert_eq!(unnamed.functions, [(0, "x".into()), (2, "x_2".into())]);
}

#[test]
fn a_symbol_needs_a_place() {
    let mut fragment = Fragment::new();
    fragment.push(Insn::Exit, Some(bpfasm::Symbol::Const("N".into())), None);
    assert_eq!(link(fragment), Err(AsmError::SymbolPlace { at: 0, source: None }));
}

#[test]
fn a_symbol_is_filled_in_or_refused() {
    for (text, value, filled) in [
        ("r1 = const N", -7, Some("r1 = -7")),
        ("r1 += const N", 1 << 31, None),
        ("w1 = const N", 0xffff_ffff, Some("w1 = -1")),
        ("if r1 s> const N goto +0", 9, Some("if r1 s> 9 goto +0")),
        ("r1 = const N ll", -1, Some("r1 = -1 ll")),
        ("r1 = map m ll", 5, Some("r1 = map_fd 5 ll")),
        ("r1 = map_value m + 8 ll", 5, Some("r1 = map_value_fd 5 + 8 ll")),
        ("r1 = *(u8 *)(r2 + a.b)", 32767, Some("r1 = *(u8 *)(r2 + 32767)")),
        ("*(u8 *)(r2 + a.b) = 7", 32768, None),
        ("lock *(u64 *)(r2 + a.b) += r1", 8, Some("lock *(u64 *)(r2 + 8) += r1")),
        ("call kfunc f", 7, Some("call kfunc 7")),
        ("exit", 0, None),
    ] {
        let mut insn = asm::parse(text).unwrap().insns()[0];
        let before = insn;
        assert_eq!(insn.fill(value), filled.is_some(), "{text}");
        assert_eq!(insn.to_string(), filled.map_or(before.to_string(), str::to_owned), "{text}");
    }
}
