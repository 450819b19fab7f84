//! Pieces of program: instructions, labels, and the pieces inside them.

use std::fmt;

use crate::error::AsmError;
use crate::insn::{Callee, Dest, Imm64, Insn};
use crate::symbol::{Symbol, Text};

/// A name for a place in a program.
///
/// A label belongs to the block that defines it: the same name in a fragment and in the block around it are two labels. A
/// jump to a name its own block does not define means the label of the block it is spliced into.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Label {
    /// The name as written.
    pub name: Text,
    /// 0 in the block that is being written; every block spliced into it gets a number of its own.
    pub(crate) scope: u32,
}

impl Label {
    /// A label of the block that is being written.
    pub fn new(name: impl Into<Text>) -> Self {
        Self { name: name.into(), scope: 0 }
    }
}

/// Where a statement was written, and its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// Path as the compiler was given it.
    pub file: &'static str,
    /// Line, from 1.
    pub line: u32,
    /// The statement.
    pub text: &'static str,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// One element of a fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    Insn {
        insn: Insn,
        symbol: Option<Symbol>,
        source: Option<Source>,
    },
    Label {
        label: Label,
        source: Option<Source>,
    },
    /// A statement with a value from Rust that cannot be; linking reports it.
    Wrong(AsmError),
}

/// A sequence of statements that is not yet a program. The `bpf!` macro makes one; `..expr` splices one into another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    pub(crate) items: Vec<Item>,
    /// Scopes used by what was spliced in: 1 to this number.
    pub(crate) scopes: u32,
}

impl Fragment {
    /// No statement at all: what an option that is not asked for compiles to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it holds neither instruction nor label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The instructions in it, jumps still to be resolved.
    pub fn insns(&self) -> impl Iterator<Item = &Insn> {
        self.items.iter().filter_map(|item| match item {
            Item::Insn { insn, .. } => Some(insn),
            Item::Label { .. } | Item::Wrong(_) => None,
        })
    }

    /// What the loader writes into each instruction.
    pub fn symbols(&self) -> impl Iterator<Item = Option<&Symbol>> {
        self.items.iter().filter_map(|item| match item {
            Item::Insn { symbol, .. } => Some(symbol.as_ref()),
            Item::Label { .. } | Item::Wrong(_) => None,
        })
    }

    /// The places of all statements, labels among them.
    pub fn sources(&self) -> impl Iterator<Item = Option<&Source>> {
        self.items.iter().map(|item| match item {
            Item::Insn { source, .. } | Item::Label { source, .. } => source.as_ref(),
            Item::Wrong(error) => error.place(),
        })
    }

    /// Adds an instruction.
    pub fn push(&mut self, insn: Insn, symbol: Option<Symbol>, source: Option<Source>) {
        if self.items.is_empty() {
            // As many as most blocks have.
            self.items.reserve(16);
        }
        self.items.push(Item::Insn { insn, symbol, source });
    }

    /// Adds a label of this block.
    pub fn label(&mut self, name: impl Into<Text>, source: Option<Source>) {
        self.items.push(Item::Label { label: Label::new(name), source });
    }

    /// Adds a statement that linking reports as this error.
    pub(crate) fn wrong(&mut self, error: AsmError) {
        self.items.push(Item::Wrong(error));
    }

    /// Adds all of `inner`, whose labels stay its own.
    pub fn splice(&mut self, mut inner: Self) {
        let own = self.scopes + 1;
        let defined: Vec<Text> = inner
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Label { label, .. } if label.scope == 0 => Some(label.name.clone()),
                _ => None,
            })
            .collect();
        self.scopes = own + inner.scopes;
        for item in &mut inner.items {
            let label = match item {
                Item::Label { label, .. } => Some(label),
                Item::Insn { insn, .. } => insn_label_mut(insn),
                Item::Wrong(_) => None,
            };
            if let Some(label) = label {
                if label.scope > 0 {
                    label.scope += own;
                } else if defined.contains(&label.name) {
                    label.scope = own;
                }
            }
        }
        self.items.append(&mut inner.items);
    }
}

/// Nothing, for an option that is not asked for.
impl From<Option<Self>> for Fragment {
    fn from(fragment: Option<Self>) -> Self {
        fragment.unwrap_or_default()
    }
}

/// One behind the other, each with labels of its own.
impl FromIterator<Self> for Fragment {
    fn from_iter<I: IntoIterator<Item = Self>>(fragments: I) -> Self {
        let mut all = Self::new();
        for fragment in fragments {
            all.splice(fragment);
        }
        all
    }
}

/// Where an instruction goes, if it goes anywhere.
pub(crate) fn insn_dest_mut(insn: &mut Insn) -> Option<&mut Dest> {
    match insn {
        Insn::Jump { dest, .. }
        | Insn::JumpIf { dest, .. }
        | Insn::Call(Callee::Local(dest))
        | Insn::LoadImm64 { imm: Imm64::CodeAddr(dest), .. } => Some(dest),
        _ => None,
    }
}

/// The label an instruction refers to, if it refers to one.
pub(crate) fn insn_label_mut(insn: &mut Insn) -> Option<&mut Label> {
    match insn_dest_mut(insn) {
        Some(Dest::Label(label)) => Some(label),
        _ => None,
    }
}
