//! Parses the lines of a machine's serial ports into events.

/// One line of a machine's output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// PID 1 runs, on this kernel release.
    Booted(String),
    /// A kernel module and `ok`, or why it could not be loaded.
    Module(String),
    /// A line of a tool's `-vv` output.
    Tool {
        /// The tool's name.
        tool: String,
        /// Its `--access`, or `default` without that option.
        access: String,
        /// Its other options joined by `+`, or `+` alone.
        options: String,
        /// The line itself.
        line: String,
    },
    /// A line of the tests' output.
    Output(String),
    /// A line of a file that the payload wrote.
    File {
        /// The file's name without its folder.
        name: String,
        /// The line itself.
        line: String,
    },
    /// The payload has ended: `ok`, or what went wrong.
    Verdict(String),
    /// A line of the kernel.
    Console(String),
}

/// Words in kernel messages that make a machine fail even if all tests pass.
const ALARMS: [&str; 12] = [
    "Kernel panic",
    "BUG:",
    "WARNING:",
    "Oops:",
    "Internal error:", // the arm64 word for an oops
    "general protection fault",
    "rcu: INFO:",
    "detected stall",
    "soft lockup",
    "blocked for more than",
    "invoked oom-killer",
    "UBSAN:",
];

impl Event {
    /// Parses a line. Lines from PID 1 are `vm SECONDS WORD TEXT`.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let line = line.trim_end_matches(['\r', '\n']);
        Self::from_init(line).unwrap_or_else(|| Self::Console(line.to_owned()))
    }

    fn from_init(line: &str) -> Option<Self> {
        let (seconds, rest) = line.strip_prefix("vm ")?.split_once(' ')?;
        seconds.parse::<f64>().ok()?;
        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let text = text.to_owned();
        Some(match word {
            "boot" => Self::Booted(text),
            "module" => Self::Module(text),
            "out" => Self::Output(text),
            "verdict" => Self::Verdict(text),
            "file" => {
                let (name, line) = text.split_once(' ')?;
                Self::File { name: name.to_owned(), line: line.to_owned() }
            }
            "tool" => {
                let mut words = text.splitn(4, ' ').map(str::to_owned);
                let (tool, access, options) = (words.next()?, words.next()?, words.next()?);
                Self::Tool { tool, access, options, line: words.next().unwrap_or_default() }
            }
            _ => return None,
        })
    }

    /// Whether this is a kernel message about a serious problem.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        matches!(self, Self::Console(line) if ALARMS.iter().any(|alarm| line.contains(alarm)))
    }
}

/// How a test ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Passed,
    /// It failed, and passed when it was run again.
    PassedOnRetry,
    Failed,
    /// It did not run, for this reason.
    Skipped(String),
}

/// Parses `test NAME ... VERDICT`, the line that the kernel tests print for each test.
#[must_use]
pub fn test_line(line: &str) -> Option<(&str, Verdict)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let verdict = match verdict {
        "ok" => Verdict::Passed,
        "ok the second time" => Verdict::PassedOnRetry,
        "FAILED" => Verdict::Failed,
        other => Verdict::Skipped(other.strip_prefix("skipped: ")?.to_owned()),
    };
    Some((name, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pid_1_and_of_the_kernel() {
        assert_eq!(Event::parse("vm 0.012 boot 6.1.0-56\r"), Event::Booted("6.1.0-56".into()));
        assert_eq!(Event::parse("vm 1.0 out "), Event::Output(String::new()));
        assert_eq!(Event::parse("vm 1.0 out   indented"), Event::Output("  indented".into()));
        let file = |line: &str| Event::File { name: "x.md".into(), line: line.into() };
        assert_eq!(Event::parse("vm 1.0 file x.md   a | b"), file("  a | b"));
        assert_eq!(Event::parse("vm 1.0 file x.md "), file(""));
        assert_eq!(
            Event::parse("vm 2.5 tool tcplife typed + tcptools: tcplife: attached"),
            Event::Tool {
                tool: "tcplife".into(),
                access: "typed".into(),
                options: "+".into(),
                line: "tcptools: tcplife: attached".into()
            }
        );
        for line in ["vm x boot 6.1", "vm 1.0 frobnicate", "[    0.5] vm 1.0 boot x", "vm"] {
            assert_eq!(Event::parse(line), Event::Console(line.into()));
        }
    }

    #[test]
    fn serious_kernel_messages_are_alarms() {
        assert!(Event::parse("[   12.3] BUG: unable to handle page fault for address: 0").is_alarm());
        assert!(Event::parse("[  120.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:").is_alarm());
        assert!(!Event::parse("vm 1.0 out BUG: printed by a test").is_alarm());
        assert!(!Event::parse("[    8.2] reboot: Power down").is_alarm());
    }

    #[test]
    fn verdicts_of_tests() {
        assert_eq!(test_line("test a::b ... ok"), Some(("a::b", Verdict::Passed)));
        assert_eq!(test_line("test a::b ... ok the second time"), Some(("a::b", Verdict::PassedOnRetry)));
        assert_eq!(test_line("test a::b ... FAILED"), Some(("a::b", Verdict::Failed)));
        let skipped = Verdict::Skipped("needs veth: none".into());
        assert_eq!(test_line("test a::b ... skipped: needs veth: none"), Some(("a::b", skipped)));
        assert_eq!(test_line("test a::b ... "), None);
        assert_eq!(test_line("testing"), None);
    }
}
