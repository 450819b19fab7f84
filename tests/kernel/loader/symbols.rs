//! Names in a program become the numbers of the running kernel, or are reported as missing.

use std::fs;

use bpfasm::object::{Attach, Hook};
use bpfasm::{Access, bpf};
use btf::Btf;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::scratch::Scratch;
use loader::{LoadError, Loader};

use super::{
    TEST_HOOK, TRACEPOINT, attach_option, kernel, load, load_only, object, only, only_hook, only_refusal,
    raw_tp, run,
};

pub const TESTS: &[Test] = &[
    test("loader::fields_are_found_by_name", fields_are_found_by_name),
    test("loader::dead_code_behind_exists_loads", dead_code_behind_exists_loads),
    test("loader::arguments_a_tracepoint_lacks_are_not_read", arguments_a_tracepoint_lacks_are_not_read),
    test("loader::a_file_of_another_kernel_is_refused", a_file_of_another_kernel_is_refused),
    test("loader::a_file_gives_fields_but_no_attach_points", a_file_gives_fields_but_no_attach_points),
];

/// A field symbol becomes the offset in the kernel's BTF; a read of the current task checks it.
fn fields_are_found_by_name() -> Outcome {
    needs(Feature::ProbeReads)?;
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
    // Not on a given CPU: there it would run in another task.
    let ran = run(&load_only(code, Vec::new()), &[], None);
    assert_eq!(ran, std::process::id(), "the program runs in this process");
    Ok(())
}

/// Code for a missing field loads if `exists` guards it.
fn dead_code_behind_exists_loads() -> Outcome {
    let code = bpf! {
        r2 = *(u64 *)(r1 + 0);
        w0 = 1;
        w3 = exists(sock.no_such_field);
        if w3 == 0 goto out;
        w0 = *(u32 *)(r2 + sock.no_such_field);
        r2 += sock.no_such_field.of_its_own;
    out:
        exit;
    };
    assert_eq!(run(&load_only(code, Vec::new()), &[0], None), 1);
    Ok(())
}

/// The arguments of a tracepoint are known before the program is loaded, so a branch for kernels
/// with more arguments is removed. Without the condition, the same read is refused.
fn arguments_a_tracepoint_lacks_are_not_read() -> Outcome {
    needs(Feature::KernelBtf)?;
    let typed = |code| only(attach_option(TEST_HOOK, Attach::TpBtf(TRACEPOINT.into()), code), Vec::new());
    // (const struct sock *sk, const int oldstate, const int newstate)
    load(&typed(bpf! {
        w0 = params(btf_trace_inet_sock_set_state);
        if w0 < 4 goto out;
        r0 = *(u64 *)(r1 + 24);
    out:
        w0 = 0;
        exit;
    }));
    let error = only_refusal(&typed(bpf! { r0 = *(u64 *)(r1 + 24); w0 = 0; exit; }));
    assert!(matches!(error, LoadError::Load { .. }), "{error:#}");
    let code = bpf! {
        w0 = params(btf_trace_inet_sock_set_state);
        w1 = params(tcp_v4_connect);                    // (struct sock *sk, struct sockaddr *uaddr, int addr_len)
        w0 *= 10;
        w0 += w1;
        exit;
    };
    assert_eq!(run(&load_only(code, Vec::new()), &[0], None), 33);
    Ok(())
}

/// Fields read at a wrong offset look like values, so a BTF file of another kernel is refused if it
/// can be recognised.
fn a_file_of_another_kernel_is_refused() -> Outcome {
    needs(Feature::KernelBtf)?;
    let scratch = Scratch::new();
    let mut bytes = fs::read(loader::kernel::KERNEL_BTF).expect("the kernel's BTF");
    let copy = scratch.file("copy", &bytes);
    let btf = loader::kernel_btf(Some(&copy)).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(btf.path(), kernel().path(), "a copy of the kernel's own BTF is accepted");
    // The last letter of the last name.
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    let other = scratch.file("other", &bytes);
    match loader::kernel_btf(Some(&other)) {
        Err(error @ LoadError::OtherKernel { .. }) => {
            assert!(error.to_string().contains(&other.display().to_string()), "{error}");
        }
        unexpected => panic!("{unexpected:?}"),
    }
    Ok(())
}

/// If the kernel has no BTF, a BTF file gives offsets of fields, but not the BTF ids of the running
/// kernel that attach points need.
fn a_file_gives_fields_but_no_attach_points() -> Outcome {
    needs(Feature::KernelBtf)?;
    let bytes = fs::read(loader::kernel::KERNEL_BTF).expect("the kernel's BTF");
    let file = Btf::from_source(bytes).expect("BTF").with_path("somewhere/vmlinux");
    let attach_options = vec![
        attach_option("typed", Attach::TpBtf(TRACEPOINT.into()), bpf! { r0 = 0; exit; }),
        raw_tp("probed", TRACEPOINT, bpf! { w0 = sizeof(sock.sk_protocol); exit; }),
    ];
    let object = object(vec![Hook::new(TEST_HOOK, bpfasm::Need::Required, attach_options)], Vec::new());
    let loaded = Loader::new(&file).load(&object).unwrap_or_else(|e| panic!("{e:#}"));
    let refused = &only_hook(&loaded).refused;
    assert!(matches!(refused[..], [(Attach::TpBtf(_), LoadError::ForeignBtf { .. })]), "{refused:?}");
    assert_eq!(run(&loaded, &[0], None), 2);
    assert_eq!(loader::probe(&file, &super::POINTS).expect("a target").access, Access::Probed);
    Ok(())
}
