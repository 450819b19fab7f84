//! Writes objects as ELF files, to be read with `llvm-objdump -dr` or `readelf`.
//!
//! The file is laid out like clang's output: one section for each attach point, named as libbpf
//! names it; a function symbol for each program; a `.maps` section with a symbol for each map; and
//! `license`. Programs with the same attach point share a section.
//!
//! Each symbol of a program becomes a relocation of its instruction, against an ELF symbol that is
//! named as the listing names it:
//!
//! | in the listing | relocation | against |
//! |---|---|---|
//! | `map conns` | `R_BPF_64_64` | `conns` in `.maps` |
//! | `kfunc bpf_x` | `R_BPF_64_32` | `bpf_x`, undefined |
//! | `sock.sk_type`, `sizeof(…)`, … | `R_BPF_NONE` | `sock.sk_type`, undefined |
//!
//! The psABI defines no relocation for a kernel's field. `R_BPF_NONE` is used for these, because it
//! changes nothing when it is applied and a disassembler prints it with its symbol.
//!
//! The file is meant for reading. libbpf cannot load it: it expects BTF that describes the maps and
//! fields, and the file has none.

use std::collections::{HashMap, HashSet};

use object::write::{Relocation, SectionId, StandardSegment, Symbol as ElfSymbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};
use thiserror::Error;

use crate::encode::encode;
use crate::error::AsmError;
use crate::insn::{Callee, Dest, Imm64, Insn};
use crate::object::{Attach, MapDef, Object, ProgramDef};
use crate::symbol::{Symbol, Text};

/// The size of a slot in bytes.
const SLOT: u64 = 8;

/// Why an object cannot be written as ELF.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ElfError {
    /// A program cannot be encoded.
    #[error("program `{name}`: {error}")]
    Program {
        /// The program's name.
        name: Text,
        /// The reason.
        #[source]
        error: AsmError,
    },
    /// The value of a constant does not fit the instruction that uses it.
    #[error("program `{program}`: the constant `{name}`, {value}, does not fit where it is used")]
    Constant {
        /// The name of the program that uses it.
        program: Text,
        /// The name of the constant.
        name: Text,
        /// The constant's value in the object.
        value: i32,
    },
    /// A program refers to a map that the object does not define.
    #[error("program `{program}`: unknown map `{map}`")]
    UnknownMap {
        /// The name of the program.
        program: Text,
        /// The name of the map.
        map: Text,
    },
    /// The ELF writer failed.
    #[error("ELF: {0}")]
    Write(#[source] object::write::Error),
}

/// The names of the sections that a program is written to, as libbpf spells them. A program on
/// several tracepoints has one section, and one copy of its code, for each.
#[must_use]
pub fn section_names(attach: &Attach) -> Vec<String> {
    let name = match attach {
        Attach::TpBtf(name) => format!("tp_btf/{name}"),
        Attach::RawTp(name) => format!("raw_tp/{name}"),
        Attach::Fentry(name) => format!("fentry/{name}"),
        Attach::Fexit(name) => format!("fexit/{name}"),
        Attach::Kprobe(name) => format!("kprobe/{name}"),
        Attach::Kretprobe(name) => format!("kretprobe/{name}"),
        Attach::Tracepoints(category, names) => {
            return names.iter().map(|name| format!("tp/{category}/{name}")).collect();
        }
        Attach::Iter(name) => format!("iter/{name}"),
    };
    vec![name]
}

/// Writes a relocatable little-endian `EM_BPF` file.
///
/// # Errors
/// When a program has no encoding or uses a map that is not defined.
pub fn write(object: &Object) -> Result<Vec<u8>, ElfError> {
    let mut file = File {
        out: object::write::Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little),
        sections: HashMap::new(),
        names: HashSet::new(),
        undefined: HashMap::new(),
        maps: HashMap::new(),
        object,
    };
    for map in &object.maps {
        file.map(map);
    }
    for program in object.hooks.iter().flat_map(|hook| &hook.attach_options) {
        file.program(program)?;
    }
    file.license();
    file.out.write().map_err(ElfError::Write)
}

/// A file that is being written.
struct File<'a> {
    out: object::write::Object<'static>,
    sections: HashMap<String, SectionId>,
    /// The names used for functions so far; each must be unique.
    names: HashSet<String>,
    undefined: HashMap<String, SymbolId>,
    maps: HashMap<&'a str, SymbolId>,
    object: &'a Object,
}

impl<'a> File<'a> {
    fn section(&mut self, name: &str, kind: SectionKind) -> SectionId {
        if let Some(&id) = self.sections.get(name) {
            return id;
        }
        let segment = match kind {
            SectionKind::Text => StandardSegment::Text,
            _ => StandardSegment::Data,
        };
        let segment = self.out.segment_name(segment).to_vec();
        let id = self.out.add_section(segment, name.as_bytes().to_vec(), kind);
        self.sections.insert(name.to_owned(), id);
        id
    }

    fn symbol(&mut self, name: &str, kind: SymbolKind, section: SectionId, at: u64, size: u64) -> SymbolId {
        let local = kind == SymbolKind::Label;
        self.out.add_symbol(ElfSymbol {
            name: name.as_bytes().to_vec(),
            value: at,
            size,
            kind,
            scope: if local { SymbolScope::Compilation } else { SymbolScope::Dynamic },
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        })
    }

    fn undefined(&mut self, name: &str) -> SymbolId {
        if let Some(&id) = self.undefined.get(name) {
            return id;
        }
        let id = self.out.add_symbol(ElfSymbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Unknown,
            scope: SymbolScope::Unknown,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        self.undefined.insert(name.to_owned(), id);
        id
    }

    /// Writes a map as the five numbers of libbpf's former `struct bpf_map_def`: type, key size,
    /// value size, entries, flags. Today libbpf reads these from BTF. The maps of an array of maps
    /// and the path of a pinned map are not written.
    fn map(&mut self, map: &'a MapDef) {
        let section = self.section(".maps", SectionKind::Data);
        let fields = [map.kind.number(), map.key_size, map.value_size, map.max_entries, map.flags];
        let data: Vec<u8> = fields.into_iter().flat_map(u32::to_le_bytes).collect();
        let at = self.out.append_section_data(section, &data, SLOT);
        let size = u64::try_from(data.len()).unwrap_or_default();
        let id = self.symbol(&map.name, SymbolKind::Data, section, at, size);
        self.maps.insert(&map.name, id);
    }

    fn license(&mut self) {
        let section = self.section("license", SectionKind::Data);
        let mut data = self.object.license.as_bytes().to_vec();
        data.push(0);
        let at = self.out.append_section_data(section, &data, 1);
        let size = u64::try_from(data.len()).unwrap_or_default();
        self.symbol("_license", SymbolKind::Data, section, at, size);
    }

    fn program(&mut self, def: &ProgramDef) -> Result<(), ElfError> {
        let program = &def.program;
        let failed = |error| ElfError::Program { name: def.name.clone(), error };
        let mut data = Vec::new();
        let mut starts = Vec::with_capacity(program.insns.len());
        for at in 0..program.insns.len() {
            starts.push(u64::try_from(data.len()).unwrap_or_default());
            let insn = self.written(def, at)?;
            let slots = encode(&insn)
                .map_err(|error| failed(AsmError::Encode { at, error, source: program.source_of(at) }))?;
            data.extend(slots.iter().flat_map(|slot| slot.to_le_bytes()));
        }
        for section in section_names(&def.attach) {
            self.copy(def, &section, &data, &starts)?;
        }
        Ok(())
    }

    /// Adds one copy of a program to a section, from its bytes and the offsets of its instructions.
    fn copy(&mut self, def: &ProgramDef, section: &str, data: &[u8], starts: &[u64]) -> Result<(), ElfError> {
        let program = &def.program;
        let section = self.section(section, SectionKind::Text);
        let base = self.out.append_section_data(section, data, SLOT);
        let name = self.unique(&def.name);
        let size = u64::try_from(data.len()).unwrap_or_default();
        self.symbol(&name, SymbolKind::Text, section, base, size);
        // Headings for the disassembler. They are not function symbols, because libbpf would take
        // those for programs.
        for (at, label) in program.functions.iter().skip(1) {
            let at = starts.get(*at).copied().unwrap_or_default();
            self.symbol(label, SymbolKind::Label, section, base + at, 0);
        }
        for (at, symbol) in &program.symbols {
            let (target, r_type) = match symbol {
                Symbol::Map(map) => match self.maps.get(map.as_ref()) {
                    Some(&id) => (id, elf::R_BPF_64_64),
                    None => return Err(ElfError::UnknownMap { program: def.name.clone(), map: map.clone() }),
                },
                Symbol::Kfunc(name) => (self.undefined(name), elf::R_BPF_64_32),
                Symbol::Const(name) if self.constant(name).is_some() => continue,
                other => (self.undefined(&other.to_string()), elf::R_BPF_NONE),
            };
            let offset = base + starts.get(*at).copied().unwrap_or_default();
            let flags = RelocationFlags::Elf { r_type };
            self.out
                .add_relocation(section, Relocation { offset, symbol: target, addend: 0, flags })
                .map_err(ElfError::Write)?;
        }
        Ok(())
    }

    /// An instruction as a compiler would emit it before relocation: maps are wide constants,
    /// kernel functions are local calls with distance -1, and the object's constants are numbers.
    fn written(&self, def: &ProgramDef, at: usize) -> Result<Insn, ElfError> {
        let program = &def.program;
        let insn = program.insns.get(at).cloned().unwrap_or(Insn::Exit);
        let symbol = program.symbols.iter().find_map(|(place, symbol)| (*place == at).then_some(symbol));
        Ok(match (symbol, insn) {
            (Some(Symbol::Map(_)), Insn::LoadImm64 { dst, imm: Imm64::MapFd(_) }) => {
                Insn::LoadImm64 { dst, imm: Imm64::Value(0) }
            }
            (Some(Symbol::Kfunc(_)), Insn::Call(Callee::Kfunc(_))) => {
                Insn::Call(Callee::Local(Dest::Rel(-1)))
            }
            (Some(Symbol::Const(name)), mut insn) => match self.constant(name) {
                Some(value) if !insn.fill(value.into()) => {
                    return Err(ElfError::Constant { program: def.name.clone(), name: name.clone(), value });
                }
                _ => insn,
            },
            (_, insn) => insn,
        })
    }

    fn constant(&self, name: &str) -> Option<i32> {
        self.object.consts.iter().find_map(|(known, value)| (known == name).then_some(*value))
    }

    /// A unique name for a function, since several attach options of a hook may have the same name.
    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut number = 2u32;
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}_{number}");
            number += 1;
        }
        unique
    }
}
