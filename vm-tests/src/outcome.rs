//! The outcome of a machine: the verdict of every test, the attach option of every hook, and all
//! that is wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::console::{Event, Verdict, test_line};
use crate::costs::{Cost, Program};
use crate::matrix::Run;
use crate::qemu::End;

/// How many of the console's last lines a failure shows.
const CONSOLE_TAIL: usize = 40;

/// PID 1's word for a start without `--access`.
const DEFAULT_ACCESS: &str = "default";

/// PID 1's word for a start without other options.
const NO_OPTIONS: &str = "+";

/// The kinds of attach options. In a tool's messages the name of the attach point follows.
const ATTACH_KINDS: [&str; 9] =
    ["tp_btf", "raw_tp", "fentry", "fexit", "kprobe", "kretprobe", "iter", "tracepoint", "kprobe_multi"];

/// What a tool prints for a hook that no attach option can serve.
const NOT_ATTACHED: &str = "not attached";

/// How a tool was started: its name, access mode and options.
pub type Start = (String, String, String);

/// The attach option of a hook, such as `fexit inet_csk_accept`; `None` if it is not attached.
pub type Attached = Option<String>;

/// All that is known about a machine.
#[derive(Default, Debug)]
pub struct Outcome {
    /// The kernel's release, known once PID 1 runs.
    pub release: Option<String>,
    /// The tests in the order in which they ran.
    pub tests: Vec<(String, Verdict)>,
    /// By tool, access mode and hook, how it was attached without options.
    pub hooks: BTreeMap<(String, String, String), Attached>,
    /// The cost of the programs without options.
    pub costs: BTreeMap<Program, Cost>,
    /// The starts that failed, with the tool's last message.
    pub failed_starts: BTreeMap<Start, String>,
    /// All that is wrong, one line each.
    pub faults: Vec<String>,
    /// Modules that could not be loaded.
    pub modules: Vec<String>,
    /// The tests' output from the list of failures on.
    pub details: Vec<String>,
    /// The files that the payload wrote, by name.
    pub files: BTreeMap<String, String>,
    /// The time from the start of QEMU to its end.
    pub took: Duration,
    verdict: Option<String>,
    /// The last message of a tool that is starting, other than those about hooks and programs.
    last_message: Option<String>,
    tail: VecDeque<String>,
}

impl Outcome {
    /// Adds a line of the machine's output.
    pub fn event(&mut self, event: Event) {
        if event.is_alarm()
            && let Event::Console(line) = &event
        {
            self.faults.push(format!("kernel message: {line}"));
        }
        match event {
            Event::Booted(release) => self.release = Some(release),
            Event::Module(line) if line.ends_with(" ok") => {}
            Event::Module(line) => self.modules.push(line),
            Event::Tool { tool, access, options, line } => self.tool_line((tool, access, options), &line),
            Event::Output(line) => self.output(line),
            Event::File { name, line } => {
                let text = self.files.entry(name).or_default();
                text.push_str(&line);
                text.push('\n');
            }
            Event::Verdict(verdict) => self.verdict = Some(verdict),
            Event::Console(line) => {
                if self.tail.len() == CONSOLE_TAIL {
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
            // Shown if the payload ends before its first test.
            self.tail.push_back(line);
        }
    }

    /// Takes in a line of a tool's `-vv` output.
    fn tool_line(&mut self, start: Start, line: &str) {
        if line == "ended" {
            let message = self.last_message.take().unwrap_or_else(|| "it ended without a message".into());
            self.failed_starts.insert(start, message);
            return;
        }
        if line.ends_with(": attached") {
            self.last_message = None;
            return;
        }
        let (tool, access, options) = start;
        let own = line.strip_prefix("tcptools: ").unwrap_or(line);
        let own = own.strip_prefix(tool.as_str()).and_then(|rest| rest.strip_prefix(": "));
        // The message of a start that fails has attach options too, and its hook in quotes.
        let report = own.and_then(|own| own.split_once(": ")).filter(|(what, _)| !what.contains('`'));
        let Some((what, how)) = report else {
            match &mut self.last_message {
                // The first indented line has the reason.
                Some(message) if line.starts_with(' ') && !message.contains('\n') => {
                    message.push('\n');
                    message.push_str(line);
                }
                _ if line.starts_with(' ') => {}
                message => *message = Some(line.to_owned()),
            }
            return;
        };
        if options != NO_OPTIONS {
            return;
        }
        let kind = how.split(' ').next().unwrap_or(how);
        if let Some(program) = what.strip_prefix("program ") {
            if let Some(cost) = Cost::parse(how)
                && access != DEFAULT_ACCESS
            {
                self.costs.insert((tool, access, program.to_owned()), cost);
            }
        } else if ATTACH_KINDS.contains(&kind) {
            self.hooks.insert((tool, access, what.to_owned()), Some(how.to_owned()));
        } else if how == NOT_ATTACHED {
            self.hooks.entry((tool, access, what.to_owned())).or_insert(None);
        }
    }

    /// Finds out what is wrong, once the machine has ended.
    pub fn conclude(&mut self, run: &Run<'_>, end: End, took: Duration) {
        self.took = took;
        match (end, &self.verdict) {
            (End::Silent, _) => self.faults.push("it hangs: it printed nothing for too long".into()),
            (End::Overdue, _) => self.faults.push("it ran for too long".into()),
            (End::Exited, None) => self.faults.push("it ended without a verdict".into()),
            (End::Exited, Some(verdict)) if verdict != "ok" => {
                self.faults.push(format!("payload: {verdict}"))
            }
            (End::Exited, Some(_)) => {}
        }
        for ((tool, access, options), message) in &self.failed_starts {
            let unsupported = &run.variant.unsupported_tools;
            let expected =
                unsupported.get(tool).is_some_and(|why| message.contains(why) && !message.contains('\n'));
            if !expected && !run.variant.unsupported_access.contains(access) {
                self.faults.push(format!("{tool} {access} {options} does not run: {message}"));
            }
        }
        for (tool, access, _) in
            self.hooks.keys().filter(|(_, access, _)| run.variant.unsupported_access.contains(access))
        {
            self.faults.push(format!("{tool} {access} runs, but kernels.toml says that it cannot"));
        }
        // A tool that cannot run may have listed hooks before it ended.
        self.hooks.retain(|(tool, _, _), _| !run.variant.unsupported_tools.contains_key(tool));
        for tool in run.variant.unsupported_tools.keys() {
            if !self.failed_starts.keys().any(|(failed, _, _)| failed == tool) {
                self.faults.push(format!("{tool} runs, but kernels.toml says that it cannot"));
            }
        }
        self.check_hooks(run);
        if self.verdict.is_none() {
            self.details = self.tail.iter().cloned().collect();
        }
    }

    /// Compares the hooks of starts without `--access` with `kernels.toml`.
    fn check_hooks(&mut self, run: &Run<'_>) {
        let mut faults = Vec::new();
        for ((tool, access, hook), attached) in &self.hooks {
            if access != DEFAULT_ACCESS {
                continue;
            }
            let (absent, wanted) = (run.lacks(hook), run.kernel.attach_options.get(hook));
            match (attached, wanted) {
                (None, _) if !absent => faults
                    .push(format!("{tool}: `{hook}` is not attached, but kernels.toml says that it can be")),
                (Some(option), _) if absent => {
                    faults.push(format!(
                        "{tool}: `{hook}` is attached by {option}, but kernels.toml says that it cannot be"
                    ));
                }
                (Some(option), Some(wanted)) if !option.starts_with(wanted.as_str()) => {
                    faults.push(format!(
                        "{tool}: `{hook}` is attached by {option}, but kernels.toml says by {wanted}"
                    ));
                }
                _ => {}
            }
        }
        // If the words of a tool's messages change, these hooks are no longer found.
        let reported: BTreeSet<&str> = self.hooks.keys().map(|(_, _, hook)| hook.as_str()).collect();
        if !reported.is_empty() {
            let unreported = run.named_hooks().filter(|hook| !reported.contains(hook));
            faults
                .extend(unreported.map(|hook| format!("kernels.toml has `{hook}`, but no tool reports it")));
        }
        self.faults.extend(faults);
    }

    /// The numbers of passed, failed and skipped tests.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |wanted: fn(&Verdict) -> bool| self.tests.iter().filter(|(_, verdict)| wanted(verdict)).count();
        (
            count(|v| matches!(v, Verdict::Passed | Verdict::PassedOnRetry)),
            count(|v| *v == Verdict::Failed),
            count(|v| matches!(v, Verdict::Skipped(_))),
        )
    }

    /// Whether the machine passed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.counts().1 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Choice, Matrix};

    /// The outcome of a 5.10 with this output.
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
    fn a_missing_verdict_or_a_hang_is_a_failure() {
        assert!(!outcome(&GOOD[..2], End::Exited).is_good(), "no verdict");
        assert!(!outcome(&GOOD, End::Silent).is_good(), "a hang");
        assert!(!outcome(&["vm 1.0 verdict exit code 1"], End::Exited).is_good(), "failed tests");
        let panic = [&GOOD[..], &["[ 3.1] Kernel panic - not syncing: x"]].concat();
        assert!(!outcome(&panic, End::Exited).is_good(), "a panic");
        let tail = outcome(&["[ 0.1] last line"], End::Exited);
        assert_eq!(tail.details, ["[ 0.1] last line"], "the console is shown");
    }

    #[test]
    fn lines_of_files_are_joined() {
        let lines =
            ["vm 1.0 file a.md one", "vm 1.0 file b.json {", "vm 1.0 file a.md ", "vm 1.0 file a.md two"];
        let outcome = outcome(&[&lines[..], &GOOD].concat(), End::Exited);
        let expected = [("a.md", "one\n\ntwo\n"), ("b.json", "{\n")];
        assert_eq!(outcome.files, BTreeMap::from(expected.map(|(name, text)| (name.into(), text.into()))));
    }

    #[test]
    fn attach_options_are_compared_with_the_matrix() {
        /// What `kernels.toml` says about 5.10.
        const EXPECTED: [&str; 4] = [
            "accept: fentry inet_csk_accept",
            "first send: not attached",
            "first receive: not attached",
            "send: not attached",
        ];
        let faults_of = |hooks: &[&str]| {
            let said = |hook: &&str| format!("vm 0.5 tool tcplife default + tcptools: tcplife: {hook}");
            let lines: Vec<String> = hooks.iter().map(said).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).chain(GOOD).collect();
            outcome(&lines, End::Exited).faults.join("\n")
        };
        let and = |hook| [&EXPECTED[..], &[hook]].concat();
        assert_eq!(faults_of(&EXPECTED), "");
        assert_eq!(faults_of(&and("state change: tp_btf inet_sock_set_state")), "");
        assert_eq!(faults_of(&and("open sockets: sockets that were open before have no owner")), "");
        assert!(faults_of(&and("state change: not attached")).contains("is not attached"));
        assert!(faults_of(&and("first send: tp_btf sock_send_length")).contains("says that it cannot"));
        assert!(faults_of(&and("accept: kretprobe inet_csk_accept")).contains("says by fentry"));
        assert!(faults_of(&EXPECTED[..3]).contains("has `send`, but no tool reports it"));
    }

    #[test]
    fn the_reason_of_a_failed_start_is_not_a_hook() {
        let words = "tcptools: tcpdrop: no way to see `drop` on this kernel: raw_tp kfree_skb: load: no";
        let lines =
            [format!("vm 0.5 tool tcpdrop typed + {words}"), "vm 0.5 tool tcpdrop typed + ended".into()];
        let lines: Vec<&str> = lines.iter().map(String::as_str).chain(GOOD).collect();
        let outcome = outcome(&lines, End::Exited);
        assert_eq!(outcome.failed_starts.values().collect::<Vec<_>>(), [words]);
        assert!(outcome.hooks.is_empty(), "{:?}", outcome.hooks);
    }

    #[test]
    fn a_failed_start_is_a_failure() {
        let lines = [
            "vm 0.5 tool tcplife typed -4 tcptools: tcplife: no way",
            "vm 0.5 tool tcplife typed -4   tp_btf x: no such field",
            "vm 0.5 tool tcplife typed -4   (more)",
            "vm 0.5 tool tcplife typed -4 ended",
        ];
        let outcome = outcome(&[&lines[..], &GOOD].concat(), End::Exited);
        let expected = "tcplife typed -4 does not run: tcptools: tcplife: no way\n  tp_btf x: no such field";
        assert_eq!(outcome.faults, [expected]);
        assert_eq!(outcome.failed_starts.len(), 1);
    }

    #[test]
    fn costs_are_kept_by_access_mode() {
        let line = |start: &str| {
            format!(
                "vm 0.5 tool {start} tcptools: tcplife: program p: 1 instructions, 2 verified, stack 3, 4 bytes"
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
