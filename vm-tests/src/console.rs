//! What a machine says: lines of its serial ports as events.

/// One thing that happened in a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// PID 1 runs, on this kernel.
    Booted(String),
    /// A module was loaded (`veth.ko ok`) or was not.
    Module(String),
    /// A line of a tool's `-v`.
    AttachOption {
        /// The tool.
        tool: String,
        /// How it was told to read memory; `default` is its own choice.
        access: String,
        /// Its options, joined by `+`.
        options: String,
        /// What it said.
        line: String,
    },
    /// A line of the tests' output.
    Output(String),
    /// A line of a file that the payload has written.
    File {
        /// The file's name, without its folder.
        name: String,
        /// The line.
        line: String,
    },
    /// The tests have ended; `ok` or why not.
    Verdict(String),
    /// A line that is not from PID 1: the kernel's.
    Console(String),
}

/// What a kernel says when something is wrong with it, whatever the tests say.
const MARKS: [&str; 12] = [
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
    /// Reads a line. `vm SECONDS WORD TEXT` is from PID 1.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let line = line.trim_end_matches(['\r', '\n']);
        // On a console the kernel may have left its cursor within a line.
        Self::of_init(line).unwrap_or_else(|| Self::Console(line.to_owned()))
    }

    fn of_init(line: &str) -> Option<Self> {
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
            "attach_option" => {
                let mut words = text.splitn(4, ' ').map(str::to_owned);
                let (tool, access, options) = (words.next()?, words.next()?, words.next()?);
                Self::AttachOption { tool, access, options, line: words.next().unwrap_or_default() }
            }
            _ => return None,
        })
    }

    /// Whether the kernel complains here.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        matches!(self, Self::Console(line) if MARKS.iter().any(|mark| line.contains(mark)))
    }
}

/// How a test ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed, and passed when it was run again.
    Second,
    /// It failed.
    Failed,
    /// It was not run, because of this.
    Skipped(String),
}

/// Reads `test NAME ... VERDICT`, which the tests print for each.
#[must_use]
pub fn test_line(line: &str) -> Option<(&str, Verdict)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let verdict = match verdict {
        "ok" => Verdict::Passed,
        "ok the second time" => Verdict::Second,
        "FAILED" => Verdict::Failed,
        other => Verdict::Skipped(other.strip_prefix("skipped: ")?.to_owned()),
    };
    Some((name, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pid_1_are_told_from_the_kernels() {
        assert_eq!(Event::parse("vm 0.012 boot 6.1.0-56\r"), Event::Booted("6.1.0-56".into()));
        assert_eq!(Event::parse("vm 1.0 out "), Event::Output(String::new()));
        assert_eq!(Event::parse("vm 1.0 out   indented"), Event::Output("  indented".into()));
        let file = |line: &str| Event::File { name: "x.md".into(), line: line.into() };
        assert_eq!(Event::parse("vm 1.0 file x.md   a | b"), file("  a | b"));
        assert_eq!(Event::parse("vm 1.0 file x.md "), file(""));
        assert_eq!(
            Event::parse("vm 2.5 attach_option tcplife typed + tcptools: tcplife: attached"),
            Event::AttachOption {
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
    fn a_kernel_in_trouble_is_noticed() {
        assert!(Event::parse("[   12.3] BUG: unable to handle page fault for address: 0").is_alarm());
        assert!(Event::parse("[  120.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:").is_alarm());
        assert!(!Event::parse("vm 1.0 out BUG: said by a test").is_alarm());
        assert!(!Event::parse("[    8.2] reboot: Power down").is_alarm());
    }

    #[test]
    fn verdicts_of_tests() {
        assert_eq!(test_line("test a::b ... ok"), Some(("a::b", Verdict::Passed)));
        assert_eq!(test_line("test a::b ... ok the second time"), Some(("a::b", Verdict::Second)));
        assert_eq!(test_line("test a::b ... FAILED"), Some(("a::b", Verdict::Failed)));
        let skipped = Verdict::Skipped("needs veth: none".into());
        assert_eq!(test_line("test a::b ... skipped: needs veth: none"), Some(("a::b", skipped)));
        assert_eq!(test_line("test a::b ... "), None);
        assert_eq!(test_line("testing"), None);
    }
}
