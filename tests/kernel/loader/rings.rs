//! Rings: each event is delivered once, in order, or counted as lost.

use std::ops::Range;
use std::time::Duration;

use bpfasm::bpf;
use bpfasm::object::{MapKind, Object};
use bpfasm::reg::R6;
use kernel_tests::deadline::{WAIT_LIMIT, patient};
use kernel_tests::runner::{Outcome, Test, test};
use loader::{Drained, Events, Loaded, Loader};

use super::{TEST_HOOK, TRACEPOINT, count_in, counter, cpus, kernel, load, map, only, raw_tp, run};

pub const TESTS: &[Test] = &[
    test("loader::ring_buffer_delivers_all_in_order", || delivers(Channel::RingBuf(NO_WAKEUP))),
    test("loader::perf_buffers_deliver_all_by_time", || delivers(Channel::Perf)),
    test(
        "loader::a_ring_buffer_keeps_what_comes_before_its_reader",
        a_ring_buffer_keeps_what_comes_before_its_reader,
    ),
    test("loader::a_full_ring_buffer_counts_and_recovers", a_full_ring_buffer_counts_and_recovers),
    test("loader::a_full_perf_buffer_counts_what_it_lost", a_full_perf_buffer_counts_what_it_lost),
    test("loader::ring_buffer_wakes_only_on_request", ring_buffer_wakes_only_on_request),
    test("loader::perf_buffer_wakes_at_its_watermark", perf_buffer_wakes_at_its_watermark),
];

/// `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP`, linux/bpf.h.
const NO_WAKEUP: i32 = 1;
const FORCE_WAKEUP: i32 = 2;

/// The smallest ring: a page.
const PAGE: u32 = 4096;

/// How events are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    /// By a ring buffer, with these flags.
    RingBuf(i32),
    Perf,
}

/// A program that sends the time and its two arguments, and counts in `lost` events that did not
/// fit.
fn sender(channel: Channel, bytes: u32) -> Object {
    let emit = match channel {
        Channel::RingBuf(flags) => bpf! {
            r1 = map events ll;
            r2 = r10;
            r2 += -24;
            w3 = 24;
            w4 = {flags};
            call bpf_ringbuf_output;
        },
        Channel::Perf => bpf! {
            r1 = {R6};
            r2 = map events ll;
            w3 = -1;                                    // BPF_F_CURRENT_CPU
            r4 = r10;
            r4 += -24;
            w5 = 24;
            call bpf_perf_event_output;
        },
    };
    let code = bpf! {
        r6 = r1;
        call bpf_ktime_get_ns;
        *(u64 *)(r10 - 24) = r0;
        r1 = *(u64 *)(r6 + 0);
        *(u64 *)(r10 - 16) = r1;
        r1 = *(u64 *)(r6 + 8);
        *(u64 *)(r10 - 8) = r1;
        ..emit;
        if r0 s>= 0 goto out;
        ..count_in("lost", -28);
    out:
        r0 = 0;
        exit;
    };
    let events = match channel {
        Channel::RingBuf(_) => map("events", MapKind::RingBuf, (0, 0, bytes)),
        Channel::Perf => map("events", MapKind::PerfEventArray, (4, 4, 0)),
    };
    only(raw_tp(TEST_HOOK, TRACEPOINT, code), vec![events, map("lost", MapKind::Array, (4, 8, 1))])
}

/// A sender by perf buffers of one page each.
#[track_caller]
fn load_small_perf() -> Loaded {
    let loader = kernel();
    let loader = Loader::new(&loader).perf_buffer(PAGE as usize);
    loader.load(&sender(Channel::Perf, 0)).unwrap_or_else(|e| panic!("{e:#}"))
}

#[track_caller]
fn events(loaded: &Loaded) -> Events {
    loaded.events("events").unwrap_or_else(|e| panic!("{e:#}"))
}

/// Sends an event for each number, with its complement, from all CPUs in turn.
#[track_caller]
fn send(loaded: &Loaded, numbers: Range<u64>) {
    for number in numbers {
        let cpu = u32::try_from(number % u64::from(cpus())).expect("a CPU");
        run(loaded, &[number, !number], Some(cpu));
    }
}

/// Drains, checks each record, and returns the numbers.
#[track_caller]
fn drain(events: &mut Events) -> (Vec<u64>, Drained) {
    let (mut numbers, mut time) = (Vec::new(), 0);
    let drained = events.drain(&mut |record| {
        // A perf buffer's record may have padding behind it.
        let (words, _) = record.as_chunks::<8>();
        let [at, number, complement] = [0, 1, 2].map(|at| u64::from_ne_bytes(words[at]));
        assert!(at >= time, "in the order of time");
        assert_eq!(complement, !number, "whole");
        time = at;
        numbers.push(number);
    });
    let drained = drained.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(drained.records, numbers.len() as u64);
    (numbers, drained)
}

/// No event is missing or delivered twice, in order, many times around the ring. One drain sorts
/// the perf buffers of all CPUs.
fn delivers(channel: Channel) -> Outcome {
    const BATCH: u64 = 500;
    let loaded = load(&sender(channel, 1 << 16));
    let mut events = events(&loaded);
    assert!(drain(&mut events).0.is_empty(), "an empty ring");
    for batch in 0..20 {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        send(&loaded, numbers.clone());
        let (got, drained) = drain(&mut events);
        assert!(got.iter().copied().eq(numbers), "batch {batch}: {got:?}");
        assert_eq!(drained.lost, 0);
    }
    assert_eq!(counter(&loaded, "lost"), 0);
    assert!(drain(&mut events).0.is_empty(), "the ring is empty");
    Ok(())
}

/// A reader that opens the ring late gets all events, and is woken at once.
fn a_ring_buffer_keeps_what_comes_before_its_reader() -> Outcome {
    const SENT: u64 = 500;
    for flags in [NO_WAKEUP, FORCE_WAKEUP] {
        let loaded = load(&sender(Channel::RingBuf(flags), 1 << 16));
        send(&loaded, 0..SENT);
        let mut late = events(&loaded);
        assert!(is_woken(&late, patient(WAIT_LIMIT)), "flags {flags}");
        send(&loaded, SENT..2 * SENT);
        assert!(drain(&mut late).0.iter().copied().eq(0..2 * SENT));
        assert_eq!(counter(&loaded, "lost"), 0);
    }
    Ok(())
}

/// A full ring refuses events, keeps the earlier ones, and accepts more once it is drained. The
/// program sees each refusal.
fn a_full_ring_buffer_counts_and_recovers() -> Outcome {
    // 24 bytes and a header of 8 for each record; the last record may not fit.
    const FITS: u64 = PAGE as u64 / 32;
    const SENT: u64 = 1000;
    let loaded = load(&sender(Channel::RingBuf(NO_WAKEUP), PAGE));
    let mut events = events(&loaded);
    let mut delivered = 0;
    for round in 0..3 {
        let first = round * SENT;
        send(&loaded, first..first + SENT);
        let (got, drained) = drain(&mut events);
        let taken = got.len() as u64;
        assert!((FITS - 1..=FITS).contains(&taken), "{taken} records");
        assert!(got.iter().copied().eq(first..first + taken), "the first ones: {got:?}");
        delivered += taken;
        assert_eq!(delivered + counter(&loaded, "lost"), (round + 1) * SENT);
        assert_eq!(drained.lost, 0, "a ring buffer loses no events unseen by the program");
    }
    Ok(())
}

/// The kernel counts lost events and reports them with the next event that fits.
fn a_full_perf_buffer_counts_what_it_lost() -> Outcome {
    let loaded = load_small_perf();
    let mut events = events(&loaded);
    for number in 0..1000 {
        run(&loaded, &[number, !number], Some(0));
    }
    let (first, before) = drain(&mut events);
    assert!(!first.is_empty() && first.len() < 1000, "{} records", first.len());
    assert!(first.iter().copied().eq(0..first.len() as u64), "the first ones: {first:?}");
    run(&loaded, &[1000, !1000], Some(0));
    let (second, after) = drain(&mut events);
    assert_eq!(second, [1000]);
    let lost = before.lost + after.lost;
    assert_eq!(first.len() as u64 + lost, 1000);
    assert_eq!(lost, counter(&loaded, "lost"), "the program saw each failure");
    Ok(())
}

#[track_caller]
fn is_woken(events: &Events, within: Duration) -> bool {
    events.wait(within).unwrap_or_else(|e| panic!("{e}"))
}

/// Draining at intervals needs no wake-ups, which cost microseconds each.
fn ring_buffer_wakes_only_on_request() -> Outcome {
    let loaded = load(&sender(Channel::RingBuf(NO_WAKEUP), PAGE));
    let mut quiet = events(&loaded);
    send(&loaded, 0..100);
    assert!(!is_woken(&quiet, Duration::ZERO), "BPF_RB_NO_WAKEUP");
    assert_eq!(drain(&mut quiet).0.len(), 100);
    let loaded = load(&sender(Channel::RingBuf(FORCE_WAKEUP), PAGE));
    let mut loud = events(&loaded);
    assert!(!is_woken(&loud, Duration::ZERO), "nothing was sent");
    send(&loaded, 0..1);
    assert!(is_woken(&loud, patient(WAIT_LIMIT)), "BPF_RB_FORCE_WAKEUP");
    send(&loaded, 1..2);
    assert_eq!(drain(&mut loud).0, [0, 1]);
    assert!(!is_woken(&loud, Duration::ZERO), "the drain has cleared it");
    Ok(())
}

/// Readable when half of a buffer has been written since the last time.
fn perf_buffer_wakes_at_its_watermark() -> Outcome {
    // A record is 8 bytes of header, 4 of length, 24 of ours and 4 of padding.
    const HALF: u64 = PAGE as u64 / 2 / 40;
    let loaded = load_small_perf();
    let mut events = events(&loaded);
    let send = |numbers: Range<u64>| {
        for number in numbers {
            run(&loaded, &[number, !number], Some(0));
        }
    };
    send(0..HALF - 1);
    assert!(!is_woken(&events, Duration::ZERO), "not yet half");
    send(HALF - 1..HALF + 1);
    assert!(is_woken(&events, patient(WAIT_LIMIT)), "half of it");
    assert_eq!(drain(&mut events).0.len() as u64, HALF + 1);
    assert!(!is_woken(&events, Duration::ZERO), "the drain has cleared it");
    Ok(())
}
