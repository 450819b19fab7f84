//! Processes with misleading names: a name cannot fake a row or a column, in any format of any tool
//! that shows names.

use std::collections::BTreeSet;
use std::time::Duration;

use kernel_tests::cli::{Output, Tool};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::segment::flag;
use kernel_tests::stage::{Stage, Via};
use kernel_tests::traffic;
use serde_json::{Map, Value};

use crate::tcpdrop::{needs_receiver, send_out_of_window};
use crate::tcptop::needs_send_hook;

pub const TESTS: &[Test] = &[
    test("cli::names_in_connlat", || opened_under("tcpconnlat", &[], "COMM")),
    test("cli::names_in_life", || opened_under("tcplife", &[], "COMM")),
    test("cli::names_in_life_wide", || opened_under("tcplife", &["-w"], "COMM")),
    test("cli::names_in_states", || opened_under("tcpstates", &[], "C-COMM")),
    test("cli::names_in_tracer", || opened_under("tcptracer", &[], "COMM")),
    test("cli::names_in_top", || {
        needs_send_hook()?;
        opened_under("tcptop", &["-C"], "COMM")
    }),
    test("cli::names_in_retrans", names_in_retrans),
    test("cli::names_in_drop", names_in_drop),
];

/// The name of a process, and how the tools print it.
const NAMES: [(&[u8], &str); 9] = [
    (b"\n", r"\x0a"),
    (b"x\n1 y 10.0.0.1", r"x\x0a1 y 10.0.0.1"),
    (b"\x1b[2J\r", r"\x1b[2J\x0d"),
    (b"a\",\"pid\":1", "a\",\"pid\":1"),
    (b"a\",1,\"b", "a\",1,\"b"),
    (b"=cmd()", "=cmd()"),
    (b"\xff", r"\xff"),
    (b"\xe2\x80\xaedhss", r"\xe2\x80\xaedhss"),
    (br"\x0a", r"\\x0a"),
];

/// A tool in each format.
struct Watch {
    netns: Netns,
    table: Tool,
    csv: Tool,
    json: Tool,
}

impl Watch {
    fn start(tool: &str, args: &[&str]) -> Self {
        let netns = Netns::enter_new();
        let inode = netns.inode().to_string();
        let start = |format: &[&str]| Tool::start(tool, &[args, &["--netns", &inode], format].concat());
        Self { table: start(&[]), csv: start(&["--csv"]), json: start(&["--json"]), netns }
    }

    /// Stops all three tools and checks their output. `column` is the column of names in CSV and in
    /// the table.
    fn check(mut self, column: &str, rows: usize) {
        self.json.wait_rows(self.netns.inode(), rows);
        let [table, csv, json] = [self.table, self.csv, self.json].map(Tool::stop);
        let all: BTreeSet<String> = NAMES.iter().map(|(_, shown)| (*shown).to_owned()).collect();

        let of_json: Vec<Option<String>> = objects(&json).iter().map(|row| text(&row["comm"])).collect();
        assert_eq!(misleading(&of_json, &json), all, "{json}");

        let mut reader = csv::ReaderBuilder::new().from_reader(csv.stdout.as_bytes());
        let headings = reader.headers().expect("a line of headings").clone();
        let at = headings.iter().position(|heading| heading == column).expect("its column");
        let fields =
            reader.records().map(|row| row.expect("as many fields as headings").get(at).map(str::to_owned));
        assert_eq!(misleading(&fields.collect::<Vec<_>>(), &csv), all, "{csv}");

        let headings = table.stdout.lines().find(|line| line.contains("PID")).expect("a line of headings");
        for output in [&table, &csv, &json] {
            output.assert_code(0).assert_complete_lines();
            let odd = |char: char| char.is_control() && !matches!(char, '\n' | '\t') || char == '\u{202e}';
            assert!(!output.stdout.contains(odd) && !output.stderr.contains(odd), "{output}");
        }
        for name in all.iter().filter(|_| headings.contains(column)) {
            // The column may be too narrow for the name.
            let start: String = name.chars().take(10).collect();
            assert!(table.stdout.lines().any(|line| line.contains(&*start)), "{name} is not in\n{table}");
        }
    }
}

/// The names, without those of the test's other processes and without unknown names.
fn misleading(names: &[Option<String>], output: &Output) -> BTreeSet<String> {
    assert!(!names.is_empty(), "{output}");
    let known = |name: &String| !name.starts_with("kt-") && name != "-";
    names.iter().flatten().filter(|name| known(name)).cloned().collect()
}

fn objects(output: &Output) -> Vec<Map<String, Value>> {
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("an object on each line")).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A process connects, sends and closes under each name.
fn opened_under(tool: &str, args: &[&str], column: &str) -> Outcome {
    let watch = Watch::start(tool, args);
    let mut stage = Stage::new(Via::V4);
    for (name, _) in NAMES {
        stage.client.rename(name);
        let pair = stage.open();
        stage.exchange(pair, 2000, 1);
        stage.client.close(pair.client);
        stage.server.recv_eof(pair.server, 0);
        stage.server.close(pair.server);
    }
    watch.check(column, NAMES.len());
    Ok(())
}

/// A process connects under each name and gets no answer; the kernel retransmits its SYN after a
/// second.
fn names_in_retrans() -> Outcome {
    let watch = Watch::start("tcpretrans", &["--owner"]);
    let mut stage = traffic::with_full_backlog();
    let connects: Vec<_> = NAMES
        .iter()
        .map(|(name, _)| {
            stage.client.rename(name);
            stage.client.start_connect(stage.target, Some(Duration::from_millis(1500)))
        })
        .collect();
    for connect in connects {
        stage.client.finish_connect(connect).expect_err("no answer");
    }
    watch.check("COMM", NAMES.len());
    Ok(())
}

/// A process accepts under each name; then packets to it are dropped.
fn names_in_drop() -> Outcome {
    needs(Feature::ProbeReads)?;
    needs_receiver()?;
    let watch = Watch::start("tcpdrop", &["--owner"]);
    let mut stage = Stage::new(Via::V4);
    for (name, _) in NAMES {
        stage.server.rename(name);
        let pair = stage.open();
        stage.exchange(pair, 1, 1);
        send_out_of_window(pair, flag::ACK);
    }
    watch.check("COMM", NAMES.len());
    Ok(())
}
