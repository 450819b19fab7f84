//! The arguments of tracepoints and the parameters of functions.

use crate::{
    Absent, BtfError, Bytes, Class, Index, Lookup, TypeId, Want,
    search::{Search, is_signed},
    types::{Kind, Prototype},
};

/// A tracepoint, as `tp_btf` and raw tracepoint programs see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracepoint {
    /// The number of the typedef `btf_trace_<name>`: `attach_btf_id` of a `tp_btf` program.
    pub type_id: TypeId,
    /// The arguments. The program's context contains one 8-byte slot for each, from its start.
    pub args: Vec<Param>,
}

/// A kernel function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Func {
    /// The function's number: the `attach_btf_id` of an `fentry` or `fexit` program, or the `imm`
    /// of a call to a kfunc.
    pub type_id: TypeId,
    /// The parameters, without a variadic function's `...`.
    pub params: Vec<Param>,
    /// Whether the function is variadic.
    pub variadic: bool,
    /// The result; of class [`Class::Void`] if the function returns nothing.
    pub ret: Param,
}

/// An argument, a parameter or a result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Param {
    /// The name, if the data has one; the arguments of tracepoints have none.
    pub name: Option<String>,
    /// The type, as declared.
    pub type_id: TypeId,
    /// The type in C: `const struct sock *`.
    pub text: String,
    /// The size in bytes.
    pub size: Bytes,
    /// Whether the value is signed.
    pub signed: bool,
    /// The class, after typedefs and qualifiers are removed.
    pub class: Class,
}

impl Param {
    /// The name of the struct or union that the value points to.
    pub fn pointee(&self) -> Option<&str> {
        match &self.class {
            Class::Pointer { to } => to.as_deref(),
            _ => None,
        }
    }

    /// The name of the value's enum type.
    pub fn enum_name(&self) -> Option<&str> {
        match &self.class {
            Class::Enum { name } => name.as_deref(),
            _ => None,
        }
    }

    /// Whether both describe the same value, apart from type numbers.
    fn agrees(&self, other: &Self) -> bool {
        let same_type = Self { type_id: self.type_id, ..other.clone() };
        *self == same_type
    }
}

impl Index<'_> {
    /// A tracepoint and its arguments. The name must be wanted as [`Want::Tracepoint`].
    pub fn tracepoint(&self, name: &str) -> Result<Lookup<Tracepoint>, BtfError> {
        let mut search = self.search();
        let answers = self
            .ids(Want::Tracepoint, name)?
            .iter()
            .map(|id| Ok((*id, Lookup::Found(search.tracepoint(*id)?))));
        let absent = || Absent::Tracepoint { name: name.to_owned() };
        self.agree(name, answers, absent, |a, b| agree(&a.args, &b.args))
    }

    /// A function and its parameters. The name must be wanted as [`Want::Func`].
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
        // The kernel passes a `void *` of its own first, which programs do not see.
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
