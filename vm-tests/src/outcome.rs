//! What came of a machine: every test's verdict, every hook's attach option, and whether all of it is good.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::console::{Event, Verdict, test_line};
use crate::costs::{Cost, Program};
use crate::matrix::Run;
use crate::qemu::End;

/// How many of the console's last lines a failure shows.
const TAIL: usize = 40;

/// How PID 1 says that a tool chose its access mode itself, and that it had no options.
const CHOICE: &str = "default";
const NO_OPTIONS: &str = "+";

/// Ways to attach, as the tools name them, each before the name of what it is attached to.
const KINDS: [&str; 9] =
    ["tp_btf", "raw_tp", "fentry", "fexit", "kprobe", "kretprobe", "iter", "tracepoint", "kprobe_multi"];

/// What a tool was started with: itself, its access mode, its options.
pub type Start = (String, String, String);

/// How a hook was taken: `fexit inet_csk_accept`, or `None` when it was not.
pub type AttachOption = Option<String>;

/// All that a machine said, sorted.
#[derive(Default, Debug)]
pub struct Outcome {
    /// The kernel's release, once PID 1 runs.
    pub release: Option<String>,
    /// Tests in the order they ran.
    pub tests: Vec<(String, Verdict)>,
    /// Tool, access mode and hook, and how it was taken without options.
    pub attach_options: BTreeMap<(String, String, String), AttachOption>,
    /// What the verifier made of the programs without options.
    pub costs: BTreeMap<Program, Cost>,
    /// What gave up, and its last words.
    pub refused: BTreeMap<Start, String>,
    /// What is wrong, one line each; empty when all is well.
    pub faults: Vec<String>,
    /// Modules that could not be loaded.
    pub modules: Vec<String>,
    /// The tests' output from their list of failures on.
    pub details: Vec<String>,
    /// What the payload has written, by the names of the files.
    pub files: BTreeMap<String, String>,
    /// How long it took, from the start of QEMU.
    pub took: Duration,
    verdict: Option<String>,
    /// What a tool said that has not attached yet, its hooks apart.
    last_words: Option<String>,
    tail: VecDeque<String>,
}

impl Outcome {
    /// Takes in what was said.
    pub fn event(&mut self, event: Event) {
        if event.is_alarm()
            && let Event::Console(line) = &event
        {
            self.faults.push(format!("the kernel complains: {line}"));
        }
        match event {
            Event::Booted(release) => self.release = Some(release),
            Event::Module(line) if line.ends_with(" ok") => {}
            Event::Module(line) => self.modules.push(line),
            Event::AttachOption { tool, access, options, line } => {
                self.attach_option((tool, access, options), &line)
            }
            Event::Output(line) => self.output(line),
            Event::File { name, line } => {
                let text = self.files.entry(name).or_default();
                text.push_str(&line);
                text.push('\n');
            }
            Event::Verdict(verdict) => self.verdict = Some(verdict),
            Event::Console(line) => {
                if self.tail.len() == TAIL {
                    self.tail.pop_front();
                }
                self.tail.push_back(line);
            }
        }
    }

    fn output(&mut self, line: String) {
        if let Some((name, verdict)) = test_line(&line) {
            self.tests.push((name.to_owned(), verdict));
        } else if !self.details.is_empty() || line == "failures:" {
            self.details.push(line);
        } else if self.tests.is_empty() {
            // What a payload says that never comes to its first test.
            self.tail.push_back(line);
        }
    }

    /// A line of a tool's `-vv`.
    fn attach_option(&mut self, start: Start, line: &str) {
        if line == "ended" {
            let words = self.last_words.take().unwrap_or_else(|| "it ended without a word".into());
            self.refused.insert(start, words);
            return;
        }
        if line.ends_with(": attached") {
            self.last_words = None;
            return;
        }
        let (tool, access, options) = start;
        let own =
            line.strip_prefix("tcptools: ").and_then(|rest| rest.strip_prefix(&tool)?.strip_prefix(": "));
        // Why a tool gives up names the ways as well.
        let said = own.filter(|own| !own.starts_with("no way to see "));
        let Some((what, how)) = said.and_then(|said| said.split_once(": ")) else {
            match &mut self.last_words {
                // The first line below says why.
                Some(words) if line.starts_with(' ') && !words.contains('\n') => {
                    words.push('\n');
                    words.push_str(line);
                }
                _ if line.starts_with(' ') => {}
                words => *words = Some(line.to_owned()),
            }
            return;
        };
        if options != NO_OPTIONS {
            return;
        }
        let kind = how.split(' ').next().unwrap_or(how);
        if let Some(program) = what.strip_prefix("program ") {
            if let Some(cost) = Cost::parse(how)
                && access != CHOICE
            {
                self.costs.insert((tool, access, program.to_owned()), cost);
            }
        } else if KINDS.contains(&kind) {
            self.attach_options.insert((tool, access, what.to_owned()), Some(how.to_owned()));
        } else if how == "not attached" {
            self.attach_options.entry((tool, access, what.to_owned())).or_insert(None);
        }
    }

    /// Draws the conclusions once the machine has ended.
    pub fn conclude(&mut self, run: &Run<'_>, end: End, took: Duration) {
        self.took = took;
        match (end, &self.verdict) {
            (End::Silent, _) => self.faults.push("it hangs: nothing was said for too long".into()),
            (End::Overdue, _) => self.faults.push("it takes too long".into()),
            (End::Exited, None) => self.faults.push("it ended without a verdict".into()),
            (End::Exited, Some(verdict)) if verdict != "ok" => {
                self.faults.push(format!("payload: {verdict}"))
            }
            (End::Exited, Some(_)) => {}
        }
        for ((tool, access, options), words) in &self.refused {
            let said =
                run.variant.cannot.get(tool).is_some_and(|why| words.contains(why) && !words.contains('\n'));
            if !said && !run.variant.refuses.contains(access) {
                self.faults.push(format!("{tool} {access} {options} does not run: {words}"));
            }
        }
        for (tool, access, _) in
            self.attach_options.keys().filter(|(_, access, _)| run.variant.refuses.contains(access))
        {
            self.faults.push(format!("{tool} {access} runs, and kernels.toml says it cannot"));
        }
        // What hooks a tool says that it would have is no sign of running.
        self.attach_options.retain(|(tool, _, _), _| !run.variant.cannot.contains_key(tool));
        for tool in run.variant.cannot.keys() {
            if !self.refused.keys().any(|(refused, _, _)| refused == tool) {
                self.faults.push(format!("{tool} runs, and kernels.toml says it cannot"));
            }
        }
        self.check_attach_options(run);
        if self.verdict.is_none() {
            self.details = self.tail.iter().cloned().collect();
        }
    }

    /// The hooks a tool's own choice has taken have to be what `kernels.toml` says.
    fn check_attach_options(&mut self, run: &Run<'_>) {
        let mut faults = Vec::new();
        for ((tool, access, hook), attach_option) in &self.attach_options {
            if access != CHOICE {
                continue;
            }
            let (absent, wanted) = (run.lacks(hook), run.kernel.attach_options.get(hook));
            match (attach_option, wanted) {
                (None, _) if !absent => faults.push(format!("{tool}: `{hook}` is not seen, and has to be")),
                (Some(attach_option), _) if absent => {
                    faults.push(format!(
                        "{tool}: `{hook}` is taken by {attach_option}, and kernels.toml says it cannot be"
                    ));
                }
                (Some(attach_option), Some(wanted)) if !attach_option.starts_with(wanted.as_str()) => {
                    faults.push(format!(
                        "{tool}: `{hook}` is taken by {attach_option}, and has to be by {wanted}"
                    ));
                }
                _ => {}
            }
        }
        self.faults.extend(faults);
    }

    /// How many tests passed, failed and were skipped.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |wanted: fn(&Verdict) -> bool| self.tests.iter().filter(|(_, verdict)| wanted(verdict)).count();
        (
            count(|v| matches!(v, Verdict::Passed | Verdict::Second)),
            count(|v| *v == Verdict::Failed),
            count(|v| matches!(v, Verdict::Skipped(_))),
        )
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.counts().1 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Choice, Matrix};

    /// What is left of a 5.10 that said this.
    fn outcome(lines: &[&str], end: End) -> Outcome {
        let matrix = Matrix::read().unwrap();
        let run = matrix.choose(Choice::Named(&["5.10".to_owned()])).unwrap()[0];
        let mut outcome = Outcome::default();
        for line in lines {
            outcome.event(Event::parse(line));
        }
        outcome.conclude(&run, end, Duration::ZERO);
        outcome
    }

    const GOOD: [&str; 4] =
        ["vm 0.1 boot 5.10", "vm 1.0 out test a::b ... ok", "vm 1.0 verdict ok", "[ 9.0] reboot: Power down"];

    #[test]
    fn a_good_end_is_good() {
        let outcome = outcome(&GOOD, End::Exited);
        assert!(outcome.is_good(), "{outcome:?}");
        assert_eq!(outcome.counts(), (1, 0, 0));
    }

    #[test]
    fn whatever_is_missing_is_a_failure() {
        assert!(!outcome(&GOOD[..2], End::Exited).is_good(), "no verdict");
        assert!(!outcome(&GOOD, End::Silent).is_good(), "a hang");
        assert!(!outcome(&["vm 1.0 verdict exit code 1"], End::Exited).is_good(), "failed tests");
        let panic = [&GOOD[..], &["[ 3.1] Kernel panic - not syncing: x"]].concat();
        assert!(!outcome(&panic, End::Exited).is_good(), "a panic");
        let tail = outcome(&["[ 0.1] last words"], End::Exited);
        assert_eq!(tail.details, ["[ 0.1] last words"], "the console is shown");
    }

    #[test]
    fn files_are_put_together() {
        let lines =
            ["vm 1.0 file a.md one", "vm 1.0 file b.json {", "vm 1.0 file a.md ", "vm 1.0 file a.md two"];
        let outcome = outcome(&[&lines[..], &GOOD].concat(), End::Exited);
        let expected = [("a.md", "one\n\ntwo\n"), ("b.json", "{\n")];
        assert_eq!(outcome.files, BTreeMap::from(expected.map(|(name, text)| (name.into(), text.into()))));
    }

    #[test]
    fn attach_options_are_what_the_matrix_says() {
        let said = |line: &str| {
            let line = format!("vm 0.5 attach_option tcplife default + tcptools: tcplife: {line}");
            outcome(&[&[line.as_str()][..], &GOOD].concat(), End::Exited)
        };
        assert!(said("state change: tp_btf inet_sock_set_state").is_good());
        assert!(said("first send: not attached").is_good(), "5.10 has no such tracepoint");
        assert!(!said("state change: not attached").is_good());
        assert!(!said("first send: tp_btf sock_send_length").is_good(), "the matrix is out of date");
        let remark = said("open sockets: sockets that were open before have no owner");
        assert!(remark.attach_options.is_empty(), "{remark:?}");
    }

    #[test]
    fn why_a_tool_gives_up_is_no_hook() {
        let words = "tcptools: tcpdrop: no way to see `drop` on this kernel: raw_tp kfree_skb: load: no";
        let lines = [
            format!("vm 0.5 attach_option tcpdrop typed + {words}"),
            "vm 0.5 attach_option tcpdrop typed + ended".into(),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).chain(GOOD).collect();
        let outcome = outcome(&lines, End::Exited);
        assert_eq!(outcome.refused.values().collect::<Vec<_>>(), [words]);
        assert!(outcome.attach_options.is_empty(), "{:?}", outcome.attach_options);
    }

    #[test]
    fn a_tool_that_gives_up_is_a_failure() {
        let lines = [
            "vm 0.5 attach_option tcplife typed -4 tcptools: tcplife: no way",
            "vm 0.5 attach_option tcplife typed -4   tp_btf x: no such field",
            "vm 0.5 attach_option tcplife typed -4   (more)",
            "vm 0.5 attach_option tcplife typed -4 ended",
        ];
        let outcome = outcome(&[&lines[..], &GOOD].concat(), End::Exited);
        let expected = "tcplife typed -4 does not run: tcptools: tcplife: no way\n  tp_btf x: no such field";
        assert_eq!(outcome.faults, [expected]);
        assert_eq!(outcome.refused.len(), 1);
    }

    #[test]
    fn the_verifiers_numbers_are_kept_by_access_mode() {
        let line = |start: &str| {
            format!(
                "vm 0.5 attach_option {start} tcptools: tcplife: program p: 1 instructions, 2 verified, stack 3, 4 bytes"
            )
        };
        let lines = [line("tcplife default +"), line("tcplife typed +"), line("tcplife typed -4")];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let outcome = outcome(&[&lines[..], &GOOD].concat(), End::Exited);
        let cost = Cost { instructions: 1, verified: 2, stack: Some(3), bytes: 4 };
        let expected = [(("tcplife".to_owned(), "typed".to_owned(), "p".to_owned()), cost)];
        assert_eq!(outcome.costs, BTreeMap::from(expected));
    }
}
