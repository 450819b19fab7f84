//! The kernel's programs of a tool: how long they are, and how long they run.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::contender::installed;
use crate::fault::{During, Fault, Result};
use crate::paths::{Of, fewest};
use crate::proc;

/// A program as it lies in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The kernel's name for it: of ours the tracepoint's, cut off.
    pub name: String,
    /// Instructions after the verifier's rewriting.
    pub instructions: u64,
    /// Instructions the verifier looked at, on all paths; `None` where no descriptor says.
    pub verified: Option<u64>,
    /// Bytes of machine code.
    pub jited: u64,
    /// Calls of helpers that are written in it.
    pub calls: u64,
    /// Instructions of a run that sends an event, at least.
    pub least: Option<u64>,
    /// Calls of helpers of such a run, at least.
    pub least_calls: Option<u64>,
}

/// How often and how long programs have run.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Runs {
    /// Times.
    pub count: u64,
    /// Nanoseconds in all.
    pub nanos: u64,
}

/// Programs of a process by number, all that bpftool tells about them.
pub fn shapes(pid: u32, ids: &BTreeSet<u32>) -> Result<Vec<Shape>> {
    ids.iter()
        .map(|&id| {
            let shown = show(id)?;
            let number =
                |key| shown[key].as_u64().ok_or_else(|| Fault::new(format!("bpftool tells no {key}")));
            let dump = bpftool(&["prog", "dump", "xlated", "id", &id.to_string()])?;
            Ok(Shape {
                name: shown["name"].as_str().unwrap_or("-").to_owned(),
                instructions: number("bytes_xlated")? / 8,
                verified: proc::verified(pid, id),
                jited: number("bytes_jited")?,
                calls: calls(&dump),
                least: fewest(&dump, Of::Instructions),
                least_calls: fewest(&dump, Of::Calls),
            })
        })
        .collect()
}

/// How often and how long they have run in all, while statistics are on.
pub fn runs(ids: &BTreeSet<u32>) -> Result<Runs> {
    let mut sum = Runs::default();
    for &id in ids {
        let shown = show(id)?;
        // Both are left out when they are 0.
        sum.count += shown["run_cnt"].as_u64().unwrap_or(0);
        sum.nanos += shown["run_time_ns"].as_u64().unwrap_or(0);
    }
    Ok(sum)
}

impl Runs {
    /// Nanoseconds for each run.
    pub fn nanos_each(self) -> Option<f64> {
        crate::stats::ratio(self.nanos as f64, self.count as f64)
    }

    /// What has been added since then.
    pub fn since(self, then: Self) -> Self {
        Self { count: self.count - then.count, nanos: self.nanos - then.nanos }
    }
}

fn show(id: u32) -> Result<Value> {
    let text = bpftool(&["-j", "prog", "show", "id", &id.to_string()])?;
    serde_json::from_str(&text).during("bpftool")
}

fn bpftool(args: &[&str]) -> Result<String> {
    let program = installed("bpftool").ok_or_else(|| Fault::new("bpftool is not installed"))?;
    let output = Command::new(program).args(args).output().during("bpftool")?;
    if !output.status.success() {
        return Err(Fault::new(format!(
            "bpftool {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Calls in a dump. What the verifier has put in place of a call (a map lookup written out) is none.
fn calls(dump: &str) -> u64 {
    dump.lines().filter(|line| line.contains(") call ")).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_lines_of_their_own() {
        let dump = "int f(u64 * ctx):\n; call it\n   0: (79) r6 = *(u64 *)(r1 +0)\n   1: (85) call bpf_ktime_get_ns#1\n   2: (85) call unknown#12\n   3: (95) exit\n";
        assert_eq!(calls(dump), 2);
    }

    #[test]
    fn time_for_each_run() {
        let runs = Runs { count: 4, nanos: 600 }.since(Runs { count: 2, nanos: 100 });
        assert_eq!(runs, Runs { count: 2, nanos: 500 });
        assert_eq!(runs.nanos_each(), Some(250.0));
        assert_eq!(Runs::default().nanos_each(), None);
    }
}
