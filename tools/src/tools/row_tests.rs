//! The rows of every tool, in every format, from records whose fields are all different: a value in
//! a wrong column shows.
//!
//! `BLESS=1 cargo test -p tools rows_of_every_tool` writes `row_tests.txt` anew, for a reader of
//! the difference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use bpfasm::object::{FieldType, Layout};
use programs::stats::Stats;
use programs::{tcpconnlat, tcpdrop, tcplife, tcpretrans, tcpstates, tcptop, tcptracer};
use rows::time::{Clock, Zone};
use rows::{Column, Format, Output, RowSink as _};

use crate::cli::command::of_tool;
use crate::cli::settings::Settings;
use crate::host::symbols::Symbols;
use crate::tool::{Context, KernelTypes, Plan, Report};
use crate::tools;

/// Bytes of a struct. Each member has a value of its own, made from its index, unless `values`
/// gives one.
fn record(layout: &Layout, values: &[(&str, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; layout.size.into()];
    for (index, member) in (1_u8..).zip(layout.members) {
        let given = values.iter().find(|(name, _)| *name == member.name).map(|(_, value)| *value);
        let place = &mut bytes[member.offset.into()..];
        let n = u64::from(index);
        match member.ty {
            FieldType::U8 => place[0] = given.map_or(0, |value| u8::try_from(value).expect("a byte")),
            FieldType::U16 => {
                let port = u16::try_from(given.unwrap_or(1000 + n)).expect("two bytes");
                let network_order = member.name.ends_with("port");
                place[..2].copy_from_slice(&if network_order {
                    port.to_be_bytes()
                } else {
                    port.to_ne_bytes()
                });
            }
            FieldType::U32 => {
                let value = u32::try_from(given.unwrap_or(100_000 + n)).expect("four bytes");
                place[..4].copy_from_slice(&value.to_ne_bytes());
            }
            FieldType::U64 => place[..8].copy_from_slice(&given.unwrap_or(n * 1_111_111).to_ne_bytes()),
            FieldType::Bytes(_) if member.name == "comm" => place[..5].copy_from_slice(b"nginx"),
            FieldType::Bytes(_) => place[..4].copy_from_slice(&[192, 0, 2, index]),
        }
    }
    let unknown: Vec<_> =
        values.iter().filter(|(name, _)| !layout.members.iter().any(|member| member.name == *name)).collect();
    assert!(unknown.is_empty(), "{}: no member {unknown:?}", layout.name);
    bytes
}

/// `AF_INET`
const INET: (&str, u64) = ("family", 2);

/// A command line.
type Words = &'static [&'static str];

/// A tool's options, and the record of an event.
fn events() -> Vec<(Words, Vec<u8>)> {
    let drop = [INET, ("reason", 3), ("state", 1), ("flags", 0x12), ("transport", 40)];
    let mut drop = record(&tcpdrop::Event::LAYOUT, &drop);
    drop.extend([0xffff_u64, 0xfffe].map(u64::to_ne_bytes).concat());
    let life = [INET, ("oldstate", 4), ("role", 1), ("established", 500_000)];
    let states = [INET, ("oldstate", 1), ("newstate", 4), ("last", 1000)];
    let retrans = |kind: u8| {
        let values = [INET, ("state", 1), ("kind", kind.into()), ("has_first", 1), ("status", 1)];
        record(&tcpretrans::Event::LAYOUT, &values)
    };
    vec![
        (
            &["tcpconnlat", "--failed", "-t", "-L"],
            record(&tcpconnlat::Event::LAYOUT, &[INET, ("newstate", 1)]),
        ),
        (&["tcpdrop"], drop.clone()),
        (&["tcpdrop", "--no-stack"], drop),
        (&["tcplife", "-T", "-t", "-w", "--failed"], record(&tcplife::Event::LAYOUT, &life)),
        (&["tcplife"], record(&tcplife::Event::LAYOUT, &[INET, ("oldstate", 4), ("existing", 1)])),
        (&["tcpretrans", "-s", "--owner", "--failed"], retrans(b'R')),
        (&["tcpretrans", "-l"], retrans(b'L')),
        (&["tcpstates", "-T", "-t", "-w"], record(&tcpstates::Event::LAYOUT, &states)),
        (&["tcptracer", "-t", "-U"], record(&tcptracer::Event::LAYOUT, &[INET, ("kind", 2)])),
        (&["tcptracer", "-t", "-U", "-v"], record(&tcptracer::Event::LAYOUT, &[INET, ("kind", 1)])),
    ]
}

/// Key and value.
type Entry = (Vec<u8>, Vec<u8>);

/// A tool's options, and the entries of the map that its report reads.
fn reports() -> Vec<(Words, Vec<Entry>)> {
    let flow = |family| {
        (record(&tcptop::Flow::LAYOUT, &[]), record(&tcptop::Traffic::LAYOUT, &[("family", family)]))
    };
    let subnet =
        |index: u32, bytes: [u64; 2]| (index.to_ne_bytes().to_vec(), bytes.map(u64::to_ne_bytes).concat());
    let retransmissions =
        (record(&tcpretrans::Flow::LAYOUT, &[INET]), record(&tcpretrans::Tally::LAYOUT, &[]));
    vec![
        (&["tcptop", "-C"], vec![flow(2), flow(10)]),
        (&["tcptop", "-C", "-S", "-r", "1"], vec![flow(2), flow(10)]),
        (&["tcpsubnet", "10.0.0.0/8,192.0.2.0/24"], vec![subnet(0, [1000, 24]), subnet(1, [5000, 0])]),
        (
            &["tcpsubnet", "--sort", "-f", "K", "10.0.0.0/8,192.0.2.0/24"],
            vec![subnet(0, [1000, 25]), subnet(1, [5000, 0])],
        ),
        (&["tcpretrans", "-c"], vec![retransmissions]),
    ]
}

/// All of these command lines.
fn lines() -> impl Iterator<Item = Words> {
    events().into_iter().map(|(words, _)| words).chain(reports().into_iter().map(|(words, _)| words))
}

fn plan(words: &[&str], format: &str) -> (Plan, Format) {
    let tool = tools::find(words[0]).expect("a tool");
    let words = words.iter().copied().chain((!format.is_empty()).then_some(format));
    let matches = of_tool(tool).try_get_matches_from(words).expect("right usage");
    let settings = Settings::read(&matches);
    ((tool.plan)(&matches, &settings).expect("a plan"), settings.format)
}

/// What is printed in each format, below the command line.
fn printed(words: &[&str], write: impl Fn(&mut Plan, &mut Output<Vec<u8>>)) -> String {
    let mut text = String::new();
    for format in ["", "--csv", "--json"] {
        let (mut plan, kind) = plan(words, format);
        let mut output = Output::new(kind, Zone::utc(), Vec::new());
        output.csv_heading(plan.session.headings());
        if plan.session.begins_with_headings() {
            output.heading(plan.session.headings());
        }
        write(&mut plan, &mut output);
        output.flush().expect("a Vec takes everything");
        let printed = String::from_utf8(output.into_sink()).expect("UTF-8");
        let _ = writeln!(text, "$ {}\n{printed}", [words, &[format]].concat().join(" ").trim_end());
    }
    text
}

#[test]
fn rows_of_every_tool() {
    let reasons =
        ["SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "SKB_DROP_REASON_NOT_SPECIFIED", "SKB_DROP_REASON_NO_SOCKET"];
    let reasons = reasons.into_iter().zip(0..).map(|(name, value)| (name.to_owned(), value)).collect();
    let types = KernelTypes {
        enums: [("skb_drop_reason", reasons)].into(),
        tracepoint_args: [("tcp_retransmit_skb", 3)].into(),
    };
    let mut text = String::new();
    for (words, record) in events() {
        text += &printed(words, |plan, output| {
            plan.session.set_kernel_types(&types).expect("a kernel with everything");
            let (clock, mut symbols) = (Clock::with_offset(1_582_279_490_000_000_000), Symbols::default());
            let mut context = Context { clock, symbols: &mut symbols, journal: None };
            plan.session.event(&record, &mut context, output).expect("an event");
            assert!(plan.session.flush_pending(&mut context, output));
        });
    }
    for (words, entries) in reports() {
        text += &printed(words, |plan, output| {
            let report = Report {
                wall: 1_582_279_490_000_000_000,
                elapsed: Duration::from_millis(1500),
                entries: entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect(),
                counters: Stats::decode(&[0; Stats::SIZE as usize]).expect("counters"),
                load_average: Some("0.10 0.20 0.30 1/100 4242".to_owned()),
                zone: &Zone::utc(),
            };
            plan.session.report(&report, output);
        });
    }
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tools/row_tests.txt");
        std::fs::write(path, &text).expect("the file is written");
        return;
    }
    let expected = include_str!("row_tests.txt");
    if let Some((at, (now, before))) =
        text.lines().zip(expected.lines()).enumerate().find(|(_, (now, before))| now != before)
    {
        panic!("row_tests.txt:{}:\n expected {before}\n printed  {now}", at + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count());
}

#[test]
fn every_tool_has_rows_here() {
    let tested: BTreeSet<&str> = lines().map(|words| words[0]).collect();
    assert_eq!(tested, crate::tool_names().collect());
}

/// The manual has a section for each tool, which names every key in backticks.
#[test]
fn every_json_key_is_documented() {
    let manual = include_str!("../../README.md");
    for words in lines() {
        let (plan, _) = plan(words, "--json");
        let section = manual.split("\n## ").find(|section| section.lines().next() == Some(words[0]));
        let section = section.unwrap_or_else(|| panic!("tools/README.md has no section {}", words[0]));
        for key in plan.session.headings().iter().filter_map(Column::json_key) {
            assert!(section.contains(&format!("`{key}`")), "tools/README.md, {}: no key `{key}`", words[0]);
        }
    }
}
