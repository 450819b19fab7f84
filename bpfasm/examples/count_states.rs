//! Defines a BPF program and a map, prints the program, and writes both as an ELF file:
//! `cargo run -p bpfasm --example count_states`, then `llvm-objdump -dr count_states.o`.
//!
//! The program counts, by new state, how often a TCP socket to a port changes its state.

use std::{error::Error, fs, path::Path};

use bpfasm::{Attach, Hook, MapDef, MapKind, Need, Object, Program, ProgramDef, bpf, elf};

fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", count_states(443, Path::new("count_states.o"))?);
    Ok(())
}

/// Writes the ELF file; returns the program's listing and its bytes.
pub fn count_states(port: u16, file: &Path) -> Result<String, Box<dyn Error>> {
    // The arguments of the tracepoint `inet_sock_set_state` are the socket, the old and the new
    // state.
    let fragment = bpf! {
        r6 = *(u64 *)(r1 + 0);
        w7 = *(u32 *)(r1 + 16);
        w1 = *(u16 *)(r6 + sock.__sk_common.skc_dport); // an offset that only the kernel's BTF knows
        if w1 != {port.to_be()} goto out;               // a value from Rust
        *(u32 *)(r10 - 4) = r7;
        r1 = map states ll;
        r2 = r10;
        r2 += -4;
        call bpf_map_lookup_elem;
        if r0 == 0 goto out;
        r1 = 1;
        lock *(u64 *)(r0 + 0) += r1;
    out:
        r0 = 0;
        exit;
    };
    let program = Program::link("count_states", fragment)?;
    let bytes: Vec<String> = program.bytes()?.chunks(8).map(|slot| format!("{slot:02x?}")).collect();
    let text = format!("{}\n{}\n", program.listing(), bytes.join("\n"));

    let attach = Attach::TpBtf("inet_sock_set_state".into());
    let attach_options = vec![ProgramDef { name: "count_states".into(), attach, program }];
    let object = Object {
        name: "count_states".into(),
        license: "GPL".into(),
        hooks: vec![Hook::new("state change", Need::Required, attach_options)],
        maps: vec![MapDef::new("states", MapKind::Array, 4, 8, 16)],
        consts: Vec::new(),
    };
    fs::write(file, elf::write(&object)?)?;
    Ok(text)
}
