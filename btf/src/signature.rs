//! What tracepoints and functions take, and types written as C.

use crate::{
    Absent, BtfError, Bytes, Class, Index, Lookup, TypeId, Want,
    resolve::{Search, is_signed},
    types::{Kind, Prototype, Type},
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

    /// A type as C writes it, without the name that a declaration would add.
    pub fn describe(&self, id: TypeId) -> Result<String, BtfError> {
        self.search().describe(id).map_err(|error| self.btf.locate(error))
    }
}

fn agree(a: &[Param], b: &[Param]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.agrees(b))
}

/// Deepest nesting written out.
const MAX_DEPTH: u32 = 16;

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

    /// A type as C writes it.
    pub(crate) fn describe(&mut self, id: TypeId) -> Result<String, BtfError> {
        let mut text = String::new();
        self.write(id, 0, &mut text)?;
        Ok(text)
    }

    fn write(&mut self, id: TypeId, depth: u32, text: &mut String) -> Result<(), BtfError> {
        if depth == MAX_DEPTH {
            return Err(BtfError::TooDeep { id });
        }
        let depth = depth + 1;
        let ty = self.get(id)?;
        match ty.kind {
            Kind::Void => text.push_str("void"),
            Kind::Int(_) | Kind::Float { .. } | Kind::Typedef(_) => text.push_str(ty.name),
            Kind::Struct(_) | Kind::Fwd { is_union: false } => write_tagged("struct", ty, text),
            Kind::Union(_) | Kind::Fwd { is_union: true } => write_tagged("union", ty, text),
            Kind::Enum(_) => write_tagged("enum", ty, text),
            Kind::Const(to) => self.write_qualified("const", to, depth, text)?,
            Kind::Volatile(to) => self.write_qualified("volatile", to, depth, text)?,
            Kind::Restrict(to) => self.write_qualified("restrict", to, depth, text)?,
            Kind::TypeTag(to) => self.write(to, depth, text)?,
            Kind::Array { element, count, .. } => {
                self.write(element, depth, text)?;
                text.push_str(&format!("[{count}]"));
            }
            Kind::Ptr(to) => {
                let target = self.get(to)?;
                if let Kind::FuncProto(proto) = target.kind {
                    self.write_proto("(*)", proto, depth, text)?;
                } else {
                    self.write(to, depth, text)?;
                    text.push_str(if text.ends_with('*') { "*" } else { " *" });
                }
            }
            Kind::FuncProto(proto) => self.write_proto("", proto, depth, text)?,
            Kind::Func { proto: to, .. } | Kind::Var { ty: to, .. } | Kind::DeclTag { ty: to, .. } => {
                self.write(to, depth, text)?;
            }
            Kind::Datasec { .. } => text.push_str(ty.name),
        }
        Ok(())
    }

    /// C writes the qualifier of a pointer behind it and that of all else in front.
    fn write_qualified(
        &mut self,
        word: &str,
        to: TypeId,
        depth: u32,
        text: &mut String,
    ) -> Result<(), BtfError> {
        if let Kind::Ptr(_) = self.get(to)?.kind {
            self.write(to, depth, text)?;
            text.push(' ');
            text.push_str(word);
        } else {
            text.push_str(word);
            text.push(' ');
            self.write(to, depth, text)?;
        }
        Ok(())
    }

    fn write_proto(
        &mut self,
        name: &str,
        proto: Prototype<'b>,
        depth: u32,
        text: &mut String,
    ) -> Result<(), BtfError> {
        self.write(proto.ret, depth, text)?;
        text.push(' ');
        text.push_str(name);
        text.push('(');
        for (n, param) in proto.params().enumerate() {
            if n != 0 {
                text.push_str(", ");
            }
            match param.ty {
                TypeId::VOID => text.push_str("..."),
                ty => self.write(ty, depth, text)?,
            }
        }
        text.push(')');
        Ok(())
    }
}

fn write_tagged(tag: &str, ty: Type<'_>, text: &mut String) {
    text.push_str(tag);
    text.push(' ');
    text.push_str(if ty.name.is_empty() { "{...}" } else { ty.name });
}

fn void_param() -> BtfError {
    BtfError::WrongKind { id: TypeId::VOID, expected: "the type of a parameter" }
}
