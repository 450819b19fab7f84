//! The loader against the running kernel: programs run by `BPF_PROG_TEST_RUN` or by events of this
//! process, and messages if the kernel refuses.

mod attach;
mod attach_options;
mod features;
mod inner;
mod insns;
mod maps;
mod messages;
mod pinned;
mod rings;
mod symbols;

use bpfasm::object::{Attach, Hook, MapDef, MapKind, Need, Object, ProgramDef};
use bpfasm::{Fragment, Program, bpf};
use btf::Btf;
use kernel_tests::runner::Test;
use loader::{HookReport, LoadError, Loaded, Loader};

pub const TESTS: &[&[Test]] = &[
    insns::TESTS,
    symbols::TESTS,
    maps::TESTS,
    inner::TESTS,
    pinned::TESTS,
    rings::TESTS,
    attach::TESTS,
    attach_options::TESTS,
    messages::TESTS,
    features::TESTS,
];

/// A raw tracepoint that every kernel with TCP has since 4.16, with few events.
const TRACEPOINT: &str = "inet_sock_set_state";
/// Attach points that every kernel has, to ask for features with.
const POINTS: loader::AttachPoints<'_> =
    loader::AttachPoints { tracepoint: TRACEPOINT, function: "tcp_set_state", iterators: &[] };

/// The hook and the program of an object that needs only one.
const TEST_HOOK: &str = "test";

#[track_caller]
fn kernel() -> Btf {
    loader::kernel_btf(None).unwrap_or_else(|e| panic!("{e:#}"))
}

fn map(name: &'static str, kind: MapKind, (key_size, value_size, max_entries): (u32, u32, u32)) -> MapDef {
    MapDef::new(name, kind, key_size, value_size, max_entries)
}

fn attach_option(name: &'static str, attach: Attach, code: Fragment) -> ProgramDef {
    let program = Program::link(name, code).expect("a program that links");
    ProgramDef { name: name.into(), attach, program }
}

fn raw_tp(name: &'static str, tracepoint: &'static str, code: Fragment) -> ProgramDef {
    attach_option(name, Attach::RawTp(tracepoint.into()), code)
}

/// Adds one to the only number of an array, and clobbers `r0` to `r5`. The key is stored at `r10 +
/// key`.
fn count_in(array: &'static str, key: i16) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {key}) = 0;
        r1 = map {array} ll;
        r2 = r10;
        r2 += {key};
        call bpf_map_lookup_elem;
        if r0 == 0 goto none;
        r1 = 1;
        lock *(u64 *)(r0 + 0) += r1;
    none:
    }
}

fn object(hooks: Vec<Hook>, maps: Vec<MapDef>) -> Object {
    Object { name: "test".into(), license: "GPL".into(), hooks, maps, consts: vec![("ANSWER".into(), 42)] }
}

/// An object of one required program.
fn only(program: ProgramDef, maps: Vec<MapDef>) -> Object {
    object(vec![Hook::new(TEST_HOOK, Need::Required, vec![program])], maps)
}

fn try_load(object: &Object) -> Result<Loaded, LoadError> {
    Loader::new(&kernel()).load(object)
}

#[track_caller]
fn load(object: &Object) -> Loaded {
    try_load(object).unwrap_or_else(|e| panic!("{e:#}"))
}

/// Loads one required program at [`TRACEPOINT`].
#[track_caller]
fn load_only(code: Fragment, maps: Vec<MapDef>) -> Loaded {
    load(&only(raw_tp(TEST_HOOK, TRACEPOINT, code), maps))
}

#[track_caller]
fn attach(loaded: &mut Loaded) {
    loaded.attach().unwrap_or_else(|e| panic!("{e:#}"));
}

/// Runs the only program once with these arguments, on a CPU if one is named.
#[track_caller]
fn run(loaded: &Loaded, args: &[u64], cpu: Option<u32>) -> u32 {
    loaded.test_run(TEST_HOOK, args, cpu).unwrap_or_else(|e| panic!("{e:#}"))
}

/// The number of CPUs on which programs can run.
fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

/// The value of a counter, summed over all CPUs if it is one for each CPU.
#[track_caller]
fn counter(loaded: &Loaded, map: &str) -> u64 {
    loaded.map(map).expect("a map of the object").sum(&0_u32.to_ne_bytes()).expect("a sum")[0]
}

/// The report on the only hook.
#[track_caller]
fn only_hook(loaded: &Loaded) -> &HookReport {
    let [report] = loaded.hooks() else { panic!("one hook: {:?}", loaded.hooks()) };
    report
}

/// Why the only attach option of the only hook was refused.
#[track_caller]
fn only_refusal(object: &Object) -> LoadError {
    match try_load(object).expect_err("an object that cannot be loaded") {
        LoadError::NoAttachOption { hook, mut refused } => {
            assert_eq!((hook.as_str(), refused.len()), (TEST_HOOK, 1), "{refused:?}");
            refused.remove(0).1
        }
        error => panic!("{error:#}"),
    }
}
