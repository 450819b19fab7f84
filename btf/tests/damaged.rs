//! Damaged data gives an error or a value in bounded time, and never a panic.
#![forbid(unsafe_code)]

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use btf::{
    Bits, Btf, BtfError, Builder, Bytes, Endian, Index, IntEncoding, Linkage, MemberDef, Section, TypeId,
    Want, Wanted,
};
use common::{KERNELS, everything, kernel, kernel_bytes, lines};

fn member(name: &str, ty: TypeId, bits: u32, width: Option<u32>) -> MemberDef<'_> {
    MemberDef { name, ty, offset: Bits(bits), width: width.map(Bits) }
}

/// One type of each kind, small enough to damage each bit.
fn small() -> Vec<u8> {
    let mut types = Builder::new();
    let build = |types: &mut Builder| {
        let int = types.int("int", 4, IntEncoding::Signed)?;
        let fwd = types.fwd("socket", false)?;
        let ptr = types.ptr(fwd)?;
        let array = types.array(ptr, int, 3)?;
        let inner = types.union("", Bytes(8), &[member("x", int, 0, None), member("y", int, 4, Some(9))])?;
        let inner = types.volatile(inner)?;
        let s = types.strukt(
            "s",
            Bytes(40),
            &[member("a", int, 0, None), member("", inner, 64, None), member("list", array, 128, None)],
        )?;
        types.typedef("t", s)?;
        types.enumeration("e", Bytes(4), true, &[("ONE", 1), ("TWO", 2)])?;
        types.enumeration64("w", Bytes(8), false, &[("WIDE", 1 << 40)])?;
        let tag = types.type_tag("rcu", s)?;
        let tagged = types.ptr(tag)?;
        let void = types.ptr(TypeId::VOID)?;
        let proto = types.func_proto(int, &[("", void), ("", tagged), ("", int)])?;
        types.func("f", proto, Linkage::Static)?;
        let proto = types.ptr(proto)?;
        types.typedef("btf_trace_tp", proto)
    };
    build(&mut types).expect("types");
    types.finish().expect("bytes")
}

fn wanted() -> Wanted {
    let wanted = Wanted::new().strukt("s").strukt("t").enumeration("e").enumeration("w");
    wanted.enumerator("TWO").tracepoint("tp").func("f")
}

/// Asks all questions about [`small`] and ignores errors. Returns the number of answers, so that a
/// test can check that there were any.
fn ask_small(index: &Index<'_>) -> usize {
    let mut answered = 0;
    let mut count = |is_ok: bool| answered += usize::from(is_ok);
    for path in ["s", "s.a", "s.x", "s.y", "s.list", "s.list[2]", "s.none", "t.y", "t.list[7].a"] {
        count(index.field(path).is_ok());
        count(index.size(path).is_ok());
    }
    for name in ["e", "w"] {
        count(index.enum_values(name).is_ok());
        count(index.enum_value(name, "WIDE").is_ok());
    }
    count(index.enumerator("TWO").is_ok());
    count(index.tracepoint("tp").is_ok());
    count(index.func("f").is_ok());
    for id in 0..index.type_count().min(100) {
        count(index.ty(TypeId(id)).is_ok());
        count(index.describe(TypeId(id)).is_ok());
    }
    answered
}

fn ask(bytes: Vec<u8>) -> Result<usize, BtfError> {
    Ok(ask_small(&Btf::from_source(bytes)?.index(&wanted())?))
}

#[test]
fn whole_data_answers() {
    assert_eq!(ask(small()).expect("healthy"), 18 + 4 + 3 + 2 * 18);
}

#[test]
fn every_truncation() {
    let bytes = small();
    for len in 0..bytes.len() {
        let result = ask(bytes[..len].to_vec());
        assert!(result.is_err(), "{len} of {} bytes: the last string is gone, {result:?}", bytes.len());
    }
}

#[test]
fn every_flipped_bit_and_several_bytes() {
    let bytes = small();
    let (mut refused, mut answered) = (0, 0);
    for at in 0..bytes.len() {
        let bits = (0..8).map(|bit| bytes[at] ^ (1 << bit));
        for byte in bits.chain([0, 0x7f, 0x80, 0xff, bytes[at].wrapping_add(1)]) {
            let mut damaged = bytes.clone();
            damaged[at] = byte;
            match ask(damaged) {
                Ok(_) => answered += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 100 && answered > 100, "{refused} refused, {answered} answered");
}

#[test]
fn every_word_replaced() {
    let bytes = small();
    for at in (4..bytes.len() - 4).step_by(4) {
        for word in [0, 1, 2, 7, 18, 19, 0xffff, 0x00ff_ffff, 0x0400_ffff, 0x8400_0001, 0x7fff_ffff, u32::MAX]
        {
            let mut damaged = bytes.clone();
            damaged[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            let _: Result<usize, BtfError> = ask(damaged);
        }
    }
}

/// The error and the number of a damaged record, in both byte orders.
#[test]
fn errors_name_the_record() {
    for endian in [Endian::Little, Endian::Big] {
        let indexed = |info: u32| {
            let mut types = Builder::with_endian(endian);
            for name in ["first", "second", "third"] {
                types.fwd(name, false).expect("a type");
            }
            let mut bytes = types.finish().expect("bytes");
            // `info` of the second record: after the header, three words and a name.
            bytes[24 + 12 + 4..][..4].copy_from_slice(&match endian {
                Endian::Little => info.to_le_bytes(),
                Endian::Big => info.to_be_bytes(),
            });
            let btf = Btf::from_source(bytes).expect("BTF");
            btf.index(&Wanted::new().strukt("third")).map(|index| index.type_count())
        };
        for unknown in [0, 20, 0x7f] {
            let result = indexed(unknown << 24 | 1);
            assert!(
                matches!(result, Err(BtfError::UnknownKind { id: TypeId(2), offset: 12, kind }) if kind == unknown),
                "{endian} {unknown}: {result:?}"
            );
        }
        // An array's three words would be the whole third record; a struct's five members would be
        // more than the data has.
        assert!(matches!(indexed(3 << 24), Ok(3)), "{endian}");
        let result = indexed(4 << 24 | 5);
        assert!(
            matches!(result, Err(BtfError::Truncated { section: Section::Types, offset: 36, len: 36 })),
            "{endian}: {result:?}"
        );
    }
}

#[test]
fn damaged_split_data() {
    let base = Arc::new(Btf::from_source(small()).expect("healthy"));
    let mut types = Builder::split_from(&base).expect("a base");
    let array = types.array(TypeId(7), TypeId(1), 2).expect("a type");
    types.strukt("m", Bytes(80), &[member("of_base", array, 0, None)]).expect("a type");
    let bytes = types.finish().expect("bytes");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let Ok(module) = Btf::from_source_on(&base, damaged) else { continue };
            let Ok(index) = module.index(&wanted().strukt("m")) else { continue };
            let _: Result<_, BtfError> = index.field("m.of_base[1].y");
            ask_small(&index);
        }
    }
}

/// Damages real kernels in many places, and asks all questions of the tables in `data`.
#[test]
fn flipped_bits_in_kernels() {
    let names = everything();
    let paths: Vec<String> = lines("layout.txt")
        .iter()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(|path| path.trim_start_matches("sizeof(").trim_end_matches(')').to_owned())
        .collect();
    let asked: Vec<(String, String)> = lines("names.txt")
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(kind, name)| (kind.to_owned(), name.to_owned()))
        .collect();
    for name in KERNELS {
        let bytes = kernel_bytes(name);
        let mut answered = 0;
        // Prime strides, so that every offset within a record occurs.
        for (round, at) in (0..8_191).step_by(811).enumerate() {
            let mut damaged = bytes.clone();
            for at in (at..bytes.len()).step_by(8_191) {
                damaged[at] ^= 1 << (round % 8);
            }
            let Ok(btf) = Btf::from_source(damaged) else { continue };
            let Ok(index) = btf.index(&names) else { continue };
            for path in &paths {
                answered += usize::from(index.field(path).is_ok());
            }
            for (kind, name) in &asked {
                answered += usize::from(match kind.as_str() {
                    "enum" => index.enum_values(name).is_ok(),
                    "enumerator" => index.enumerator(name).is_ok(),
                    "tracepoint" => index.tracepoint(name).is_ok(),
                    "func" => index.func(name).is_ok(),
                    _ => index.size(name).is_ok(),
                });
            }
        }
        // Single bits, so that most questions are still answered.
        for at in (0..bytes.len()).step_by(bytes.len() / 13) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let Ok(btf) = Btf::from_source(damaged) else { continue };
            let Ok(index) = btf.index(&names) else { continue };
            for path in &paths {
                answered += usize::from(index.field(path).is_ok());
            }
        }
        assert!(answered > 1000, "{name}: only {answered} questions were answered at all");
    }
}

/// Checks that `work` ends soon. The bound is far above its usual time, and far below its time
/// without limits.
fn ends_soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    assert!(started.elapsed() < Duration::from_secs(20), "{what} took {:?}", started.elapsed());
    result
}

#[test]
fn types_that_go_in_circles() {
    let mut types = Builder::new();
    let build = |types: &mut Builder| {
        types.typedef("t", TypeId(2))?;
        types.constant(TypeId(1))?;
        let own = types.strukt(
            "s",
            Bytes(8),
            &[member("", TypeId(3), 0, None), member("t", TypeId(1), 0, None)],
        )?;
        let array = types.array(TypeId(4), TypeId(4), 1)?;
        types.strukt("a", Bytes(8), &[member("x", array, 0, None)])?;
        let ptr = types.ptr(TypeId(6))?;
        types.strukt("p", Bytes(8), &[member("x", ptr, 0, None), member("own", own, 0, None)])
    };
    build(&mut types).expect("types");
    let btf = Btf::from_source(types.finish().expect("bytes")).expect("BTF");
    let index = btf.index(&Wanted::new().strukt("t").strukt("s").strukt("a").strukt("p")).expect("an index");
    for path in ["t", "t.x", "s.x", "a.x", "a.x[0]", "a.x[0][0].y", "p.own.x"] {
        let result = ends_soon(path, || index.field(path));
        assert!(
            matches!(result.as_ref().map_err(BtfError::root), Err(BtfError::TooDeep { .. })),
            "{path}: {result:?}"
        );
    }
    // A pointer to itself has a size, but its name is endless.
    assert!(index.field("p.x").expect("a pointer").is_found());
    assert!(matches!(index.describe(TypeId(6)), Err(BtfError::TooDeep { id: TypeId(6) })));
}

#[test]
fn anonymous_structs_that_multiply() {
    // Each level contains the next one twice: without a limit, a search takes 2^60 steps.
    let mut types = Builder::new();
    for level in 1..=60 {
        let next = TypeId(level + 1);
        types.strukt("", Bytes(8), &[member("", next, 0, None), member("", next, 0, None)]).expect("a type");
    }
    types.int("int", 4, IntEncoding::Signed).expect("a type");
    types.strukt("s", Bytes(8), &[member("", TypeId(1), 0, None)]).expect("a type");
    let btf = Btf::from_source(types.finish().expect("bytes")).expect("BTF");
    let index = btf.index(&Wanted::new().strukt("s")).expect("an index");
    let result = ends_soon("the search", || index.field("s.x"));
    assert!(matches!(result, Err(BtfError::TooMuch { .. })), "{result:?}");
}

#[test]
fn prototypes_that_multiply() {
    let mut types = Builder::new();
    for level in 1..=15 {
        types.func_proto(TypeId(level + 1), &[("", TypeId(level + 1)); 9]).expect("a type");
    }
    types.int("int", 4, IntEncoding::Signed).expect("a type");
    let btf = Btf::from_source(types.finish().expect("bytes")).expect("BTF");
    let index = btf.index(&Wanted::new()).expect("an index");
    let result = ends_soon("the text", || index.describe(TypeId(1)));
    assert!(matches!(result, Err(BtfError::TooMuch { .. })), "{:?}", result.map(|text| text.len()));
}

#[test]
fn one_endless_name_for_everything() {
    let mut types = Builder::new();
    types.add_str(&"s".repeat(1 << 20)).expect("a string");
    let mut bytes = types.finish().expect("bytes");
    // 50,000 typedefs of void whose common name is that string, in a section after the strings.
    let start = u32::try_from(bytes.len() - 24).expect("a small file");
    let count = 50_000;
    for _ in 0..count {
        for word in [1u32, 8 << 24, 0] {
            bytes.extend(word.to_ne_bytes());
        }
    }
    bytes[8..12].copy_from_slice(&start.to_ne_bytes());
    bytes[12..16].copy_from_slice(&(count * 12u32).to_ne_bytes());
    let btf = Btf::from_source(bytes).expect("BTF");
    let wanted = Wanted::new().strukt("sssss").strukt(&"s".repeat(3000)).tracepoint("ssss");
    let index = ends_soon("indexing", || btf.index(&wanted)).expect("an index");
    assert_eq!(index.type_count(), count + 1);
    assert_eq!(index.ids(Want::Type, "sssss").expect("indexed"), []);
    let result = ends_soon("reading", || index.ty(TypeId(count)));
    assert!(matches!(result, Err(BtfError::BadString { offset: 1 })), "{result:?}");
}

#[test]
fn sizes_that_overflow() {
    let mut types = Builder::new();
    let build = |types: &mut Builder| {
        let int = types.int("int", 4, IntEncoding::Signed)?;
        let big = types.array(int, int, u32::MAX)?;
        let bigger = types.array(big, int, u32::MAX)?;
        let none = types.array(TypeId::VOID, int, 2)?;
        let far = types.strukt("", Bytes(8), &[member("x", int, u32::MAX - 7, None)])?;
        types.strukt(
            "s",
            Bytes(u32::MAX),
            &[
                member("big", big, 0, None),
                member("bigger", bigger, 0, None),
                member("none", none, 0, None),
                member("void", TypeId::VOID, 0, None),
                member("", far, 64, None),
            ],
        )
    };
    build(&mut types).expect("types");
    let btf = Btf::from_source(types.finish().expect("bytes")).expect("BTF");
    let index = btf.index(&Wanted::new().strukt("s")).expect("an index");
    let overflows = |path| matches!(index.field(path), Err(BtfError::Overflow { .. }));
    assert!(
        overflows("s.big") && overflows("s.bigger") && overflows("s.big[4000000000]") && overflows("s.x")
    );
    assert!(index.field("s.big[7]").expect("in bounds").is_found());
    assert!(matches!(index.field("s.none"), Err(BtfError::WrongKind { .. })));
    assert!(matches!(index.field("s.void"), Err(BtfError::WrongKind { .. })));
}

/// Undamaged kernels, so that the tests above cannot pass by refusing everything.
#[test]
fn healthy_kernels_answer_all_questions() {
    let btf = kernel("7.3-aarch64");
    let index = btf.index(&everything()).expect("an index");
    for id in 0..index.type_count() {
        index.ty(TypeId(id)).expect("a type");
        index.describe(TypeId(id)).expect("a text");
    }
}
