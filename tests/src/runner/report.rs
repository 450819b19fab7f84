//! The output of a run: a line for each test as `cargo test` prints it, then failures, counts and
//! the slowest tests.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::Verdict;

/// How many of the slowest tests are listed.
const SLOWEST_LISTED: usize = 10;

/// A failed run of a test.
struct Failure {
    name: &'static str,
    why: String,
    output: String,
}

/// What has become of the tests so far.
pub(super) struct Report {
    begin: Instant,
    passed: usize,
    skipped: usize,
    /// Tests of the program that the command line did not choose.
    filtered: usize,
    failures: Vec<Failure>,
    /// First runs that failed, of tests that were then repeated.
    repeated: Vec<Failure>,
    times: Vec<(Duration, &'static str)>,
}

/// Prints the first half of a test's line. If the kernel crashes now, the console names the test.
pub(super) fn begins(name: &str) {
    print!("test {name} ... ");
    io::stdout().flush().expect("write to standard output");
}

impl Report {
    pub fn new(filtered: usize) -> Self {
        Self {
            begin: Instant::now(),
            passed: 0,
            skipped: 0,
            filtered,
            failures: Vec::new(),
            repeated: Vec::new(),
            times: Vec::new(),
        }
    }

    pub fn keep_first_failure(&mut self, name: &'static str, why: String, output: String) {
        self.repeated.push(Failure { name, why, output });
    }

    /// Counts a test that has ended and prints its line, or the second half of it if [`begins`] has
    /// printed the first.
    pub fn ended(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        output: String,
        took: Duration,
        whole_line: bool,
    ) {
        if whole_line {
            begins(name);
        }
        self.times.push((took, name));
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                let second = self.repeated.iter().any(|failure| failure.name == name);
                println!("ok{}", if second { " the second time" } else { "" });
            }
            Verdict::Skipped(why) => {
                self.skipped += 1;
                println!("skipped: {why}");
            }
            Verdict::Failed(why) => {
                println!("FAILED");
                self.failures.push(Failure { name, why, output });
            }
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.repeated.is_empty() {
            f.write_str("\nrepeated, because this kernel skips runs of programs; the first failures:\n")?;
            write_outputs(f, &self.repeated)?;
        }
        if !self.failures.is_empty() {
            f.write_str("\nfailures:\n")?;
            write_outputs(f, &self.failures)?;
            f.write_str("\nfailures:\n")?;
            for Failure { name, .. } in &self.failures {
                writeln!(f, "    {name}")?;
            }
        }
        let mut times = self.times.clone();
        times.sort_by(|one, other| other.cmp(one));
        f.write_str("\nslowest:\n")?;
        for (took, name) in times.iter().take(SLOWEST_LISTED) {
            writeln!(f, "{:>7.2} s {name}", took.as_secs_f64())?;
        }
        let Self { passed, skipped, filtered, .. } = self;
        let (failed, result) = (self.failures.len(), if self.failures.is_empty() { "ok" } else { "FAILED" });
        writeln!(
            f,
            "\ntest result: {result}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; \
             {filtered} filtered out; finished in {:.2}s\n\n{passed} passed, {failed} failed, {skipped} skipped",
            self.begin.elapsed().as_secs_f64()
        )
    }
}

/// The output of failed tests.
fn write_outputs(f: &mut fmt::Formatter<'_>, failures: &[Failure]) -> fmt::Result {
    for Failure { name, why, output } in failures {
        writeln!(f, "\n---- {name}: {why} ----\n{}", output.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_and_lists_the_slowest() {
        let mut report = Report::new(3);
        let mut end = |name, verdict, millis| {
            report.ended(name, verdict, "why\n".to_owned(), Duration::from_millis(millis), true);
        };
        end("a::a", Verdict::Passed, 10);
        end("a::b", Verdict::Failed("panicked".to_owned()), 2500);
        end("a::c", Verdict::Skipped("needs veth".to_owned()), 1);
        end("a::d", Verdict::Passed, 40);
        let text = report.to_string();
        let result = "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 3 filtered out";
        assert!(text.contains(result), "{text}");
        assert!(text.contains("slowest:\n   2.50 s a::b\n   0.04 s a::d\n"), "{text}");
        assert!(text.ends_with("\n2 passed, 1 failed, 1 skipped\n"), "{text}");
        assert!(text.contains("---- a::b: panicked ----\nwhy\n"), "{text}");
    }
}
