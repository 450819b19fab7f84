//! Runs the fuzz targets as plain tests, and tries unusual texts.

use test_support::fuzz;
use test_support::random::Random;

use super::{assembles, instructions, text};
use crate::asm;

#[test]
fn texts() {
    fuzz::run("bpfasm_text", 4000, text);
}

#[test]
fn any_instructions() {
    fuzz::run("bpfasm_instructions", 2000, instructions);
}

/// A text with every kind of statement.
const TEXT: &str = "\
# comment
start: r1 = *(u64 *)(r10 - 8); r3 += sock.__sk_common.skc_dport - sock.sk_type + 0x10 // comment
    w2 s>>= 5 /* comment */
    if w0 s<= -7 goto start
    r1 = 0x123456789abcdef0 ll
    r1 = map conns ll
    r2 = map_value_fd 3 + 8 ll
    lock *(u32 *)(r1 + 4) ^= w2
    r0 = cmpxchg_64(r1 + 0, r0, r2)
    w2 = atomic_fetch_xor((u32 *)(r1 + 4), w2)
    r0 = *(u16 *)skb[r3 + 12]
    r4 = (s32)r5; r6 = bswap64 r6; r7 = -r7
    r1 = enum(sock_flags.SOCK_DONE); r2 = sizeof(in6_addr.in6_u.u6_addr32[2]); r3 = const NAME
    call bpf_map_lookup_elem; call kfunc bpf_x; call start; gotol start
    *(u8 *)(r1 + sock.sk_type) = -1
    exit
";

#[test]
fn the_text_itself_is_right() {
    assert!(assembles(TEXT));
    assert!(assembles(""));
    assert!(assembles("\n;;\n// nothing\n/* nothing"));
}

#[test]
fn each_truncation() {
    let assembled = (0..TEXT.len()).filter(|&end| assembles(&TEXT[..end])).count();
    assert!(assembled > 10 && assembled < TEXT.len() / 2, "{assembled} of {}", TEXT.len());
}

/// Line by line, because the parser continues after the end of a statement as if nothing had
/// happened. The label that some lines jump to comes first.
#[test]
fn each_character_replaced_or_left_out() {
    for line in TEXT.split_inclusive('\n') {
        let line = if line.starts_with("start:") { line.to_owned() } else { format!("start: exit\n{line}") };
        for at in 0..line.len() {
            let (before, after) = (&line[..at], &line[at + 1..]);
            for other in [
                "", " ", "\n", "0", "9", "r", "w", "s", "=", "-", "*", "(", ")", "[", ".", ":", "{", "\0",
                "é", "\u{202e}",
            ] {
                assembles(&format!("{before}{other}{after}"));
            }
        }
    }
}

#[test]
fn words_in_any_order() {
    let words: Vec<&str> = "r0 r1 w0 w1 r10 r11 w s if goto gotol call exit lock u8 u16 u32 u64 s8 s64 skb ll map map_fd \
        map_value map_value_fd btf_var code_addr map_idx kfunc const field enum sizeof exists shift mask params be16 le64 bswap32 \
        xchg_64 xchg32_32 cmpxchg_64 cmpxchg32_32 atomic_fetch_add bpf_map_lookup_elem bpf_no pc a a.b a[1] 0 1 -1 0x80000000 \
        4294967295 18446744073709551615 99999999999999999999 1_0 0x 5u32 = += s>>= == != < & ( ) [ ] , . : ; # // { } .. * - + \
        \u{3b1} ' \""
        .split_whitespace()
        .collect();
    let mut random = Random(2);
    let mut assembled = 0;
    for _ in 0..40_000 {
        let mut text = String::new();
        for _ in 0..1 + random.below(12) {
            text += random.of(&words);
            text += random.of(&["", " ", " ", "\n"]);
        }
        assembled += usize::from(assembles(&text));
    }
    assert!(assembled > 100, "{assembled}");
}

#[test]
fn random_bytes() {
    let mut random = Random(3);
    for _ in 0..4_000 {
        let bytes: Vec<u8> = (0..8).flat_map(|_| random.word().to_le_bytes()).collect();
        assembles(&String::from_utf8_lossy(&bytes));
        let ascii: String = bytes.iter().map(|byte| char::from(byte & 0x7f)).collect();
        assembles(&ascii);
    }
}

/// Long repetitions: a parser that recurses overflows the stack of the test's thread.
#[test]
fn long_repetitions() {
    const TIMES: usize = 20_000;
    for (start, part, end) in [
        ("r1 = ", "9", ""),
        ("r1 = 0x", "f", " ll"),
        ("r1 = -", "-", "1"),
        ("r1 = 1", " + 1", ""),
        ("r1 = 18446744073709551615", " + 18446744073709551615", " ll"),
        ("", "(", ""),
        ("r1 = ", "*(u64 *)(", ""),
        ("r1 = a", ".b", ""),
        ("r1 = a", "[1]", ""),
        ("r1 ", "=", ""),
        ("", "a: ", ""),
        ("call bpf_", "a", ""),
        ("r", "1", " = 0"),
        ("", "/*", ""),
        ("", "\n", "x"),
        ("", "exit;", ""),
    ] {
        assembles(&format!("{start}{}{end}", part.repeat(TIMES)));
    }
}

#[test]
fn an_error_names_its_line_and_column() {
    let error = asm::parse("r0 = 0\n  if r0 >< 4 goto out\nexit").unwrap_err();
    assert_eq!(
        error.to_string(),
        "2:9: `><` is not an operator here; there are == != > >= < <= & s> s>= s< s<=",
    );
    let error = asm::parse("r0 = 1\n/* two\nlines */ r0 = é").unwrap_err();
    assert_eq!((error.line, error.column), (3, 15));
    let error = asm::parse("r0 = ").unwrap_err();
    assert_eq!(error.to_string(), "1:6: expected a constant, found the end");
    let error = asm::parse("r0 = {x}").unwrap_err();
    assert_eq!(error.to_string(), "1:6: expected a constant, found `{`");
}
