//! Debug information of an object: function names, source lines, the members of map entries.
//!
//! All of it is one BTF object. From it `bpftool prog dump xlated linum` and the verifier's log
//! show our statements, and `bpftool map dump` shows names. It is optional: if a kernel refuses it,
//! the programs are loaded without.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use bpfasm::{FieldType, Layout, MapDef, MapKind, Object, Program, ProgramDef};
use btf::{BuildError, Builder, Bytes, IntEncoding, Linkage, MemberDef, TypeId};

use crate::sys::prog::{FuncInfo, LineInfo};

/// The BTF of an object, and the references to it from programs and maps.
#[derive(Debug)]
pub(crate) struct DebugInfo {
    pub(crate) bytes: Vec<u8>,
    /// In the order of hooks and attach options; empty for those that are not wanted.
    pub(crate) programs: Vec<ProgramInfo>,
    /// The ids of the types of key and value, for maps whose kind accepts them.
    pub(crate) maps: Vec<Option<(u32, u32)>>,
}

/// Functions and lines of one program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ProgramInfo {
    pub(crate) funcs: Vec<FuncInfo>,
    pub(crate) lines: Vec<LineInfo>,
}

impl DebugInfo {
    /// Builds the BTF for the programs whose number, in the order of hooks and attach options, is
    /// `wanted`.
    pub(crate) fn new(object: &Object, wanted: impl Fn(usize) -> bool) -> Result<Self, BuildError> {
        let mut types = Types::new()?;
        let maps = object.maps.iter().map(|map| types.map(map)).collect::<Result<_, _>>()?;
        let attach_options = object.hooks.iter().flat_map(|hook| &hook.attach_options);
        let program =
            |(number, def)| if wanted(number) { types.program(def) } else { Ok(ProgramInfo::default()) };
        let programs = attach_options.enumerate().map(program).collect::<Result<_, _>>()?;
        Ok(Self { bytes: types.builder.finish()?, programs, maps })
    }
}

/// Integer types: name and size in bytes.
const INTS: [(&str, u32); 4] = [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)];

struct Types {
    builder: Builder,
    /// In the order of [`INTS`].
    ints: [TypeId; 4],
    /// `int (*)(void *ctx)`, the type of every program and function.
    proto: TypeId,
    /// Arrays of bytes, by their length.
    arrays: Vec<(u32, TypeId)>,
    /// Structs, by their name.
    structs: Vec<(&'static str, TypeId)>,
    /// Offsets of source texts, by their address and length.
    literals: HashMap<(usize, usize), u32, BuildHasherDefault<AddressHasher>>,
}

impl Types {
    fn new() -> Result<Self, BuildError> {
        let mut builder = Builder::new();
        let mut ints = [TypeId::VOID; 4];
        for (id, (name, size)) in ints.iter_mut().zip(INTS) {
            *id = builder.int(name, size, IntEncoding::Unsigned)?;
        }
        let int = builder.int("int", 4, IntEncoding::Signed)?;
        let ctx = builder.ptr(TypeId::VOID)?;
        let proto = builder.func_proto(int, &[("ctx", ctx)])?;
        let (arrays, structs) = (Vec::new(), Vec::new());
        Ok(Self { builder, ints, proto, arrays, structs, literals: HashMap::default() })
    }

    fn ty(&mut self, ty: FieldType) -> Result<TypeId, BuildError> {
        let [u8_id, u16_id, u32_id, u64_id] = self.ints;
        Ok(match ty {
            FieldType::U8 => u8_id,
            FieldType::U16 => u16_id,
            FieldType::U32 => u32_id,
            FieldType::U64 => u64_id,
            FieldType::Bytes(len) => self.bytes(len.into())?,
        })
    }

    fn bytes(&mut self, len: u32) -> Result<TypeId, BuildError> {
        if let Some((_, id)) = self.arrays.iter().find(|(known, _)| *known == len) {
            return Ok(*id);
        }
        let [u8_id, _, u32_id, _] = self.ints;
        let id = self.builder.array(u8_id, u32_id, len)?;
        self.arrays.push((len, id));
        Ok(id)
    }

    fn layout(&mut self, layout: &Layout) -> Result<TypeId, BuildError> {
        if let Some((_, id)) = self.structs.iter().find(|(known, _)| *known == layout.name) {
            return Ok(*id);
        }
        let mut members = Vec::with_capacity(layout.members.len());
        for member in layout.members {
            members.push(MemberDef::new(member.name, self.ty(member.ty)?, Bytes(member.offset.into()))?);
        }
        let id = self.builder.strukt(layout.name, Bytes(layout.size.into()), &members)?;
        self.structs.push((layout.name, id));
        Ok(id)
    }

    /// The type of a key or a value: the struct of `layout`, else an integer or an array of bytes.
    /// `None` if the struct does not have the size that the map has.
    fn entry(&mut self, layout: Option<&Layout>, size: u32) -> Result<Option<TypeId>, BuildError> {
        match layout {
            Some(layout) if u32::from(layout.size) == size => self.layout(layout).map(Some),
            Some(_) => Ok(None),
            None => {
                let number = INTS.iter().position(|(_, int)| *int == size).and_then(|at| self.ints.get(at));
                match number {
                    Some(id) => Ok(Some(*id)),
                    None => self.bytes(size).map(Some),
                }
            }
        }
    }

    fn map(&mut self, map: &MapDef) -> Result<Option<(u32, u32)>, BuildError> {
        let typed = match map.kind {
            MapKind::Hash | MapKind::LruHash | MapKind::PercpuHash => true,
            // array_map_check_btf: the key is a 32-bit integer.
            MapKind::Array | MapKind::PercpuArray => map.key.is_none(),
            // trie_check_btf: the key is a struct.
            MapKind::LpmTrie => map.key.is_some(),
            _ => false,
        };
        if !typed {
            return Ok(None);
        }
        let key = self.entry(map.key.as_ref(), map.key_size)?;
        let value = self.entry(map.value.as_ref(), map.value_size)?;
        Ok(key.zip(value).map(|(key, value)| (key.0, value.0)))
    }

    /// The offset of a source text. Texts are compared by address, not by content, which is faster:
    /// there are hundreds, each used several times.
    fn literal(&mut self, text: &'static str) -> Result<u32, BuildError> {
        let address = (text.as_ptr().addr(), text.len());
        Ok(match self.literals.entry(address) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(self.builder.append_str(text)?),
        })
    }

    fn program(&mut self, def: &ProgramDef) -> Result<ProgramInfo, BuildError> {
        let program = &def.program;
        let slots = slots(program);
        let mut info = ProgramInfo::default();
        for (at, name) in &program.functions {
            let Some(&insn_off) = slots.get(*at) else { continue };
            // Static, because older kernels support no other linkage.
            let type_id = self.builder.func(&identifier(name), self.proto, Linkage::Static)?.0;
            info.funcs.push(FuncInfo { insn_off, type_id });
        }
        for (at, (&insn_off, source)) in slots.iter().zip(&program.source).enumerate() {
            let (file, line, text) = match source {
                Some(source) => (source.file, source.line, source.text),
                // The kernel requires a line at the start of each function.
                None if program.functions.iter().any(|(start, _)| *start == at) => ("", 0, ""),
                None => continue,
            };
            /// `BPF_LINE_INFO_LINE_NUM` has 22 bits.
            const LAST_LINE: u32 = (1 << 22) - 1;
            info.lines.push(LineInfo {
                insn_off,
                file_name_off: self.literal(file)?,
                line_off: self.literal(text)?,
                line_col: line.min(LAST_LINE) << 10,
            });
        }
        Ok(info)
    }
}

/// Hashes addresses and lengths with two multiplications. Protection against chosen keys, as
/// SipHash gives, is not needed for addresses of literals.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize((*byte).into()));
    }

    fn write_usize(&mut self, value: usize) {
        // `usize` has 64 bits here. The constant is any odd number with well mixed bits.
        self.0 = (self.0.rotate_left(26) ^ value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The slot at which each instruction starts.
fn slots(program: &Program) -> Vec<u32> {
    let starts = program.insns.iter().scan(0_u32, |next, insn| {
        let start = *next;
        *next = next.saturating_add(insn.slots());
        Some(start)
    });
    starts.collect()
}

/// A function name that the kernel accepts: a C identifier.
fn identifier(name: &str) -> String {
    let mut out: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if out.starts_with(|c: char| c.is_ascii_digit()) || out.is_empty() {
        out.insert(0, '_');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfasm::{Attach, Hook, Imm64, Insn, Member, Need, Operand, Reg, Source, Width};

    fn source(line: u32) -> Option<Source> {
        Some(Source { file: "programs/src/x.rs", line, text: "r1 = 1 ll" })
    }

    fn map(kind: MapKind, key_size: u32, key: Option<Layout>, value: Option<Layout>) -> MapDef {
        MapDef { key, value, ..MapDef::new("m", kind, key_size, 16, 1) }
    }

    const PAIR: Layout = Layout {
        name: "pair",
        size: 16,
        members: &[
            Member { name: "a", offset: 0, ty: FieldType::U64 },
            Member { name: "b", offset: 8, ty: FieldType::Bytes(8) },
        ],
    };

    #[test]
    fn lines_count_slots_and_functions_start_with_one() {
        let wide = Insn::LoadImm64 { dst: Reg::R1, imm: Imm64::Value(1) };
        let mov = Insn::Mov { width: Width::W64, dst: Reg::R0, src: Operand::Imm(0) };
        let program = Program {
            insns: vec![wide, mov, wide, Insn::Exit],
            source: vec![None, source(7), source(8), None],
            functions: vec![(0, "main-prog".into()), (3, "2nd".into())],
            ..Program::default()
        };
        let attach_option = ProgramDef { name: "p".into(), attach: Attach::RawTp("x".into()), program };
        let hook = Hook::new("h", Need::Required, vec![attach_option]);
        let object = Object {
            name: "t".into(),
            license: "GPL".into(),
            hooks: vec![hook],
            maps: vec![
                map(MapKind::Hash, 4, None, Some(PAIR)),
                map(MapKind::Hash, 16, Some(PAIR), Some(PAIR)),
                map(MapKind::LpmTrie, 8, None, Some(PAIR)),
                map(MapKind::PerfEventArray, 4, None, None),
                map(MapKind::Hash, 12, Some(PAIR), None),
            ],
            consts: vec![],
        };
        let info = DebugInfo::new(&object, |_| true).unwrap();
        let lines = &info.programs[0].lines;
        assert_eq!(
            lines.iter().map(|l| (l.insn_off, l.line_col >> 10)).collect::<Vec<_>>(),
            [(0, 0), (2, 7), (3, 8), (5, 0)]
        );
        assert_eq!(info.programs[0].funcs.iter().map(|f| f.insn_off).collect::<Vec<_>>(), [0, 5]);
        assert!(
            matches!(info.maps[..], [Some((3, pair)), Some((key, value)), None, None, None] if pair == key && key == value)
        );
        // The `btf` crate reads what was written.
        let btf = btf::Btf::from_source(info.bytes).unwrap();
        let index = btf.index(&btf::Wanted::new().strukt("pair").func("main_prog").func("_2nd")).unwrap();
        assert_eq!(index.field("pair.b").unwrap().found().unwrap().offset, Bytes(8));
        assert!(index.func("main_prog").unwrap().is_found());
        assert!(index.func("_2nd").unwrap().is_found());
    }
}
