//! Encodings: text to bytes and back, compared with LLVM's assembler and the tables of RFC 9669.

mod common;

use std::collections::BTreeSet;

use bpfasm::{Fragment, Insn, asm, decode, encode};

/// One line of `data/isa.txt`.
struct Row {
    number: usize,
    bytes: Vec<u8>,
    text: &'static str,
    /// Whether the instruction is also printed as this text, and not only assembled from it.
    printed: bool,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (line, number) in include_str!("data/isa.txt").lines().zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (bytes, text, printed) = match (line.split_once(" | "), line.split_once(" < ")) {
            (Some((bytes, text)), _) => (bytes, text, true),
            (None, Some((bytes, text))) => (bytes, text, false),
            (None, None) => panic!("isa.txt:{number}: no bytes"),
        };
        let bytes = bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        rows.push(Row { number, bytes, text, printed });
    }
    assert!(rows.len() > 200, "isa.txt is cut short");
    rows
}

/// The only instruction of a text.
fn assemble(text: &str) -> Insn {
    let fragment: Fragment = asm::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let [insn] = fragment.insns() else { panic!("{text}: not one instruction") };
    *insn
}

fn bytes(insn: &Insn) -> Vec<u8> {
    encode(insn).unwrap().iter().flat_map(|slot| slot.to_le_bytes()).collect()
}

fn slots(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|slot| u64::from_le_bytes(slot.try_into().unwrap())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

#[test]
fn text_to_bytes_is_what_llvm_assembles() {
    for row in rows() {
        let insn = assemble(row.text);
        assert_eq!(hex(&bytes(&insn)), hex(&row.bytes), "isa.txt:{}: {}", row.number, row.text);
    }
}

#[test]
fn bytes_to_text_to_bytes() {
    for row in rows() {
        let at = format!("isa.txt:{}: {}", row.number, row.text);
        let (insn, taken) = decode(&slots(&row.bytes)).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(taken * 8, row.bytes.len(), "{at}");
        if row.printed {
            assert_eq!(insn.to_string(), row.text, "{at}");
        }
        assert_eq!(hex(&bytes(&assemble(&insn.to_string()))), hex(&row.bytes), "{at}");
    }
}

/// Instructions that LLVM's syntax cannot express, or only with a relocation: bytes combined by
/// hand from RFC 9669, sections 3.1 (layout), 4.3.1 and 4.3.2 (calls: `src_reg` 0 helper, 1 local,
/// 2 kernel function by BTF id), 5.4 (wide loads: `src_reg` 1 to 6) and 5.5 (packet access, where
/// the indirect form adds `imm`), and from the numbers of `enum bpf_func_id`.
const BY_HAND: &[(&str, &str)] = &[
    ("call bpf_map_lookup_elem", "85 00 00 00 01 00 00 00"),
    ("call bpf_ringbuf_reserve", "85 00 00 00 83 00 00 00"),
    ("call pc+3", "85 10 00 00 03 00 00 00"),
    ("call pc-70000", "85 10 00 00 90 ee fe ff"),
    ("call kfunc 70000", "85 20 00 00 70 11 01 00"),
    ("gotol +70000", "06 00 00 00 70 11 01 00"),
    ("gotol -70000", "06 00 00 00 90 ee fe ff"),
    ("r1 = map_fd 5 ll", "18 11 00 00 05 00 00 00 00 00 00 00 00 00 00 00"),
    ("r2 = map_value_fd 5 + 8 ll", "18 22 00 00 05 00 00 00 00 00 00 00 08 00 00 00"),
    ("r3 = btf_var 300 ll", "18 33 00 00 2c 01 00 00 00 00 00 00 00 00 00 00"),
    ("r4 = code_addr pc+7 ll", "18 44 00 00 07 00 00 00 00 00 00 00 00 00 00 00"),
    ("r5 = map_idx 2 ll", "18 55 00 00 02 00 00 00 00 00 00 00 00 00 00 00"),
    ("r6 = map_value_idx 2 + 4294967295 ll", "18 66 00 00 02 00 00 00 00 00 00 00 ff ff ff ff"),
    ("r0 = *(u8 *)skb[r3 + 4]", "50 30 00 00 04 00 00 00"),
    ("r0 = *(u32 *)skb[-2097152]", "20 00 00 00 00 00 e0 ff"),
    ("r0 = *(u16 *)skb[r10 - 1]", "48 a0 00 00 ff ff ff ff"),
];

#[test]
fn what_llvm_has_no_text_for_is_what_the_rfc_says() {
    for &(text, expected) in BY_HAND {
        let insn = assemble(text);
        let bytes = bytes(&insn);
        assert_eq!(hex(&bytes).trim_end(), expected, "{text}");
        assert_eq!(decode(&slots(&bytes)), Ok((insn, bytes.len() / 8)), "{text}");
        assert_eq!(insn.to_string(), text);
    }
}

#[test]
fn other_notations_of_a_destination_are_read() {
    assert_eq!(assemble("goto pc+3"), assemble("goto +3"));
    assert_eq!(assemble("if r1 == 0 goto pc-3"), assemble("if r1 == 0 goto -3"));
    assert_eq!(assemble("call +3"), assemble("call pc+3"));
}

/// The parts of a slot that distinguish one form from another: the opcode, and the fields that
/// select the operation.
fn form(slot: u64) -> (u8, u8, i16, i32) {
    let [code, regs, off @ .., a, b, c, d] = slot.to_le_bytes();
    let (src, off, imm) = (regs >> 4, i16::from_le_bytes(off), i32::from_le_bytes([a, b, c, d]));
    match code {
        0x18 | 0x85 => (code, src, 0, 0),
        // Byte swaps and atomic operations.
        0xd4 | 0xdc | 0xd7 | 0xc3 | 0xdb => (code, 0, 0, imm),
        // Divisions and moves.
        0x34 | 0x3c | 0x37 | 0x3f | 0x94 | 0x9c | 0x97 | 0x9f | 0xbc | 0xbf => (code, 0, off, 0),
        _ => (code, 0, 0, 0),
    }
}

#[test]
fn every_form_that_decodes_is_in_the_tables() {
    let mut known = BTreeSet::new();
    for row in rows() {
        known.extend(slots(&row.bytes).first().map(|&slot| form(slot)));
    }
    for (text, _) in BY_HAND {
        known.extend(encode(&assemble(text)).unwrap().first().map(|&slot| form(slot)));
    }
    let mut missing = BTreeSet::new();
    let mut forms = 0;
    for code in 0..=u8::MAX {
        for src in 0..16u64 {
            let offsets = (0..=64u64).map(|off| off << 16);
            let constants = (0..=255u64).map(|imm| imm << 32);
            for fields in offsets.chain(constants) {
                let slot = u64::from(code) | src << 12 | fields;
                if decode(&[slot, 0]).is_ok() {
                    forms += 1;
                    if !known.contains(&form(slot)) {
                        missing.insert(form(slot));
                    }
                }
            }
        }
    }
    assert!(forms > 0);
    assert_eq!(missing, BTreeSet::new(), "forms (opcode, src, offset, imm) that no line of isa.txt has");
}

#[test]
fn decoding_gives_an_error_or_an_instruction_of_the_same_bytes() {
    let mut random = common::random(1);
    let mut decoded = 0;
    for code in 0..=u8::MAX {
        for round in 0..1000 {
            let garbage = random();
            // Each round leaves another set of fields 0, or only a few operations would ever be
            // reached.
            let mask =
                [0x0000_0000_0000_0f00, 0x0000_0000_0000_f000, 0x0000_0000_ffff_0000, 0xffff_ffff_0000_0000]
                    .iter()
                    .zip(0..)
                    .filter(|&(_, bit)| round >> bit & 1 == 1)
                    .fold(0, |mask, (field, _)| mask | field);
            let small = if round & 16 == 0 { garbage } else { garbage & 0x0000_00ff_001f_ffff };
            let first = u64::from(code) | small & mask;
            let second = if round & 32 == 0 { 0 } else { random() & 0xffff_ffff_0000_0000 };
            let slots = [first, second];
            if let Ok((insn, taken)) = decode(&slots) {
                decoded += 1;
                assert_eq!(encode(&insn).as_deref(), Ok(&slots[..taken]), "{insn}");
                assert_eq!(assemble(&insn.to_string()), insn);
            }
        }
    }
    assert!(decoded > 10_000, "{decoded} is too few to show anything");
}

#[test]
fn a_reserved_field_that_is_not_zero_is_an_error() {
    // exit with each other field set, one at a time; then a load with imm, a jump with dst, a wide
    // load with a second opcode.
    for slot in [0x95 | 1 << 8, 0x95 | 1 << 12, 0x95 | 1 << 16, 0x95 | 1 << 32, 0x71 | 1 << 32, 0x05 | 1 << 8]
    {
        let error = decode(&[slot]).unwrap_err();
        assert!(matches!(error, bpfasm::DecodeError::Reserved { .. }), "{slot:#x}: {error}");
    }
    for second in [1, 1 << 8, 1 << 12, 1 << 16] {
        let error = decode(&[0x18, second]).unwrap_err();
        assert_eq!(error, bpfasm::DecodeError::Reserved { opcode: 0x18, field: "next" });
    }
    assert_eq!(decode(&[0x18]), Err(bpfasm::DecodeError::Truncated));
    assert_eq!(decode(&[]), Err(bpfasm::DecodeError::Truncated));
    assert_eq!(decode(&[0xb7 | 11 << 8]), Err(bpfasm::DecodeError::Register(11)));
}
