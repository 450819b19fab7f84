//! Messages if a program cannot be loaded: the reason, and the statement in our source.

use bpfasm::bpf;
use bpfasm::object::MapKind;
use kernel_tests::runner::{Outcome, Test, test};
use loader::{LoadError, Loader, Note};

use super::{TEST_HOOK, TRACEPOINT, kernel, load, map, only, only_refusal, raw_tp};

pub const TESTS: &[Test] = &[
    test("loader::a_refusal_names_our_line", a_refusal_names_our_line),
    test("loader::missing_fields_are_reported_without_a_load", missing_fields_are_reported_without_a_load),
    test("loader::source_lines_reach_the_kernel", source_lines_reach_the_kernel),
];

/// The verifier's reason with the line of the statement; the long form has the whole log.
fn a_refusal_names_our_line() -> Outcome {
    let first = line!() + 2;
    let code = bpf! {
        r2 = *(u64 *)(r1 + 0);
        // The verifier knows that this is not a pointer.
        r0 = *(u64 *)(r2 + 8);
        exit;
    };
    let error = only_refusal(&only(raw_tp(TEST_HOOK, TRACEPOINT, code), Vec::new()));
    let LoadError::Load { log, .. } = &error else { panic!("{error:#}") };
    let source = log.source().unwrap_or_else(|| panic!("a line\n{error:#}"));
    assert_eq!((source.file, source.line), (file!(), first + 2), "{source:?}");
    // Until 5.17 the verifier wrote `inv` for `scalar`.
    let reasons = ["inv", "scalar"].map(|value| format!("R2 invalid mem access '{value}'"));
    assert!(reasons.iter().any(|reason| reason == log.message()), "{error:#}");
    let (short, long) = (error.to_string(), format!("{error:#}"));
    assert_eq!(short.lines().count(), 3, "{short}");
    assert!(short.contains(&format!("{}:{}: r0 = *(u64 *)(r2 + 8)", file!(), first + 2)), "{short}");
    assert!(long.contains("0: (79) r2 = *(u64 *)(r1 +0)"), "{long}");
    assert!(short.lines().next().is_some_and(|line| long.starts_with(line)), "{long}");
    Ok(())
}

/// The message has field, program and line, and the kernel is not asked.
fn missing_fields_are_reported_without_a_load() -> Outcome {
    let line = line!() + 1;
    let code = bpf! { r0 = sizeof(sock.no_such_field); exit; };
    let error = only_refusal(&only(raw_tp("asks", TRACEPOINT, code), Vec::new()));
    assert!(matches!(error, LoadError::Reloc { .. }), "{error:?}");
    let text = error.to_string();
    for part in ["`asks`", "sock.no_such_field", &format!("{}:{line}", file!())] {
        assert!(text.contains(part), "{part} in {text}");
    }
    Ok(())
}

/// There are no notes: the kernel has accepted names, source lines and map members.
fn source_lines_reach_the_kernel() -> Outcome {
    let code = bpf! {
        r1 = map table ll;
        call bpf_ktime_get_ns;
        r0 = 0;
        exit;
    };
    let object = only(raw_tp(TEST_HOOK, TRACEPOINT, code), vec![map("table", MapKind::Hash, (4, 8, 1))]);
    let loaded = load(&object);
    // Notes on skipped events do not matter here.
    let notes: Vec<_> = loaded.notes().iter().filter(|note| **note != Note::SparesInit).collect();
    assert!(notes.is_empty(), "{notes:?}");
    let logged = Loader::new(&kernel()).verifier_log(2).load(&object).unwrap_or_else(|e| panic!("{e:#}"));
    let (_, log) = logged.logs().next().expect("a log");
    assert!(log.contains("; call bpf_ktime_get_ns"), "{log}");
    Ok(())
}
