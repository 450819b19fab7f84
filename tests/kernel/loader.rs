//! The loader against the running kernel: programs that run exactly when asked (`BPF_PROG_TEST_RUN`), rings, maps, the
//! ladder, and what it says when the kernel refuses.

use bpfasm::object::{Attach, Hook, MapDef, MapKind, Need, Object, ProgramDef};
use bpfasm::{Fragment, Program, bpf};
use btf::Btf;
use kernel_tests::gate::{Feature, needs};
use kernel_tests::leak::BpfObjects;
use kernel_tests::runner::{Outcome, Test};
use loader::{LoadError, Loaded, Loader, Update};

pub const TESTS: &[Test] = &[
    ("loader::ringbuf_hands_out_every_record", || hands_out_every_record(MapKind::RingBuf)),
    ("loader::perf_buffer_hands_out_every_record", || hands_out_every_record(MapKind::PerfEventArray)),
    ("loader::a_full_ring_is_counted_and_recovers", a_full_ring_is_counted_and_recovers),
    ("loader::fields_are_found_by_name", fields_are_found_by_name),
    ("loader::maps_keep_what_they_are_given", maps_keep_what_they_are_given),
    ("loader::counters_of_all_cpus_add_up", counters_of_all_cpus_add_up),
    ("loader::the_next_rung_is_taken", the_next_rung_is_taken),
    ("loader::a_required_hook_has_to_hold", a_required_hook_has_to_hold),
    ("loader::a_refusal_names_our_source", a_refusal_names_our_source),
    ("loader::detached_programs_do_not_run", detached_programs_do_not_run),
    ("loader::nothing_is_left", nothing_is_left),
];

/// A raw tracepoint that every kernel since 4.16 has.
const TRACEPOINT: &str = "inet_sock_set_state";

const EVENTS: &str = "events";
const COUNTS: &str = "counts";

#[track_caller]
fn kernel_btf() -> Btf {
    loader::kernel_btf(None).unwrap_or_else(|e| panic!("{e:#}"))
}

fn map(name: &'static str, kind: MapKind, (key_size, value_size, max_entries): (u32, u32, u32)) -> MapDef {
    MapDef { name: name.into(), kind, key_size, value_size, max_entries, flags: 0, key: None, value: None }
}

fn rung(name: &'static str, attach: Attach, code: Fragment) -> ProgramDef {
    ProgramDef {
        name: name.into(),
        attach,
        program: Program::link(name, code).expect("a program that links"),
    }
}

fn raw_tp(code: Fragment) -> ProgramDef {
    rung("test", Attach::RawTp(TRACEPOINT.into()), code)
}

fn object(hooks: Vec<Hook>, maps: Vec<MapDef>) -> Object {
    Object { name: "test".into(), license: "GPL".into(), hooks, maps, consts: Vec::new() }
}

fn hook(name: &'static str, need: Need, rungs: Vec<ProgramDef>) -> Hook {
    Hook { name: name.into(), need, rungs }
}

/// Loads an object of one required raw tracepoint program.
#[track_caller]
fn load(code: Fragment, maps: Vec<MapDef>) -> Loaded {
    let object = object(vec![hook("test", Need::Required, vec![raw_tp(code)])], maps);
    Loader::new(&kernel_btf()).load(&object).unwrap_or_else(|e| panic!("{e:#}"))
}

/// Runs the program once on CPU 0, with these arguments.
#[track_caller]
fn run(loaded: &Loaded, args: &[u64]) -> u32 {
    loaded.test_run("test", args, Some(0)).unwrap_or_else(|e| panic!("{e:#}"))
}

/// Sends its two arguments; returns what the helper said.
fn send_arguments(kind: MapKind) -> Fragment {
    let send = if kind == MapKind::RingBuf {
        bpf! {
            r1 = map events ll;
            r2 = r10;
            r2 += -16;
            w3 = 16;
            r4 = 1;                                     // BPF_RB_NO_WAKEUP
            call bpf_ringbuf_output;
        }
    } else {
        bpf! {
            r1 = r6;
            r2 = map events ll;
            w3 = -1;                                    // BPF_F_CURRENT_CPU
            r4 = r10;
            r4 += -16;
            w5 = 16;
            call bpf_perf_event_output;
        }
    };
    bpf! {
        r6 = r1;
        r1 = *(u64 *)(r6 + 0);
        *(u64 *)(r10 - 16) = r1;
        r1 = *(u64 *)(r6 + 8);
        *(u64 *)(r10 - 8) = r1;
        ..send;
        exit;
    }
}

fn ring(kind: MapKind) -> MapDef {
    match kind {
        MapKind::RingBuf => map(EVENTS, kind, (0, 0, 4096)),
        _ => map(EVENTS, kind, (4, 4, 0)),
    }
}

/// The two words of each record, with the kernel's padding cut off.
#[track_caller]
fn drain(events: &mut loader::Events) -> Vec<[u64; 2]> {
    let mut records = Vec::new();
    let drained = events.drain(&mut |record| {
        let (words, _) = record.as_chunks::<8>();
        records.push([0, 1].map(|at| u64::from_ne_bytes(words[at])));
    });
    let drained = drained.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((drained.records, drained.lost), (records.len() as u64, 0));
    records
}

/// In order, whole, and once, many times around the ring.
fn hands_out_every_record(kind: MapKind) -> Outcome {
    const BATCH: u64 = 50;
    let loaded = load(send_arguments(kind), vec![ring(kind)]);
    let mut events = loaded.events(EVENTS).unwrap_or_else(|e| panic!("{e:#}"));
    assert!(drain(&mut events).is_empty(), "an empty ring");
    for batch in 0..200 {
        let sent: Vec<[u64; 2]> = (0..BATCH).map(|n| [batch * BATCH + n, !n]).collect();
        for record in &sent {
            assert_eq!(run(&loaded, record), 0, "room for {record:?}");
        }
        assert_eq!(drain(&mut events), sent);
    }
    Ok(())
}

/// A full ring refuses, keeps what it has, and takes more when it is drained.
fn a_full_ring_is_counted_and_recovers() -> Outcome {
    // A page holds 16 bytes and a header of 8 for each record; the last place stays free.
    const FITS: u64 = 4096 / 24;
    let loaded = load(send_arguments(MapKind::RingBuf), vec![ring(MapKind::RingBuf)]);
    let mut events = loaded.events(EVENTS).unwrap_or_else(|e| panic!("{e:#}"));
    for round in 0..3 {
        let taken: Vec<[u64; 2]> =
            (0..2 * FITS).map(|n| [round, n]).filter(|r| run(&loaded, r) == 0).collect();
        assert!(taken.len() as u64 >= FITS - 1 && taken.len() as u64 <= FITS, "{} records", taken.len());
        assert_eq!(drain(&mut events), taken, "the first ones, whole");
    }
    Ok(())
}

/// A field symbol becomes the offset that the kernel's BTF says, which `bpf_get_current_task` can be asked about.
fn fields_are_found_by_name() -> Outcome {
    let code = bpf! {
        call bpf_get_current_task;
        r3 = r0;
        r3 += task_struct.tgid;
        r1 = r10;
        r1 += -8;
        w2 = sizeof(task_struct.tgid);
        call bpf_probe_read_kernel;
        w0 = *(u32 *)(r10 - 8);
        exit;
    };
    // On no certain CPU: elsewhere it would run in whatever task that CPU is busy with.
    let ran = load(code, Vec::new()).test_run("test", &[], None).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(ran, std::process::id(), "the program runs in this process");
    Ok(())
}

fn maps_keep_what_they_are_given() -> Outcome {
    let loaded = load(bpf! { r0 = 0; exit; }, vec![map("table", MapKind::Hash, (4, 8, 3))]);
    let table = loaded.map("table").expect("the object's map");
    let (one, value) = (1u32.to_ne_bytes(), 11u64.to_ne_bytes());
    assert_eq!(table.lookup(&one), Ok(None));
    assert_eq!(table.update(&one, &value, Update::Existing), Ok(false), "nothing to overwrite");
    assert_eq!(table.update(&one, &value, Update::New), Ok(true));
    assert_eq!(table.update(&one, &value, Update::New), Ok(false), "it is there");
    assert_eq!(table.lookup(&one), Ok(Some(value.to_vec())));
    for key in 2..=3u32 {
        assert_eq!(table.update(&key.to_ne_bytes(), &u64::from(key).to_ne_bytes(), Update::Any), Ok(true));
    }
    let full = table.update(&4u32.to_ne_bytes(), &value, Update::Any).expect_err("a table of three");
    assert_eq!((full.map.as_str(), full.errno), ("table", loader::Errno::BIG), "{full}");
    assert!(table.update(&[1], &value, Update::Any).is_err(), "a key of one byte");
    let entries = table.entries().expect("entries");
    let mut keys: Vec<_> = entries.iter().map(|(key, _)| key.to_vec()).collect();
    keys.sort();
    assert_eq!(keys, [1, 2, 3].map(|key: u32| key.to_ne_bytes().to_vec()));
    assert_eq!(table.delete(&one), Ok(true));
    assert_eq!(table.delete(&one), Ok(false));
    assert_eq!(table.take_entries().expect("entries").len(), 2);
    assert_eq!(table.next_key(None), Ok(None), "taken");
    assert!(matches!(loaded.map("other"), Err(LoadError::NoMap { .. })));
    Ok(())
}

/// Adds one to the only counter of [`COUNTS`].
fn count_one() -> Fragment {
    bpf! {
        *(u32 *)(r10 - 4) = 0;
        r1 = map counts ll;
        r2 = r10;
        r2 += -4;
        call bpf_map_lookup_elem;
        if r0 == 0 goto out;
        r1 = 1;
        lock *(u64 *)(r0 + 0) += r1;
    out:
        r0 = 0;
        exit;
    }
}

fn counts() -> MapDef {
    map(COUNTS, MapKind::PercpuArray, (4, 8, 1))
}

#[track_caller]
fn counted(loaded: &Loaded) -> u64 {
    loaded.map(COUNTS).expect("the counters").sum(&0u32.to_ne_bytes()).expect("a sum")[0]
}

fn counters_of_all_cpus_add_up() -> Outcome {
    let loaded = load(count_one(), vec![counts()]);
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    for cpu in 0..cpus {
        for _ in 0..=cpu {
            loaded.test_run("test", &[], Some(cpu)).unwrap_or_else(|e| panic!("{e:#}"));
        }
    }
    assert_eq!(counted(&loaded), (1..=u64::from(cpus)).sum::<u64>());
    Ok(())
}

/// The first way does not exist, the second holds, and the report says both.
fn the_next_rung_is_taken() -> Outcome {
    let nothing = || bpf! { r0 = 0; exit; };
    let rungs = vec![
        rung("one", Attach::TpBtf("no_such_tracepoint".into()), nothing()),
        rung("two", Attach::RawTp("no_such_tracepoint".into()), nothing()),
        rung("three", Attach::RawTp(TRACEPOINT.into()), nothing()),
    ];
    let optional = vec![rung("four", Attach::RawTp("no_such_tracepoint".into()), nothing())];
    let hooks = vec![hook("test", Need::Required, rungs), hook("other", Need::Optional, optional)];
    let mut loaded =
        Loader::new(&kernel_btf()).load(&object(hooks, Vec::new())).unwrap_or_else(|e| panic!("{e:#}"));
    loaded.attach().unwrap_or_else(|e| panic!("{e:#}"));
    let [test, other] = loaded.rungs() else { panic!("two hooks: {:?}", loaded.rungs()) };
    assert_eq!(test.taken, Some(Attach::RawTp(TRACEPOINT.into())));
    assert_eq!(test.refused.len(), 2, "{:?}", test.refused);
    assert_eq!((other.taken.as_ref(), other.refused.len()), (None, 1));
    Ok(())
}

fn a_required_hook_has_to_hold() -> Outcome {
    let rungs = vec![rung("one", Attach::RawTp("no_such_tracepoint".into()), bpf! { r0 = 0; exit; })];
    let object = object(vec![hook("test", Need::Required, rungs)], Vec::new());
    let error = match Loader::new(&kernel_btf()).load(&object) {
        Err(error) => error,
        // A raw tracepoint is looked up when it is attached.
        Ok(mut loaded) => loaded.attach().expect_err("no such tracepoint"),
    };
    assert!(
        matches!(&error, LoadError::NoRung { hook, refused } if hook == "test" && refused.len() == 1),
        "{error:#}"
    );
    assert!(error.to_string().contains("no_such_tracepoint"), "{error}");
    Ok(())
}

/// The verifier's complaint comes with the statement of ours that it is about, and where it stands.
fn a_refusal_names_our_source() -> Outcome {
    let line = line!() + 4;
    let code = bpf! {
        r1 = 0;
        // The verifier knows that r1 is no pointer.
        r0 = *(u64 *)(r1 + 24);
        exit;
    };
    let object = object(vec![hook("test", Need::Required, vec![raw_tp(code)])], Vec::new());
    let error = Loader::new(&kernel_btf()).load(&object).expect_err("a program that reads through 0");
    let text = error.to_string();
    assert!(text.contains(&format!("kernel/loader.rs:{line}: r0 = *(u64 *)(r1 + 24)")), "{error:#}");
    assert!(text.contains("R1 invalid mem access"), "{error:#}");
    assert!(
        error.to_string().lines().count() < format!("{error:#}").lines().count(),
        "the log is in the long form"
    );
    Ok(())
}

/// While attached the program sees this process's connections; detached it sees nothing, and its counters stay.
fn detached_programs_do_not_run() -> Outcome {
    let mut loaded = load(only_this_process(), vec![counts()]);
    assert_eq!(counted(&loaded), 0);
    connect_nowhere();
    assert_eq!(counted(&loaded), 0, "not attached yet");
    loaded.attach().unwrap_or_else(|e| panic!("{e:#}"));
    connect_nowhere();
    let attached = counted(&loaded);
    assert!(attached > 0, "attached");
    loaded.detach();
    connect_nowhere();
    assert_eq!(counted(&loaded), attached, "detached");
    Ok(())
}

/// Counts what happens while this process is on the CPU. Other processes of the machine connect as well.
fn only_this_process() -> Fragment {
    let pid = std::process::id().cast_signed();
    bpf! {
        call bpf_get_current_pid_tgid;
        r0 >>= 32;
        if w0 != {pid} goto other;
        ..count_one();
    other:
        r0 = 0;
        exit;
    }
}

/// A connect that changes states: to a port nobody listens at, in a namespace of its own.
fn connect_nowhere() {
    kernel_tests::netns::Netns::beside().run(|| {
        let refused = std::net::TcpStream::connect(("127.0.0.1", 9)).expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

fn nothing_is_left() -> Outcome {
    needs(Feature::KernelBtf)?;
    let before = BpfObjects::now()?;
    let mut loaded = load(send_arguments(MapKind::PerfEventArray), vec![ring(MapKind::PerfEventArray)]);
    let events = loaded.events(EVENTS).unwrap_or_else(|e| panic!("{e:#}"));
    loaded.attach().unwrap_or_else(|e| panic!("{e:#}"));
    drop((loaded, events));
    before.assert_none_left();
    Ok(())
}
