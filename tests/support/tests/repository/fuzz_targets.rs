//! Every fuzz target has its file, its entry in the manifest, a corpus, a plain test and a row in
//! `tests/README.md`.

use std::collections::BTreeSet;
use std::fs;

use test_support::project;

use crate::files::with_extensions;

/// Names of the entries of a folder, without extensions.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(project(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let stem = |path: std::path::PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    entries.filter_map(|entry| stem(entry.expect("a folder's entry").path())).collect()
}

/// All texts between a `before` and the next `after`.
fn between(text: &str, before: &str, after: &str) -> BTreeSet<String> {
    let parts = text.split(before).skip(1);
    parts.filter_map(|rest| rest.split_once(after)).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn every_list_of_fuzz_targets_is_complete() {
    let targets = names("tests/fuzz/fuzz_targets");
    assert_eq!(names("tests/fuzz/corpus"), targets, "a corpus for each target");

    let manifest = fs::read_to_string(project("tests/fuzz/Cargo.toml")).expect("tests/fuzz/Cargo.toml");
    assert_eq!(between(&manifest, "[[bin]]\nname = \"", "\""), targets, "[[bin]] in tests/fuzz/Cargo.toml");
    let paths = between(&manifest, "path = \"fuzz_targets/", ".rs\"");
    assert_eq!(paths, targets, "path of each [[bin]] in tests/fuzz/Cargo.toml");

    // A target that libFuzzer knows and `cargo test` does not would only run where libFuzzer is
    // installed.
    let sources = with_extensions(&["rs"]);
    let plain: BTreeSet<String> = sources
        .iter()
        .filter(|file| file.path.contains("/src/"))
        .flat_map(|file| between(&file.text, "fuzz::run(\"", "\""))
        .collect();
    assert_eq!(plain, targets, "a test that calls fuzz::run(\"TARGET\", …)");

    let readme = fs::read_to_string(project("tests/README.md")).expect("tests/README.md");
    let (_, table) = readme.split_once("\n| target |").expect("tests/README.md has a table of fuzz targets");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).collect();
    let named: BTreeSet<String> = cells
        .iter()
        .flat_map(|cell| cell.split_whitespace())
        .map(|name| name.trim_matches('`').to_owned())
        .collect();
    assert_eq!(named, targets, "the table of fuzz targets in tests/README.md");
}
