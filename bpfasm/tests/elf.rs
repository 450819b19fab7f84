//! The ELF file: LLVM's disassembler must print the same instructions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use bpfasm::elf::{self, section_names};
use bpfasm::{
    Attach, Callee, Dest, ElfError, Fragment, Hook, Imm64, Insn, MapDef, MapKind, Need, Object, Operand,
    Program, ProgramDef, Size, Symbol, Text, Width, asm, bpf,
};

/// Every form of instruction that does not jump, then instructions with symbols and jumps.
fn program(name: &str) -> Program {
    let forms: String = include_str!("data/isa.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" | "))
        .filter(|(_, text)| !text.contains("goto"))
        .map(|(_, text)| format!("{text}\n"))
        .collect();
    let forms: Fragment = asm::parse(&forms).unwrap();
    let fragment = bpf! {
        ..forms;
        r1 = map conns ll;
        r1 = map_value conns + 8 ll;
        r1 = map_fd 7 ll;
        r1 = btf_var 9 ll;
        r1 = code_addr function ll;
        r3 += sock.sk_type + 3;
        w3 = *(u16 *)(r3 + sock.sk_mark);
        call bpf_map_lookup_elem;
        call function;
        call kfunc bpf_sock_destroy;
        r2 = const THREE;
        r2 = const UNKNOWN;
    again:
        if r1 == 0 goto out;
        if w1 s> w2 goto again;
        goto again;
        gotol out;
    out:
        exit;
    function:
        r0 = 1;
        exit;
    };
    Program::link(name, fragment).unwrap()
}

fn map(name: &'static str, kind: MapKind) -> MapDef {
    MapDef { flags: 1, ..MapDef::new(name, kind, 8, 16, 1024) }
}

fn object() -> Object {
    let attach_option =
        |name: &'static str, attach| ProgramDef { name: name.into(), attach, program: program(name) };
    let state = || Text::from("inet_sock_set_state");
    let hook = |attach_options| Hook::new("hook", Need::Required, attach_options);
    Object {
        name: "tool".into(),
        license: "Dual MIT/GPL".into(),
        hooks: vec![
            hook(vec![
                attach_option("set_state", Attach::TpBtf(state())),
                attach_option("set_state", Attach::RawTp(state())),
            ]),
            hook(vec![
                attach_option("other", Attach::RawTp(state())),
                attach_option("files", Attach::Iter("task_file".into())),
                attach_option("calls", Attach::Tracepoints("syscalls".into(), vec!["a".into(), "b".into()])),
            ]),
        ],
        maps: vec![map("conns", MapKind::Hash), map("events", MapKind::RingBuf)],
        consts: vec![("THREE".into(), 3)],
    }
}

/// Runs one of LLVM's tools on a file. The test fails if the tool is missing; `./test` installs it.
fn run(tool: &str, args: &[&str], file: &Path) -> String {
    let output = Command::new(tool).args(args).arg(file).output().unwrap_or_else(|error| {
        panic!("{tool}: {error}; it comes with Debian's llvm-19 (another one: LLVM_OBJDUMP, LLVM_READELF)")
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.is_empty(),
        "{tool} {args:?} {file:?}: {}\n{stderr}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

fn tool(variable: &str, default: &str) -> String {
    env::var(variable).unwrap_or_else(|_| default.to_owned())
}

fn file(name: &str, object: &Object) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, elf::write(object).unwrap()).unwrap();
    path
}

/// A line of LLVM's output, with decimal numbers and without the comment in `<…>`.
fn normal(line: &str) -> String {
    let line = match line.rsplit_once(" <") {
        Some((before, place)) if place.ends_with('>') => before,
        _ => line,
    };
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("0x") {
        let digits = &rest[at + 2..];
        let len = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        out += &rest[..at];
        out += &u64::from_str_radix(&digits[..len], 16).unwrap().to_string();
        rest = &digits[len..];
    }
    (out + rest).replace('\t', " ")
}

/// The line that LLVM should print for an instruction.
fn expected(insn: &Insn, symbol: Option<&Symbol>) -> String {
    match (insn, symbol) {
        (Insn::LoadImm64 { dst, imm: Imm64::MapFd(_) }, Some(Symbol::Map(_))) => format!("{dst} = 0 ll"),
        // Wide loads with a `src_reg` that LLVM prints as plain numbers: register, `src_reg`, first
        // immediate.
        (Insn::LoadImm64 { dst, imm }, _) => match imm {
            Imm64::Value(_) => insn.to_string(),
            Imm64::MapFd(fd) => format!("ld_pseudo {dst}, 1, {fd}"),
            Imm64::MapValue { fd, .. } => format!("ld_pseudo {dst}, 2, {fd}"),
            Imm64::BtfVar(id) => format!("ld_pseudo {dst}, 3, {id}"),
            Imm64::CodeAddr(Dest::Rel(distance)) => format!("ld_pseudo {dst}, 4, {distance}"),
            other => panic!("{other:?} is not in the program"),
        },
        (Insn::Mov { dst, .. }, Some(Symbol::Const(name))) if name == "THREE" => format!("{dst} = 3"),
        (Insn::Call(Callee::Helper(id)), _) => format!("call {id}"),
        (Insn::Call(Callee::Local(Dest::Rel(distance))), _) => format!("call {distance}"),
        (Insn::Call(Callee::Kfunc(_)), Some(Symbol::Kfunc(_))) => "call -1".to_owned(),
        // With half registers, LLVM prints the register of a load or store of less than 64 bits as
        // `wN`.
        (Insn::Load { size, signed: false, dst, .. }, _) if *size != Size::B8 => {
            insn.to_string().replacen(dst.name(Width::W64), dst.name(Width::W32), 1)
        }
        (Insn::Store { size, src: Operand::Reg(src), .. }, _) if *size != Size::B8 => {
            let text = insn.to_string();
            let (left, _) = text.split_once(" = ").unwrap();
            format!("{left} = {}", src.name(Width::W32))
        }
        _ => insn.to_string(),
    }
}

/// The relocation that LLVM should print after an instruction.
fn relocation(symbol: &Symbol) -> Option<String> {
    match symbol {
        Symbol::Map(name) => Some(format!("R_BPF_64_64 {name}")),
        Symbol::Kfunc(name) => Some(format!("R_BPF_64_32 {name}")),
        Symbol::Const(name) if name == "THREE" => None,
        other => Some(format!("R_BPF_NONE {other}")),
    }
}

#[test]
fn llvm_disassembles_the_same_instructions() {
    let object = object();
    let file = file("object.o", &object);
    // Without half registers (`alu32`), LLVM 19 cannot print most 32-bit atomic operations.
    let args = ["-dr", "--mattr=+alu32", "--no-show-raw-insn"];
    let text = run(&tool("LLVM_OBJDUMP", "llvm-objdump-19"), &args, &file);
    let mut lines = text
        .lines()
        .filter(|line| line.starts_with([' ', '\t']))
        .map(|line| normal(line.trim_start().split_once(':').unwrap().1.trim()))
        // `R_BPF_64_64  conns`
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));

    // Sections in the order in which they first occur, and in each the programs.
    let attach_options: Vec<&ProgramDef> =
        object.hooks.iter().flat_map(|hook| &hook.attach_options).collect();
    let mut sections: Vec<String> = Vec::new();
    for attach_option in &attach_options {
        for name in section_names(&attach_option.attach) {
            if !sections.contains(&name) {
                sections.push(name);
            }
        }
    }
    for section in &sections {
        assert!(text.contains(&format!("Disassembly of section {section}:")), "{section}\n{text}");
        for attach_option in attach_options
            .iter()
            .filter(|attach_option| section_names(&attach_option.attach).contains(section))
        {
            let mut symbols = attach_option.program.symbols.iter().peekable();
            for (at, insn) in attach_option.program.insns.iter().enumerate() {
                let symbol = symbols.next_if(|(place, _)| *place == at).map(|(_, symbol)| symbol);
                let place = format!("{section}: {}: instruction {at}: {insn}", attach_option.name);
                assert_eq!(lines.next(), Some(expected(insn, symbol)), "{place}");
                if let Some(relocation) = symbol.and_then(relocation) {
                    assert_eq!(lines.next(), Some(relocation), "{place}");
                }
            }
        }
    }
    assert_eq!(lines.next(), None);
    assert!(text.contains("<function>:"), "local functions have headings\n{text}");
}

#[test]
fn the_file_has_the_sections_and_symbols_of_a_bpf_object() {
    let file = file("sections.o", &object());
    let text = run(&tool("LLVM_READELF", "llvm-readelf-19"), &["-hSs", "--wide"], &file);
    let words: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let slots = program("x").slots().unwrap().len();
    for promise in [
        "Type: REL (Relocatable file)".to_owned(),
        "Machine: EM_BPF".to_owned(),
        "] tp_btf/inet_sock_set_state PROGBITS".to_owned(),
        "] raw_tp/inet_sock_set_state PROGBITS".to_owned(),
        "] iter/task_file PROGBITS".to_owned(),
        "] .relraw_tp/inet_sock_set_state REL".to_owned(),
        "] license PROGBITS".to_owned(),
        format!(" {} FUNC GLOBAL DEFAULT 2 set_state", slots * 8),
        format!(" {} FUNC GLOBAL DEFAULT 4 set_state_2", slots * 8),
        format!(" {} FUNC GLOBAL DEFAULT 4 other", slots * 8),
        " 20 OBJECT GLOBAL DEFAULT 1 conns".to_owned(),
        " 20 OBJECT GLOBAL DEFAULT 1 events".to_owned(),
        "] tp/syscalls/a PROGBITS".to_owned(),
        "] tp/syscalls/b PROGBITS".to_owned(),
        format!(" {} FUNC GLOBAL DEFAULT 8 calls", slots * 8),
        format!(" {} FUNC GLOBAL DEFAULT 10 calls_2", slots * 8),
        " 13 OBJECT GLOBAL DEFAULT 12 _license".to_owned(),
        " 0 NOTYPE GLOBAL DEFAULT UND bpf_sock_destroy".to_owned(),
        " 0 NOTYPE GLOBAL DEFAULT UND const UNKNOWN".to_owned(),
    ] {
        assert!(words.iter().any(|line| line.contains(&promise)), "{promise}\n{text}");
    }
    assert_eq!(
        words.iter().filter(|line| line.contains("raw_tp") && line.contains(" PROGBITS ")).count(),
        1,
        "{text}"
    );
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let mut without_maps = object();
    without_maps.maps.clear();
    let error = elf::write(&without_maps).unwrap_err();
    assert!(matches!(&error, ElfError::UnknownMap { map, .. } if map == "conns"), "{error}");

    let mut unresolved = object();
    let insn = Insn::Jump { long: false, dest: Fragment::new().dest("nowhere") };
    unresolved.hooks[0].attach_options[0].program.insns[0] = insn;
    let error = elf::write(&unresolved).unwrap_err();
    assert_eq!(error.to_string(), "program `set_state`: instruction 0: its label is not resolved");

    let mut big = object();
    big.hooks[0].attach_options[0].program.insns[0] = Insn::Exit;
    big.hooks[0].attach_options[0].program.symbols.insert(0, (0, Symbol::Const("THREE".into())));
    let error = elf::write(&big).unwrap_err();
    assert_eq!(
        error.to_string(),
        "program `set_state`: the constant `THREE`, 3, does not fit where it is used"
    );
}
