//! Maps in maps: programs count in one map while the reader reads the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpfasm::object::{MapDef, MapKind};
use bpfasm::{Fragment, bpf};
use kernel_tests::requirements::running_version;
use kernel_tests::runner::{Outcome, Test, test};
use loader::{LoadError, Map};
use nix::libc;

use super::attach::{call_getppid, only_this_process};
use super::{TEST_HOOK, attach, load, load_only, map, only, raw_tp, try_load};

pub const TESTS: &[Test] = &[
    test("loader::a_swap_loses_no_increment", a_swap_loses_no_increment),
    test("loader::inner_maps_have_to_fit", inner_maps_have_to_fit),
];

/// An array of maps with one slot, for these maps.
fn buffers(inner: &[&'static str]) -> MapDef {
    let array = map("buffers", MapKind::ArrayOfMaps, (4, 4, 1));
    MapDef { inner: inner.iter().map(|name| (*name).into()).collect(), ..array }
}

/// Gets the map in the slot, or goes to `out`.
fn current() -> Fragment {
    bpf! {
        *(u32 *)(r10 - 4) = 0;
        r1 = map buffers ll;
        r2 = r10;
        r2 += -4;
        call bpf_map_lookup_elem;
        if r0 == 0 goto out;
    }
}

/// Every `getppid(2)` of this process adds one to the first value of the map in the slot. A value
/// read after a swap is final, and the sum of all values is the number of calls.
fn a_swap_loses_no_increment() -> Outcome {
    const EACH: usize = 20_000;
    const THREADS: usize = 3;
    const KEY: [u8; 4] = [0; 4];
    let getppid = i32::try_from(libc::SYS_getppid).expect("a small number");
    // Time between finding the value and adding to it, so that swaps happen in between.
    let mut dawdle = Fragment::new();
    for _ in 0..100 {
        dawdle.splice(bpf! { call bpf_ktime_get_ns; });
    }
    let code = bpf! {
        ..only_this_process();
        r1 = *(u64 *)(r6 + 8);                          // id
        if r1 != {getppid} goto out;
        ..current();
        r1 = r0;
        r2 = r10;
        r2 += -4;
        call bpf_map_lookup_elem;
        if r0 == 0 goto out;
        r7 = r0;
        ..dawdle;
        r1 = 1;
        lock *(u64 *)(r7 + 0) += r1;
    out:
        r0 = 0;
        exit;
    };
    let maps = vec![
        buffers(&["one", "two"]),
        map("one", MapKind::Array, (4, 8, 1)),
        map("two", MapKind::Array, (4, 8, 1)),
    ];
    let mut loaded = load(&only(raw_tp(TEST_HOOK, "sys_enter", code), maps));
    attach(&mut loaded);
    let [buffers, one, two] = ["buffers", "one", "two"].map(|name| loaded.map(name).expect("a map"));
    let count = |map: &Map| map.sum(&KEY).expect("a value")[0];
    call_getppid(EACH);
    assert_eq!([one, two].map(count), [0, 0], "nothing is in the slot");
    buffers.set_inner(0, one).unwrap_or_else(|error| panic!("{error}"));
    let done = AtomicBool::new(false);
    let (mut total, mut swaps, mut late) = (0_u64, 0_u32, 0_u32);
    thread::scope(|scope| {
        let storms: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| call_getppid(EACH))).collect();
        scope.spawn(|| {
            storms.into_iter().for_each(|storm| storm.join().expect("a storm"));
            done.store(true, Ordering::Release);
        });
        let (mut used, mut spare) = (one, two);
        // One more swap, for increments after the previous one.
        let mut last = false;
        while !last {
            last = done.load(Ordering::Acquire);
            buffers.set_inner(0, spare).unwrap_or_else(|error| panic!("{error}"));
            let read = count(used);
            // Wait until the other map is in use.
            while count(spare) == 0 && !done.load(Ordering::Acquire) {
                thread::yield_now();
            }
            late += u32::from(count(used) != read);
            total += read;
            swaps += 1;
            used.update(&KEY, &[0; 8], loader::Update::Any).unwrap_or_else(|error| panic!("{error}"));
            (used, spare) = (spare, used);
        }
    });
    assert_eq!(count(one) + count(two), 0, "everything was read");
    let all = u64::try_from(THREADS * EACH).expect("a count");
    // On 7.x a program may be preempted. Until it continues, the kernel skips it on that CPU, and
    // counts the skips.
    let missed = loaded.missed().expect("a count").unwrap_or(0);
    assert!(missed == 0 || running_version() >= (7, 0), "{missed} missed");
    assert_eq!(late, 0, "increments after a read in {swaps} swaps");
    assert!(total <= all && all <= total + missed, "{total} of {all} read, {missed} missed in {swaps} swaps");
    assert!(swaps > 2, "{swaps} swaps");
    Ok(())
}

/// An inner map that does not exist, is a map of maps or has another shape is refused, by the
/// loader or by the kernel.
fn inner_maps_have_to_fit() -> Outcome {
    let code = || bpf! { ..current(); out: r0 = 0; exit; };
    let one = || map("one", MapKind::Hash, (4, 8, 16));
    for (array, others, named) in [
        (buffers(&[]), vec![], "``"),
        (buffers(&["none"]), vec![one()], "`none`"),
        (buffers(&["one", "none"]), vec![one()], "`none`"),
        (buffers(&["buffers"]), vec![], "`buffers`"),
        (
            MapDef { inner: vec!["one".into()], ..map("buffers", MapKind::Array, (4, 8, 1)) },
            vec![one()],
            "`one`",
        ),
    ] {
        let maps = [vec![array], others].concat();
        let error =
            try_load(&only(raw_tp(TEST_HOOK, super::TRACEPOINT, code()), maps)).expect_err("no such map");
        assert!(matches!(error, LoadError::InnerMap { .. }), "{error:#}");
        assert!(error.to_string().ends_with(named), "{error}");
    }
    let other = map("other", MapKind::Hash, (4, 16, 16));
    let mut loaded = load_only(code(), vec![buffers(&["one", "other"]), one(), other]);
    assert!(!loaded.has_map("other"), "no program needs it");
    loaded.attach().expect("attaches");
    let [buffers, one, other] = ["buffers", "one", "other"].map(|name| loaded.map(name).expect("a map"));
    assert!(buffers.set_inner(0, other).is_err(), "values of another size");
    assert!(buffers.set_inner(1, one).is_err(), "there is one slot");
    assert_eq!(buffers.set_inner(0, one), Ok(()));
    Ok(())
}
