//! On kernels that preempt programs, each is the plain one, to its last instruction, inside of what keeps it from being preempted.

use bpfasm::{Access, Attach, Object, Program, Ring, Symbol, Target, listing};
use programs::filter::Filter;

use crate::golden;
use crate::specimens::ALL;
use crate::vm::kernel::KERNELS;

/// What stands around it.
const AROUND: [&str; 7] = [
    "r6 = r1",
    "call kfunc bpf_preempt_disable",
    "r1 = r6",
    "call undisturbed",
    "call kfunc bpf_preempt_enable",
    "r0 = 0",
    "exit",
];

/// Its instructions as text, without places and labels.
fn lines(program: &Program) -> Vec<String> {
    let line = |at: usize, insn: &bpfasm::Insn| {
        let symbol = program.symbols.iter().find(|(place, _)| *place == at).map(|(_, symbol)| symbol);
        match symbol {
            Some(symbol @ Symbol::Kfunc(_)) => format!("call {symbol}"),
            _ => insn.to_string(),
        }
    };
    program.insns.iter().enumerate().map(|(at, insn)| line(at, insn)).collect()
}

#[test]
fn what_runs_undisturbed_is_the_same_program() {
    let mut wrapped = 0;
    for kernel in KERNELS.iter().filter(|kernel| kernel.version.preempts_tracepoints()) {
        for plain in kernel.targets().filter(|target| target.ring == Ring::RingBuf) {
            let preemptible = Target { preemptible: true, ..plain.clone() };
            for specimen in ALL {
                let of = |target| (specimen.every)(&Filter::default(), target, 4096);
                for (plain, whole) in of(&plain).iter().zip(&of(&preemptible)) {
                    wrapped += assert_same(plain, whole);
                }
            }
        }
    }
    assert!(wrapped > 0, "nothing was wrapped");
}

/// How many of the programs are wrapped.
fn assert_same(plain: &Object, whole: &Object) -> usize {
    let defs =
        |object: &Object| -> Vec<_> { object.hooks.iter().flat_map(|hook| hook.rungs.clone()).collect() };
    let (plain, whole) = (defs(plain), defs(whole));
    assert_eq!(plain.len(), whole.len());
    let mut wrapped = 0;
    for (plain, whole) in plain.iter().zip(&whole) {
        let perf = matches!(plain.attach, Attach::Tracepoint(..) | Attach::Kprobe(_) | Attach::Kretprobe(_));
        if perf || matches!(plain.attach, Attach::Iter(_)) {
            assert_eq!(plain, whole, "the kernel runs these undisturbed");
            continue;
        }
        wrapped += 1;
        let text = lines(&whole.program);
        assert_eq!(whole.program.functions[1].0, AROUND.len(), "{}", listing::listing(&whole.program));
        for (at, line) in AROUND.iter().enumerate() {
            // A call says how far away its function is.
            let same = if line.starts_with("call undisturbed") {
                text[at].starts_with("call pc")
            } else {
                text[at] == *line
            };
            assert!(same, "{line}: {}", listing::listing(&whole.program));
        }
        assert_eq!(text[AROUND.len()..], lines(&plain.program), "{}", plain.name);
        let moved: Vec<_> =
            plain.program.symbols.iter().map(|(at, s)| (at + AROUND.len(), s.clone())).collect();
        let kept = whole.program.symbols.iter().filter(|(at, _)| *at >= AROUND.len()).cloned();
        assert_eq!(kept.collect::<Vec<_>>(), moved, "{}", plain.name);
    }
    wrapped
}

/// What listings of such a program are made for.
pub fn target() -> Target {
    Target { preemptible: true, ..golden::target(Access::Typed, Ring::RingBuf) }
}
