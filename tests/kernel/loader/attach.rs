//! Attached programs see events of this process, by typed and by probe reads, detached programs do
//! not, and nothing is left behind.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::parent_id;

use bpfasm::object::{Attach, Detach, Hook, MapKind, Need, Object};
use bpfasm::{Fragment, bpf};
use kernel_tests::leak::BpfObjects;
use kernel_tests::mntns;
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Availability, Feature, needs, requires};
use kernel_tests::runner::{Alone, Outcome, Test, test};
use loader::Loaded;
use nix::libc;

use super::{
    TEST_HOOK, TRACEPOINT, attach, attach_option, count_in, counter, load, load_only, map, object, only,
    only_hook, raw_tp,
};

pub const TESTS: &[Test] = &[
    test("loader::attached_sees_this_and_detached_does_not", attached_sees_this_and_detached_does_not),
    test("loader::stop_flag_is_set_on_detach", stop_flag_is_set_on_detach),
    test("loader::tracepoints_are_taken_all_or_none", tracepoints_are_taken_all_or_none),
    test("loader::typed_and_probed_read_the_same", typed_and_probed_read_the_same),
    test("loader::iterator_lists_our_files", iterator_lists_our_files),
    test("loader::runs_are_counted", runs_are_counted),
    test("loader::descriptors_do_not_leak", descriptors_do_not_leak),
    test("loader::no_bpf_object_is_left", no_bpf_object_is_left).alone(Alone::BpfObjects),
];

/// Exits unless this process is on the CPU, because other processes do the same things. Keeps r1 in
/// r6.
pub fn only_this_process() -> Fragment {
    let process = std::process::id().cast_signed();
    bpf! {
        r6 = r1;
        call bpf_get_current_pid_tgid;
        r0 >>= 32;
        if w0 == {process} goto mine;
        r0 = 0;
        exit;
    mine:
    }
}

/// A program at `sys_enter` that counts each `getppid(2)` of this process in `counts` and sends its
/// time to `events`.
fn watcher() -> Object {
    let getppid = i32::try_from(libc::SYS_getppid).expect("a small number");
    let code = bpf! {
        ..only_this_process();
        r1 = *(u64 *)(r6 + 8);                          // id
        if r1 != {getppid} goto out;
        ..count_in("counts", -4);
        call bpf_ktime_get_ns;
        *(u64 *)(r10 - 16) = r0;
        r1 = map events ll;
        r2 = r10;
        r2 += -16;
        w3 = 8;
        w4 = 1;                                         // BPF_RB_NO_WAKEUP
        call bpf_ringbuf_output;
    out:
        r0 = 0;
        exit;
    };
    let maps = vec![
        map("events", MapKind::RingBuf, (0, 0, 1 << 16)),
        map("counts", MapKind::PercpuArray, (4, 8, 1)),
    ];
    only(raw_tp(TEST_HOOK, "sys_enter", code), maps)
}

/// Makes the system call this many times.
pub fn call_getppid(times: usize) {
    for _ in 0..times {
        let _ = parent_id();
    }
}

/// There are events from attach to detach, and none before or after.
fn attached_sees_this_and_detached_does_not() -> Outcome {
    let mut loaded = load(&watcher());
    let mut events = loaded.events("events").unwrap_or_else(|e| panic!("{e:#}"));
    let mut seen = || events.drain(&mut |_| ()).unwrap_or_else(|e| panic!("{e}")).records;
    call_getppid(5);
    assert_eq!((seen(), counter(&loaded, "counts")), (0, 0), "not attached yet");
    attach(&mut loaded);
    call_getppid(7);
    assert_eq!((seen(), counter(&loaded, "counts")), (7, 7), "attached");
    call_getppid(3);
    loaded.detach();
    call_getppid(5);
    assert_eq!(
        (seen(), counter(&loaded, "counts")),
        (3, 10),
        "events from before the detach are still in the ring"
    );
    Ok(())
}

/// The map that the programs check is set by the detach.
fn stop_flag_is_set_on_detach() -> Outcome {
    let code = bpf! { r1 = map stopped ll; r0 = 0; exit; };
    let hook = Hook::new(TEST_HOOK, Need::Required, vec![raw_tp(TEST_HOOK, TRACEPOINT, code)]);
    let hook = hook.detach(Detach::StoppedBy("stopped".into()));
    let mut loaded = load(&object(vec![hook], vec![map("stopped", MapKind::Array, (4, 4, 1))]));
    let stopped = |loaded: &Loaded| {
        let map = loaded.map("stopped").unwrap_or_else(|e| panic!("{e:#}"));
        map.lookup(&[0; 4]).unwrap_or_else(|e| panic!("{e}")).expect("a value") != [0; 4]
    };
    attach(&mut loaded);
    assert!(!stopped(&loaded));
    loaded.detach();
    assert!(stopped(&loaded));
    Ok(())
}

/// One program at two tracepoints by perf events; if one tracepoint is missing, at none.
fn tracepoints_are_taken_all_or_none() -> Outcome {
    mntns::enter_new();
    mntns::mount_tracefs();
    let id = "/sys/kernel/tracing/events/syscalls/sys_enter_getppid/id";
    let absent = fs::read(id).err().map(|error| format!("{id}: {error}"));
    requires("tracepoints of system calls in tracefs", Availability::Optional, absent)?;
    let counting = || {
        bpf! {
            ..only_this_process();
            ..count_in("counts", -4);
            r0 = 0;
            exit;
        }
    };
    let object = |names: [&'static str; 2]| {
        let attach = Attach::Tracepoints("syscalls".into(), names.map(Into::into).into());
        let attach_options = vec![attach_option(TEST_HOOK, attach, counting())];
        object(
            vec![Hook::new(TEST_HOOK, Need::Optional, attach_options)],
            vec![map("counts", MapKind::Array, (4, 8, 1))],
        )
    };
    let mut both = load(&object(["sys_enter_getppid", "sys_exit_getppid"]));
    attach(&mut both);
    call_getppid(5);
    assert_eq!(counter(&both, "counts"), 10, "{:?}", only_hook(&both));
    both.detach();

    let before = descriptors();
    let mut none = load(&object(["sys_enter_getppid", "sys_enter_no_such_call"]));
    attach(&mut none);
    let report = only_hook(&none);
    assert!(report.taken.is_none() && report.refused.len() == 1, "{report:?}");
    call_getppid(5);
    assert_eq!(counter(&none, "counts"), 0);
    drop(none);
    assert_eq!(descriptors(), before);
    Ok(())
}

/// The same field through a typed pointer and through a probe read.
fn typed_and_probed_read_the_same() -> Outcome {
    needs(Feature::KernelBtf)?;
    needs(Feature::ProbeReads)?;
    Netns::enter_new();
    let store = || {
        bpf! {
            *(u32 *)(r10 - 8) = w0;
            *(u32 *)(r10 - 4) = 0;
            r1 = map out ll;
            r2 = r10;
            r2 += -4;
            r3 = r10;
            r3 += -8;
            w4 = 0;
            call bpf_map_update_elem;
            r0 = 0;
            exit;
        }
    };
    let typed = bpf! {
        ..only_this_process();
        r1 = *(u64 *)(r6 + 0);
        w0 = *(u16 *)(r1 + sock.sk_protocol);
        ..store();
    };
    let probed = bpf! {
        ..only_this_process();
        r3 = *(u64 *)(r6 + 0);
        r3 += sock.sk_protocol;
        *(u64 *)(r10 - 16) = 0;
        r1 = r10;
        r1 += -16;
        w2 = sizeof(sock.sk_protocol);
        call bpf_probe_read_kernel;
        w0 = *(u16 *)(r10 - 16);
        ..store();
    };
    for program in [
        attach_option(TEST_HOOK, Attach::TpBtf(TRACEPOINT.into()), typed),
        raw_tp(TEST_HOOK, TRACEPOINT, probed),
    ] {
        let mut loaded = load(&only(program, vec![map("out", MapKind::Array, (4, 4, 1))]));
        attach(&mut loaded);
        // To LISTEN and back to CLOSE.
        drop(TcpListener::bind("127.0.0.1:0").expect("a listener"));
        let out = loaded.map("out").expect("the object's map").lookup(&0_u32.to_ne_bytes());
        let tcp = libc::IPPROTO_TCP.to_ne_bytes().to_vec();
        assert_eq!(out, Ok(Some(tcp)), "at {:?}", only_hook(&loaded).taken);
    }
    Ok(())
}

/// `iter/task_file` lists every file that this test has open, with its process.
fn iterator_lists_our_files() -> Outcome {
    needs(Feature::KernelBtf)?;
    let code = bpf! {
        r6 = r1;
        r7 = *(u64 *)(r6 + bpf_iter__task_file.task);
        if r7 == 0 goto out;
        w1 = *(u32 *)(r7 + task_struct.tgid);
        *(u32 *)(r10 - 8) = w1;
        w1 = *(u32 *)(r6 + bpf_iter__task_file.fd);
        *(u32 *)(r10 - 4) = w1;
        r1 = *(u64 *)(r6 + bpf_iter__task_file.meta);
        r1 = *(u64 *)(r1 + bpf_iter_meta.seq);
        r2 = r10;
        r2 += -8;
        w3 = 8;
        call bpf_seq_write;
    out:
        r0 = 0;
        exit;
    };
    let mut loaded =
        load(&only(attach_option(TEST_HOOK, Attach::Iter("task_file".into()), code), Vec::new()));
    assert!(matches!(loaded.run_iter(TEST_HOOK), Ok(None)), "before it is attached");
    attach(&mut loaded);
    // More files than one read returns.
    let files: Vec<File> = (0..900).map(|_| File::open("/dev/null").expect("open /dev/null")).collect();
    for _ in 0..2 {
        let bytes = loaded.run_iter(TEST_HOOK).unwrap_or_else(|e| panic!("{e:#}")).expect("it is attached");
        let (words, rest) = bytes.as_chunks::<4>();
        let (pairs, odd) = words.as_chunks::<2>();
        assert!(rest.is_empty() && odd.is_empty(), "{} bytes", bytes.len());
        let proc_net: HashSet<[u32; 2]> = pairs.iter().map(|pair| pair.map(u32::from_ne_bytes)).collect();
        for file in &files {
            let fd = u32::try_from(file.as_raw_fd()).expect("a descriptor");
            assert!(proc_net.contains(&[std::process::id(), fd]), "file {fd} of {}", files.len());
        }
    }
    Ok(())
}

/// `run_count` while statistics are on, and no run missed.
fn runs_are_counted() -> Outcome {
    let idle = load_only(bpf! { r0 = 0; exit; }, Vec::new());
    let mut busy = load(&watcher());
    let counting = loader::enable_stats().expect("BPF_ENABLE_STATS");
    attach(&mut busy);
    call_getppid(1);
    let count = |loaded: &Loaded| {
        let stats = loaded.stats().unwrap_or_else(|e| panic!("{e:#}"));
        assert_eq!(stats.len(), 1, "{stats:?}");
        stats[0].run_count
    };
    assert!(count(&busy) > 0);
    drop(counting);
    assert_eq!(busy.missed().unwrap_or_else(|e| panic!("{e:#}")).unwrap_or(0), 0);
    assert_eq!(count(&idle), 0, "never ran");
    Ok(())
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("a directory").count()
}

/// Programs, maps, links and rings have open files. The runner checks every test for files left
/// open; this test shows that there are some to close.
fn descriptors_do_not_leak() -> Outcome {
    let before = descriptors();
    {
        let mut loaded = load(&watcher());
        let ring = loaded.events("events").unwrap_or_else(|e| panic!("{e:#}"));
        attach(&mut loaded);
        // Two maps, a program, its link, and the ring's epoll descriptor.
        assert!(descriptors() >= before + 5, "{} files", descriptors() - before);
        assert!(ring.as_fd().as_raw_fd() >= 0);
    }
    assert_eq!(descriptors(), before);
    Ok(())
}

/// Perf buffers have the most objects: an event for each CPU, and its entry in the map.
fn no_bpf_object_is_left() -> Outcome {
    let before = BpfObjects::now()?;
    let code = bpf! { r1 = map events ll; r0 = 0; exit; };
    let mut loaded = load_only(code, vec![map("events", MapKind::PerfEventArray, (4, 4, 0))]);
    let events = loaded.events("events").unwrap_or_else(|e| panic!("{e:#}"));
    attach(&mut loaded);
    drop((loaded, events));
    before.assert_none_left();
    Ok(())
}
