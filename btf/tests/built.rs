//! Types written with [`Builder`] and read back: cases that the kernels in `data` do not contain.
#![forbid(unsafe_code)]

mod common;

use std::{error::Error, sync::Arc};

use btf::{
    Absent, BitField, Bits, Btf, BtfError, BuildError, Builder, Bytes, Class, Endian, IntEncoding, Kind,
    Linkage, Lookup, MemberDef, TypeId, Want, Wanted,
};
use common::{absent, found};

type Outcome = Result<(), Box<dyn Error>>;

fn member(name: &str, ty: TypeId, bits: u32) -> MemberDef<'_> {
    MemberDef { name, ty, offset: Bits(bits), width: None }
}

fn bits(name: &str, ty: TypeId, offset: u32, width: u32) -> MemberDef<'_> {
    MemberDef { name, ty, offset: Bits(offset), width: Some(Bits(width)) }
}

fn read(types: Builder) -> Result<Btf, Box<dyn Error>> {
    Ok(Btf::from_source(types.finish()?)?)
}

/// The place of a bit-field: offset and size of its load, shift, width.
fn load(btf: &Btf, path: &str) -> Result<(u32, u32, u32, u32), BtfError> {
    let index = btf.index(&Wanted::new().strukt("s"))?;
    let field = found(index.field(path)?);
    let bits = field.bits.expect("a bit-field");
    Ok((field.offset.0, field.size.0, bits.shift.0, bits.width.0))
}

#[test]
fn every_kind_comes_back_as_it_was_written() -> Outcome {
    for endian in [Endian::Little, Endian::Big] {
        let mut types = Builder::with_endian(endian);
        let int = types.int("int", 4, IntEncoding::Signed)?;
        let ptr = types.ptr(int)?;
        types.array(ptr, int, 7)?;
        types.strukt("pair", Bytes(8), &[member("a", int, 0), member("b", int, 32)])?;
        types.union("either", Bytes(8), &[member("a", int, 0), bits("b", int, 3, 5)])?;
        types.enumeration("sign", Bytes(4), true, &[("MINUS", -1), ("PLUS", 1)])?;
        types.enumeration("nosign", Bytes(1), false, &[("BIG", 0xffff_ffff)])?;
        types.enumeration64("wide", Bytes(8), true, &[("FAR", i64::MIN), ("NEAR", 1 << 32)])?;
        types.fwd("later", true)?;
        types.typedef("number", int)?;
        types.volatile(int)?;
        types.constant(int)?;
        types.restrict(ptr)?;
        types.type_tag("rcu", int)?;
        types.float("double", Bytes(8))?;
        let proto = types.func_proto(int, &[("a", ptr), ("", TypeId::VOID)])?;
        types.func("main", proto, Linkage::Global)?;

        let btf = read(types)?;
        assert_eq!(btf.endian(), endian);
        let index = btf.index(&Wanted::new().func("main"))?;
        let mut seen = Vec::new();
        for id in 0..index.type_count() {
            let ty = index.ty(TypeId(id))?;
            let kind = match ty.kind {
                Kind::Void => "void".into(),
                Kind::Int(int) => format!("int {} {:?}", int.size, int.encoding),
                Kind::Ptr(to) => format!("ptr {to}"),
                Kind::Array { element, index, count } => format!("array {element} {index} {count}"),
                Kind::Struct(of) | Kind::Union(of) => {
                    let mut members = Vec::new();
                    for member in of.members() {
                        let width = member.width.map_or(String::new(), |width| format!(":{width}"));
                        members.push(format!("{} {}@{}{width}", member.name()?, member.ty, member.offset));
                    }
                    let union = if matches!(ty.kind, Kind::Union(_)) { "union" } else { "struct" };
                    format!("{union} {} {}", of.size, members.join(" "))
                }
                Kind::Enum(of) => {
                    let mut values = Vec::new();
                    for value in of.values() {
                        values.push(format!("{}={}", value.name()?, value.value));
                    }
                    assert_eq!(of.values().len(), values.len());
                    format!("enum {} {} {} {}", of.size, of.signed, of.is_wide(), values.join(" "))
                }
                Kind::FuncProto(proto) => {
                    let mut params = Vec::new();
                    for param in proto.params() {
                        params.push(format!("{} {}", param.name()?, param.ty));
                    }
                    format!("proto {} ({})", proto.ret, params.join(", "))
                }
                kind => format!("{kind:?}"),
            };
            seen.push(format!("{} {kind}", ty.name).trim_start().to_owned());
        }
        let expected = [
            "void",
            "int int 4 Signed",
            "ptr [1]",
            "array [2] [1] 7",
            "pair struct 8 a [1]@0 b [1]@32",
            "either union 8 a [1]@0 b [1]@3:5",
            "sign enum 4 true false MINUS=-1 PLUS=1",
            "nosign enum 1 false false BIG=4294967295",
            "wide enum 8 true true FAR=-9223372036854775808 NEAR=4294967296",
            "later Fwd { is_union: true }",
            "number Typedef(TypeId(1))",
            "Volatile(TypeId(1))",
            "Const(TypeId(1))",
            "Restrict(TypeId(2))",
            "rcu TypeTag(TypeId(1))",
            "double Float { size: Bytes(8) }",
            "proto [1] (a [2],  [0])",
            "main Func { proto: TypeId(16), linkage: 1 }",
        ];
        assert_eq!(seen, expected, "{endian}");
        let main = found(index.func("main")?);
        assert_eq!((main.type_id, main.params.len(), main.variadic), (TypeId(17), 1, true));
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Outcome {
    let mut types = Builder::new();
    assert_eq!(types.int("a\0b", 4, IntEncoding::Signed), Err(BuildError::NulInName { name: "a\0b".into() }));
    assert_eq!(types.int("odd", 3, IntEncoding::Signed), Err(BuildError::IntSize { size: 3 }));
    assert_eq!(
        types.enumeration("e", Bytes(4), true, &[("X", 1 << 31)]),
        Err(BuildError::EnumValue { name: "X".into(), value: 1 << 31 })
    );
    assert_eq!(
        types.enumeration("e", Bytes(4), false, &[("X", -1)]),
        Err(BuildError::EnumValue { name: "X".into(), value: -1 })
    );
    let int = types.int("int", 4, IntEncoding::Signed)?;
    assert_eq!(
        types.strukt("s", Bytes(8), &[bits("b", int, 1 << 24, 1)]),
        Err(BuildError::TooLarge { what: "member offset" })
    );
    let many = vec![("", int); 0x1_0000];
    assert_eq!(types.func_proto(int, &many), Err(BuildError::TooLarge { what: "number of members" }));
    Ok(())
}

#[test]
fn equal_strings_are_stored_once() -> Outcome {
    let mut types = Builder::new();
    let first = types.add_str("programs/src/tcplife/mod.rs")?;
    types.int("int", 4, IntEncoding::Signed)?;
    assert_eq!(types.add_str("programs/src/tcplife/mod.rs")?, first);
    assert_eq!(types.add_str("")?, 0);
    assert_ne!(types.add_str("int")?, 0);
    Ok(())
}

#[test]
fn anonymous_members_and_qualifiers_are_walked_through() -> Outcome {
    let mut types = Builder::new();
    let int = types.int("int", 4, IntEncoding::Signed)?;
    let tagged = types.type_tag("rcu", int)?;
    let volatile = types.volatile(tagged)?;
    let number = types.typedef("number", volatile)?;
    let deepest = types.strukt("", Bytes(8), &[member("x", int, 0), member("y", number, 32)])?;
    let deepest = types.constant(deepest)?;
    let either = types.union("", Bytes(8), &[member("whole", number, 0), member("", deepest, 0)])?;
    // An unnamed member of a named struct, as `-fms-extensions` allows.
    let base = types.strukt("base", Bytes(4), &[member("kind", int, 0)])?;
    let s = types.strukt(
        "s",
        Bytes(20),
        &[member("first", int, 0), member("", either, 32), member("", base, 96), member("last", int, 128)],
    )?;
    types.typedef("s_t", s)?;
    let btf = read(types)?;
    let index = btf.index(&Wanted::new().strukt("s").strukt("s_t"))?;
    for root in ["s", "s_t"] {
        let at = |member: &str| {
            index
                .field(&format!("{root}.{member}"))
                .map(|field| field.map(|field| (field.offset.0, field.size.0)))
        };
        assert_eq!(at("first")?, Lookup::Found((0, 4)));
        assert_eq!(at("whole")?, Lookup::Found((4, 4)));
        assert_eq!(at("y")?, Lookup::Found((8, 4)));
        assert_eq!(at("kind")?, Lookup::Found((12, 4)));
        assert_eq!(at("last")?, Lookup::Found((16, 4)));
        assert!(!at("z")?.is_found());
        assert!(found(index.field(&format!("{root}.y"))?).signed);
        assert_eq!(index.size(root)?, Lookup::Found(20));
    }
    Ok(())
}

#[test]
fn arrays() -> Outcome {
    let mut types = Builder::new();
    let int = types.int("int", 4, IntEncoding::Signed)?;
    let pair = types.strukt("pair", Bytes(8), &[member("a", int, 0), member("b", int, 32)])?;
    let row = types.array(pair, int, 3)?;
    let table = types.array(row, int, 2)?;
    let rest = types.array(pair, int, 0)?;
    types.strukt(
        "s",
        Bytes(52),
        &[member("n", int, 0), member("table", table, 32), member("rest", rest, 416)],
    )?;
    let btf = read(types)?;
    let index = btf.index(&Wanted::new().strukt("s"))?;
    let at = |path| index.field(path).map(|field| found(field).offset.0);
    assert_eq!(at("s.table[1][2].b")?, 4 + 24 + 16 + 4);
    assert_eq!(at("s.table[1]")?, 28);
    assert_eq!(at("s.rest[5].b")?, 52 + 44, "a flexible array has no last element");
    assert_eq!(index.size("s.table")?, Lookup::Found(48));
    assert_eq!(index.size("s.rest")?, Lookup::Found(0));
    assert_eq!(found(index.field("s.table")?).class, Class::Array { len: 2, element: Bytes(24) });
    let beyond = Absent::Element { path: "s.table[1]".into(), index: 3, len: 3 };
    assert_eq!(absent(index.field("s.table[1][3]")?), beyond);
    let whole = Absent::NotComposite { path: "s.table".into(), is: "struct pair[3][2]".into() };
    assert_eq!(absent(index.field("s.table.a")?), whole);
    assert!(matches!(index.field("s.rest[4000000000].b"), Err(BtfError::Overflow { .. })));
    Ok(())
}

#[test]
fn bit_fields_of_the_new_encoding() -> Outcome {
    let mut types = Builder::with_endian(Endian::Little);
    let byte = types.int("u8", 1, IntEncoding::Unsigned)?;
    let int = types.int("int", 4, IntEncoding::Signed)?;
    let long = types.int("u64", 8, IntEncoding::Unsigned)?;
    let members = [
        bits("low", int, 0, 3),
        bits("across", int, 3, 13),
        bits("byte", byte, 16, 8),
        bits("top", int, 31, 1),
        bits("wide", long, 64 + 5, 59),
        bits("three_bytes", int, 128 + 4, 20),
        bits("packed", int, 192 + 28, 8),
        bits("hopeless", long, 256 + 60, 63),
        member("plain", int, 384),
        bits("straddling", int, 448 - 4, 8),
    ];
    types.strukt("s", Bytes(60), &members)?;
    let btf = read(types)?;
    assert_eq!(load(&btf, "s.low")?, (0, 1, 0, 3));
    assert_eq!(load(&btf, "s.across")?, (0, 2, 3, 13));
    assert_eq!(load(&btf, "s.byte")?, (2, 1, 0, 8), "whole bytes, but declared as a bit-field");
    assert_eq!(load(&btf, "s.top")?, (3, 1, 7, 1));
    assert_eq!(load(&btf, "s.wide")?, (8, 8, 5, 59));
    assert_eq!(load(&btf, "s.three_bytes")?, (16, 4, 4, 20));
    assert_eq!(load(&btf, "s.packed")?, (24, 8, 28, 8), "aligned, though two unaligned bytes would do");
    assert_eq!(load(&btf, "s.straddling")?, (55, 2, 4, 8), "no aligned load would do");
    let index = btf.index(&Wanted::new().strukt("s"))?;
    assert!(matches!(index.field("s.hopeless"), Err(BtfError::BadBitField { .. })));
    assert_eq!(found(index.field("s.plain")?).bits, None, "kind_flag or not");
    assert!(found(index.field("s.low")?).signed);
    Ok(())
}

#[test]
fn bit_fields_of_the_old_encoding() -> Outcome {
    let mut types = Builder::with_endian(Endian::Little);
    let int = types.int("int", 4, IntEncoding::Unsigned)?;
    let three = types.int_bits("int", 4, IntEncoding::Unsigned, Bits(0), Bits(3))?;
    let shifted = types.int_bits("int", 4, IntEncoding::Signed, Bits(2), Bits(4))?;
    let members = [
        member("first", three, 0),
        member("second", three, 3),
        // Bit 100 plus the type's 2: the example of Documentation/bpf/btf.rst.
        member("shifted", shifted, 100),
        member("whole", int, 128),
        member("astray", int, 129),
    ];
    types.strukt("s", Bytes(24), &members)?;
    let btf = read(types)?;
    assert_eq!(load(&btf, "s.first")?, (0, 1, 0, 3));
    assert_eq!(load(&btf, "s.second")?, (0, 1, 3, 3));
    assert_eq!(load(&btf, "s.shifted")?, (12, 2, 6, 4));
    let index = btf.index(&Wanted::new().strukt("s"))?;
    assert_eq!(found(index.field("s.whole")?).bits, None);
    // An int of full width that starts within a byte is a bit-field of 32 bits. No aligned load of
    // 4 bytes contains it.
    assert_eq!(load(&btf, "s.astray")?, (16, 8, 1, 32));
    Ok(())
}

#[test]
fn invalid_bit_fields() -> Outcome {
    let mut types = Builder::with_endian(Endian::Little);
    let int = types.int("int", 4, IntEncoding::Unsigned)?;
    let empty = types.int_bits("int", 4, IntEncoding::Unsigned, Bits(0), Bits(0))?;
    let pointer = types.ptr(TypeId::VOID)?;
    let inner = types.strukt("inner", Bytes(4), &[])?;
    let members = [
        bits("whole", int, 0, 32),
        bits("wider", int, 32, 33),
        bits("of_a_struct", inner, 128, 8),
        bits("of_a_pointer", pointer, 192, 8),
        member("empty", empty, 256),
        member("pointer", pointer, 320),
        member("pointer_in_a_byte", pointer, 384 + 4),
    ];
    types.strukt("s", Bytes(64), &members)?;
    let btf = read(types)?;
    let index = btf.index(&Wanted::new().strukt("s"))?;
    assert_eq!(load(&btf, "s.whole")?, (0, 4, 0, 32));
    assert_eq!(found(index.field("s.pointer")?).offset, Bytes(40));
    for name in ["wider", "of_a_struct", "of_a_pointer", "empty", "pointer_in_a_byte"] {
        let answer = index.field(&format!("s.{name}"));
        assert!(matches!(answer, Err(BtfError::BadBitField { .. })), "{name}: {answer:?}");
    }
    Ok(())
}

#[test]
fn masks_have_the_bits_of_the_width() {
    for (width, mask) in [(1, 1), (7, 0x7f), (63, u64::MAX >> 1), (64, u64::MAX), (65, u64::MAX)] {
        let bits = BitField { offset: Bits(0), width: Bits(width), shift: Bits(0) };
        assert_eq!(bits.mask(), mask, "{width}");
    }
}

#[test]
fn big_endian_bit_fields_count_from_the_top() -> Outcome {
    let mut types = Builder::with_endian(Endian::Big);
    let int = types.int("int", 4, IntEncoding::Unsigned)?;
    // `struct iphdr` on a big-endian machine: version first
    types.strukt(
        "s",
        Bytes(4),
        &[bits("version", int, 0, 4), bits("ihl", int, 4, 4), bits("mid", int, 9, 14)],
    )?;
    let btf = read(types)?;
    assert_eq!(load(&btf, "s.version")?, (0, 1, 4, 4));
    assert_eq!(load(&btf, "s.ihl")?, (0, 1, 0, 4));
    assert_eq!(load(&btf, "s.mid")?, (0, 4, 32 - 23, 14));
    Ok(())
}

#[test]
fn a_name_defined_twice() -> Outcome {
    let mut types = Builder::new();
    let int = types.int("int", 4, IntEncoding::Signed)?;
    let long = types.int("long", 8, IntEncoding::Signed)?;
    let first = types.strukt("s", Bytes(16), &[member("same", int, 0), member("moved", int, 32)])?;
    types.fwd("s", false)?;
    types.typedef("s", long)?;
    let second = types.strukt("s", Bytes(16), &[member("same", int, 0), member("moved", int, 64)])?;
    types.fwd("declared", false)?;
    for value in [1, 2] {
        types.enumeration("e", Bytes(4), false, &[("SAME", 7), ("OTHER", value)])?;
    }
    for ret in [int, int, long] {
        let proto = types.func_proto(ret, &[])?;
        types.func(if ret == int { "f" } else { "g" }, proto, Linkage::Static)?;
    }
    let proto = types.func_proto(int, &[])?;
    types.func("g", proto, Linkage::Static)?;
    let btf = read(types)?;
    let wanted = Wanted::new().strukt("s").strukt("declared").enumeration("e").func("f").func("g");
    let index = btf.index(&wanted.enumerator("SAME").enumerator("OTHER"))?;

    assert_eq!(index.size("s.same")?, Lookup::Found(4), "the same in both");
    match index.field("s.moved") {
        Err(BtfError::Ambiguous { name, ids }) => assert_eq!((name.as_str(), ids), ("s", [first, second])),
        other => panic!("{other:?}"),
    }
    assert_eq!(absent(index.size("declared")?), Absent::Incomplete { name: "declared".into() });
    assert_eq!(absent(index.field("declared.x")?), Absent::Incomplete { name: "declared".into() });
    assert_eq!(index.enum_value("e", "SAME")?, Lookup::Found(7));
    assert_eq!(index.enumerator("SAME")?, Lookup::Found(7));
    assert!(matches!(index.enum_value("e", "OTHER"), Err(BtfError::Ambiguous { .. })));
    assert!(matches!(index.enumerator("OTHER"), Err(BtfError::Ambiguous { .. })));
    assert!(matches!(index.enum_values("e"), Err(BtfError::Ambiguous { .. })));
    assert!(index.func("f")?.is_found());
    assert!(matches!(index.func("g"), Err(BtfError::Ambiguous { .. })));
    assert_eq!(index.ids(Want::Func, "g")?.len(), 2);
    Ok(())
}

#[test]
fn a_typedef_that_is_not_a_tracepoint() -> Outcome {
    let mut types = Builder::new();
    let int = types.int("int", 4, IntEncoding::Signed)?;
    let proto = types.func_proto(TypeId::VOID, &[("", int)])?;
    let ptr = types.ptr(proto)?;
    types.typedef("btf_trace_number", int)?;
    let id = types.typedef("btf_trace_without_data", ptr)?;
    let btf = read(types)?;
    let index =
        btf.index(&Wanted::new().tracepoint("number").tracepoint("without_data").tracepoint("other"))?;
    assert!(matches!(index.tracepoint("number"), Err(BtfError::WrongKind { .. })));
    assert!(
        matches!(index.tracepoint("without_data"), Err(BtfError::WrongKind { id: found, .. }) if found == id)
    );
    assert_eq!(absent(index.tracepoint("other")?), Absent::Tracepoint { name: "other".into() });
    Ok(())
}

#[test]
fn split_types_continue_their_base() -> Outcome {
    let mut types = Builder::new();
    let int = types.int("int", 4, IntEncoding::Signed)?;
    let base_s = types.strukt("s", Bytes(4), &[member("a", int, 0)])?;
    let base = Arc::new(read(types)?);

    let mut types = Builder::split_from(&base)?;
    let name = types.add_str("int")?;
    assert_eq!(name, u32::try_from("\0int\0s\0a\0".len())?, "strings go on where the base's end");
    let module_s = types.strukt("module_s", Bytes(8), &[member("inner", base_s, 0), member("n", int, 32)])?;
    assert_eq!(module_s, TypeId(3));
    let proto = types.func_proto(int, &[("s", base_s)])?;
    types.func("module_func", proto, Linkage::Static)?;
    let bytes = types.finish()?;

    assert!(matches!(Btf::from_source(bytes.clone()), Err(BtfError::NeedsBase)));
    let module = Arc::new(Btf::from_source_on(&base, bytes.clone())?);
    assert!(matches!(Btf::from_source_on(&module, bytes.clone()), Err(BtfError::BaseIsSplit)));
    let big = Arc::new(read(Builder::with_endian(Endian::Big))?);
    assert!(matches!(Btf::from_source_on(&big, bytes), Err(BtfError::BaseByteOrder { base: Endian::Big })));

    let index = module.index(&Wanted::new().strukt("s").strukt("module_s").func("module_func"))?;
    assert_eq!(index.type_count(), 6);
    assert_eq!(index.size("s")?, Lookup::Found(4));
    assert_eq!(found(index.field("module_s.inner.a")?).size, Bytes(4));
    assert_eq!(found(index.field("module_s.n")?).offset, Bytes(4));
    assert_eq!(found(index.func("module_func")?).params[0].text, "struct s");
    assert!(matches!(index.ty(TypeId(6)), Err(BtfError::NoSuchType { count: 6, .. })));
    Ok(())
}

/// Enough words for two walks, and split BTF with one more type.
#[test]
fn many_types_are_found_and_reached_from_both_ends() -> Outcome {
    const TYPES: u32 = 24_000;
    for endian in [Endian::Little, Endian::Big] {
        let mut types = Builder::with_endian(endian);
        let int = types.int("int", 4, IntEncoding::Signed)?;
        for n in 0..TYPES {
            let members = [member("m", int, 0)];
            types.strukt(&format!("s{n}"), Bytes(4), if n % 3 == 0 { &[] } else { &members })?;
        }
        let base = Arc::new(read(types)?);
        let mut types = Builder::split_from(&base)?;
        types.typedef("last", TypeId(TYPES + 1))?;
        let split = Btf::from_source_on(&base, types.finish()?)?;
        let names = ["s0", "s1000", "s23999"];
        let wanted = names.iter().fold(Wanted::new().strukt("last"), |wanted, name| wanted.strukt(name));
        let index = split.index(&wanted)?;
        assert_eq!(index.type_count(), TYPES + 3);
        for (name, n) in names.into_iter().zip([0, 1000, 23_999]) {
            assert_eq!(index.ids(Want::Type, name)?, [TypeId(n + 2)], "{name}");
        }
        assert_eq!(index.ids(Want::Type, "last")?, [TypeId(TYPES + 2)]);
        // Twice, because the index caches marks.
        for n in (0..TYPES).chain((0..TYPES).rev()) {
            assert_eq!(index.ty(TypeId(n + 2))?.name, format!("s{n}"));
        }
        assert_eq!(index.ty(TypeId(TYPES + 2))?.name, "last");
        assert!(matches!(index.ty(TypeId(TYPES + 3)), Err(BtfError::NoSuchType { .. })));
    }
    Ok(())
}

#[test]
fn types_are_reached_by_number_past_every_mark() -> Outcome {
    let mut types = Builder::new();
    let int = types.int("int", 4, IntEncoding::Signed)?;
    for n in 0..1000 {
        let members: Vec<_> = (0..n % 5).map(|_| member("m", int, 0)).collect();
        types.strukt(&format!("s{n}"), Bytes(n), &members)?;
    }
    let btf = read(types)?;
    let index = btf.index(&Wanted::new())?;
    for n in 0..1000 {
        let ty = index.ty(TypeId(n + 2))?;
        assert_eq!(ty.name, format!("s{n}"));
        assert_eq!(
            ty.composite().map(|of| (of.size, of.members().len())),
            Some((Bytes(n), (n % 5) as usize))
        );
    }
    Ok(())
}
