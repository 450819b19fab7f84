//! Runs the example, so that what a reader copies is known to work.

use std::{fs, path::Path};

#[path = "../examples/count_states.rs"]
#[allow(dead_code, reason = "`main` is not called")]
mod count_states;

#[test]
fn count_states_prints_the_program_and_writes_the_file() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("count_states.o");
    let text = count_states::count_states(443, &file).unwrap();
    // The listing assembles again, up to the bytes after it.
    let (listing, bytes) = text.split_once("\n\n").unwrap();
    let program = bpfasm::Program::link("x", bpfasm::asm::parse(listing).unwrap()).unwrap();
    assert_eq!(bytes.lines().count(), program.slots().unwrap().len(), "{text}");
    assert!(listing.contains("r1 = *(u16 *)(r6 + sock.__sk_common.skc_dport)"), "{text}");
    assert!(listing.contains("if w1 != 47873 goto out"), "{text}");
    assert!(bytes.ends_with("[95, 00, 00, 00, 00, 00, 00, 00]\n"), "{text}");
    assert!(fs::read(file).unwrap().starts_with(b"\x7fELF"));
}
