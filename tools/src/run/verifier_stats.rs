//! The verifier's statistics on each program, for `-vv`.

use std::fmt;

use loader::{LoadError, Loaded};

/// The `log_level` that makes the verifier print its statistics, `BPF_LOG_STATS` (Linux 5.2).
pub const LOG_STATISTICS: u32 = 4;

/// The statistics on one program.
#[derive(PartialEq, Eq, Debug)]
pub struct VerifierStats {
    name: String,
    /// Slots after the verifier's rewriting.
    slots: u32,
    /// Instructions that the verifier processed, on all paths.
    processed: Option<u32>,
    /// Bytes of stack, including those of the functions that it calls.
    stack: Option<u32>,
    /// Bytes of machine code; 0 if the kernel's compiler is off.
    jited: u32,
}

/// The statistics on all programs. The loader must have been given [`LOG_STATISTICS`].
pub fn of_programs(loaded: &Loaded) -> Result<Vec<VerifierStats>, LoadError> {
    let programs = loaded.stats()?.into_iter().map(|stats| {
        let log = loaded.logs().find(|(name, _)| *name == stats.name).map_or("", |(_, log)| log);
        VerifierStats {
            processed: processed(log),
            stack: stack(log),
            name: stats.name,
            slots: stats.slots,
            jited: stats.jited_bytes,
        }
    });
    Ok(programs.collect())
}

/// `processed 311 insns (limit 1000000) …`
fn processed(log: &str) -> Option<u32> {
    log.lines().find_map(|line| line.strip_prefix("processed ")?.split(' ').next()?.parse().ok())
}

/// `stack depth 96+32`, one number for each function; or, since 7.x, a line for each function,
/// `subprog 0 (name) … stack 96`.
fn stack(log: &str) -> Option<u32> {
    let functions: Vec<&str> = log.lines().filter(|line| line.starts_with("subprog ")).collect();
    if functions.is_empty() {
        let depths = log.lines().find_map(|line| line.strip_prefix("stack depth "))?;
        return depths.split('+').map(|depth| depth.parse::<u32>().ok()).sum();
    }
    functions.iter().map(|line| line.rsplit_once(" stack ")?.1.parse::<u32>().ok()).sum()
}

impl fmt::Display for VerifierStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let Self { name, slots, jited, .. } = self;
        let (processed, stack) = (known(self.processed), known(self.stack));
        write!(f, "program {name}: {slots} instructions, {processed} verified, stack {stack}, {jited} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_from_the_log() {
        let log = "verification time 210 usec\nstack depth 96+32\nprocessed 311 insns (limit 1000000) max_states_per_insn 1\n";
        assert_eq!((processed(log), stack(log)), (Some(311), Some(128)));
        let log = "stack depth max 112\nsubprog 0 (main) main insns_self 8 insns_total 20 stack 104\n\
                   subprog 1 (f) insns_self 12 insns_total 12 stack 32\nprocessed 20 insns (limit 1000000)\n";
        assert_eq!((processed(log), stack(log)), (Some(20), Some(136)));
        assert_eq!((processed(""), stack("stack depth x")), (None, None));
    }
}
