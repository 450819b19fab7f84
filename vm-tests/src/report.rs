//! The report: failures with their reasons, then tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::console::Verdict;
use crate::outcome::Outcome;

/// A machine's name and outcome.
pub type Done = (String, Outcome);

/// The line that is printed when a machine has ended.
#[must_use]
pub fn progress((name, outcome): &Done) -> String {
    let (passed, failed, skipped) = outcome.counts();
    let word = if outcome.is_good() { "ok" } else { "FAILED" };
    let release = outcome.release.as_deref().unwrap_or("(did not boot)");
    format!(
        "{name:<24} {word:<6} {passed:>4} passed {failed:>3} failed {skipped:>3} skipped {:>5.0} s  {release}",
        outcome.took.as_secs_f64()
    )
}

/// All reasons why a machine failed, or an empty text.
#[must_use]
pub fn failure((name, outcome): &Done) -> String {
    let mut text = String::new();
    if !outcome.is_good() {
        let _ = writeln!(text, "\n==== {name}");
        for fault in &outcome.faults {
            let _ = writeln!(text, "{fault}");
        }
        for line in &outcome.details {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// The tables: machines, hooks, tests that did not pass everywhere, and reasons for skipped tests.
/// Machines have numbers, because their names are too long for columns.
#[must_use]
pub fn tables(done: &[Done]) -> String {
    let mut text = String::from("\nmachines\n");
    for (number, one) in (1..).zip(done) {
        let _ = writeln!(text, "{number:>4}  {}", progress(one));
        for module in &one.1.modules {
            let _ = writeln!(text, "      module {module}");
        }
    }
    text + &hooks(done) + &tests(done) + &skips(done)
}

/// A line for each tool, access mode and hook: its attach options, and the machines that use each.
fn hooks(done: &[Done]) -> String {
    let mut hooks: BTreeMap<&(String, String, String), BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for (number, (_, outcome)) in (1..).zip(done) {
        for (key, attached) in &outcome.hooks {
            let option = attached.as_deref().unwrap_or("not attached");
            hooks.entry(key).or_default().entry(option).or_default().push(format!("{number}"));
        }
    }
    let mut text = String::new();
    if !hooks.is_empty() {
        text.push_str("\nhooks (tool, memory access, hook, attach option)\n");
    }
    for ((tool, access, hook), options) in hooks {
        let options: Vec<String> = options
            .iter()
            .map(|(option, machines)| {
                if machines.len() == done.len() {
                    (*option).to_owned()
                } else {
                    format!("{option} ({})", machines.join(" "))
                }
            })
            .collect();
        let _ = writeln!(text, "  {tool:<14} {access:<8} {hook:<18} {}", options.join("; "));
    }
    for (name, outcome) in done {
        for ((tool, access, options), message) in &outcome.failed_starts {
            let _ = writeln!(text, "  {tool:<14} {access:<8} {options} does not run on {name}: {message}");
        }
    }
    text
}

/// A row for each test that did not pass in every machine that ran it.
fn tests(done: &[Done]) -> String {
    let mut names = Vec::new();
    let mut seen = BTreeSet::new();
    for (_, outcome) in done {
        names.extend(outcome.tests.iter().map(|(name, _)| name.as_str()).filter(|name| seen.insert(*name)));
    }
    let verdict = |outcome: &Outcome, name: &str| {
        let found = outcome.tests.iter().find(|(n, _)| n == name);
        match found.map(|(_, verdict)| verdict) {
            Some(Verdict::Passed) => "ok",
            Some(Verdict::PassedOnRetry) => "2nd",
            Some(Verdict::Failed) => "FAILED",
            Some(Verdict::Skipped(_)) => "skip",
            None => "-",
        }
    };
    let (everywhere, rest): (Vec<&str>, Vec<&str>) = names
        .iter()
        .partition(|name| done.iter().all(|(_, outcome)| matches!(verdict(outcome, name), "ok" | "-")));
    let mut text = format!("\ntests: {} passed in every machine that ran them\n", everywhere.len());
    if rest.is_empty() {
        return text;
    }
    let _ = write!(text, "  {:<44}", "");
    for number in 1..=done.len() {
        let _ = write!(text, " {number:>6}");
    }
    for test in rest {
        let _ = write!(text, "\n  {test:<44}");
        for (_, outcome) in done {
            let _ = write!(text, " {:>6}", verdict(outcome, test));
        }
    }
    text.push('\n');
    text
}

/// Each reason for skipped tests with the machines and how many tests each skipped.
fn skips(done: &[Done]) -> String {
    let mut reasons: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (name, outcome) in done {
        for (_, verdict) in &outcome.tests {
            if let Verdict::Skipped(why) = verdict {
                *reasons.entry(why).or_default().entry(name).or_default() += 1;
            }
        }
    }
    let mut text = String::new();
    if !reasons.is_empty() {
        text.push_str("\nskipped\n");
    }
    for (why, machines) in reasons {
        let counts: Vec<String> = machines.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(text, "  {why}: {}", counts.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Event;

    fn done(name: &str, lines: &[&str]) -> Done {
        let mut outcome = Outcome::default();
        for line in lines {
            outcome.event(Event::parse(line));
        }
        (name.to_owned(), outcome)
    }

    #[test]
    fn the_tables_show_differences() {
        let all = [
            done(
                "5.10",
                &[
                    "vm 1 out test a::good ... ok",
                    "vm 1 out test a::bad ... FAILED",
                    "vm 1 tool t default + tcptools: t: accept: kretprobe f",
                ],
            ),
            done(
                "6.1",
                &[
                    "vm 1 out test a::good ... ok",
                    "vm 1 out test a::bad ... skipped: needs x: none",
                    "vm 1 tool t default + tcptools: t: accept: fexit f",
                ],
            ),
        ];
        let text = tables(&all);
        assert!(text.contains("tests: 1 passed in every machine that ran them"), "{text}");
        assert!(
            text.lines().any(|l| l.contains("a::bad") && l.contains("FAILED") && l.ends_with("skip")),
            "{text}"
        );
        assert!(text.contains("needs x: none: 6.1 1"), "{text}");
        assert!(text.contains("fexit f (2); kretprobe f (1)"), "{text}");
        assert!(failure(&all[0]).contains("==== 5.10"));
        assert_eq!(failure(&all[1]), "");
    }
}
