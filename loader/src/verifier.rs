//! Summarises the verifier's log: its last useful line, and the source line it is about.

use std::fmt;

use bpfasm::Source;
use bpfasm::program::Program;

use crate::relocate::POISON;

/// The verifier's log of a program it refused.
///
/// `{}` is two lines: the failing statement, and the verifier's last useful line with the number of
/// lines omitted. `{:#}` has the whole log instead of that number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifierLog {
    text: String,
    message: String,
    source: Option<Source>,
    /// The number of lines that `{}` omits, not counting statistics.
    omitted: usize,
}

impl VerifierLog {
    /// Reads the log of an attempt to load `program`.
    pub(crate) fn new(text: &str, program: &Program) -> Self {
        let text = text.trim_end_matches(['\0', '\n', ' ']);
        let lines: Vec<&str> = text.lines().collect();
        let Explanation { lines: shown, slot } = explain(before_report(&lines));
        let source = slot.and_then(|slot| source_at(program, slot));
        let mut message = shown.join("; ");
        if message.contains(&format!("unknown#{POISON}")) {
            message.push_str(" (a field this kernel lacks, read outside of its `exists`)");
        }
        let useful = lines.iter().filter(|line| !is_statistics(line.trim())).count();
        Self { text: text.to_owned(), message, source, omitted: useful.saturating_sub(shown.len()) }
    }

    /// The whole log, as the kernel wrote it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The verifier's last useful line, or its last two; empty if there is no log.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The statement at which the verifier stopped, if the log names one.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// The number of useful lines that `{}` omits and `{:#}` shows.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Whether the kernel wrote no log, because it refused before it verified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl fmt::Display for VerifierLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Source { file, line, text, .. }) = &self.source {
            writeln!(f, "  {file}:{line}: {text}")?;
        }
        write!(f, "  {}", self.message)?;
        if f.alternate() {
            return write!(f, "\n{}", self.text);
        }
        match self.omitted {
            0 => Ok(()),
            1 => f.write_str(" (1 line omitted)"),
            n => write!(f, " ({n} lines omitted)"),
        }
    }
}

/// The log without the report that kernel 7.3 appends: the reason once more in sentences, the
/// statements around it, and advice. If nothing comes before the report, the report itself.
fn before_report<'a, 'b>(lines: &'b [&'a str]) -> &'b [&'a str] {
    let begin = lines.iter().position(|line| line.starts_with("Verification failed: "));
    let before = begin.and_then(|begin| lines.get(..begin));
    before.filter(|before| before.iter().any(|line| !line.trim().is_empty())).unwrap_or(lines)
}

struct Explanation<'a> {
    lines: Vec<&'a str>,
    /// The instruction slot at which the verifier stopped.
    slot: Option<usize>,
}

/// The number of lines in a summary at most. Usually one line has the reason. Sometimes a first
/// line only says what was tried, and a second has the reason: `invalid access to map value,
/// value_size=8 off=8 size=8`, then `R0 min value is outside of the allowed memory range`.
const MAX_LINES: usize = 2;

/// Finds the reason in a log, from its end.
///
/// A log lists the instructions that the verifier followed, with the state of the registers between
/// them, and ends with the reason and some statistics. So the last lines that are neither of these
/// are the reason, and the last instruction before them is the one that was refused.
fn explain<'a>(lines: &[&'a str]) -> Explanation<'a> {
    let mut shown: Vec<&str> = Vec::new();
    let mut slot = None;
    let mut complete = false;
    for line in lines.iter().rev().map(|line| line.trim()).filter(|line| !is_statistics(line)) {
        if let Some(number) = instruction(line) {
            slot = slot.or(Some(number));
            break;
        }
        if is_state(line) || is_comment(line) {
            // The message starts after this line. The instruction is further up.
            complete = !shown.is_empty();
        } else if !complete && shown.len() < MAX_LINES {
            slot = slot.or_else(|| named_instruction(line));
            shown.push(line);
        }
    }
    if shown.is_empty() {
        // The log has only instructions and states. Its last line is better than nothing.
        shown.extend(lines.iter().map(|line| line.trim()).rfind(|line| !line.is_empty()));
    }
    shown.reverse();
    Explanation { lines: shown, slot }
}

/// Whether a line says nothing about the reason: counts at the end, the tracking of precision, and
/// that an old kernel does not know the type of our functions' argument.
fn is_statistics(line: &str) -> bool {
    const STARTS: [&str; 12] = [
        "processed ",
        "verification time ",
        "stack depth ",
        "max_states_per_insn ",
        "mark_precise: ",
        "last_idx ",
        "regs=",
        "parent ",
        "propagating ",
        "arg#0 type is not a struct",
        "Unrecognized arg#0 type",
        "reg type unsupported for arg#0",
    ];
    line.is_empty() || STARTS.iter().any(|start| line.starts_with(start))
}

/// The slot number in `58: (61) r0 = *(u32 *)(r7 +12)`.
fn instruction(line: &str) -> Option<usize> {
    let (number, rest) = line.split_once(": ")?;
    let code = rest.strip_prefix('(')?.get(..3)?;
    code.ends_with(')').then_some(())?;
    number.parse().ok()
}

/// Whether a line describes the verifier's state: `12: R0_w=scalar() R10=fp0`,
/// `from 5 to 7: R1=ctx() …`, on old kernels ` R0_w=inv(id=0) R10=fp0`; `func#0 @0`, `5: safe`.
fn is_state(line: &str) -> bool {
    let text = match line.split_once(':') {
        Some((number, rest)) if number.parse::<usize>().is_ok() => rest.trim_start(),
        _ => line,
    };
    let numbered = text.len() < line.len();
    line.starts_with("from ")
        || line.starts_with("func#")
        || (numbered && (text.is_empty() || text.starts_with("safe")))
        || is_register(text)
}

/// Whether a text starts as `R0=` or `R10_w=`. A message about a register has a blank after its
/// name.
fn is_register(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('R') else { return false };
    let name = rest.split_once('=').map_or("", |(name, _)| name);
    name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a line is a source line from our debug information: `; r0 = *(u32 *)(r7 + 12) @
/// mod.rs:58`.
fn is_comment(line: &str) -> bool {
    line.starts_with(';')
}

/// The slot number in `unreachable insn 5`, `jump out of range from insn 3 to 9`, `back-edge from
/// insn 7 to 3`.
fn named_instruction(line: &str) -> Option<usize> {
    let (_, rest) = line.split_once("insn ")?;
    let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// The statement that a slot of the encoded program belongs to.
fn source_at(program: &Program, slot: usize) -> Option<Source> {
    let mut end = 0;
    for (insn, source) in program.insns.iter().zip(&program.source) {
        end += usize::try_from(insn.slots()).ok()?;
        if slot < end {
            return *source;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfasm::{Imm64, Insn, Operand, Reg, Width};

    /// Ten instructions, each on its own line, from 100 on; those named are wide.
    fn program(wide: &[usize]) -> Program {
        let insns = (0..10).map(|at| {
            if wide.contains(&at) {
                Insn::LoadImm64 { dst: Reg::R1, imm: Imm64::Value(0) }
            } else {
                Insn::Mov { width: Width::W64, dst: Reg::R0, src: Operand::Imm(0) }
            }
        });
        let source =
            (100..110).map(|line| Some(Source { file: "programs/src/x.rs", line, text: "statement" }));
        Program { insns: insns.collect(), source: source.collect(), ..Program::default() }
    }

    macro_rules! log {
        ($name:literal) => {
            ($name, include_str!(concat!("../tests/data/verifier/", $name, ".log")))
        };
    }

    #[test]
    fn finds_reason_and_statement_in_real_logs() {
        // Log, wide instructions of the program, the failing instruction, the reason.
        for ((name, text), wide, at, message) in [
            (log!("map_value_or_null"), &[1][..], Some(5), "R0 invalid mem access 'map_value_or_null'"),
            (
                log!("past_value"),
                &[1],
                Some(6),
                "invalid access to map value, value_size=8 off=4 size=8; \
                 R0 min value is outside of the allowed memory range",
            ),
            (log!("no_exit"), &[], None, "last insn is not an exit or jmp"),
            (log!("unreachable"), &[], Some(2), "unreachable insn 2"),
            (log!("two_paths"), &[], Some(3), "R7 !read_ok"),
            (
                log!("tp_btf_arg"),
                &[],
                Some(0),
                "func 'inet_sock_set_state' doesn't have 6-th argument; invalid bpf_context access off=64 size=8",
            ),
            (log!("tp_btf_offset"), &[], Some(1), "access beyond struct sock at off 4000 size 2"),
            (
                log!("poison"),
                &[],
                Some(1),
                "invalid func unknown#195896080 (a field this kernel lacks, read outside of its `exists`)",
            ),
            (log!("bad_helper_arg"), &[], Some(2), "R1 type=scalar expected=map_ptr"),
            (log!("unknown_helper"), &[], Some(0), "invalid func unknown#99999"),
            (
                log!("forbidden_helper"),
                &[],
                Some(1),
                "program of this type cannot use helper bpf_skb_load_bytes#26",
            ),
            (log!("unreadable_reg"), &[], Some(0), "R5 !read_ok"),
            (log!("div_zero_ptr"), &[], Some(1), "R0 pointer arithmetic with *= operator prohibited"),
            (log!("ctx_range"), &[], Some(0), "invalid bpf_context access off=4096 size=8"),
            (log!("stack_too_big"), &[], Some(0), "invalid write to stack R10 off=-520 size=8"),
            (log!("endless"), &[], Some(1), "BPF program is too large. Processed 1000001 insn"),
            (
                log!("5.10-past_value"),
                &[1],
                Some(6),
                "invalid access to map value, value_size=8 off=4 size=8; \
                 R0 min value is outside of the allowed memory range",
            ),
            (log!("5.10-two_paths"), &[], Some(3), "R7 !read_ok"),
            (log!("5.10-tp_btf_offset"), &[], Some(1), "access beyond struct sock at off 4000 size 2"),
            (
                log!("6.1-poison"),
                &[],
                Some(1),
                "invalid func unknown#195896080 (a field this kernel lacks, read outside of its `exists`)",
            ),
            (log!("5.10-combined_stack"), &[], None, "combined stack size of 2 calls is 832. Too large"),
            (log!("7.3-scalar"), &[], Some(1), "R1 invalid mem access 'scalar'"),
            (
                log!("7.3-past_value"),
                &[1],
                Some(6),
                "invalid access to map value, value_size=8 off=4 size=8; \
                 R0 min value is outside of the allowed memory range",
            ),
            (log!("7.3-no_exit"), &[], None, "last insn is not an exit or jmp"),
            (log!("7.3-unreachable"), &[], Some(2), "unreachable insn 2"),
        ] {
            let log = VerifierLog::new(text, &program(wide));
            assert_eq!(log.message(), message, "{name}");
            let line = at.map(|at: u32| 100 + at);
            assert_eq!(log.source().map(|source| source.line), line, "{name}");
            assert_eq!(log.text(), text.trim_end(), "{name}");
        }
    }

    #[test]
    fn the_alternate_form_adds_the_whole_log() {
        let (_, text) = log!("past_value");
        let log = VerifierLog::new(text, &program(&[1]));
        let short = "  programs/src/x.rs:106: statement\n  invalid access to map value, value_size=8 off=4 size=8; \
                     R0 min value is outside of the allowed memory range";
        assert_eq!(log.to_string(), format!("{short} (13 lines omitted)"));
        assert_eq!(format!("{log:#}"), format!("{short}\n{}", text.trim_end()));
        let (_, text) = log!("no_exit");
        let log = VerifierLog::new(text, &program(&[]));
        assert_eq!(
            log.to_string(),
            "  last insn is not an exit or jmp",
            "statistics do not count as omitted"
        );
    }

    #[test]
    fn a_wide_instruction_takes_two_slots() {
        let program = program(&[0, 2]);
        let line = |slot| source_at(&program, slot).map(|source| source.line);
        let slots: Vec<_> = (0..13).map(line).collect();
        let want = [100, 100, 101, 102, 102, 103, 104, 105, 106, 107, 108, 109].map(Some);
        assert_eq!(slots[..12], want);
        assert_eq!(slots[12], None);
    }

    #[test]
    fn any_text_is_read() {
        for text in [
            "",
            "\n\n",
            ":",
            "1:",
            "1: (",
            "1: (6",
            "insn ",
            "insn x",
            "; \n;",
            "from 1 to 2: R0",
            "é: (é1) x",
            "\0",
            "Verification failed: ",
            "\nVerification failed: x",
        ] {
            let log = VerifierLog::new(text, &program(&[]));
            let _ = format!("{log} {log:#}");
        }
        assert!(VerifierLog::new("\0\0", &program(&[])).is_empty());
    }
}
