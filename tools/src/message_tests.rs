//! Compares this crate's messages with `ERRORS.md`: each that can be provoked without a kernel is
//! provoked here.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use test_support::messages;

use crate::cli::settings::Settings;
use crate::failure::Failure;
use crate::host::kallsyms::Unavailable;
use crate::host::open_sockets::list::ListError;
use crate::{cli, tools};

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

/// Messages that need a kernel or another process: the entry, and the test that provokes it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("this kernel has no drop reason `NAME`; similar are NAMES", "tcpdrop::unknown_reason"),
    ("this kernel has no drop reason `NAME`, and none with a similar name", "similar_reasons_are_named"),
    ("--reason needs kernel 5.17 or newer: this kernel has no drop reasons", "similar_reasons_are_named"),
    ("N events lost, and --strict was given", "accounting::tool_stopped_tcpstates"),
    ("N events lost: WHY", "cli::loss_is_reported"),
    ("events are being lost: the ring buffer is full (increase --ring-size)", "cli::loss_is_reported"),
    (
        "sockets are missing: the table of sockets is full (increase --max-sockets), or they were open before the start \
         and are not known yet",
        "accounting::full_table_tcpstates",
    ),
    (
        "events are being lost: a perf buffer is full (increase --ring-size), or a CPU has none because it came online \
         after the start",
        "faults::cpu_online_after_the_perf_buffers",
    ),
    (
        "new flows are not counted: the table of counts is full (increase --max-sockets)",
        "accounting::full_table_tcpretrans_counts",
    ),
    ("N times a socket was not in the table, and rows lack details: WHY", "accounting::full_table_tcpstates"),
    (
        "N packets left in the queues of closed sockets are not shown (--purged shows them)",
        "tcpdrop::purged_only_with_the_option",
    ),
    ("-Y needs the systemd journal at PATH, which does not answer: ERROR", "tcpstates::no_journal"),
    (
        "--failed needs kernel 6.17 or newer: this kernel does not report retransmissions that it could not send",
        "tcpretrans::failed",
    ),
    ("links: PATH: ERROR", "links_are_made_once_and_run_their_tool"),
    ("links: PATH exists and is not a link to PATH", "links_are_made_once_and_run_their_tool"),
    ("no way to run", "cli::contradicting_options"),
    ("N of N tools cannot run here: NAMES", "doctor::without_privileges"),
    ("failed for NAMES", "selftest::missing_rows"),
    ("not started: the selftest failed: WHY", "selftest::before_a_run"),
    ("cannot create a network namespace (needs CAP_SYS_ADMIN): ERROR", "selftest::without_privileges"),
];

/// The message and the exit status.
fn ended(failure: Failure) -> (String, &'static str) {
    match failure {
        Failure::Usage(why) => (why, "2"),
        Failure::Failed(why) => (why, "1"),
        Failure::Refused(error) => (error.to_string(), "1"),
        Failure::ClosedPipe => panic!("a closed pipe has no message"),
    }
}

/// Does with a command line what is done before the kernel is asked.
fn read(words: &[OsString]) -> Result<(), Failure> {
    let matches = match cli::tcptools().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => return cli::command::clap_answer(&error),
    };
    match matches.subcommand() {
        Some((name, matches)) => {
            let tool = tools::find(name).expect("a tool");
            let plan = (tool.plan)(matches, &Settings::read(matches))?;
            cli::containers::check(&plan.containers)
        }
        None => cli::ebpf_of_all(&matches),
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
fn each_message_of_the_tools_is_in_errors_md() {
    let mut said: Vec<_> = WRONG.iter().map(|words| refused(words.iter().map(OsString::from))).collect();
    said.extend(long().map(refused));
    said.push(ended(Failure::output(&io::ErrorKind::StorageFull.into())));
    said.push(ended(crate::run::account::stats_of(&[]).expect_err("no bytes")));
    said.push((loader::Note::SparesInit.to_string(), "goes on"));
    said.push((crate::run::not_in_journal(7), "goes on"));
    said.push((crate::run::not_dropped("capabilities", &Errno::EPERM), "goes on"));
    said.push(ended(cli::links::unknown_program(&io::ErrorKind::NotFound.into())));
    for why in [Unavailable::Hidden, Unavailable::Unreadable(io::ErrorKind::NotFound.into())] {
        said.push((crate::run::no_function_names(&why), "goes on"));
    }
    for error in [
        ListError::Refused(loader::Errno::NOENT),
        ListError::Refused(loader::Errno::PERM),
        ListError::System { call: "list /proc", errno: loader::Errno::PERM },
    ] {
        said.push((error.to_string(), "goes on"));
    }
    messages::check(&["Command line", "Run"], &said, ELSEWHERE);
}
