//! Fallbacks: the first attach option that works is used, and the reasons against the options
//! before it are reported.

use bpfasm::object::{Attach, Hook, MapKind, Need};
use bpfasm::{Fragment, bpf};
use kernel_tests::runner::{Outcome, Test, test};
use loader::LoadError;

use super::{TEST_HOOK, TRACEPOINT, attach, attach_option, load, map, object, only_hook, raw_tp, try_load};

pub const TESTS: &[Test] = &[
    test("loader::falls_back_and_says_why", falls_back_and_says_why),
    test("loader::optional_hooks_may_have_no_attach_option", optional_hooks_may_have_no_attach_option),
    test("loader::a_required_hook_must_attach", a_required_hook_must_attach),
    test("loader::mistakes_in_an_object_are_errors", mistakes_in_an_object_are_errors),
    test(
        "loader::a_fallback_attaches_only_if_the_first_hook_fails",
        a_fallback_attaches_only_if_the_first_hook_fails,
    ),
    test("loader::maps_of_untried_options_are_not_created", maps_of_untried_options_are_not_created),
    test("loader::a_needed_fallback_must_attach", a_needed_fallback_must_attach),
];

const NOWHERE: &str = "no_such_tracepoint";

fn nothing() -> Fragment {
    bpf! { r0 = 0; exit; }
}

/// An option whose tracepoint is missing, one that does not load, one that does not attach, and one
/// that works.
fn falls_back_and_says_why() -> Outcome {
    let attach_options = vec![
        attach_option("one", Attach::TpBtf(NOWHERE.into()), nothing()),
        raw_tp("two", TRACEPOINT, bpf! { r0 = r5; exit; }),
        raw_tp("three", NOWHERE, nothing()),
        raw_tp("four", TRACEPOINT, nothing()),
        raw_tp("five", TRACEPOINT, nothing()),
    ];
    let mut loaded = load(&object(vec![Hook::new(TEST_HOOK, Need::Required, attach_options)], Vec::new()));
    assert_eq!(only_hook(&loaded).taken, None, "nothing is attached yet");
    attach(&mut loaded);
    let report = only_hook(&loaded);
    assert_eq!(report.taken, Some(Attach::RawTp(TRACEPOINT.into())));
    let refused = &report.refused;
    assert!(
        matches!(
            &refused[..],
            [
                (Attach::TpBtf(_), LoadError::NoTarget { .. }),
                (Attach::RawTp(_), LoadError::Load { .. }),
                (Attach::RawTp(_), LoadError::Attach { .. }),
            ]
        ),
        "{refused:?}"
    );
    let stats = loaded.stats().unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(stats.iter().map(|stats| stats.name.as_str()).collect::<Vec<_>>(), ["four"]);
    Ok(())
}

/// An object works without its optional hooks, whether they fail to load or to attach.
fn optional_hooks_may_have_no_attach_option() -> Outcome {
    let optional = |name, program| Hook::new(name, Need::Optional, vec![program]);
    let hooks = vec![
        optional("unloaded", attach_option("one", Attach::TpBtf(NOWHERE.into()), nothing())),
        optional("unattached", raw_tp("two", NOWHERE, nothing())),
        optional("list", attach_option("three", Attach::Iter("nothing".into()), nothing())),
        Hook::new(TEST_HOOK, Need::Required, vec![raw_tp("four", TRACEPOINT, nothing())]),
    ];
    let mut loaded = load(&object(hooks, Vec::new()));
    attach(&mut loaded);
    let reports: Vec<_> = loaded
        .hooks()
        .iter()
        .map(|report| (&*report.hook, report.taken.is_some(), report.refused.len()))
        .collect();
    assert_eq!(
        reports,
        [("unloaded", false, 1), ("unattached", false, 1), ("list", false, 1), (TEST_HOOK, true, 0)]
    );
    assert!(matches!(loaded.run_iter("list"), Ok(None)));
    assert!(matches!(loaded.run_iter("no such hook"), Err(LoadError::NoHook { .. })));
    Ok(())
}

/// If it cannot attach, the error has every option that was tried, on one line each.
fn a_required_hook_must_attach() -> Outcome {
    for attach in [Attach::TpBtf(NOWHERE.into()), Attach::RawTp(NOWHERE.into())] {
        let shown = format!("{attach:?}");
        let object = object(
            vec![Hook::new(TEST_HOOK, Need::Required, vec![attach_option("one", attach, nothing())])],
            Vec::new(),
        );
        let error = match try_load(&object) {
            Err(error) => error,
            // A raw tracepoint is looked up when it is attached.
            Ok(mut loaded) => loaded.attach().expect_err("no such tracepoint"),
        };
        assert!(
            matches!(&error, LoadError::NoAttachOption { hook, refused } if hook == TEST_HOOK && refused.len() == 1),
            "{shown}: {error:#}"
        );
        assert!(error.to_string().contains(NOWHERE), "{shown}: {error}");
    }
    let without = object(vec![Hook::new(TEST_HOOK, Need::Required, Vec::new())], Vec::new());
    assert!(matches!(try_load(&without), Err(LoadError::NoAttachOption { .. })), "no attach option");
    Ok(())
}

/// A missing map or constant is a mistake in the object. A fallback must not hide it.
fn mistakes_in_an_object_are_errors() -> Outcome {
    for (wrong, named) in [
        (bpf! { r1 = map nowhere ll; r0 = 0; exit; }, "nowhere"),
        (bpf! { r0 = const NOWHERE; exit; }, "NOWHERE"),
    ] {
        let attach_options = vec![raw_tp("wrong", TRACEPOINT, wrong), raw_tp("right", TRACEPOINT, nothing())];
        match try_load(&object(vec![Hook::new(TEST_HOOK, Need::Optional, attach_options)], Vec::new())) {
            Err(error @ LoadError::Reloc { .. }) => assert!(error.to_string().contains(named), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

/// Whether a hook works.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Works {
    Yes,
    /// It loads but does not attach.
    OnlyLoads,
    No,
}

/// Three hooks, each a fallback for the one before; the last one is required.
fn chain(works: [Works; 3]) -> Vec<Hook> {
    let names = ["first", "second", "third"];
    let mut hooks = Vec::new();
    for (at, (name, works)) in names.into_iter().zip(works).enumerate() {
        let attach = match works {
            Works::Yes => Attach::RawTp(TRACEPOINT.into()),
            Works::OnlyLoads => Attach::RawTp(NOWHERE.into()),
            Works::No => Attach::TpBtf(NOWHERE.into()),
        };
        let need = if at == 2 { Need::Required } else { Need::Optional };
        let hook = Hook::new(name, need, vec![attach_option(name, attach, nothing())]);
        hooks.push(match at.checked_sub(1).and_then(|before| names.get(before)) {
            Some(earlier) => hook.fallback_for(*earlier),
            None => hook,
        });
    }
    hooks
}

/// The first hook that works is loaded and attached, and no other stays loaded, whether the hooks
/// before it fail to load or to attach.
fn a_fallback_attaches_only_if_the_first_hook_fails() -> Outcome {
    use Works::{No, OnlyLoads, Yes};
    for (works, at_load, at_last) in [
        ([Yes, Yes, Yes], 0, 0),
        ([No, Yes, Yes], 1, 1),
        ([OnlyLoads, Yes, No], 0, 1),
        ([No, OnlyLoads, Yes], 1, 2),
        ([OnlyLoads, OnlyLoads, Yes], 0, 2),
        ([No, No, Yes], 2, 2),
    ] {
        let mut loaded = load(&object(chain(works), Vec::new()));
        let loaded_hooks = |loaded: &loader::Loaded| -> Vec<String> {
            let stats = loaded.stats().unwrap_or_else(|e| panic!("{e:#}"));
            stats.into_iter().map(|stats| stats.name).collect()
        };
        let names = ["first", "second", "third"];
        assert_eq!(loaded_hooks(&loaded), [names[at_load]], "{works:?}");
        attach(&mut loaded);
        assert_eq!(loaded_hooks(&loaded), [names[at_last]], "{works:?}");
        for (at, report) in loaded.hooks().iter().enumerate() {
            assert_eq!(report.taken.is_some(), at == at_last, "{works:?}: {report:?}");
            assert_eq!(report.unneeded, at > at_last, "{works:?}: {report:?}");
            assert_eq!(report.refused.len(), usize::from(at < at_last), "{works:?}: {report:?}");
        }
    }
    Ok(())
}

/// If all hooks fail, the error has the reasons against all of them.
fn a_needed_fallback_must_attach() -> Outcome {
    for first in [Works::No, Works::OnlyLoads] {
        let object = object(chain([first, Works::No, Works::OnlyLoads]), Vec::new());
        let error = try_load(&object).and_then(|mut loaded| loaded.attach()).expect_err("no hook works");
        assert!(
            matches!(&error, LoadError::NoAttachOption { hook, refused } if hook == "third" && refused.len() == 3),
            "{first:?}: {error:#}"
        );
    }
    let later = vec![
        Hook::new("one", Need::Optional, vec![raw_tp("one", TRACEPOINT, nothing())]).fallback_for("two"),
        Hook::new("two", Need::Optional, vec![raw_tp("two", TRACEPOINT, nothing())]),
    ];
    let error = try_load(&object(later, Vec::new())).expect_err("a fallback for a later hook");
    assert!(matches!(error, LoadError::FallbackFor { .. }), "{error:#}");
    Ok(())
}

/// A map is created with the first program that uses it, even if that program is a fallback loaded
/// while attaching.
fn maps_of_untried_options_are_not_created() -> Outcome {
    let uses = |name| bpf! { r1 = map {name} ll; r0 = 0; exit; };
    let attach_options = vec![
        attach_option("absent", Attach::TpBtf(NOWHERE.into()), uses("absent")),
        raw_tp("fails", NOWHERE, uses("fails")),
        raw_tp("works", TRACEPOINT, uses("works")),
        raw_tp("untried", TRACEPOINT, uses("untried")),
    ];
    let names = ["absent", "fails", "works", "untried", "unused"];
    let maps = names.map(|name| map(name, MapKind::Array, (4, 4, 1))).to_vec();
    let mut loaded = load(&object(vec![Hook::new(TEST_HOOK, Need::Required, attach_options)], maps));
    let there = |loaded: &loader::Loaded| names.map(|name| loaded.has_map(name));
    assert_eq!(there(&loaded), [false, true, false, false, false]);
    attach(&mut loaded);
    assert_eq!(there(&loaded), [false, true, true, false, false]);
    assert!(matches!(loaded.map("untried"), Err(LoadError::UnusedMap { map }) if map == "untried"));
    assert!(matches!(loaded.map("unknown"), Err(LoadError::NoMap { map }) if map == "unknown"));
    assert!(!loaded.has_map("unknown"));
    Ok(())
}
