//! What holds for every tool: exit codes, messages, output to pipes and full disks, and nothing left behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kernel_tests::cli::{Output, Tool, binary, run, tcptools};
use kernel_tests::leak::{self, BpfObjects};
use kernel_tests::netns::Netns;
use kernel_tests::rows::LifeRow;
use kernel_tests::runner::{Outcome, Test};
use kernel_tests::scratch::Scratch;
use kernel_tests::stage::{Stage, Via};
use kernel_tests::traffic;
use nix::sys::signal::Signal;

pub const TESTS: &[Test] = &[
    ("cli::help", help),
    ("cli::wrong_usage", wrong_usage),
    ("cli::wrong_btf_file", wrong_btf_file),
    ("cli::not_root", not_root),
    ("cli::links_by_name", links_by_name),
    ("cli::ebpf_needs_no_kernel", ebpf_needs_no_kernel),
    ("cli::life_table", life_table),
    ("cli::states_table", states_table),
    ("cli::csv", csv),
    ("cli::rows_come_while_it_runs", rows_come_while_it_runs),
    ("cli::stopping_prints_what_is_pending", stopping_prints_what_is_pending),
    ("cli::count", count),
    ("cli::duration", duration),
    ("cli::closed_pipe", closed_pipe),
    ("cli::full_disk", full_disk),
    ("cli::stats_in_words", stats_in_words),
    ("cli::a_small_ring_keeps_its_books", a_small_ring_keeps_its_books),
    ("cli::a_small_table_keeps_its_books", a_small_table_keeps_its_books),
    ("cli::nothing_is_left", nothing_is_left),
    ("cli::interrupted_start_leaves_nothing", interrupted_start_leaves_nothing),
];

const TOOLS: [&str; 2] = ["tcplife", "tcpstates"];

/// The user without rights, on every distribution.
const NOBODY: u32 = 65534;

fn help() -> Outcome {
    let output = run(["--help"]);
    assert_eq!(output.assert_code(0).stderr, "", "{output}");
    for tool in TOOLS {
        assert!(output.stdout.contains(tool), "{output}");
        let own = run([tool, "--help"]);
        assert_eq!(own.assert_code(0).stderr, "", "{own}");
        assert!(own.stdout.contains("--json"), "{own}");
    }
    Ok(())
}

/// Exit code 2 and one line that names what is wrong, before anything is done.
fn wrong_usage() -> Outcome {
    const WRONG: &[(&[&str], &str)] = &[
        (&["frobnicate"], "frobnicate"),
        (&["tcplife", "--frobnicate"], "--frobnicate"),
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
        let output = run(*args);
        output.assert_code(2).assert_no_stdout();
        assert!(output.one_line().contains(named), "the line has to name {named}\n{output}");
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
        scratch.file("text", b"This is no BTF, and no ELF file either.\n"),
        scratch.file("truncated", &whole[..whole.len() / 2]),
        scratch.file("other-program", &fs::read("/proc/self/exe").expect("read this program")),
        scratch.path("."),
        scratch.file("other-types", &btf_of_one_int()),
    ];
    for file in &files {
        let shown = file.to_str().expect("a path of ASCII");
        let output = run(["tcplife", "--btf", shown]);
        output.assert_code(1).assert_no_stdout();
        assert!(output.one_line().contains(shown), "the line has to name {shown}\n{output}");
    }
    Ok(())
}

/// Well-formed BTF (linux/btf.h) of a program that knows `int` and nothing else.
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
    for tool in TOOLS {
        let (_scratch, mut command) = as_nobody();
        command.arg(tool);
        let output = Tool::spawn(command).finish();
        output.assert_code(1).assert_no_stdout();
        let line = output.one_line();
        assert!(
            line.contains("root") || line.contains("CAP_"),
            "the line has to say what is missing\n{output}"
        );
    }
    Ok(())
}

/// The tool as the user nobody, from a place that user may read.
fn as_nobody() -> (Scratch, Command) {
    let scratch = Scratch::new();
    let copy = scratch.path("tcptools");
    fs::copy(binary(), &copy).expect("copy tcptools");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut command = Command::new(copy);
    command.uid(NOBODY).gid(NOBODY);
    (scratch, command)
}

/// A link named like a tool is that tool.
fn links_by_name() -> Outcome {
    let netns = Netns::enter_new();
    let scratch = Scratch::new();
    let link = scratch.path("tcplife");
    symlink(binary(), &link).expect("symlink");
    let mut command = Command::new(&link);
    command.args(["--json", "-v"]);
    let mut tool = Tool::spawn(command);
    tool.wait_attached("tcplife");
    traffic::client_closes_first(&mut Stage::new(Via::V4));
    tool.wait_rows(netns.inode(), 2);
    tool.stop().assert_code(0);
    Ok(())
}

/// The listing of what a described kernel would get, for any user.
fn ebpf_needs_no_kernel() -> Outcome {
    for tool in TOOLS {
        for (option, begins) in
            [("--ebpf", ""), ("--ebpf=hex", ""), ("--ebpf=json", "{"), ("--ebpf=elf", "\u{7f}ELF")]
        {
            let (_scratch, mut command) = as_nobody();
            command.args([tool, option, "--target", "6.1-x86_64-typed"]);
            let output = Tool::spawn(command).finish();
            output.assert_code(0);
            assert_eq!(output.stderr, "", "{output}");
            assert!(!output.stdout.is_empty() && output.stdout.starts_with(begins), "{option}\n{output}");
        }
    }
    Ok(())
}

/// The columns people know. Values are checked by their own tests; here it is the places that count.
fn life_table() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let port = stage.listener.port().to_string();
    let mut tool = Tool::start("tcplife", &["-L", &port]);
    let session = traffic::server_closes_first(&mut stage);
    tool.wait_for("a row", |seen| seen.stdout.lines().count() == 2);
    let output = tool.stop();
    let lines: Vec<&str> = output.assert_code(0).assert_complete_lines().stdout.lines().collect();
    let header = "PID   COMM       LADDR           LPORT RADDR           RPORT TX_KB RX_KB MS";
    assert_eq!(lines[0].trim_end(), header, "{output}");
    let end = &session.ends[1];
    let (pid, client) = (end.owners[0].pid, end.remote.port());
    let begin = format!(
        "{pid:<5} kt-server  127.0.0.1       {port:<5} 127.0.0.1       {client:<5} {:>5} {:>5} ",
        4, 0
    );
    assert!(lines[1].starts_with(&begin), "the row has to begin with {begin:?}\n{output}");
    let ms = lines[1][begin.len()..].trim();
    assert!(
        ms.parse::<f64>().is_ok() && ms.split_once('.').is_some_and(|(_, f)| f.len() == 2),
        "{ms}\n{output}"
    );
    Ok(())
}

fn states_table() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let port = stage.listener.port().to_string();
    let mut tool = Tool::start("tcpstates", &["-L", &port]);
    traffic::client_closes_first(&mut stage);
    tool.wait_for("five rows", |seen| seen.stdout.lines().count() == 6);
    let output = tool.stop();
    let lines: Vec<&str> = output.assert_code(0).assert_complete_lines().stdout.lines().collect();
    let header = "SKADDR           C-PID C-COMM     LADDR           LPORT RADDR           RPORT OLDSTATE    -> NEWSTATE    MS";
    assert_eq!(lines[0].trim_end(), header, "{output}");
    let last: Vec<&str> = lines[5].split_ascii_whitespace().collect();
    assert_eq!(last[1..5], [last[1], "kt-server", "127.0.0.1", &port], "{output}");
    assert_eq!(last[7..10], ["LAST_ACK", "->", "CLOSE"], "{output}");
    Ok(())
}

/// `-s`: a header, and the same number of columns in every row.
fn csv() -> Outcome {
    const HEADERS: [(&str, &str); 2] = [
        ("tcplife", "TIME,TIME(s),PID,COMM,IP,LADDR,LPORT,RADDR,RPORT,TX_KB,RX_KB,MS"),
        ("tcpstates", "TIME,TIME(s),SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS"),
    ];
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let port = stage.listener.port().to_string();
    for (name, header) in HEADERS {
        let mut tool = Tool::start(name, &["-stT", "-L", &port]);
        traffic::client_closes_first(&mut stage);
        tool.wait_for("a row", |seen| seen.stdout.lines().count() >= 2);
        let output = tool.stop();
        output.assert_code(0).assert_complete_lines();
        let mut lines = output.stdout.lines().map(|line| line.trim_end_matches('\r'));
        assert_eq!(lines.next(), Some(header), "{output}");
        for line in lines {
            assert_eq!(line.split(',').count(), header.split(',').count(), "{line}\n{output}");
        }
    }
    Ok(())
}

/// Nobody has to wait for a full buffer: the row is there, whole, while the tool runs on.
fn rows_come_while_it_runs() -> Outcome {
    let netns = Netns::enter_new();
    let mut tool = Tool::start("tcpstates", &["--json"]);
    let mut stage = Stage::new(Via::V4);
    let mut total = 1;
    tool.wait_rows(netns.inode(), total);
    for _ in 0..3 {
        traffic::client_closes_first(&mut stage);
        total += 10;
        tool.wait_rows(netns.inode(), total);
        tool.seen().assert_complete_lines();
    }
    tool.stop().assert_code(0);
    Ok(())
}

/// Stopped right after a connection, with its events still in the ring.
fn stopping_prints_what_is_pending() -> Outcome {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let netns = Netns::enter_new();
        let mut stage = Stage::new(Via::V4);
        let tool = Tool::start("tcplife", &["--json"]);
        traffic::client_resets(&mut stage);
        tool.signal(signal);
        let output = tool.finish();
        output.assert_code(0).assert_complete_lines();
        assert_eq!(output.rows::<LifeRow>(netns.inode()).len(), 2, "{signal}\n{output}");
    }
    Ok(())
}

fn count() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let port = stage.listener.port().to_string();
    let tool = Tool::start("tcplife", &["--json", "--count", "3", "-L", &port]);
    for _ in 0..5 {
        traffic::client_closes_first(&mut stage);
    }
    let output = tool.finish();
    assert_eq!(output.assert_code(0).stdout.lines().count(), 3, "{output}");
    Ok(())
}

fn duration() -> Outcome {
    let tool = Tool::start("tcplife", &["--json", "--duration", "1"]);
    let attached = Instant::now();
    let output = tool.finish();
    output.assert_code(0);
    // Counted from the tool's start or from attaching; a second is long against the difference.
    assert!(
        attached.elapsed() > Duration::from_millis(500),
        "it ended after {:?}\n{output}",
        attached.elapsed()
    );
    Ok(())
}

/// As `| head -1` does: the reader goes, the next row finds nobody, and that is no failure.
fn closed_pipe() -> Outcome {
    Netns::enter_new();
    for tool in TOOLS {
        for format in [&["--json"][..], &[]] {
            let mut running = Tool::start(tool, format);
            running.close_stdout();
            traffic::client_closes_first(&mut Stage::new(Via::V4));
            let output = running.finish();
            output.assert_code(0);
            assert!(output.stderr_since_attached().is_empty(), "nothing is wrong\n{output}");
        }
    }
    Ok(())
}

/// Every write fails: one line, exit code 1, and no row is lost in silence.
fn full_disk() -> Outcome {
    let full = || File::options().write(true).open("/dev/full").expect("open /dev/full");
    Netns::enter_new();
    for tool in TOOLS {
        let mut running = Tool::spawn_to(tcptools([tool, "--json", "-v"]), full().into());
        running.wait_attached(tool);
        traffic::client_closes_first(&mut Stage::new(Via::V4));
        let output = running.finish();
        output.assert_code(1);
        let lines = output.stderr_since_attached();
        assert!(
            matches!(lines[..], [line] if line.starts_with("tcptools: ") && line.contains("No space left")),
            "one line on what is wrong\n{output}"
        );
        // The header fails before there is any row.
        let output = Tool::spawn_to(tcptools([tool]), full().into()).finish();
        assert!(output.assert_code(1).one_line().contains("No space left"), "{output}");
    }
    Ok(())
}

/// The counters of `--stats`.
type Books = BTreeMap<String, u64>;

/// The books as `--stats` prints them: a JSON object with `--json`, a line of words without.
#[track_caller]
fn books(output: &Output) -> Books {
    let json = output.stderr.lines().find_map(|line| {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
        Some(object.into_iter().filter_map(|(key, value)| Some((key, value.as_u64()?))).collect())
    });
    let words = || {
        let line = output.stderr.lines().find(|line| line.contains(": seen "))?;
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let pairs = words.windows(2).filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?)));
        Some(pairs.collect())
    };
    json.or_else(words).unwrap_or_else(|| panic!("no --stats on standard error\n{output}"))
}

/// Every event that was seen became exactly one thing.
#[track_caller]
fn assert_balanced(output: &Output) -> Books {
    let books = books(output);
    let of = |key: &str| *books.get(key).unwrap_or_else(|| panic!("no {key} in {books:?}\n{output}"));
    let became = ["filtered", "reported", "aggregated", "lost_ring", "lost_map"].map(of);
    assert_eq!(of("seen"), became.iter().sum::<u64>(), "the books do not balance: {books:?}\n{output}");
    assert!(of("seen") > 0, "nothing was seen: {books:?}\n{output}");
    of("missed");
    books
}

/// The books balance and nothing was lost. Events that a tool reported are rows.
#[track_caller]
pub fn assert_nothing_lost(output: &Output) {
    let books = assert_balanced(output);
    for key in ["lost_ring", "lost_map", "missed"] {
        assert_eq!(books[key], 0, "{key} in {books:?}\n{output}");
    }
}

fn stats_in_words() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    for tool in TOOLS {
        let running = Tool::start(tool, &["--stats"]);
        traffic::client_closes_first(&mut stage);
        let output = running.stop();
        let books = assert_balanced(output.assert_code(0));
        // A header and a row for each event.
        assert_eq!(books["reported"] + 1, output.stdout.lines().count().try_into().unwrap_or(0), "{output}");
    }
    Ok(())
}

/// Whatever does not fit is counted.
fn a_small_ring_keeps_its_books() -> Outcome {
    Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let tool = Tool::start("tcpstates", &["--json", "--stats", "--ring-size", "4096"]);
    // Nobody reads meanwhile.
    traffic::start_storm(&mut stage, 500);
    traffic::end_storm(&mut stage, 500);
    let output = tool.stop();
    let books = assert_balanced(output.assert_code(0));
    let rows = u64::try_from(output.stdout.lines().count()).unwrap_or(0);
    assert_eq!(books["reported"], rows, "a row for each event that was sent: {books:?}\n{output}");
    Ok(())
}

/// Sockets that find no room are counted, and the tool goes on.
fn a_small_table_keeps_its_books() -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    for options in [&["--stats"][..], &[]] {
        let tool = Tool::start("tcplife", &[&["--json", "--max-sockets", "4"], options].concat());
        let pairs: Vec<_> = (0..10).map(|_| stage.open()).collect();
        for pair in pairs {
            traffic::close(&mut stage, pair, (0, 0));
        }
        let output = tool.stop();
        let rows = output.assert_code(0).rows::<LifeRow>(netns.inode()).len();
        assert!(rows < 20, "twenty ends do not fit a table of four\n{output}");
        if options.is_empty() {
            let said = output.stderr_since_attached().iter().any(|line| line.contains("--max-sockets"));
            assert!(said, "the loss has to be said, and what helps\n{output}");
        } else {
            let books = assert_balanced(&output);
            assert!(books["lost_map"] + books["untracked"] > 0, "{books:?}\n{output}");
        }
    }
    Ok(())
}

fn nothing_is_left() -> Outcome {
    let before = BpfObjects::now()?;
    Netns::enter_new();
    for tool in TOOLS {
        let running = Tool::start(tool, &["--json"]);
        // A program, its link, and at least a table and a ring; otherwise there would be nothing to leave.
        assert!(leak::objects_of(running.pid()) >= 4, "the tool holds BPF objects while it runs");
        traffic::client_closes_first(&mut Stage::new(Via::V4));
        running.stop().assert_code(0);
    }
    before.assert_none_left();
    Ok(())
}

/// Ctrl-C at any moment of the start, a quarter of a millisecond apart.
fn interrupted_start_leaves_nothing() -> Outcome {
    const STEP: Duration = Duration::from_micros(250);
    let before = BpfObjects::now()?;
    for tool in TOOLS {
        for step in 0..32 {
            let running = Tool::spawn(tcptools([tool, "--json"]));
            // Not a wait: the delay is what is tested.
            thread::sleep(STEP * step);
            running.signal(Signal::SIGINT);
            let output = running.finish();
            let status = output.status.expect("it ended");
            // Before the tool has taken over the signal, the kernel ends it.
            let killed =
                std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::SIGINT as i32);
            assert!(killed || status.code() == Some(0), "step {step}\n{output}");
            output.assert_complete_lines();
            assert_eq!(output.stderr, "", "step {step}\n{output}");
        }
    }
    before.assert_none_left();
    Ok(())
}
