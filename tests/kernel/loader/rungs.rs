//! The ladder: the first way that holds is taken, and why not the others is told.

use bpfasm::object::{Attach, Need};
use bpfasm::{Fragment, bpf};
use kernel_tests::runner::{Outcome, Test};
use loader::LoadError;

use super::{ONLY, TRACEPOINT, attach, hook, load, object, only_rung, raw_tp, rung, try_load};

pub const TESTS: &[Test] = &[
    ("loader::falls_through_rungs_and_says_why", falls_through_rungs_and_says_why),
    ("loader::optional_hooks_may_have_no_rung", optional_hooks_may_have_no_rung),
    ("loader::a_required_hook_has_to_hold", a_required_hook_has_to_hold),
    ("loader::mistakes_are_not_passed_over", mistakes_are_not_passed_over),
];

const NOWHERE: &str = "no_such_tracepoint";

fn nothing() -> Fragment {
    bpf! { r0 = 0; exit; }
}

/// A rung without its tracepoint, one that does not load, one that does not attach, and the one that is taken.
fn falls_through_rungs_and_says_why() -> Outcome {
    let rungs = vec![
        rung("one", Attach::TpBtf(NOWHERE.into()), nothing()),
        raw_tp("two", TRACEPOINT, bpf! { r0 = r5; exit; }),
        raw_tp("three", NOWHERE, nothing()),
        raw_tp("four", TRACEPOINT, nothing()),
        raw_tp("five", TRACEPOINT, nothing()),
    ];
    let mut loaded = load(&object(vec![hook(ONLY, Need::Required, rungs)], Vec::new()));
    assert_eq!(only_rung(&loaded).taken, None, "nothing is attached yet");
    attach(&mut loaded);
    let report = only_rung(&loaded);
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

/// Without its optional hooks, whether they fail when they are loaded or when they are attached, an object goes on.
fn optional_hooks_may_have_no_rung() -> Outcome {
    let optional = |name, program| hook(name, Need::Optional, vec![program]);
    let hooks = vec![
        optional("unloaded", rung("one", Attach::TpBtf(NOWHERE.into()), nothing())),
        optional("unattached", raw_tp("two", NOWHERE, nothing())),
        optional("list", rung("three", Attach::Iter("nothing".into()), nothing())),
        hook(ONLY, Need::Required, vec![raw_tp("four", TRACEPOINT, nothing())]),
    ];
    let mut loaded = load(&object(hooks, Vec::new()));
    attach(&mut loaded);
    let reports: Vec<_> = loaded
        .rungs()
        .iter()
        .map(|report| (&*report.hook, report.taken.is_some(), report.refused.len()))
        .collect();
    assert_eq!(
        reports,
        [("unloaded", false, 1), ("unattached", false, 1), ("list", false, 1), (ONLY, true, 0)]
    );
    assert!(matches!(loaded.run_iter("list"), Ok(None)));
    assert!(matches!(loaded.run_iter("no such hook"), Err(LoadError::NoHook { .. })));
    Ok(())
}

/// An error with every way that was tried, on one line each.
fn a_required_hook_has_to_hold() -> Outcome {
    for attach in [Attach::TpBtf(NOWHERE.into()), Attach::RawTp(NOWHERE.into())] {
        let shown = format!("{attach:?}");
        let object =
            object(vec![hook(ONLY, Need::Required, vec![rung("one", attach, nothing())])], Vec::new());
        let error = match try_load(&object) {
            Err(error) => error,
            // A raw tracepoint is looked up when it is attached.
            Ok(mut loaded) => loaded.attach().expect_err("no such tracepoint"),
        };
        assert!(
            matches!(&error, LoadError::NoRung { hook, refused } if hook == ONLY && refused.len() == 1),
            "{shown}: {error:#}"
        );
        assert!(error.to_string().contains(NOWHERE), "{shown}: {error}");
    }
    Ok(())
}

/// A map or a constant that the object lacks is our mistake, and no rung below it may hide that.
fn mistakes_are_not_passed_over() -> Outcome {
    for (wrong, named) in [
        (bpf! { r1 = map nowhere ll; r0 = 0; exit; }, "nowhere"),
        (bpf! { r0 = const NOWHERE; exit; }, "NOWHERE"),
    ] {
        let rungs = vec![raw_tp("wrong", TRACEPOINT, wrong), raw_tp("right", TRACEPOINT, nothing())];
        match try_load(&object(vec![hook(ONLY, Need::Optional, rungs)], Vec::new())) {
            Err(error @ LoadError::Reloc { .. }) => assert!(error.to_string().contains(named), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}
