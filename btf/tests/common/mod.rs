//! The kernels in `data`, and tables of their types.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use btf::{Btf, Lookup, Want, Wanted};

pub const KERNELS: [&str; 7] =
    ["5.10-x86_64", "5.10-aarch64", "6.1-x86_64", "6.12-x86_64", "6.18-x86_64", "7.3-x86_64", "7.3-aarch64"];

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub fn kernel(name: &str) -> Btf {
    Btf::open(data(&format!("{name}.btf"))).expect(name)
}

pub fn kernel_bytes(name: &str) -> Vec<u8> {
    fs::read(data(&format!("{name}.btf"))).expect(name)
}

/// The lines of a table, without comments.
pub fn lines(name: &str) -> Vec<String> {
    let text = fs::read_to_string(data(name)).expect(name);
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// Reads a table with a heading. Returns, for each kernel in the heading, the first column and that
/// kernel's column.
pub fn columns(name: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let lines = lines(name);
    let (heading, rows) = lines.split_first().expect("a heading");
    let mut columns = BTreeMap::new();
    for (number, kernel) in heading.split_whitespace().enumerate().skip(1) {
        let rows = rows.iter().map(|row| {
            let cells: Vec<_> = row.split_whitespace().collect();
            (cells[0].to_owned(), cells[number].to_owned())
        });
        columns.insert(kernel.to_owned(), rows.collect());
    }
    columns
}

/// All names of `names.txt`, by which the kernels in `data` were cut.
pub fn everything() -> Wanted {
    let mut wanted = Wanted::new();
    for line in lines("names.txt") {
        let (kind, name) = line.split_once(' ').expect("a kind and a name");
        let want = match kind {
            "struct" | "shallow" => Want::Type,
            "enum" => Want::Enum,
            "enumerator" => Want::Enumerator,
            "tracepoint" => Want::Tracepoint,
            "func" => Want::Func,
            _ => panic!("{line}"),
        };
        wanted.add(want, name);
    }
    wanted
}

#[track_caller]
pub fn found<T: std::fmt::Debug>(lookup: Lookup<T>) -> T {
    match lookup {
        Lookup::Found(value) => value,
        Lookup::Absent(why) => panic!("absent: {why}"),
    }
}

#[track_caller]
pub fn absent<T: std::fmt::Debug>(lookup: Lookup<T>) -> btf::Absent {
    match lookup {
        Lookup::Found(value) => panic!("found: {value:?}"),
        Lookup::Absent(why) => why,
    }
}
