//! Maps pinned by another program: our programs read them, and maps of another shape are refused
//! with a reason.

use std::path::Path;
use std::process::Command;

use bpfasm::bpf;
use bpfasm::object::{MapDef, MapKind};
use kernel_tests::mntns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::scratch::Scratch;
use loader::{Errno, PinnedFound, Update, check_pinned};

use super::{TRACEPOINT, load_only, map, only, raw_tp, run, try_load};

pub const TESTS: &[Test] = &[
    test("loader::a_pinned_map_is_read", a_pinned_map_is_read),
    test("loader::a_wrong_pin_is_refused", a_wrong_pin_is_refused),
];

/// Runs bpftool.
#[track_caller]
fn bpftool(args: &[&str]) {
    let output = Command::new("bpftool").args(args).output().expect("run bpftool");
    assert!(output.status.success(), "bpftool {args:?}: {output:?}");
}

/// A BPF file system that only this process sees.
fn file_system() -> &'static Path {
    const USUAL: &str = "/sys/fs/bpf";
    mntns::enter_new();
    mntns::mount_bpf(USUAL);
    Path::new(USUAL)
}

/// Makes a map of sixteen entries and pins it.
#[track_caller]
fn pin(path: &Path, kind: &str, key: &str, value: &str) {
    let path = path.to_str().expect("UTF-8");
    bpftool(&[
        "map", "create", path, "type", kind, "key", key, "value", value, "entries", "16", "name", "others",
    ]);
}

/// Keys and values of eight bytes.
fn pinned(path: &Path) -> MapDef {
    MapDef { pinned: Some(path.to_owned()), ..map("theirs", MapKind::Hash, (8, 8, 1)) }
}

/// A program finds entries that another program stores, before and after it is loaded. The loader
/// cannot store any.
fn a_pinned_map_is_read() -> Outcome {
    needs(Feature::Program("bpftool"))?;
    let directory = file_system();
    for (kind, is) in [("hash", MapKind::Hash), ("lru_hash", MapKind::LruHash)] {
        let path = directory.join(kind);
        pin(&path, kind, "8", "8");
        let shown = path.to_str().expect("UTF-8");
        let put = |key: &str, value: &str| {
            let key = [key, "0 0 0 0 0 0 0"].join(" ");
            let value = [value, "0 0 0 0 0 0 0"].join(" ");
            let words = ["map update pinned", shown, "key", &key, "value", &value].join(" ");
            bpftool(&words.split(' ').collect::<Vec<_>>());
        };
        put("5", "50");
        // The value for the argument, or 0.
        let code = bpf! {
            r1 = *(u64 *)(r1 + 0);
            *(u64 *)(r10 - 8) = r1;
            r1 = map theirs ll;
            r2 = r10;
            r2 += -8;
            call bpf_map_lookup_elem;
            if r0 == 0 goto out;
            r0 = *(u64 *)(r0 + 0);
        out:
            exit;
        };
        let loaded = load_only(code, vec![pinned(&path)]);
        put("6", "60");
        // Not on a given CPU: there it would run in another task.
        assert_eq!([5, 6, 7].map(|key| run(&loaded, &[key], None)), [50, 60, 0], "{kind}");
        let theirs = loaded.map("theirs").expect("a map that is used");
        assert_eq!((theirs.kind(), theirs.max_entries()), (is, 16));
        assert_eq!(theirs.lookup(&5_u64.to_ne_bytes()), Ok(Some(50_u64.to_ne_bytes().to_vec())));
        let refused = theirs.update(&5_u64.to_ne_bytes(), &[0; 8], Update::Any).expect_err("a map to read");
        assert_eq!(refused.errno, Errno::PERM, "{refused}");
        assert_eq!(check_pinned(&path, 8, &[4, 8]).expect("a map that fits"), 8);
        assert_eq!(check_pinned(&path, 8, &[]).expect("a map that fits"), 8);
    }
    Ok(())
}

/// The error says in one line what the path is, both when it is checked and when a program is
/// loaded.
fn a_wrong_pin_is_refused() -> Outcome {
    needs(Feature::Program("bpftool"))?;
    let scratch = Scratch::new();
    let directory = file_system();
    let file = scratch.file("file", b"no map");
    let [array, keys, values, percpu, missing] =
        ["array", "keys", "values", "percpu", "missing"].map(|name| directory.join(name));
    pin(&array, "array", "4", "8");
    pin(&keys, "hash", "4", "8");
    pin(&values, "hash", "8", "4");
    pin(&percpu, "percpu_hash", "8", "8");
    for (path, said) in [
        (&array, "an array map, keys of 4 bytes, values of 8"),
        (&keys, "a hash map, keys of 4 bytes, values of 8"),
        (&values, "a hash map, keys of 8 bytes, values of 4"),
        (&percpu, "a per-CPU hash map, keys of 8 bytes, values of 8"),
        (&missing, "no such file or directory (os error 2)"),
        (&file, "not in a BPF file system"),
    ] {
        let code = bpf! { r1 = map theirs ll; r0 = 0; exit; };
        let object = only(raw_tp(super::TEST_HOOK, TRACEPOINT, code), vec![pinned(path)]);
        let errors = [
            check_pinned(path, 8, &[8]).expect_err("no such map").to_string(),
            try_load(&object).expect_err("no such map").to_string(),
        ];
        for error in errors {
            let right = "; expected a pinned hash map, keys of 8 bytes, values of 8";
            assert_eq!(error, format!("{}: {said}{right}", path.display()));
        }
    }
    let program = directory.join("program");
    let loaded = load_only(bpf! { r0 = 0; exit; }, Vec::new());
    let id = loaded.stats().unwrap_or_else(|e| panic!("{e:#}"))[0].id.to_string();
    bpftool(&["prog", "pin", "id", &id, program.to_str().expect("UTF-8")]);
    match check_pinned(&program, 8, &[8]) {
        Err(error) => assert_eq!(error.found, PinnedFound::NotAMap, "{error}"),
        other => panic!("{other:?}"),
    }
    Ok(())
}
