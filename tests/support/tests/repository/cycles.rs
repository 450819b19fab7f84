//! No import cycle inside any crate.
//!
//! Modules that need each other cannot be read, tested or moved one by one. Allowed is what a
//! folder's module and its children do among themselves through the folder's module: a child may
//! name its parent, and the parent its children. So a cycle counts unless one of its modules is an
//! ancestor of all the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;

use test_support::project;

use crate::files::with_extensions;
use crate::modules::{Crate, Graph};

/// Modules that need each other, and the shortest cycle among them.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Cycle {
    shortest: Vec<String>,
    group: BTreeSet<String>,
}

/// The cycles of a graph: one for each group, because breaking it shows which others are left.
fn cycles(graph: &Graph) -> Vec<Cycle> {
    let mut cycles = Vec::new();
    let mut groups: Vec<(BTreeSet<String>, BTreeSet<String>)> =
        vec![(graph.keys().cloned().collect(), BTreeSet::new())];
    // A group whose topmost module is its ancestor is looked at again without the ways back to that
    // module.
    while let Some((members, closed)) = groups.pop() {
        for group in components(graph, &members, &closed) {
            match group.iter().find(|top| group.iter().all(|module| is_within(module, top))) {
                Some(top) => {
                    let mut closed = closed.clone();
                    closed.insert(top.clone());
                    groups.push((group, closed));
                }
                None => cycles.push(Cycle { shortest: shortest(graph, &group, &closed), group }),
            }
        }
    }
    cycles.sort();
    cycles
}

/// Whether it is that module, or inside it.
fn is_within(module: &str, top: &str) -> bool {
    module.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The edges that count: between members, and not to a closed module.
fn next<'g>(
    graph: &'g Graph,
    module: &str,
    members: &BTreeSet<String>,
    closed: &BTreeSet<String>,
) -> Vec<&'g String> {
    let named = graph.get(module).into_iter().flat_map(BTreeMap::keys);
    named.filter(|to| members.contains(*to) && !closed.contains(*to)).collect()
}

/// All modules that can be reached.
fn reached(
    graph: &Graph,
    from: &str,
    members: &BTreeSet<String>,
    closed: &BTreeSet<String>,
) -> BTreeSet<String> {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(module) = waiting.pop() {
        for to in next(graph, &module, members, closed) {
            if seen.insert(to.clone()) {
                waiting.push(to.clone());
            }
        }
    }
    seen
}

/// Groups of two and more modules, each of which can be reached from each.
fn components(graph: &Graph, members: &BTreeSet<String>, closed: &BTreeSet<String>) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<String>> =
        members.iter().map(|module| (module, reached(graph, module, members, closed))).collect();
    let (mut done, mut groups) = (BTreeSet::new(), Vec::new());
    for (module, reached) in &reach {
        if reached.contains(*module) && !done.contains(*module) {
            let group: BTreeSet<String> =
                reached.iter().filter(|other| reach[other].contains(*module)).cloned().collect();
            done.extend(group.iter().cloned());
            groups.push(group);
        }
    }
    groups
}

/// The shortest cycle of a group that has no common ancestor in it.
fn shortest(graph: &Graph, group: &BTreeSet<String>, closed: &BTreeSet<String>) -> Vec<String> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for from in group {
        for to in next(graph, from, group, closed) {
            // Every cycle that counts has a step between two modules of which neither is inside the
            // other.
            if is_within(to, from) || is_within(from, to) {
                continue;
            }
            let mut before: BTreeMap<String, String> = BTreeMap::new();
            let mut waiting = VecDeque::from([to.clone()]);
            while let Some(module) = waiting.pop_front() {
                for step in next(graph, &module, group, closed) {
                    if step != to && !before.contains_key(step) {
                        before.insert(step.clone(), module.clone());
                        waiting.push_back(step.clone());
                    }
                }
            }
            let mut cycle = vec![from.clone()];
            while let Some(module) =
                cycle.last().and_then(|last| before.get(last)).filter(|_| cycle.last() != Some(to))
            {
                cycle.push(module.clone());
            }
            cycle.reverse();
            // It begins with the first of its names, wherever the search began.
            let first = (0..cycle.len()).min_by_key(|at| &cycle[*at]).unwrap_or(0);
            cycle.rotate_left(first);
            found.push(cycle);
        }
    }
    let counts =
        |cycle: &Vec<String>| !cycle.iter().any(|top| cycle.iter().all(|module| is_within(module, top)));
    let shortest = found.into_iter().filter(counts).min_by_key(Vec::len);
    shortest.unwrap_or_else(|| group.iter().cloned().collect())
}

/// A cycle in words, each step with the path that makes it, and which other modules belong to the
/// group.
fn words(graph: &Graph, cycle: &Cycle) -> String {
    let shortest = &cycle.shortest;
    let steps = shortest.iter().zip(shortest.iter().cycle().skip(1));
    let steps: Vec<String> = steps
        .map(|(from, to)| match graph.get(from).and_then(|named| named.get(to)) {
            Some(path) => format!("{from} names {to} (`{path}`)"),
            None => format!("{from} .. {to}"),
        })
        .collect();
    let others: Vec<&str> =
        cycle.group.iter().filter(|module| !shortest.contains(module)).map(String::as_str).collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!("\n    in longer cycles with {}", others.join(", ")),
    };
    steps.join("\n    ") + &others
}

/// The root files of all crates of the workspace, those of test programs left out.
fn roots() -> Vec<String> {
    let files = with_extensions(&["rs"]);
    let is_root = |path: &&String| {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        (folder.ends_with("src") && ["lib.rs", "main.rs"].contains(&name)) || folder.ends_with("src/bin")
    };
    files.iter().map(|file| &file.path).filter(is_root).cloned().collect()
}

#[test]
fn no_crate_has_an_import_cycle() {
    let roots = roots();
    for root in ["bpfasm/src/lib.rs", "tools/src/lib.rs", "vm-tests/src/main.rs"] {
        assert!(roots.iter().any(|found| found == root), "{root} is a crate");
    }
    let read = |path: &str| fs::read_to_string(project(path)).ok();
    let mut complaints = Vec::new();
    for root in &roots {
        let graph = Crate::read(root, &read).graph();
        for cycle in cycles(&graph) {
            complaints.push(format!("{root}:\n    {}", words(&graph, &cycle)));
        }
    }
    assert!(complaints.is_empty(), "modules import each other in a circle:\n{}", complaints.join("\n"));
}

/// The cycles of a made-up crate: pairs of a path and a text.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let graph = Crate::read("src/lib.rs", &read).graph();
    cycles(&graph).iter().map(|cycle| cycle.shortest.join(" ")).collect()
}

#[test]
fn modules_that_use_each_other_are_a_cycle() {
    let found = found(&[
        ("src/lib.rs", "mod a; mod b; mod c;"),
        ("src/a.rs", "use crate::b::B; pub struct A;"),
        ("src/b.rs", "use crate::c; pub struct B(c::C);"),
        ("src/c.rs", "pub struct C; fn f() { let _ = crate::a::A; }"),
    ]);
    assert_eq!(found, ["crate::a crate::b crate::c"]);
}

#[test]
fn a_parent_and_its_children_are_not_a_cycle() {
    let found = found(&[
        ("src/lib.rs", "mod a; pub use a::A; pub const N: u8 = 0;"),
        ("src/a/mod.rs", "mod x; mod y; use x::X; pub struct A(X, y::Y);"),
        ("src/a/x.rs", "use super::y::Y; use crate::N; pub struct X; fn f(_: super::A) {}"),
        ("src/a/y.rs", "pub struct Y; fn f(_: crate::A) {}"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn children_of_one_parent_can_be_a_cycle() {
    let found = found(&[
        ("src/lib.rs", "mod a;"),
        ("src/a/mod.rs", "mod x; mod y;"),
        ("src/a/x.rs", "use super::y::Y; pub struct X;"),
        ("src/a/y.rs", "pub struct Y; fn f(_: super::x::X) {}"),
    ]);
    assert_eq!(found, ["crate::a::x crate::a::y"]);
}

#[test]
fn a_cycle_can_lead_through_a_parent() {
    let found = found(&[
        ("src/lib.rs", "mod a; mod b;"),
        ("src/a.rs", "mod x; use crate::b::B; pub struct A(B);"),
        ("src/a/x.rs", "use super::A; pub struct X;"),
        ("src/b.rs", "pub struct B; fn f(_: crate::a::x::X) {}"),
    ]);
    assert_eq!(found, ["crate::a crate::b crate::a::x"]);
}

#[test]
fn re_exports_lead_to_the_module_that_defines() {
    let found = found(&[
        ("src/lib.rs", "mod a; mod b; pub use b::*; pub use crate::a::A as Renamed;"),
        ("src/a.rs", "use crate::{B, other::C}; pub struct A;"),
        ("src/b.rs", "use crate::Renamed; pub struct B;"),
    ]);
    assert_eq!(found, ["crate::a crate::b"]);
}

#[test]
fn bodies_of_macros_are_read() {
    let files = |body| {
        found(&[
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "use crate::b; fn f() { b::f(); }"),
            ("src/b.rs", body),
        ])
    };
    assert_eq!(files("fn f() { println!(\"{}\", g(crate::a::N)); }"), ["crate::a crate::b"]);
    assert_eq!(files("macro_rules! m { () => { $crate::a::f() } }"), ["crate::a crate::b"]);
    assert_eq!(files("fn f() { println!(\"crate::a::N\"); }"), [""; 0], "a text is not a path");
}

#[test]
fn code_for_tests_is_left_out() {
    let files = |text| {
        found(&[("src/lib.rs", "mod a; mod b;"), ("src/a.rs", "use crate::b::B;"), ("src/b.rs", text)])
    };
    assert_eq!(files("pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"), [""; 0]);
    assert_eq!(files("pub struct B; #[cfg(any(test, fuzzing))] use crate::a::A;"), [""; 0]);
    assert_eq!(files("pub struct B; impl B { #[cfg(test)] fn f() -> crate::a::A {} }"), [""; 0]);
    assert_eq!(files("pub struct B; #[cfg(not(test))] use crate::a::A;"), ["crate::a crate::b"]);
}

#[test]
fn inline_modules_and_local_names() {
    let found = found(&[(
        "src/lib.rs",
        "mod a { pub mod x { fn f() { super::super::b::g(); } } } mod b { use crate::a::x; fn g() { x::f(); } }",
    )]);
    assert_eq!(found, ["crate::a::x crate::b"]);
}
