//! The command line without privileges: help, usage errors, exit statuses, and programs for a
//! described kernel.
//!
//! These tests are here because cargo passes the path of a binary only to the tests of its own
//! package.

use std::path::Path;
use std::process::{Command, Output};

fn tcptools(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcptools")).args(args).output().expect("the binary starts")
}

/// Runs it and returns stdout. The run has to succeed with nothing on stderr.
fn printed(args: &[&str]) -> String {
    let output = tcptools(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{args:?}: {:?}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs it and returns its only line on stderr. The run has to end with this status and nothing on
/// stdout.
fn refused(args: &[&str], status: i32) -> String {
    let output = tcptools(args);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?} printed {:?}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr:?} is not one line");
    stderr
}

#[test]
fn help_names_every_tool_and_every_option() {
    let help = printed(&["--help"]);
    for tool in ["tcpconnlat", "tcplife", "tcpstates", "links"] {
        assert!(help.contains(tool), "{tool} is not in\n{help}");
    }
    let help = printed(&["tcplife", "--help"]);
    let options = "--time --timestamp --wide --csv --pid --localport --remoteport --ipv4 --ipv6 --existing --failed \
                   --json --duration --count --stats --strict --ring-size --max-sockets --ebpf --target --btf \
                   --verbose";
    for option in options.split(' ') {
        assert!(help.contains(option), "{option} is not in\n{help}");
    }
    assert!(!help.contains("--access"), "an option for tests");
}

#[test]
fn version_is_the_package_s() {
    assert_eq!(printed(&["--version"]), concat!("tcptools ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(printed(&["tcplife", "--version"]), concat!("tcplife ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_is_one_line_that_names_it() {
    for (args, named) in [
        (&["tcpfoo"][..], "tcpfoo"),
        (&[][..], "tcplife"),
        (&["tcplife", "--frobnicate"], "--frobnicate"),
        (&["tcplife", "extra"], "extra"),
        (&["tcplife", "-L", "abc"], "abc"),
        (&["tcplife", "-L", "70000"], "70000"),
        (&["tcplife", "-L", "0"], "1 to 65535"),
        (&["tcplife", "-L", ""], "1 to 65535"),
        (&["tcplife", "-D", "22,,80"], "1 to 65535"),
        (&["tcplife", "-L"], "--localport"),
        (&["tcplife", "-p", "abc"], "abc"),
        (&["tcplife", "-p", "0"], "0"),
        (&["tcplife", "-p", "-1"], "-1"),
        (&["tcplife", "-4", "-6"], "--ipv6"),
        (&["tcplife", "--json", "--csv"], "--csv"),
        (&["tcplife", "--count", "0"], "--count"),
        (&["tcplife", "--duration", "0"], "above 0"),
        (&["tcplife", "--ring-size", "1000"], "power of two"),
        (&["tcplife", "--max-sockets", "0"], "--max-sockets"),
        (&["tcplife", "--ebpf=frob"], "listing"),
        (&["tcplife", "--ebpf", "--target", "6.1"], "VERSION-ARCH-ACCESS"),
        (&["tcplife", "--target", "6.1-x86_64-typed"], "--ebpf"),
        (&["--target", "6.1-x86_64-typed"], "--ebpf"),
        (&["--btf", "/dev/null"], "--ebpf"),
        (&["--ebpf=elf", "--target", "6.1-x86_64-typed"], "tcptools TOOL"),
        (&["links"], "<DIR>"),
        (&["tcpconnlat", "-1"], "-1"),
        (&["tcpconnlat", "--", "-1"], "0 or more"),
        (&["tcpconnlat", "soon"], "soon"),
        (&["tcpconnlat", "--l", "22"], "--l"),
    ] {
        let line = refused(args, 2);
        assert!(line.starts_with("tcptools"), "{args:?}: {line:?}");
        assert!(line.contains(named), "{args:?}: {line:?} does not name {named:?}");
    }
}

/// Wrong values that are found before anything is attached.
#[test]
fn bad_values_are_one_line_that_names_them() {
    let file = env!("CARGO_MANIFEST_DIR").to_owned() + "/Cargo.toml";
    for (args, named) in [
        (&["tcpsubnet", "1.2.3.4/33"][..], "1.2.3.4/33"),
        (&["tcpsubnet", ""], "SUBNETS"),
        (&["tcpsubnet", "10.0.0.0/8,"], "not a subnet"),
        (&["tcpsubnet", "10.0.0.0/8,10.0.0.0/8"], "named twice"),
        (&["tcpsubnet", "10.1.0.0/8,10.2.0.0/8"], "named twice"),
        (&["tcpsubnet", "::ffff:10.0.0.0/104,10.0.0.0/8"], "named twice"),
        (&["tcpsubnet", "-i", "0"], "0"),
        (&["tcptop", "0"], "0"),
        (&["tcptop", "1", "0"], "0"),
        (&["tcptop", "-r", "0"], "0"),
        (&["tcplife", "--count=-1"], "-1"),
        (&["tcpretrans", "--rows=-1"], "-1"),
        (&["tcpdrop", "--reason", ""], "NO_SOCKET"),
        (&["tcplife", "--cgroup", "/"], "cgroup2"),
        (&["tcplife", "--cgroup", &file], "cgroup2"),
        (&["tcplife", "--netns", &file], "not a namespace"),
        (&["tcpdrop", "--pid-netns", "0"], "above 0"),
        (&["tcplife", "--duration=-1"], "--duration"),
        (&["tcplife", "--duration", "1e99"], "above 0"),
        (&["tcplife", "--max-sockets", "99999999999"], "99999999999"),
    ] {
        assert!(refused(args, 2).contains(named), "{args:?}: {:?} does not name {named:?}", refused(args, 2));
    }
}

/// Control characters in arguments do not reach the terminal.
#[test]
fn names_on_stderr_are_harmless() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let name: &[u8] = b"x\x1b[2J\ntcptools: all is well\r\xe2\x80\xae\xff\n\ny";
    for (args, status) in [
        (&["tcplife", "--cgroup"][..], 2),
        (&["tcplife", "--netns"], 2),
        (&["tcplife", "-L"], 2),
        (&["tcplife", "--ebpf", "--target", "6.1-x86_64-typed", "--btf"], 1),
        (&["links"], 1),
        (&["tcplife"], 2),
        (&[], 2),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptools"));
        let output = command.args(args).arg(OsStr::from_bytes(name)).output().expect("the binary starts");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr:?}");
        let odd = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
        assert!(!stderr.contains(odd), "{args:?}: {stderr:?}");
    }
}

/// Devices and FIFOs in place of files are refused without waiting for them.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let directory = Directory::new("fifo");
    let fifo = directory.0.join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo of coreutils");
    assert!(made.success());
    let fifo = fifo.to_str().expect("UTF-8");
    for path in [fifo, "/dev/zero"] {
        let line = refused(&["tcplife", "--ebpf", "--target", "6.1-x86_64-typed", "--btf", path], 1);
        assert!(line.contains("not a regular file"), "{line}");
    }
    assert!(refused(&["tcplife", "--cgroup", fifo], 2).contains("cgroup2"));
    assert!(refused(&["tcplife", "--netns", fifo], 2).contains("not a namespace"));
}

/// A closed stderr does not crash the program.
#[test]
fn a_full_stderr_changes_no_exit_status() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptools"));
    let status = command.args(["tcplife", "--bad"]).stderr(full).status().expect("the binary starts");
    assert_eq!(status.code(), Some(2));
}

#[test]
fn options_may_be_shortened_bundled_and_repeated_as_they_always_could() {
    let listing = |args: &[&str]| {
        let mut all = vec!["tcplife", "--ebpf", "--target", "6.1-x86_64-typed"];
        all.extend(args);
        printed(&all)
    };
    assert_eq!(listing(&["-sT4"]), listing(&["--csv", "--time", "--ipv4"]));
    assert_eq!(listing(&["--localp", "22"]), listing(&["-L22"]));
    assert_eq!(listing(&["-L", "80", "-L", "22"]), listing(&["-L", "22"]), "the last one stands");
}

#[test]
fn tcpconnlat_shows_a_port_and_filters_by_it_under_names_that_differ() {
    let listing =
        |args: &[&str]| printed(&[&["tcpconnlat", "--ebpf", "--target", "6.1-x86_64-typed"], args].concat());
    let all = listing(&[]);
    for shows in ["-L", "--lport", "--lp", "-tL", "0"] {
        assert_eq!(listing(&[shows]), all, "{shows}");
    }
    assert_eq!(listing(&["--localport", "22"]), listing(&["-L", "--local", "22"]));
    assert_ne!(listing(&["--localport", "22"]), all);
    assert_ne!(listing(&["2.5"]), all);
    assert_eq!(listing(&["2.5", "-4"]), listing(&["-4", "2.5"]));
    assert_eq!(listing(&["--json"]), listing(&["--failed"]), "JSON always has what failed");
    assert_ne!(listing(&["--failed"]), all);
}

#[test]
fn a_wrong_btf_file_is_named() {
    let directory = Directory::new("btf");
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.0.join(name);
        std::fs::write(&path, bytes).expect("a file is written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let real = std::fs::read("../btf/tests/data/6.18-x86_64.btf").expect("the fixture");
    for path in [
        "/nonexistent/vmlinux".to_owned(),
        file("empty", &[]),
        file("foreign", b"#!/bin/sh\nexit 0\n"),
        file("truncated", &real[..real.len() / 2]),
        directory.0.to_str().expect("UTF-8").to_owned(),
    ] {
        let line = refused(&["tcplife", "--ebpf", "--target", "6.18-x86_64-typed", "--btf", &path], 1);
        assert!(line.contains(&path), "{line:?} does not name {path}");
    }
}

#[test]
fn programs_of_a_described_kernel_need_no_root_and_are_always_the_same() {
    let listing = printed(&["--ebpf", "--target", "6.1-x86_64-typed"]);
    assert_eq!(listing, printed(&["--ebpf", "--target", "6.1-x86_64-typed"]));
    for part in [
        "// tcplife: inet_sock_set_state\n",
        "// tcpstates: inet_sock_set_state\n",
        "// hook: state change (required), tp_btf inet_sock_set_state\n",
        "// license: Dual MIT/GPL\n",
        ", crc32 ",
        "inet_sock.inet_sport",
        "call bpf_skc_to_tcp_sock",
    ] {
        assert!(listing.contains(part), "{part:?} is not in\n{listing}");
    }
    let probed = printed(&["--ebpf", "--target", "6.1-x86_64-probed-perf"]);
    assert!(probed.contains("raw_tp inet_sock_set_state") && probed.contains("call bpf_perf_event_output"));
    assert!(!probed.contains("bpf_skc_to_tcp_sock\n    if r0 == 0 goto out\n    r6 = r0\n    r1 = r10"));
}

#[test]
fn fields_get_their_numbers_from_a_btf_file() {
    let args =
        ["tcplife", "--ebpf", "--target", "6.18-x86_64-probed", "--btf", "../btf/tests/data/6.18-x86_64.btf"];
    let listing = printed(&args);
    assert!(!listing.contains("inet_sock.inet_sport"), "resolved");
    assert!(listing.contains("r3 += 814"), "struct inet_sock of 6.18 has inet_sport at 814");
}

#[test]
fn every_form_shows_the_same_bytes() {
    let form =
        |form: &str| printed(&["tcpstates", &format!("--ebpf={form}"), "--target", "6.1-x86_64-typed"]);
    let crcs = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split_once(", crc32 ")).map(|(_, crc)| crc.to_owned()).collect()
    };
    let hex = form("hex");
    assert_eq!(crcs(&form("listing")), crcs(&hex));
    let objects: Vec<serde_json::Value> =
        form("json").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        objects.iter().map(|object| object["crc32"].as_str().expect("text")).collect::<Vec<_>>(),
        crcs(&hex)
    );
    let bytes: String =
        hex.lines().filter(|line| !line.starts_with("//")).flat_map(|line| line.split(' ')).collect();
    let code: String = objects.iter().map(|object| object["code"].as_str().expect("text")).collect();
    assert_eq!(bytes, code);
    // In an ELF file, a relocation marks a wide load (0x18) of a map; in a loaded program, the
    // source register does.
    let without_map_mark =
        bytes.replace("18110000000000000000000000000000", "18010000000000000000000000000000");
    assert_eq!(disassembled(&["tcpstates", "--ebpf=elf", "--target", "6.1-x86_64-typed"]), without_map_mark);
}

/// The bytes of all instructions that LLVM finds in the ELF file that these arguments print.
fn disassembled(args: &[&str]) -> String {
    let output = tcptools(args);
    assert!(output.status.success(), "{args:?}");
    let directory = Directory::new("elf");
    let file = directory.0.join("programs.o");
    std::fs::write(&file, output.stdout).expect("a file is written");
    let objdump = Command::new("llvm-objdump-19")
        .args(["-d", "--mattr=+alu32"])
        .arg(&file)
        .output()
        .expect("llvm-objdump-19 of Debian's package llvm-19, which ./test installs");
    let text = String::from_utf8(objdump.stdout).expect("UTF-8");
    assert!(objdump.status.success() && !text.contains("<unknown>"), "{text}");
    // "       4:\tbf a2 00 00 00 00 00 00\tr2 = r10"
    let instructions = text.lines().skip(2).filter_map(|line| line.trim_start().split_once(":\t"));
    let bytes = instructions.filter_map(|(_, rest)| rest.split('\t').next());
    bytes.flat_map(|bytes| bytes.split_whitespace()).collect()
}

#[test]
fn links_are_made_once_and_run_their_tool() {
    let directory = Directory::new("links");
    let path = directory.0.to_str().expect("UTF-8");
    for _ in 0..2 {
        assert_eq!(printed(&["links", path]), "");
    }
    let output =
        Command::new(directory.0.join("tcpstates")).arg("--version").output().expect("the link starts");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        concat!("tcpstates ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let wrong = Command::new(directory.0.join("tcpstates")).arg("--frob").output().expect("the link starts");
    assert!(String::from_utf8_lossy(&wrong.stderr).starts_with("tcpstates: "));
    assert_eq!(wrong.status.code(), Some(2));

    std::fs::remove_file(directory.0.join("tcplife")).expect("the link is there");
    std::fs::write(directory.0.join("tcplife"), "mine").expect("a file is written");
    let line = refused(&["links", path], 1);
    assert!(line.contains("tcplife exists"), "{line:?}");
    assert_eq!(std::fs::read(directory.0.join("tcplife")).expect("the file"), b"mine", "left alone");
    assert!(refused(&["links", "/nonexistent"], 1).contains("/nonexistent"));
}

/// A directory of one test, removed when it ends.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
