//! A tool is one folder in `programs`, one file in `tools`, one row in the registry, its tests, and
//! its line in the README.
//!
//! Two kinds of checks keep that true. The first looks at each place that must have something for
//! every tool. The second finds lists that this file does not know: a block of text that names all
//! tools but one has forgotten that one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use test_support::project;

use crate::files::{TextFile, with_extensions};

/// Files whose lists are of tools with a certain property: the file, the tools without it, and the
/// property.
const LEFT_OUT: &[(&str, &[&str], &str)] = &[
    ("programs/src/fuzz.rs", &["tcpsubnet"], "records that are decoded by their layout"),
    ("tests/kernel/accounting/rings.rs", &["tcpsubnet", "tcptop"], "a ring of events"),
    ("tools/src/tools/row_tests.rs", &["tcpsubnet", "tcptop"], "records with a layout, or events"),
    ("tests/kernel/faults/soak.rs", &["tcpsubnet"], "a table of sockets"),
];

/// The names in the registry.
fn tools() -> BTreeSet<String> {
    let names: Vec<&str> = tools::tool_names().collect();
    let tools: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert!(names.len() > 3 && tools.len() == names.len(), "each name once: {names:?}");
    tools
}

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Whether a folder has the module: `NAME.rs` or `NAME/mod.rs`.
fn has_module(folder: &Path, name: &str) -> bool {
    folder.join(format!("{name}.rs")).is_file() || folder.join(name).join("mod.rs").is_file()
}

/// Folders in `tools/src`, itself included: a tool's file may lie in any of them.
fn folders(top: &Path) -> Vec<std::path::PathBuf> {
    let mut folders = vec![top.to_owned()];
    let mut at = 0;
    while let Some(folder) = folders.get(at).cloned() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let paths = entries.map(|entry| entry.expect("a folder's entry").path());
        folders.extend(paths.filter(|path| path.is_dir()));
        at += 1;
    }
    folders
}

/// Words of letters and digits, in lower case: `Tcptop`, `tcptop::TESTS` and `full_table_tcptop`
/// name a tool.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase).collect()
}

#[test]
fn every_tool_has_its_program_its_file_and_its_tests() {
    let mut missing = Vec::new();
    let mut expect = |there: bool, what: String| {
        if !there {
            missing.push(what);
        }
    };
    let (logic, kernel) = (text("programs/tests/logic/main.rs"), text("tests/kernel/main.rs"));
    let specimens = text("programs/tests/logic/specimens.rs");
    let golden: BTreeSet<String> = fs::read_dir(project("programs/tests/golden"))
        .expect("programs/tests/golden")
        .map(|entry| entry.expect("a listing").file_name().to_string_lossy().into_owned())
        .collect();
    for tool in tools() {
        let in_tools = folders(&project("tools/src")).iter().any(|folder| has_module(folder, &tool));
        expect(in_tools, format!("tools/src: no file {tool}.rs"));
        for folder in ["programs/src", "programs/tests/logic", "tests/kernel"] {
            expect(has_module(&project(folder), &tool), format!("{folder}: no module {tool}"));
        }
        expect(
            logic.contains(&format!("mod {tool};")),
            format!("programs/tests/logic/main.rs: no `mod {tool};`"),
        );
        expect(
            specimens.contains(&format!("crate::{tool}::")),
            format!("programs/tests/logic/specimens.rs: no specimen of {tool}"),
        );
        expect(
            kernel.contains(&format!("{tool}::TESTS")),
            format!("tests/kernel/main.rs: {tool}::TESTS is not among the tests"),
        );
        expect(
            golden.iter().any(|name| name.starts_with(&tool)),
            format!("programs/tests/golden: no listing of {tool}"),
        );
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn every_tool_has_its_line_in_the_readme_and_its_section_in_the_manual() {
    let readme = text("README.md");
    let (_, rest) = readme.split_once("\n## Tools\n").expect("README.md has a section `## Tools`");
    let table =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let first_cells = table.skip(2).filter_map(|row| row.split('|').nth(1));
    let rows: Vec<String> = first_cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
    assert!(rows.iter().eq(&tools()), "README.md's table of tools has these rows: {rows:?}");

    let manual = text("tools/README.md");
    let sections = manual.lines().filter_map(|line| line.strip_prefix("## ")).map(str::trim);
    let known = tools();
    let sections: Vec<&str> =
        sections.filter(|name| name.starts_with("tcp") || known.contains(*name)).collect();
    assert!(sections.iter().eq(&known), "tools/README.md has these sections on tools: {sections:?}");
}

#[test]
fn virtual_machines_attach_every_tool() {
    let matrix: toml::Table = text("vm-tests/kernels.toml").parse().expect("vm-tests/kernels.toml");
    let options = matrix["options"].as_table().expect("a table [options]");
    assert!(options.keys().eq(&tools()), "[options] in vm-tests/kernels.toml is of {:?}", options);

    let costs = text("vm-tests/programs.txt");
    let lines = costs.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()));
    let measured: BTreeSet<String> =
        lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(measured, tools(), "programs in vm-tests/programs.txt (`cargo vm-test --bless` writes it)");
}

/// The tool that a block of text has forgotten: it names all the others.
fn forgotten<'t>(block: &str, left_out: &[&str], tools: &'t BTreeSet<String>) -> Option<&'t str> {
    // Most blocks name hardly any tool: this is soon said.
    let lower = block.to_ascii_lowercase();
    if tools.iter().filter(|tool| !lower.contains(tool.as_str())).count() > 1 + left_out.len() {
        return None;
    }
    let named = names(block);
    let is_absent = |tool: &&str| !named.contains(*tool) && !left_out.contains(tool);
    let absent: Vec<&str> = tools.iter().map(String::as_str).filter(is_absent).collect();
    if let [tool] = absent[..] { Some(tool) } else { None }
}

/// Blocks of a file: what stands between empty lines.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut begin = true;
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() {
            begin = true;
        } else if begin {
            blocks.push((number, line.to_owned()));
            begin = false;
        } else if let Some((_, block)) = blocks.last_mut() {
            block.push('\n');
            block.push_str(line);
        }
    }
    blocks
}

fn complaints(file: &TextFile, tools: &BTreeSet<String>) -> Vec<String> {
    let left_out =
        LEFT_OUT.iter().find(|(path, ..)| *path == file.path).map_or(&[][..], |(_, tools, _)| tools);
    let forgotten = |(line, block): (usize, String)| {
        let tool = forgotten(&block, left_out, tools)?;
        Some(format!("{}:{line}: names all tools but {tool}", file.path))
    };
    blocks(&file.text).into_iter().filter_map(forgotten).collect()
}

#[test]
fn no_list_of_tools_forgets_one() {
    let tools = tools();
    for (path, left_out, property) in LEFT_OUT {
        assert!(!property.is_empty() && project(path).is_file(), "LEFT_OUT: {path} does not exist");
        assert!(left_out.iter().all(|tool| tools.contains(*tool)), "LEFT_OUT: {path}: {left_out:?}");
    }
    let files = with_extensions(&["rs", "md", "toml", "yml", "yaml"]);
    // Records of past measurements and changes, and of the weaknesses of other tools, are not lists
    // to complete.
    let is_record = |path: &str| {
        path.starts_with("tests/bench/results/")
            || path.ends_with("CHANGELOG.md")
            || path == "tests/README.md"
    };
    let found: Vec<String> = files
        .iter()
        .filter(|file| !is_record(&file.path))
        .flat_map(|file| complaints(file, &tools))
        .collect();
    assert!(
        found.is_empty(),
        "derive these lists from tools::tool_names(), or complete them:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_list_that_lacks_a_tool_is_found() {
    let tools: BTreeSet<String> = ["ta", "tb", "tc", "td", "te", "tf"].map(str::to_owned).into();
    let file = |text: &str| TextFile { path: "x.rs".to_owned(), text: text.to_owned() };
    let found = |text: &str| complaints(&file(text), &tools);
    assert_eq!(
        found("\nconst T: [&str; 5] = [\"ta\", \"tb\",\n\"tc\", \"td\", \"te\"];"),
        ["x.rs:2: names all tools but tf"]
    );
    assert_eq!(found("&ta::Ta, tb::TESTS, full_table_tc, Td, te, tf"), [""; 0], "all are there");
    assert_eq!(found("ta, tb and tc"), [""; 0], "a choice");
    assert_eq!(found("ta, tb, tc\n\ntd, te"), [""; 0], "two blocks");
}
