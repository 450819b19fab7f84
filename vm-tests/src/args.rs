//! The command line.

use clap::{Arg, ArgAction, Command, value_parser};

/// What was typed.
#[derive(PartialEq, Eq, Debug)]
pub struct Args {
    /// Machines; none for all.
    pub machines: Vec<String>,
    /// Arguments of the tests, or of the benchmark.
    pub tests: Vec<String>,
    /// Only say which machines there are.
    pub list: bool,
    /// Only the machines marked `quick`.
    pub quick: bool,
    /// A shell on the console of one machine.
    pub shell: bool,
    /// Machines to run at a time.
    pub jobs: usize,
    /// Attach every tool in every way, and run no test.
    pub attach: bool,
    /// Run the benchmark instead of the tests.
    pub bench: bool,
    /// Write what it measured into the documents.
    pub update_docs: bool,
    /// Take over what the programs cost.
    pub bless: bool,
    /// Look for newer kernels than those of the cache.
    pub update: bool,
}

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("cargo vm-test")
        .about("Boots real Debian kernels in QEMU and runs the kernel tests inside, or the benchmark")
        .arg(
            Arg::new("machine")
                .value_name("KERNEL")
                .num_args(0..)
                .help("5.10, 6.12:lockdown, arm64 for all of these, :lockdown for a variant; all by default"),
        )
        .arg(
            Arg::new("test")
                .value_name("TEST")
                .num_args(0..)
                .last(true)
                .help("Arguments of the tests, parts of names; or of the benchmark"),
        )
        .arg(flag("list", "Say which machines there are, and what of them is in the cache"))
        .arg(flag("quick", "Only the machines that ./test runs").conflicts_with("machine"))
        .arg(flag("shell", "A shell on the console of one machine (Ctrl-A X ends it)").requires("machine"))
        .arg(
            Arg::new("jobs")
                .long("jobs")
                .short('j')
                .value_name("N")
                .default_value("2")
                .value_parser(value_parser!(u16).range(1..))
                .help("Machines to run at a time; each takes one CPU"),
        )
        .arg(
            flag("attach", "Attach every tool with every set of options, and run no test")
                .conflicts_with("test"),
        )
        .arg(
            flag("bench", "Run the benchmark in one machine, beside the peers that are installed here")
                .conflicts_with_all(["quick", "list", "shell", "attach", "bless"]),
        )
        .arg(
            flag("update-docs", "Write what --bench measured into tests/bench/results")
                .requires("bench")
                .conflicts_with("test"),
        )
        .arg(flag("bless", "Write what the programs cost into programs.txt"))
        .arg(flag("update", "Look for newer kernels than those of the cache"))
}

/// Reads the command line.
///
/// # Errors
///
/// clap's, which prints itself and knows its exit code.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Args, clap::Error> {
    let matches = command().no_binary_name(true).try_get_matches_from(words)?;
    let words = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
    Ok(Args {
        machines: words("machine"),
        tests: words("test"),
        list: matches.get_flag("list"),
        quick: matches.get_flag("quick"),
        shell: matches.get_flag("shell"),
        jobs: matches.get_one::<u16>("jobs").map_or(1, |&jobs| usize::from(jobs)),
        attach: matches.get_flag("attach"),
        bench: matches.get_flag("bench"),
        update_docs: matches.get_flag("update-docs"),
        bless: matches.get_flag("bless"),
        update: matches.get_flag("update"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn machines_before_and_tests_after_two_dashes() {
        let args = parsed("5.10 arm64 -- tcpdrop --skip storm").unwrap();
        assert_eq!(args.machines, ["5.10", "arm64"]);
        assert_eq!(args.tests, ["tcpdrop", "--skip", "storm"]);
        assert!(!args.list && !args.quick && !args.shell && !args.update);
        assert!(parsed("--quick").unwrap().quick);
        let args = parsed("--bench 5.10 -- --only start").unwrap();
        assert!(args.bench && !args.update_docs && args.tests == ["--only", "start"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--quick 5.10",
            "--shell",
            "--frobnicate",
            "--bench --attach",
            "--update-docs",
            "--bench --update-docs -- --only start",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
