//! The shortest way through a program that tells the reader something: what a run that does costs at least, whatever it is that
//! the kernel's clock sees.

use std::collections::BTreeMap;

/// What of an instruction counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// Itself.
    Instructions,
    /// That it calls a helper.
    Calls,
}

/// An instruction of a dump.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    /// Where it goes on: behind it unless it jumps or ends, and where a jump goes.
    next: Vec<usize>,
    calls: bool,
    tells: bool,
}

/// The fewest instructions, or calls, of a run from its begin to its end with an event sent on the way, by bpftool's dump of the
/// program; `None` for a program that sends none.
pub fn fewest(dump: &str, of: Of) -> Option<u64> {
    let steps = steps(dump);
    let cost = |step: &Step| u64::from(of == Of::Instructions || step.calls);
    // The fewest from here to the end, if what was told is told before, or on the way.
    let mut rest: BTreeMap<(usize, bool), u64> = BTreeMap::new();
    let mut changed = true;
    while changed {
        changed = false;
        // Backwards, as most jumps go forwards.
        for (&at, step) in steps.iter().rev() {
            for told in [false, true] {
                let on = told || step.tells;
                let after = if step.next.is_empty() {
                    on.then_some(0)
                } else {
                    step.next.iter().filter_map(|next| rest.get(&(*next, on)).copied()).min()
                };
                let Some(all) = after.map(|after| after + cost(step)) else { continue };
                let known = rest.entry((at, told)).or_insert(u64::MAX);
                changed |= all < *known;
                *known = all.min(*known);
            }
        }
    }
    let first = steps.keys().next()?;
    rest.get(&(*first, false)).copied()
}

/// The lines of a dump that are instructions: `   3: (15) if r0 == 0x0 goto pc+187`.
fn steps(dump: &str) -> BTreeMap<usize, Step> {
    let lines = dump.lines().filter_map(|line| {
        let (number, rest) = line.split_once(": (")?;
        let (code, text) = rest.split_once(") ")?;
        Some((number.trim().parse::<usize>().ok()?, code, text))
    });
    let mut steps = BTreeMap::new();
    for (at, code, text) in lines {
        // The load of 64 bits takes two places.
        let behind = at + if code == "18" { 2 } else { 1 };
        let jump = text.rsplit_once("goto pc").and_then(|(_, far)| far.parse::<isize>().ok());
        let target = jump.and_then(|far| behind.checked_add_signed(far));
        let always = text.starts_with("goto");
        let ends = text == "exit";
        let next = (!always && !ends).then_some(behind).into_iter().chain(target).collect();
        let called = text.strip_prefix("call ").unwrap_or_default();
        let tells = ["perf_event_output", "ringbuf_output", "ringbuf_submit"];
        let tells = tells.iter().any(|name| called.contains(name));
        steps.insert(at, Step { next, calls: !called.is_empty(), tells });
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
    fn the_way_past_what_need_not_be() {
        // 0 1 2 3 6 8 9 10 11
        assert_eq!(fewest(DUMP, Of::Instructions), Some(9));
        assert_eq!(fewest(DUMP, Of::Calls), Some(2));
    }

    #[test]
    fn a_program_that_tells_nothing() {
        assert_eq!(fewest("   0: (b7) r0 = 0\n   1: (95) exit\n", Of::Instructions), None);
        assert_eq!(fewest("", Of::Calls), None);
    }

    #[test]
    fn a_loop_is_left_at_once() {
        let dump = "   0: (b7) r1 = 4\n   1: (07) r1 += -1\n   2: (55) if r1 != 0x0 goto pc-2\n\
                    \x20  3: (85) call bpf_perf_event_output_raw_tp#1\n   4: (95) exit\n";
        assert_eq!(fewest(dump, Of::Instructions), Some(5));
    }
}
