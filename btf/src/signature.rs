//! What tracepoints and functions take, and types written as C.

use crate::{
    Absent, BtfError, Bytes, Class, Index, Lookup, TypeId, Want,
    search::{Search, is_signed},
    types::{Kind, Prototype},
};

/// A tracepoint as `tp_btf` and raw tracepoint programs see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracepoint {
    /// The number of the typedef `btf_trace_<name>`: `attach_btf_id` of a `tp_btf` program.
    pub type_id: TypeId,
    /// What it passes, one 8-byte slot each in the program's context, from its start.
    pub args: Vec<Param>,
}

/// A kernel function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Func {
    /// The function's number: `attach_btf_id` of an `fentry` or `fexit` program, `imm` of a call to a kfunc.
    pub type_id: TypeId,
    /// What it takes.
    pub params: Vec<Param>,
    /// Whether it takes more, uncounted.
    pub variadic: bool,
    /// What it returns; of class [`Class::Void`] if nothing.
    pub ret: Param,
}

/// A value that is passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Param {
    /// Its name, where there is one; the typedefs of tracepoints have none.
    pub name: Option<String>,
    /// Its type, as declared.
    pub type_id: TypeId,
    /// The same in C: `const struct sock *`.
    pub text: String,
    /// What it occupies.
    pub size: Bytes,
    /// Whether its top bit is a sign.
    pub signed: bool,
    /// What it is, once typedefs and qualifiers are looked through.
    pub class: Class,
}

impl Param {
    /// The name of the struct that this is a pointer to.
    pub fn pointee(&self) -> Option<&str> {
        match &self.class {
            Class::Pointer { to } => to.as_deref(),
            _ => None,
        }
    }

    /// The name of the enum that this is.
    pub fn enum_name(&self) -> Option<&str> {
        match &self.class {
            Class::Enum { name } => name.as_deref(),
            _ => None,
        }
    }

    /// The same value, whatever numbers the types have.
    fn agrees(&self, other: &Self) -> bool {
        let same_type = Self { type_id: self.type_id, ..other.clone() };
        *self == same_type
    }
}

impl Index<'_> {
    /// A tracepoint and its arguments, asked for as [`Want::Tracepoint`].
    pub fn tracepoint(&self, name: &str) -> Result<Lookup<Tracepoint>, BtfError> {
        let mut search = self.search();
        let answers = self
            .ids(Want::Tracepoint, name)?
            .iter()
            .map(|id| Ok((*id, Lookup::Found(search.tracepoint(*id)?))));
        let absent = || Absent::Tracepoint { name: name.to_owned() };
        self.agree(name, answers, absent, |a, b| agree(&a.args, &b.args))
    }

    /// A function and its parameters, asked for as [`Want::Func`].
    pub fn func(&self, name: &str) -> Result<Lookup<Func>, BtfError> {
        let mut search = self.search();
        let answers =
            self.ids(Want::Func, name)?.iter().map(|id| Ok((*id, Lookup::Found(search.func(*id)?))));
        let same = |a: &Func, b: &Func| {
            agree(&a.params, &b.params) && a.ret.agrees(&b.ret) && a.variadic == b.variadic
        };
        self.agree(name, answers, || Absent::Func { name: name.to_owned() }, same)
    }
}

fn agree(a: &[Param], b: &[Param]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.agrees(b))
}

impl<'b> Search<'_, 'b> {
    fn tracepoint(&mut self, type_id: TypeId) -> Result<Tracepoint, BtfError> {
        let wrong = BtfError::WrongKind { id: type_id, expected: "a pointer to a tracepoint's prototype" };
        let Kind::Ptr(proto) = self.strip(type_id)?.kind else { return Err(wrong) };
        let Kind::FuncProto(proto) = self.get(proto)?.kind else { return Err(wrong) };
        let (mut args, _) = self.params(proto)?;
        // The kernel calls with its own `void *` in front, which programs do not see.
        match args.first() {
            Some(first) if first.text == "void *" => args.remove(0),
            _ => return Err(wrong),
        };
        Ok(Tracepoint { type_id, args })
    }

    fn func(&mut self, type_id: TypeId) -> Result<Func, BtfError> {
        let Kind::Func { proto, .. } = self.get(type_id)?.kind else {
            return Err(BtfError::WrongKind { id: type_id, expected: "a function" });
        };
        let Kind::FuncProto(proto) = self.get(proto)?.kind else {
            return Err(BtfError::WrongKind { id: proto, expected: "a prototype" });
        };
        let (params, variadic) = self.params(proto)?;
        let ret = self.param("", proto.ret)?;
        Ok(Func { type_id, params, variadic, ret })
    }

    fn params(&mut self, proto: Prototype<'b>) -> Result<(Vec<Param>, bool), BtfError> {
        let mut list = Vec::new();
        let mut params = proto.params();
        while let Some(param) = params.next() {
            if param.ty == TypeId::VOID {
                let last = params.len() == 0;
                return if last { Ok((list, true)) } else { Err(void_param()) };
            }
            list.push(self.param(param.name()?, param.ty)?);
        }
        Ok((list, false))
    }

    fn param(&mut self, name: &str, type_id: TypeId) -> Result<Param, BtfError> {
        let ty = self.strip(type_id)?;
        Ok(Param {
            name: (!name.is_empty()).then(|| name.to_owned()),
            type_id,
            text: self.describe(type_id)?,
            size: self.size(ty.id)?.unwrap_or_default(),
            signed: is_signed(&ty),
            class: self.class(&ty)?,
        })
    }
}

fn void_param() -> BtfError {
    BtfError::WrongKind { id: TypeId::VOID, expected: "the type of a parameter" }
}
