//! Properties that must be true for any input: the bodies of the fuzz targets in `tests/fuzz`.

// A violated property panics, which the fuzzer reports.
#![allow(clippy::missing_panics_doc)]

use crate::{Program, asm, decode, encode};

/// Checks the assembler with a text. It returns a fragment, or an error of one line with a place
/// inside the text. A fragment links to an error, or to a program whose listing assembles to the
/// same program.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assembles(text);
}

/// Like [`text`]; returns whether the text was assembled.
pub(crate) fn assembles(text: &str) -> bool {
    let fragment = match asm::parse(text) {
        Ok(fragment) => fragment,
        Err(error) => {
            let lines = text.split('\n').count();
            assert!(error.column >= 1 && (1..=lines).contains(&(error.line as usize)), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
            return false;
        }
    };
    match Program::link("x", fragment) {
        Ok(program) => {
            let listing = program.listing().to_string();
            let again = asm::parse(&listing).unwrap_or_else(|error| panic!("{error}\n{listing}"));
            let again = Program::link("x", again).unwrap_or_else(|error| panic!("{error}\n{listing}"));
            assert_eq!(again.bytes(), program.bytes(), "{listing}");
            assert_eq!(again.symbols, program.symbols, "{listing}");
            assert_eq!(again.labels, program.labels, "{listing}");
            assert_eq!(again.listing().to_string(), listing);
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
    true
}

/// Checks decoding with slots. An instruction that decodes encodes to the same slots, and its text
/// assembles to them.
pub fn instructions(data: &[u8]) {
    let slots: Vec<u64> = data.as_chunks().0.iter().map(|slot| u64::from_le_bytes(*slot)).collect();
    let mut rest = slots.as_slice();
    while !rest.is_empty() {
        let taken = match decode(rest) {
            Ok((insn, taken)) => {
                let text = insn.to_string();
                let decoded = rest.get(..taken).expect("it takes no more than there is");
                assert_eq!(&*encode(&insn).expect("what decodes encodes"), decoded, "{text}");
                let fragment = asm::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                let [again] = fragment.insns() else { panic!("{text}") };
                assert_eq!(&*encode(again).expect("assembled text encodes"), decoded, "{text}");
                taken
            }
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                1
            }
        };
        rest = &rest[taken..];
    }
}

#[cfg(test)]
mod tests;
