//! The command line: help, usage errors, wrong files, missing privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use kernel_tests::cli::{Tool, binary, run};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::scratch::Scratch;

use crate::known_tools::names;

pub const TESTS: &[Test] = &[
    test("cli::help", help),
    test("cli::wrong_usage", wrong_usage),
    test("cli::wrong_btf_file", wrong_btf_file),
    test("cli::not_root", not_root),
    test("cli::contradicting_options", contradicting_options),
    test("cli::ebpf_needs_no_kernel", ebpf_needs_no_kernel),
];

/// The user without privileges, on every distribution.
const NOBODY: u32 = 65534;

fn help() -> Outcome {
    let output = run(["--help"]);
    assert_eq!(output.assert_code(0).stderr, "", "{output}");
    for tool in names() {
        assert!(output.stdout.contains(tool), "{output}");
        let own = run([tool, "--help"]);
        assert_eq!(own.assert_code(0).stderr, "", "{own}");
        assert!(own.stdout.contains("--json"), "{own}");
    }
    Ok(())
}

/// Exit code 2 and one line that names the wrong argument, before anything is loaded.
fn wrong_usage() -> Outcome {
    const WRONG: &[(&[&str], &str)] = &[
        (&["frobnicate"], "frobnicate"),
        (&["tcplife", "--frobnicate"], "--frobnicate"),
        (&["tcpconnlat", "-1"], "-1"),
        (&["tcpconnlat", "--", "-0.5"], "-0.5"),
        (&["tcpconnlat", "abc"], "abc"),
        (&["tcpconnlat", "nan"], "nan"),
        (&["tcpconnlat", "inf"], "inf"),
        (&["tcpconnlat", "10ms"], "10ms"),
        (&["tcpconnlat", "1e300"], "1e300"),
        (&["tcpconnlat", ""], "MIN_MS"),
        (&["tcpconnlat", "1", "2"], "2"),
        (&["tcpconnlat", "-p", "abc"], "abc"),
        (&["tcpconnlat", "-4", "-6"], "--ipv6"),
        (&["tcpconnlat", "--lport", "--localport"], "--localport"),
        (&["tcpconnlat", "--localport", "0"], "0"),
        (&["tcpconnlat", "--addr", "1.2.3.4/33"], "1.2.3.4/33"),
        (&["tcpconnlat", "--netns", "no-such-name"], "no-such-name"),
        (&["tcpconnlat", "--cgroup", "/no/such/directory"], "/no/such/directory"),
        (&["tcplife", "surplus"], "surplus"),
        (&["tcplife", "-L", "70000"], "70000"),
        (&["tcplife", "-L", "0"], "0"),
        (&["tcplife", "-L", "abc"], "abc"),
        (&["tcplife", "-L", ""], "--localport"),
        (&["tcplife", "-L", "22,,80"], "22,,80"),
        (&["tcplife", "-L"], "--localport"),
        (&["tcplife", "-p", "x"], "x"),
        (&["tcplife", "-p", "-1"], "-1"),
        (&["tcplife", "--duration", "soon"], "soon"),
        (&["tcplife", "--count", "many"], "many"),
        (&["tcplife", "--access", "magic"], "magic"),
        (&["tcpstates", "-D", "70000"], "70000"),
        (&["tcpstates", "-D", "ssh"], "ssh"),
    ];
    for (args, named) in WRONG {
        run(*args).assert_wrong_usage(named);
    }
    Ok(())
}

/// Exit code 1 and one line that names the file.
fn wrong_btf_file() -> Outcome {
    let scratch = Scratch::new();
    let whole = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let files = [
        scratch.path("missing"),
        scratch.file("empty", b""),
        scratch.file("text", b"This is neither BTF nor an ELF file.\n"),
        scratch.file("truncated", &whole[..whole.len() / 2]),
        scratch.file("other-program", &fs::read("/proc/self/exe").expect("read this program")),
        scratch.path("."),
        scratch.file("other-types", &btf_of_one_int()),
    ];
    for file in &files {
        let shown = file.to_str().expect("a path of ASCII");
        let output = run(["tcplife", "--btf", shown]);
        output.assert_code(1).assert_no_stdout();
        assert!(output.one_line().contains(shown), "the line must name {shown}\n{output}");
    }
    Ok(())
}

/// Well-formed BTF (linux/btf.h) with the type `int` only.
fn btf_of_one_int() -> Vec<u8> {
    const MAGIC_VERSION_FLAGS: [u8; 4] = [0x9f, 0xeb, 1, 0];
    let strings = b"\0int\0";
    let name = 1u32;
    let kind_int = 1u32 << 24;
    let (size, signed_32_bits) = (4u32, 1u32 << 24 | 32);
    let types = [name, kind_int, size, signed_32_bits].map(u32::to_le_bytes).concat();
    // hdr_len, type_off, type_len, str_off, str_len
    let header = [24u32, 0, 16, 16, 5].map(u32::to_le_bytes).concat();
    [&MAGIC_VERSION_FLAGS[..], &header, &types, strings].concat()
}

fn not_root() -> Outcome {
    for tool in names() {
        let (_scratch, mut command) = as_unprivileged_user();
        command.arg(tool);
        let output = Tool::spawn(command).finish();
        output.assert_code(1).assert_no_stdout();
        let line = output.one_line();
        assert!(
            line.contains("root") || line.contains("CAP_"),
            "the line must name what is missing\n{output}"
        );
    }
    Ok(())
}

/// The options for tests can exclude all attach options.
fn contradicting_options() -> Outcome {
    let output = run(["tcplife", "--access", "typed", "--perf"]);
    output.assert_code(1).assert_no_stdout();
    assert!(output.one_line().ends_with("no way to run"), "{output}");
    Ok(())
}

/// The tool as the user nobody, copied to a directory that this user may read.
pub fn as_unprivileged_user() -> (Scratch, Command) {
    let scratch = Scratch::new();
    let copy = scratch.path("tcptools");
    fs::copy(binary(), &copy).expect("copy tcptools");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut command = Command::new(copy);
    command.uid(NOBODY).gid(NOBODY);
    (scratch, command)
}

/// The program listing for a described kernel needs no privileges.
fn ebpf_needs_no_kernel() -> Outcome {
    for tool in names() {
        for (option, begins) in
            [("--ebpf", ""), ("--ebpf=hex", ""), ("--ebpf=json", "{"), ("--ebpf=elf", "\u{7f}ELF")]
        {
            let (_scratch, mut command) = as_unprivileged_user();
            command.args([tool, option, "--target", "6.1-x86_64-typed"]);
            let output = Tool::spawn(command).finish();
            output.assert_code(0);
            assert_eq!(output.stderr, "", "{output}");
            assert!(!output.stdout.is_empty() && output.stdout.starts_with(begins), "{option}\n{output}");
        }
    }
    Ok(())
}
