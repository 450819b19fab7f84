//! Provokes the messages of `ERRORS.md` that are this crate's.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use test_support::catalogue;

use crate::failure::Failure;
use crate::kallsyms::Nameless;
use crate::open_sockets::list::ListError;
use crate::{args, tool};

/// Command lines that are wrong.
const WRONG: &[&[&str]] = &[
    &[],
    &["tcpfoo"],
    &["tcplife", "--frobnicate"],
    &["tcplife", "surplus"],
    &["tcplife", "--stats=yes"],
    &["tcplife", "-L"],
    &["tcptop", "-s"],
    &["tcplife", "-4", "-6"],
    &["links"],
    &["tcplife", "--target", "6.1-x86_64-typed"],
    &["tcplife", "--ebpf=frob"],
    &["tcpsubnet", "-i", "0"],
    &["tcptop", "0"],
    &["tcplife", "-p", "0"],
    &["tcplife", "--count=0"],
    &["tcplife", "--count=-1"],
    &["tcplife", "-p", "abc"],
    &["tcplife", "-p", ""],
    &["tcptop", "99999999999999999999"],
    &["tcplife", "-L", "22,,80"],
    &["tcplife", "--addr", "1.2.3.4/33"],
    &["tcplife", "--addr", ""],
    &["tcpsubnet", "10.0.0.0"],
    &["tcpsubnet", ""],
    &["tcpsubnet", "10.0.0.0/8,10.1.2.3/8"],
    &["tcplife", "--netns", "0"],
    &["tcplife", "--netns", "/"],
    &["tcplife", "--netns", "no-such-name"],
    &["tcpdrop", "--pid-netns", "0"],
    &["tcplife", "--cgroup", "/no/such/directory"],
    &["tcplife", "--cgroup", "/"],
    &["tcplife", "--duration", "0"],
    &["tcpconnlat", "soon"],
    &["tcplife", "--ring-size", "3M"],
    &["tcpdrop", "--reason", "NO SOCKET"],
    &["tcptop", "--cgroupmap", "a\0b"],
    &["tcptracer", "--mntnsmap", "a\0b"],
    &["tcplife", "--ebpf", "--target", "6"],
    &["--btf", "/dev/null"],
    &["--ebpf=elf"],
];

/// What only a kernel, or another process, makes it say: the entry, and the test that provokes it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("this kernel knows no reason `NAME`; close to it are NAMES", "tcpdrop::unknown_reason"),
    ("this kernel knows no reason `NAME`, and none that is spelt like it", "what_is_close_to_a_wrong_name"),
    ("this kernel gives no reasons; kernels since 5.17 do", "what_is_close_to_a_wrong_name"),
    ("N events lost, and --strict was given", "accounting::tool_stopped_tcpstates"),
    ("N events lost: WHY", "cli::loss_is_reported"),
    ("the ring is full and events are being lost; --ring-size makes it larger", "cli::loss_is_reported"),
    (
        "sockets are missing: the table of sockets is full (--max-sockets makes it larger), or they were open before and not \
         known yet",
        "accounting::full_table_tcpstates",
    ),
    (
        "events are being lost: a perf buffer is full (--ring-size makes it larger), or a CPU has none because it came later",
        "faults::cpu_online_after_the_perf_buffers",
    ),
    (
        "the table of counts is full and new flows are not counted; --max-sockets makes it larger",
        "accounting::full_table_tcpretrans_counts",
    ),
    (
        "N times a socket was missing in the table and its rows know less: WHY",
        "accounting::full_table_tcpstates",
    ),
    (
        "N packets left in the queues of closed sockets not shown; --purged shows them",
        "tcpdrop::purged_only_with_the_option",
    ),
    ("-Y needs the systemd journal at PATH, which does not answer: ERROR", "tcpstates::no_journal"),
    (
        "--failed: this kernel does not tell of what it could not send; 6.17 and later do",
        "tcpretrans::failed",
    ),
    ("links: PATH: ERROR", "links_are_made_once_and_run_their_tool"),
    ("links: PATH is there already and is not a link to PATH", "links_are_made_once_and_run_their_tool"),
    ("no way to run", "cli::contradicting_options"),
    ("N of N tools cannot run here: NAMES", "doctor::without_privileges"),
    ("failed for NAMES", "selftest::missing_rows"),
    ("not started, selftest: WHY", "selftest::before_a_run"),
    ("no network namespace of its own (CAP_SYS_ADMIN): ERROR", "selftest::without_privileges"),
];

/// The exit status, and what is said.
fn ended(failure: Failure) -> (String, &'static str) {
    match failure {
        Failure::Usage(why) => (why, "2"),
        Failure::Failed(why) => (why, "1"),
        Failure::Refused(error) => (error.to_string(), "1"),
        Failure::ClosedPipe => panic!("that is no message"),
    }
}

/// All that is done with a command line before the kernel is asked.
fn read(words: &[OsString]) -> Result<(), Failure> {
    let matches = match crate::command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => return crate::said_by_clap(&error),
    };
    match matches.subcommand() {
        Some((name, matches)) => {
            let tool = tool::find(name).expect("a tool");
            tool.session(matches, &args::read_shared(matches)).prepare()
        }
        None => crate::ebpf::all_tools(&matches),
    }
}

fn refused(words: impl IntoIterator<Item = OsString>) -> (String, &'static str) {
    let words: Vec<OsString> = std::iter::once("tcptools".into()).chain(words).collect();
    let (message, ends) = ended(read(&words).expect_err(&format!("{words:?} is wrong")));
    assert_eq!(message.lines().count(), 1, "{words:?}: {message}");
    (message, ends)
}

/// Command lines with more in them than one would write down.
fn long() -> [Vec<OsString>; 4] {
    let line = |words: [&str; 2], value: String| vec![words[0].into(), words[1].into(), value.into()];
    let subnets: Vec<String> = (0..10_001).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect();
    [
        line(["tcplife", "-L"], vec!["1"; 1025].join(",")),
        line(["tcplife", "--addr"], vec!["::1"; 1000].join(",")),
        line(["tcpsubnet", "--"], subnets.join(",")),
        vec!["tcplife".into(), "-L".into(), OsString::from_vec(vec![0xff])],
    ]
}

#[test]
fn each_message_of_the_tools_is_in_the_catalogue() {
    let mut said: Vec<_> = WRONG.iter().map(|words| refused(words.iter().map(OsString::from))).collect();
    said.extend(long().map(refused));
    said.push(ended(Failure::output(&io::ErrorKind::StorageFull.into())));
    said.push(ended(crate::account::stats_of(&[]).expect_err("no bytes")));
    said.push((loader::Note::SparesInit.to_string(), "goes on"));
    said.push((crate::run::not_given_up("capabilities", &Errno::EPERM), "goes on"));
    said.push(ended(crate::links::nowhere(&io::ErrorKind::NotFound.into())));
    for why in [Nameless::Hidden, Nameless::Unreadable(io::ErrorKind::NotFound.into())] {
        said.push((crate::tcpdrop::no_names(&why), "goes on"));
    }
    for error in [
        ListError::Refused(loader::Errno::NOENT),
        ListError::Refused(loader::Errno::PERM),
        ListError::System { call: "list /proc", errno: loader::Errno::PERM },
    ] {
        said.push((error.to_string(), "goes on"));
    }
    catalogue::check(&["Command line", "Run"], &said, ELSEWHERE);
}
