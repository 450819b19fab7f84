//! Pieces of program: instructions, labels, and the pieces inside them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use crate::error::AsmError;
use crate::insn::{Dest, Insn, Label};
use crate::source::Source;
use crate::symbol::{Symbol, Text};
use crate::text::Line;

/// What a [`Label`] stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Name {
    /// The name as written.
    pub(crate) text: Text,
    /// 0 in the block that is being written; every block spliced into it gets a number of its own.
    pub(crate) scope: u32,
    /// Where the block defines it.
    pub(crate) place: Option<Place>,
}

/// Where a label is defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Before which instruction.
    pub(crate) at: usize,
    /// How many labels are defined before it, of all blocks.
    pub(crate) order: usize,
    /// In which statement.
    pub(crate) source: Option<Source>,
}

/// A sequence of statements that is not yet a program. The `bpf!` macro makes one; `..expr` splices one into another.
///
/// It has the columns of a [`Program`](crate::Program), which takes them over as they are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    pub(crate) insns: Vec<Insn>,
    /// As long as `insns`.
    pub(crate) source: Vec<Option<Source>>,
    /// By instruction, in ascending order.
    pub(crate) symbols: Vec<(usize, Symbol)>,
    /// By the numbers of labels.
    pub(crate) names: Vec<Name>,
    /// The numbers of labels of the block that is being written, by their names.
    own: Vec<u32>,
    /// Labels that are defined.
    defined: usize,
    /// Scopes used by what was spliced in: 1 to this number.
    scopes: u32,
    /// The first statement that cannot be; linking reports it.
    pub(crate) wrong: Option<AsmError>,
}

impl Fragment {
    /// No statement at all: what an option that is not asked for compiles to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with room for so many instructions.
    pub(crate) fn with_capacity(insns: usize) -> Self {
        Self { insns: Vec::with_capacity(insns), source: Vec::with_capacity(insns), ..Self::default() }
    }

    /// Whether it holds neither instruction nor label, nor a statement that cannot be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.insns.is_empty() && self.defined == 0 && self.wrong.is_none()
    }

    /// The instructions in it, jumps still to be resolved: the labels that they go to are this fragment's, and of no meaning
    /// elsewhere.
    #[must_use]
    pub fn insns(&self) -> &[Insn] {
        &self.insns
    }

    /// What the loader writes, and into which instruction; in ascending order.
    #[must_use]
    pub fn symbols(&self) -> &[(usize, Symbol)] {
        &self.symbols
    }

    /// Where each instruction was written.
    #[must_use]
    pub fn sources(&self) -> &[Option<Source>] {
        &self.source
    }

    /// The instructions as text, with the names of symbols and of labels that they go to.
    pub fn lines(&self) -> impl Iterator<Item = impl fmt::Display> {
        let mut symbols = self.symbols.iter().peekable();
        self.insns.iter().enumerate().map(move |(at, insn)| {
            let symbol = symbols.next_if(|(place, _)| *place == at).map(|(_, symbol)| symbol);
            let label = match insn.dest() {
                Some(Dest::Label(label)) => self.name(*label).map(|name| name.text.as_ref()),
                _ => None,
            };
            Line { insn, symbol, label }
        })
    }

    /// Adds an instruction. Where it goes to a label, that is one of this fragment ([`Fragment::dest`]).
    pub fn push(&mut self, insn: Insn, symbol: Option<Symbol>, source: Option<Source>) {
        if let Some(symbol) = symbol {
            self.symbol(symbol);
        }
        if let Some(Dest::Label(label)) = insn.dest()
            && self.name(*label).is_none()
        {
            self.wrong(AsmError::UndefinedLabel { label: label.to_string().into(), source });
        }
        self.insns.push(insn);
        self.source.push(source);
    }

    /// The next instruction to be added has this symbol.
    pub(crate) fn symbol(&mut self, symbol: Symbol) {
        self.symbols.push((self.insns.len(), symbol));
    }

    /// Adds a label of this block.
    pub fn label(&mut self, name: impl Into<Text>, source: Option<Source>) {
        let here = Place { at: self.insns.len(), order: self.defined, source };
        let label = self.own(name.into());
        let Some(Name { text, place, .. }) = self.name_mut(label) else { return };
        match place {
            None => {
                *place = Some(here);
                self.defined += 1;
            }
            Some(first) => {
                let first = first.source.map(|source| source.line);
                let error = AsmError::DuplicateLabel { label: text.clone(), source, first };
                self.wrong(error);
            }
        }
    }

    /// A label of this block as a destination, for an instruction of this block. It need not be defined yet.
    pub fn dest(&mut self, name: impl Into<Text>) -> Dest {
        Dest::Label(self.own(name.into()))
    }

    /// A label of this block.
    fn own(&mut self, text: Text) -> Label {
        let known = self.own.binary_search_by(|number| {
            self.name(Label(*number)).map_or(Ordering::Less, |name| name.text.cmp(&text))
        });
        match known {
            Ok(at) => Label(self.own.get(at).copied().unwrap_or(u32::MAX)),
            Err(at) => {
                let label = self.add(Name { text, scope: 0, place: None });
                self.own.insert(at, label.0);
                label
            }
        }
    }

    fn add(&mut self, name: Name) -> Label {
        self.names.push(name);
        label(self.names.len() - 1)
    }

    pub(crate) fn name(&self, label: Label) -> Option<&Name> {
        self.names.get(label.0 as usize)
    }

    fn name_mut(&mut self, label: Label) -> Option<&mut Name> {
        self.names.get_mut(label.0 as usize)
    }

    /// Remembers that a statement cannot be, for linking to report.
    pub(crate) fn wrong(&mut self, error: AsmError) {
        self.wrong.get_or_insert(error);
    }

    /// Adds all of `inner`, whose labels stay its own.
    pub fn splice(&mut self, inner: impl Borrow<Self>) {
        self.append(inner.borrow());
    }

    fn append(&mut self, inner: &Self) {
        let start = self.insns.len();
        let before = self.defined;
        let scope = self.scopes + 1;
        self.scopes = scope + inner.scopes;
        if self.wrong.is_none() {
            self.wrong.clone_from(&inner.wrong);
        }
        let mut labels = Vec::with_capacity(inner.names.len());
        for name in &inner.names {
            labels.push(match name.place {
                None => self.own(name.text.clone()),
                Some(place) => self.add(Name {
                    text: name.text.clone(),
                    scope: scope + name.scope,
                    place: Some(Place { at: start + place.at, order: before + place.order, ..place }),
                }),
            });
        }
        self.defined += inner.defined;
        self.insns.reserve(inner.insns.len());
        for insn in &inner.insns {
            let mut insn = *insn;
            if let Some(Dest::Label(label)) = insn.dest_mut() {
                // A number that `inner` has no name for was reported when the instruction was added.
                *label = labels.get(label.0 as usize).copied().unwrap_or(Label(u32::MAX));
            }
            self.insns.push(insn);
        }
        self.source.extend_from_slice(&inner.source);
        self.symbols.extend(inner.symbols.iter().map(|(at, symbol)| (start + at, symbol.clone())));
    }
}

/// The label with this number. There is no memory for more names than 32 bits count.
fn label(number: usize) -> Label {
    Label(u32::try_from(number).unwrap_or(u32::MAX))
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
