//! Properties that must be true for any input: the bodies of the fuzz targets in `tests/fuzz`.

// A violated property panics, which the fuzzer reports.
#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use crate::{
    Bits, Btf, Builder, Bytes, FieldPath, Index, IntEncoding, Kind, Linkage, MemberDef, TypeId, Want, Wanted,
};

/// Names to ask for, in addition to those in the data.
const NAMES: [&str; 8] = ["s", "t", "e", "w", "ONE", "f", "tp", "sock"];

/// Opens raw BTF, or an ELF file that contains it.
pub fn raw(data: &[u8]) {
    if let Ok(btf) = Btf::from_source(data.to_vec()) {
        assert!(within(data, btf.data()), "its data is a part of the file");
        ask(&btf);
    }
}

/// Opens an ELF file.
pub fn elf(data: &[u8]) {
    raw(&[crate::elf::MAGIC, data].concat());
}

/// Opens a kernel's BTF and a module's. The input starts with the length of the first one.
pub fn split(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let Some((base, module)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
        return;
    };
    let Ok(base) = Btf::from_source(base.to_vec()).map(Arc::new) else { return };
    if let Ok(module) = Btf::from_source_on(&base, module.to_vec()) {
        if let (Ok(of_base), Ok(of_both)) = (base.index(&Wanted::new()), module.index(&Wanted::new())) {
            assert!(of_base.type_count() <= of_both.type_count(), "a module only adds");
        }
        ask(&module);
    }
}

/// Parses a field path. A valid path, printed and parsed again, is the same.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match FieldPath::parse(text) {
        Ok(path) => assert_eq!(path.to_string().parse::<FieldPath>(), Ok(path)),
        Err(error) => assert!(error.at <= text.len(), "{error:?}"),
    }
}

/// Builds types and reads them back, with and without a base.
pub fn built(data: &[u8]) {
    let mut steps = data.iter().copied();
    let base = Arc::new(build(Builder::new(), 1, &mut steps, Btf::from_source));
    let _ = build(
        Builder::split_from(&base).expect("a base"),
        base.index(&Wanted::new()).expect("healthy").type_count(),
        &mut steps,
        |bytes| Btf::from_source_on(&base, bytes),
    );
}

/// A type that was built: its name and its content.
type Model = (String, Shape);

#[derive(PartialEq, Debug)]
enum Shape {
    Int(u32, IntEncoding),
    To(&'static str, TypeId),
    Array(TypeId, u32),
    Composite(Bytes, Vec<(String, TypeId, Bits, Bits)>),
    Enum(bool, Vec<(String, i64)>),
    Fwd(bool),
    Proto(TypeId, Vec<(String, TypeId)>),
}

/// Builds up to 40 types from `steps`, numbered from `first`, and compares them with the types read
/// back.
fn build(
    mut types: Builder,
    first: u32,
    steps: &mut impl Iterator<Item = u8>,
    open: impl FnOnce(Vec<u8>) -> Result<Btf, crate::BtfError>,
) -> Btf {
    let mut model: Vec<Model> = Vec::new();
    for _ in 0..40 {
        let Some(step) = steps.next().filter(|step| *step != 0xff) else { break };
        let mut next = || steps.next().unwrap_or(0);
        let mut name = || ["", "s", "t", "btf_trace_tp", "a b\u{e9}"][usize::from(next() % 5)].to_owned();
        let (name, other) = (name(), name());
        // The number may belong to a type that does not exist.
        let (to, small, wide) = (TypeId(next().into()), next(), u32::from(next()) << 3);
        let (bits, width) = (Bits(wide), Bits((small % 65).into()));
        let (id, shape) = match step % 13 {
            0 => {
                let encoding =
                    [IntEncoding::Unsigned, IntEncoding::Signed, IntEncoding::Char, IntEncoding::Bool]
                        [usize::from(small % 4)];
                (types.int(&name, 1 << (small % 4), encoding), Shape::Int(1 << (small % 4), encoding))
            }
            1 => (types.ptr(to), Shape::To("ptr", to)),
            2 => (types.array(to, to, wide), Shape::Array(to, wide)),
            kind @ (3 | 4) => {
                let count = usize::from(small % 9);
                let member =
                    MemberDef { name: &other, ty: to, offset: bits, width: (small > 99).then_some(width) };
                let members = vec![member; count];
                let width = member.width.unwrap_or(Bits(0));
                let shape = vec![(other.clone(), to, bits, width); count];
                let of = if kind == 3 { Builder::strukt } else { Builder::union };
                (of(&mut types, &name, Bytes(wide), &members), Shape::Composite(Bytes(wide), shape))
            }
            kind @ (5 | 6) => {
                let signed = small % 2 == 1;
                let value = if signed {
                    -i64::from(small)
                } else {
                    i64::from(wide) << if kind == 5 { 0 } else { 30 }
                };
                let of = if kind == 5 { Builder::enumeration } else { Builder::enumeration64 };
                let values = vec![(other.clone(), value); usize::from(small % 5)];
                let defs: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
                (of(&mut types, &name, Bytes(8), signed, &defs), Shape::Enum(signed, values))
            }
            7 => (types.fwd(&name, small > 99), Shape::Fwd(small > 99)),
            8 => (types.typedef(&name, to), Shape::To("typedef", to)),
            9 => (types.constant(to), Shape::To("const", to)),
            10 => (types.type_tag(&name, to), Shape::To("tag", to)),
            11 => {
                let params = vec![(other.clone(), to); usize::from(small % 7)];
                let defs: Vec<_> = params.iter().map(|(name, ty)| (name.as_str(), *ty)).collect();
                (types.func_proto(to, &defs), Shape::Proto(to, params))
            }
            _ => (types.func(&name, to, Linkage::Static), Shape::To("func", to)),
        };
        let number = u32::try_from(model.len()).expect("few") + first;
        assert_eq!(id, Ok(TypeId(number)), "types are numbered in order");
        let name = if matches!(step % 13, 1 | 2 | 9 | 11) { String::new() } else { name };
        model.push((name, shape));
    }
    let btf = open(types.finish().expect("bytes")).expect("built data opens");
    let index = btf.index(&Wanted::new()).expect("built data indexes");
    assert_eq!(index.type_count() as usize, first as usize + model.len());
    for (number, model) in (first..).zip(&model) {
        assert_eq!(&read(&index, TypeId(number)), model);
    }
    ask(&btf);
    btf
}

/// A type as it is read back.
fn read(index: &Index<'_>, id: TypeId) -> Model {
    let ty = index.ty(id).expect("a built type exists");
    let shape = match ty.kind {
        Kind::Int(int) => Shape::Int(int.size.0, int.encoding),
        Kind::Ptr(to) => Shape::To("ptr", to),
        Kind::Array { element, count, .. } => Shape::Array(element, count),
        Kind::Struct(of) | Kind::Union(of) => {
            let member = |member: crate::Member<'_>| {
                let name = member.name().expect("a name").to_owned();
                (name, member.ty, member.offset, member.width.unwrap_or(Bits(0)))
            };
            Shape::Composite(of.size, of.members().map(member).collect())
        }
        Kind::Enum(of) => {
            let value =
                |value: crate::Enumerator<'_>| (value.name().expect("a name").to_owned(), value.value);
            Shape::Enum(of.signed, of.values().map(value).collect())
        }
        Kind::Fwd { is_union } => Shape::Fwd(is_union),
        Kind::Typedef(to) => Shape::To("typedef", to),
        Kind::Const(to) => Shape::To("const", to),
        Kind::TypeTag(to) => Shape::To("tag", to),
        Kind::Func { proto, .. } => Shape::To("func", proto),
        Kind::FuncProto(of) => {
            let param = |param: crate::ProtoParam<'_>| (param.name().expect("a name").to_owned(), param.ty);
            Shape::Proto(of.ret, of.params().map(param).collect())
        }
        other => panic!("{other:?} was not built"),
    };
    (ty.name.to_owned(), shape)
}

/// Whether `whole` contains the bytes of `part`. Addresses cannot be compared, because the source
/// was copied.
fn within(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}

/// Asks all questions. Each outcome is a value or an error of one line.
fn ask(btf: &Btf) {
    let strings = String::from_utf8_lossy(btf.strings().unwrap_or_default()).into_owned();
    let own = strings.split('\0').filter(|name| !name.is_empty()).take(40);
    let names: Vec<String> = NAMES.into_iter().chain(own).map(str::to_owned).collect();
    let mut wanted = Wanted::new();
    for name in &names {
        for want in [Want::Type, Want::Enum, Want::Enumerator, Want::Tracepoint, Want::Func] {
            wanted.add(want, name);
        }
    }
    let index = match btf.index(&wanted) {
        Ok(index) => index,
        Err(error) => return said(&error),
    };
    for id in (0..index.type_count().min(200)).chain([u32::MAX]).map(TypeId) {
        match index.ty(id) {
            Ok(ty) => drop(format!("{ty:?}")),
            Err(error) => said(&error),
        }
        let _ = index.describe(id).inspect_err(said);
    }
    for name in &names {
        let _ = index.size(name).inspect_err(said);
        let _ = index.enum_values(name).inspect_err(said);
        let _ = index.enumerator(name).inspect_err(said);
        let _ = index.tracepoint(name).inspect_err(said);
        let _ = index.func(name).inspect_err(said);
        for member in names.iter().take(16) {
            for path in [format!("{name}.{member}"), format!("{name}.{member}[1].{member}")] {
                let Ok(answer) = index.field(&path).inspect_err(said) else { continue };
                if let Some(field) = answer.found()
                    && let Some(bits) = field.bits
                {
                    assert!(matches!(field.size.0, 1 | 2 | 4 | 8), "{path}: {field:?}");
                    assert!(bits.shift.0 + bits.width.0 <= field.size.0 * 8, "{path}: {field:?}");
                }
            }
        }
    }
}

fn said(error: &crate::BtfError) {
    // The message about a path contains the text of the question, which may have several lines.
    if matches!(error.root(), crate::BtfError::Path(_)) {
        return;
    }
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[cfg(test)]
mod tests {
    use test_support::fuzz;

    #[test]
    fn raw() {
        fuzz::run("btf_raw", 800, super::raw);
    }

    #[test]
    fn elf() {
        fuzz::run("btf_elf", 800, super::elf);
    }

    #[test]
    fn split() {
        fuzz::run("btf_split", 800, super::split);
    }

    #[test]
    fn path() {
        fuzz::run("btf_path", 4000, super::path);
    }

    #[test]
    fn built() {
        fuzz::run("btf_built", 400, super::built);
    }
}
