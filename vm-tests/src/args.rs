//! The command line.

use clap::{Arg, ArgAction, Command, value_parser};

/// What was typed.
#[derive(PartialEq, Eq, Debug)]
pub struct Args {
    /// Names of machines; all if empty.
    pub machines: Vec<String>,
    /// Arguments for the tests or the benchmark.
    pub tests: Vec<String>,
    /// List the machines and end.
    pub list: bool,
    /// List them as JSON.
    pub json: bool,
    /// Build the programs for the machines and end.
    pub build: bool,
    /// Only the machines marked `quick`.
    pub quick: bool,
    /// Start a shell on the console of one machine.
    pub shell: bool,
    /// How many machines run at the same time.
    pub jobs: usize,
    /// Attach every tool with every set of options, and run no test.
    pub attach: bool,
    /// Run the benchmark instead of the tests.
    pub bench: bool,
    /// Write the benchmark's results into `tests/bench/results`.
    pub update_docs: bool,
    /// Accept the present cost of the programs.
    pub bless: bool,
    /// Look for newer kernels than the cache has.
    pub update: bool,
}

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("cargo vm-test")
        .about("Boots real Debian kernels in QEMU and runs the kernel tests inside, or the benchmark")
        .arg(Arg::new("machine").value_name("KERNEL").num_args(0..).help(
            "A machine (5.10, 6.12:integrity), an architecture (arm64), a variant (:integrity), or `:` \
                       for all plain machines [default: all]",
        ))
        .arg(
            Arg::new("test")
                .value_name("TEST")
                .num_args(0..)
                .last(true)
                .help("Arguments for the tests (parts of their names) or for the benchmark"),
        )
        .arg(flag("list", "List the machines and the packages in the cache"))
        .arg(flag("json", "List the machines as a JSON array").requires("list"))
        .arg(
            flag("build", "Build the programs for the machines, and boot none")
                .conflicts_with_all(["list", "shell", "attach", "bench", "bless", "test"]),
        )
        .arg(flag("quick", "Only the machines that ./test runs").conflicts_with("machine"))
        .arg(
            flag("shell", "Start a shell on the console of one machine (Ctrl-A X ends it)")
                .requires("machine"),
        )
        .arg(
            Arg::new("jobs")
                .long("jobs")
                .short('j')
                .value_name("N")
                .default_value("2")
                .value_parser(value_parser!(u16).range(1..))
                .help("Run N machines at the same time; each takes one CPU"),
        )
        .arg(
            flag("attach", "Attach every tool with every set of options, and run no test")
                .conflicts_with("test"),
        )
        .arg(
            flag("bench", "Run the benchmark in one machine, with the peers installed on this host")
                .conflicts_with_all(["quick", "list", "shell", "attach", "bless"]),
        )
        .arg(
            flag("update-docs", "Write the results of --bench into tests/bench/results")
                .requires("bench")
                .conflicts_with("test"),
        )
        .arg(flag("bless", "Accept the present cost of the programs: write it into programs.txt"))
        .arg(flag("update", "Look for newer kernels than the cache has"))
}

/// Reads the command line.
///
/// # Errors
///
/// clap's error, which prints itself and has the exit code.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Args, clap::Error> {
    let matches = command().no_binary_name(true).try_get_matches_from(words)?;
    let words = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
    Ok(Args {
        machines: words("machine"),
        tests: words("test"),
        list: matches.get_flag("list"),
        json: matches.get_flag("json"),
        build: matches.get_flag("build"),
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
    fn contradicting_options_are_refused() {
        for line in [
            "--quick 5.10",
            "--json",
            "--build --list",
            "--build 5.10 -- tcplife",
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
