//! Types written as C.

use crate::{
    BtfError, Index, TypeId,
    search::Search,
    types::{Kind, Prototype, Type},
};

impl Index<'_> {
    /// A type as C writes it, without the name that a declaration would add.
    pub fn describe(&self, id: TypeId) -> Result<String, BtfError> {
        self.search().describe(id).map_err(|error| self.btf.locate(error))
    }
}

/// Deepest nesting written out.
const MAX_DEPTH: u32 = 16;

impl<'b> Search<'_, 'b> {
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
