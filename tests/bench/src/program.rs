//! Size and run time of BPF programs, from bpftool.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::contender::installed;
use crate::fault::{During, Fault, Result};
use crate::paths::{Count, fewest};
use crate::proc;

/// A loaded program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The kernel's name for it, which may be cut off.
    pub name: String,
    /// Instructions after the verifier's rewriting.
    pub instructions: u64,
    /// Instructions that the verifier followed on all paths; `None` if the process has no
    /// descriptor of the program.
    pub verified: Option<u64>,
    /// Bytes of machine code.
    pub jited: u64,
    /// Helper calls in its code.
    pub calls: u64,
    /// Fewest instructions of a run that sends an event.
    pub min_instructions: Option<u64>,
    /// Fewest helper calls of such a run.
    pub min_calls: Option<u64>,
}

/// Number and total time of runs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Runs {
    pub count: u64,
    pub nanos: u64,
}

/// The programs of a process, from their ids.
pub fn shapes(pid: u32, ids: &BTreeSet<u32>) -> Result<Vec<Shape>> {
    ids.iter()
        .map(|&id| {
            let shown = show(id)?;
            let number =
                |key| shown[key].as_u64().ok_or_else(|| Fault::new(format!("bpftool does not show {key}")));
            let dump = bpftool(&["prog", "dump", "xlated", "id", &id.to_string()])?;
            Ok(Shape {
                name: shown["name"].as_str().unwrap_or("-").to_owned(),
                instructions: number("bytes_xlated")? / 8,
                verified: proc::verified(pid, id),
                jited: number("bytes_jited")?,
                calls: calls(&dump),
                min_instructions: fewest(&dump, Count::Instructions),
                min_calls: fewest(&dump, Count::Calls),
            })
        })
        .collect()
}

/// Number and total time of their runs; the kernel counts them only while statistics are enabled.
pub fn runs(ids: &BTreeSet<u32>) -> Result<Runs> {
    let mut sum = Runs::default();
    for &id in ids {
        let shown = show(id)?;
        // bpftool does not show zeroes.
        sum.count += shown["run_cnt"].as_u64().unwrap_or(0);
        sum.nanos += shown["run_time_ns"].as_u64().unwrap_or(0);
    }
    Ok(sum)
}

impl Runs {
    /// Nanoseconds per run.
    pub fn nanos_per_run(self) -> Option<f64> {
        crate::stats::ratio(self.nanos as f64, self.count as f64)
    }

    /// The difference to an earlier count.
    pub fn since(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, nanos: self.nanos - earlier.nanos }
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

/// Helper calls in a dump. Calls that the verifier inlined, such as map lookups, are not counted.
fn calls(dump: &str) -> u64 {
    dump.lines().filter(|line| line.contains(") call ")).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_call_instructions_are_counted() {
        let dump = "int f(u64 * ctx):\n; call it\n   0: (79) r6 = *(u64 *)(r1 +0)\n   1: (85) call bpf_ktime_get_ns#1\n   2: (85) call unknown#12\n   3: (95) exit\n";
        assert_eq!(calls(dump), 2);
    }

    #[test]
    fn time_per_run() {
        let runs = Runs { count: 4, nanos: 600 }.since(Runs { count: 2, nanos: 100 });
        assert_eq!(runs, Runs { count: 2, nanos: 500 });
        assert_eq!(runs.nanos_per_run(), Some(250.0));
        assert_eq!(Runs::default().nanos_per_run(), None);
    }
}
