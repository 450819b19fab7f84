//! The shortest path through a program on which it sends an event: the minimum cost of such a run,
//! independent of the machine.

use std::collections::BTreeMap;

/// What is counted on a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    Instructions,
    /// Calls of helpers.
    Calls,
}

/// An instruction of a dump.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    /// The instructions that can follow: the next one unless it jumps always or exits, and the
    /// target of a jump.
    next: Vec<usize>,
    calls: bool,
    sends: bool,
}

/// The fewest instructions, or calls, of a run that sends an event, from bpftool's dump of the
/// program; `None` if it sends no events.
pub fn fewest(dump: &str, count: Count) -> Option<u64> {
    let steps = steps(dump);
    let cost = |step: &Step| u64::from(count == Count::Instructions || step.calls);
    // The fewest from an instruction to an exit, by the instruction and by whether an event was
    // already sent. The numbers only fall, so repeating until none changes ends.
    let mut rest: BTreeMap<(usize, bool), u64> = BTreeMap::new();
    let mut changed = true;
    while changed {
        changed = false;
        // Most jumps go forwards: in reverse order few passes are needed.
        for (&at, step) in steps.iter().rev() {
            for sent in [false, true] {
                let sent_now = sent || step.sends;
                let after = if step.next.is_empty() {
                    sent_now.then_some(0)
                } else {
                    step.next.iter().filter_map(|next| rest.get(&(*next, sent_now)).copied()).min()
                };
                let Some(all) = after.map(|after| after + cost(step)) else { continue };
                let known = rest.entry((at, sent)).or_insert(u64::MAX);
                changed |= all < *known;
                *known = all.min(*known);
            }
        }
    }
    let first = steps.keys().next()?;
    rest.get(&(*first, false)).copied()
}

/// The instructions in a dump: `   3: (15) if r0 == 0x0 goto pc+187`.
fn steps(dump: &str) -> BTreeMap<usize, Step> {
    let lines = dump.lines().filter_map(|line| {
        let (number, rest) = line.split_once(": (")?;
        let (code, text) = rest.split_once(") ")?;
        Some((number.trim().parse::<usize>().ok()?, code, text))
    });
    let mut steps = BTreeMap::new();
    for (at, code, text) in lines {
        // A load of 64 bits takes two slots.
        let following = at + if code == "18" { 2 } else { 1 };
        let jump = text.rsplit_once("goto pc").and_then(|(_, far)| far.parse::<isize>().ok());
        let target = jump.and_then(|far| following.checked_add_signed(far));
        let always = text.starts_with("goto");
        let ends = text == "exit";
        let next = (!always && !ends).then_some(following).into_iter().chain(target).collect();
        let called = text.strip_prefix("call ").unwrap_or_default();
        let senders = ["perf_event_output", "ringbuf_output", "ringbuf_submit"];
        let sends = senders.iter().any(|name| called.contains(name));
        steps.insert(at, Step { next, calls: !called.is_empty(), sends });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "int f(void * ctx):
   0: (bf) r9 = r1
; if (x)
   1: (1e) if w1 == w2 goto pc+8
   2: (85) call bpf_ktime_get_ns#1
   3: (15) if r0 == 0x0 goto pc+2
   4: (85) call bpf_get_current_comm#2
   5: (85) call bpf_get_current_pid_tgid#3
   6: (18) r1 = 0xffffc90000123000
   8: (85) call bpf_ringbuf_output#4
   9: (05) goto pc+0
  10: (b7) r0 = 0
  11: (95) exit
";

    #[test]
    fn optional_instructions_are_not_counted() {
        // 0 1 2 3 6 8 9 10 11
        assert_eq!(fewest(DUMP, Count::Instructions), Some(9));
        assert_eq!(fewest(DUMP, Count::Calls), Some(2));
    }

    #[test]
    fn a_program_that_sends_nothing_has_no_such_path() {
        assert_eq!(fewest("   0: (b7) r0 = 0\n   1: (95) exit\n", Count::Instructions), None);
        assert_eq!(fewest("", Count::Calls), None);
    }

    #[test]
    fn a_loop_is_run_once() {
        let dump = "   0: (b7) r1 = 4\n   1: (07) r1 += -1\n   2: (55) if r1 != 0x0 goto pc-2\n\
                    \x20  3: (85) call bpf_perf_event_output_raw_tp#1\n   4: (95) exit\n";
        assert_eq!(fewest(dump, Count::Instructions), Some(5));
    }
}
