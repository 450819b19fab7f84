//! The names of all tests, read from the sources: documents that refer to tests are compared with
//! them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::project;

/// Folders with tests.
const TEST_FOLDERS: [&str; 6] = ["bpfasm", "btf", "loader", "programs", "tools", "tests"];

/// The names of kernel tests (`tcplife::filters`) and of tests of `cargo test` (the function
/// without its module).
///
/// # Panics
/// If the sources cannot be read.
#[must_use]
pub fn all() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in TEST_FOLDERS {
        gather(&project(folder), &mut names);
    }
    names
}

fn gather(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder's entry").path();
        if path.is_dir() && !path.ends_with("target") {
            gather(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            add_names(
                &fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
                names,
            );
        }
    }
}

fn add_names(source: &str, names: &mut BTreeSet<String>) {
    // A row in a table of kernel tests: ("tcplife::filters", filters),
    let quoted = source.split("(\"").skip(1).filter_map(|rest| rest.split_once("\",")).map(|(name, _)| name);
    names.extend(quoted.filter(|name| name.contains("::") && !name.contains(' ')).map(str::to_owned));
    let functions =
        source.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
    names.extend(functions.map(|(name, _)| name.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row about a weakness in `tests/README.md` names at least one test, and only tests that
    /// exist.
    #[test]
    fn tests_in_the_table_of_weaknesses_exist() {
        let text = fs::read_to_string(project("tests/README.md")).expect("tests/README.md");
        let (_, table) = text.split_once("\n## What other tools get wrong").expect("the table");
        let (names, mut numbers) = (all(), Vec::new());
        for row in table.lines().filter_map(|line| line.strip_prefix("| ")) {
            let mut cells = row.trim_end_matches(" |").split(" | ");
            let Some(number) = cells.next().and_then(|cell| cell.parse::<u32>().ok()) else { continue };
            numbers.push(number);
            let cell = cells.nth(1).expect("a cell of tests");
            let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty() || cell == "none", "row {number} names no test");
            for name in named {
                assert!(names.contains(name), "row {number}: the test {name} does not exist");
            }
        }
        assert!(numbers.into_iter().eq(2..=22), "each weakness has a row");
    }

    #[test]
    fn rows_of_tables_and_test_functions_are_names() {
        let mut names = BTreeSet::new();
        add_names(
            "const T = [(\"a::b\", b), (\"c d\", e)];\n#[test]\n#[should_panic]\nfn f() {}\nfn g() {}",
            &mut names,
        );
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a::b", "f"]);
    }
}
