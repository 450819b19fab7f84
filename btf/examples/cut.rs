//! Cuts a small BTF out of a kernel's: `cargo run -p btf --example cut -- NAMES FILE OUT`.
//!
//! `NAMES` is a text file, a kind and a name per line; empty lines and lines that start with `#`
//! are ignored.
//!
//! | kind | part that is kept |
//! |---|---|
//! | `struct` | a struct, union or typedef with everything it contains by value |
//! | `shallow` | the same, but of named structs inside it only the size |
//! | `enum` | an enum |
//! | `enumerator` | the enums that have it |
//! | `tracepoint` | its typedef and arguments |
//! | `func` | a function and its prototype |
//!
//! Of a struct that is only the target of a pointer, the name is kept; of a function, only that it
//! is a function.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    fs,
};

use btf::{Btf, BtfError, Builder, Composite, Index, Kind, Linkage, MemberDef, Type, TypeId, Want, Wanted};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = env::args().skip(1).collect();
    let [names, from, to] = args.as_slice() else { return Err("usage: cut NAMES FILE OUT".into()) };
    let names = Names::parse(&fs::read_to_string(names)?)?;
    let btf = Btf::open(from)?;
    let mut wanted = Wanted::new();
    for (want, name) in &names.all {
        wanted.add(*want, name);
    }
    let index = btf.index(&wanted)?;
    for (want, name) in &names.all {
        if index.ids(*want, name)?.is_empty() {
            eprintln!("{from}: no {want} {name}");
        }
    }
    let cut = Cut::plan(&index, &names)?;
    let bytes = cut.write(&index, btf.endian())?;
    println!("{to}: {} types, {} bytes", cut.numbers.len(), bytes.len());
    fs::write(to, bytes)?;
    Ok(())
}

#[derive(Default)]
struct Names {
    all: Vec<(Want, String)>,
    shallow: BTreeSet<String>,
}

impl Names {
    fn parse(text: &str) -> Result<Self, String> {
        let mut names = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (kind, name) =
                line.split_once(' ').ok_or_else(|| format!("kind and name expected: {line}"))?;
            let want = match kind {
                "struct" => Want::Type,
                "shallow" => {
                    names.shallow.insert(name.to_owned());
                    Want::Type
                }
                "enum" => Want::Enum,
                "enumerator" => Want::Enumerator,
                "tracepoint" => Want::Tracepoint,
                "func" => Want::Func,
                _ => return Err(format!("unknown kind: {line}")),
            };
            names.all.push((want, name.to_owned()));
        }
        Ok(names)
    }
}

/// The part of a struct that is kept. Without an entry, only the name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Keep {
    Size,
    Members,
    MembersAndTheirs,
}

#[derive(Default)]
struct Cut {
    composites: BTreeMap<TypeId, Keep>,
    protos: BTreeSet<TypeId>,
    /// The new number of each old one, in the same order.
    numbers: BTreeMap<TypeId, TypeId>,
}

impl Cut {
    fn plan(index: &Index<'_>, names: &Names) -> Result<Self, BtfError> {
        let mut cut = Self::default();
        let mut roots = Vec::new();
        for (want, name) in &names.all {
            for id in index.ids(*want, name)? {
                roots.push(*id);
                match want {
                    Want::Type if names.shallow.contains(name) => cut.embed(index, *id, Keep::Members)?,
                    Want::Type => cut.embed(index, *id, Keep::MembersAndTheirs)?,
                    Want::Tracepoint | Want::Func => cut.keep_proto(index, *id)?,
                    _ => {}
                }
            }
        }
        let mut open = roots;
        while let Some(id) = open.pop() {
            if id != TypeId::VOID && cut.numbers.insert(id, TypeId::VOID).is_none() {
                cut.referred(&index.ty(id)?, &mut open);
            }
        }
        for (number, new) in (1..).zip(cut.numbers.values_mut()) {
            *new = TypeId(number);
        }
        Ok(cut)
    }

    /// Keeps this part of everything that a value of the type contains.
    fn embed(&mut self, index: &Index<'_>, id: TypeId, keep: Keep) -> Result<(), BtfError> {
        let ty = index.ty(id)?;
        if let Kind::Array { element, .. } = ty.kind {
            return self.embed(index, element, keep);
        }
        if let Some(to) = ty.alias() {
            return self.embed(index, to, keep);
        }
        let Some(composite) = ty.composite() else { return Ok(()) };
        if self.composites.get(&id).is_some_and(|kept| *kept >= keep) {
            return Ok(());
        }
        self.composites.insert(id, keep);
        for member in composite.members() {
            let theirs = match keep {
                Keep::Size => break,
                Keep::Members if is_named(index, member.ty)? => Keep::Size,
                keep => keep,
            };
            self.embed(index, member.ty, theirs)?;
        }
        Ok(())
    }

    fn keep_proto(&mut self, index: &Index<'_>, id: TypeId) -> Result<(), BtfError> {
        match index.ty(id)?.kind {
            Kind::Typedef(to) | Kind::Ptr(to) | Kind::Func { proto: to, .. } => self.keep_proto(index, to),
            Kind::FuncProto(_) => {
                self.protos.insert(id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The types that the kept part of this type refers to.
    fn referred(&self, ty: &Type<'_>, to: &mut Vec<TypeId>) {
        match ty.kind {
            Kind::Array { element, index, .. } => to.extend([element, index]),
            Kind::Struct(composite) | Kind::Union(composite) if self.has_members(ty.id) => {
                to.extend(composite.members().map(|member| member.ty));
            }
            Kind::Ptr(target) | Kind::Func { proto: target, .. } => to.push(target),
            Kind::FuncProto(proto) if self.protos.contains(&ty.id) => {
                to.push(proto.ret);
                to.extend(proto.params().map(|param| param.ty));
            }
            _ => to.extend(ty.alias()),
        }
    }

    fn has_members(&self, id: TypeId) -> bool {
        self.composites.get(&id).is_some_and(|keep| *keep != Keep::Size)
    }

    fn number(&self, id: TypeId) -> TypeId {
        self.numbers.get(&id).copied().unwrap_or(TypeId::VOID)
    }

    fn write(&self, index: &Index<'_>, endian: btf::Endian) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut out = Builder::with_endian(endian);
        for (old, new) in &self.numbers {
            let written = self.write_type(&mut out, &index.ty(*old)?)?;
            assert_eq!(written, *new, "types are written in the order of their numbers");
        }
        Ok(out.finish()?)
    }

    fn write_type(&self, out: &mut Builder, ty: &Type<'_>) -> Result<TypeId, Box<dyn Error>> {
        let name = ty.name;
        Ok(match ty.kind {
            Kind::Int(int) => out.int_bits(name, int.size.0, int.encoding, int.offset, int.bits)?,
            Kind::Ptr(to) => out.ptr(self.number(to))?,
            Kind::Array { element, index, count } => {
                out.array(self.number(element), self.number(index), count)?
            }
            Kind::Struct(of) | Kind::Union(of) => self.write_composite(out, ty, of)?,
            Kind::Enum(of) => {
                let mut values = Vec::new();
                for value in of.values() {
                    values.push((value.name()?, value.value));
                }
                if of.is_wide() {
                    out.enumeration64(name, of.size, of.signed, &values)?
                } else {
                    out.enumeration(name, of.size, of.signed, &values)?
                }
            }
            Kind::Fwd { is_union } => out.fwd(name, is_union)?,
            Kind::Typedef(to) => out.typedef(name, self.number(to))?,
            Kind::Volatile(to) => out.volatile(self.number(to))?,
            Kind::Const(to) => out.constant(self.number(to))?,
            Kind::Restrict(to) => out.restrict(self.number(to))?,
            Kind::TypeTag(to) => out.type_tag(name, self.number(to))?,
            Kind::Float { size } => out.float(name, size)?,
            Kind::Func { proto, linkage } => {
                let linkage = match linkage {
                    0 => Linkage::Static,
                    1 => Linkage::Global,
                    _ => Linkage::Extern,
                };
                out.func(name, self.number(proto), linkage)?
            }
            Kind::FuncProto(proto) if self.protos.contains(&ty.id) => {
                let mut params = Vec::new();
                for param in proto.params() {
                    params.push((param.name()?, self.number(param.ty)));
                }
                out.func_proto(self.number(proto.ret), &params)?
            }
            Kind::FuncProto(_) => out.func_proto(TypeId::VOID, &[])?,
            other => return Err(format!("nothing to cut refers to {other:?}").into()),
        })
    }

    fn write_composite(
        &self,
        out: &mut Builder,
        ty: &Type<'_>,
        of: Composite<'_>,
    ) -> Result<TypeId, Box<dyn Error>> {
        let is_union = matches!(ty.kind, Kind::Union(_));
        if !self.composites.contains_key(&ty.id) && !ty.name.is_empty() {
            return Ok(out.fwd(ty.name, is_union)?);
        }
        let mut members = Vec::new();
        for member in of.members().take_while(|_| self.has_members(ty.id)) {
            let ty = self.number(member.ty);
            members.push(MemberDef { name: member.name()?, ty, offset: member.offset, width: member.width });
        }
        Ok(match is_union {
            true => out.union(ty.name, of.size, &members)?,
            false => out.strukt(ty.name, of.size, &members)?,
        })
    }
}

/// Whether a value of the type is a named struct, or consists of named structs.
fn is_named(index: &Index<'_>, id: TypeId) -> Result<bool, BtfError> {
    let ty = index.ty(id)?;
    match (ty.alias(), ty.kind) {
        (Some(to), _) | (None, Kind::Array { element: to, .. }) => is_named(index, to),
        _ => Ok(!ty.name.is_empty()),
    }
}
