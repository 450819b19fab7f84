//! Fragments: instructions and labels that are not yet a program, and splicing one into another.
//!
//! # Labels and splicing
//!
//! An instruction that jumps holds the number of a label, not its name. The number is an index into
//! the fragment's table of names (`names`), so instructions are `Copy` and a splice only has to
//! renumber.
//!
//! A row of the table has three parts: the name as written; the place, if a block defines the
//! label; and the scope, the number of the block that defines it. Scope 0 is the block that is
//! being written. Only its labels are found by name (`own_labels`).
//!
//! Splicing `inner` into `outer` appends all instructions of `inner` and gives each row of its
//! table a number in the table of `outer`:
//!
//! - A label that `inner` defines gets a new row. Its scope is moved past all scopes of `outer`, so
//!   that it can never be confused with a label of the same name, not even if the same fragment is
//!   spliced twice. Its place moves by the number of instructions before it.
//! - A name that `inner` uses but does not define means the label of that name in `outer`, which
//!   may be defined later or, if `outer` is spliced in turn, by the block around it.
//!
//! Then the numbers in the copied instructions are replaced by the new ones. Linking (`link.rs`)
//! turns numbers into distances and makes names unique for the listing.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use crate::error::AsmError;
use crate::insn::{Dest, Insn, Label};
use crate::source::Source;
use crate::symbol::{Symbol, Text};
use crate::text::Line;

/// The row of a [`Label`] in the fragment's table of names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Name {
    /// The name as written.
    pub(crate) text: Text,
    /// The block that the name belongs to: 0 for the block that is being written; every block
    /// spliced into it has its own number.
    pub(crate) scope: u32,
    /// The place where the block defines the label; `None` as long as it is only used.
    pub(crate) place: Option<Place>,
}

/// The place where a label is defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The index of the instruction after the label.
    pub(crate) at: usize,
    /// The number of labels defined before this one, in all blocks.
    pub(crate) order: usize,
    /// The statement that defines it.
    pub(crate) source: Option<Source>,
}

/// A sequence of statements that is not yet a program. The `bpf!` macro makes one; `..expr` splices
/// one into another.
///
/// [`Program::link`](crate::Program::link) makes a program of it. A fragment that contains an
/// invalid statement keeps the error, and linking reports it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    pub(crate) insns: Vec<Insn>,
    /// The statement of each instruction; as long as `insns`.
    pub(crate) source: Vec<Option<Source>>,
    /// Symbols with the indices of their instructions, in ascending order.
    pub(crate) symbols: Vec<(usize, Symbol)>,
    /// The table of names; a label is an index into it.
    pub(crate) names: Vec<Name>,
    /// The labels of the block that is being written (scope 0), sorted by name.
    own_labels: Vec<u32>,
    /// The number of labels that are defined.
    defined: usize,
    /// The highest scope in use; spliced blocks have the scopes from 1 to this one.
    scopes: u32,
    /// The error of the first invalid statement, for linking to report.
    pub(crate) error: Option<AsmError>,
}

impl Fragment {
    /// An empty fragment, for example for an option that is switched off.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty fragment with memory for this many instructions.
    pub(crate) fn with_capacity(insns: usize) -> Self {
        Self { insns: Vec::with_capacity(insns), source: Vec::with_capacity(insns), ..Self::default() }
    }

    /// Whether the fragment has no instruction, no label and no invalid statement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.insns.is_empty() && self.defined == 0 && self.error.is_none()
    }

    /// The instructions. Jumps go to labels of this fragment, whose numbers have no meaning
    /// elsewhere.
    #[must_use]
    pub fn insns(&self) -> &[Insn] {
        &self.insns
    }

    /// The symbols with the indices of their instructions, in ascending order.
    #[must_use]
    pub fn symbols(&self) -> &[(usize, Symbol)] {
        &self.symbols
    }

    /// The statement that each instruction comes from; as long as [`Fragment::insns`].
    #[must_use]
    pub fn sources(&self) -> &[Option<Source>] {
        &self.source
    }

    /// The instructions as text, with the names of their symbols and labels.
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

    /// Adds an instruction. If it jumps to a label, that must be a label of this fragment
    /// ([`Fragment::dest`]).
    pub fn push(&mut self, insn: Insn, symbol: Option<Symbol>, source: Option<Source>) {
        if let Some(symbol) = symbol {
            self.symbol(symbol);
        }
        if let Some(Dest::Label(label)) = insn.dest()
            && self.name(*label).is_none()
        {
            self.record_error(AsmError::UndefinedLabel { label: label.to_string().into(), source });
        }
        self.insns.push(insn);
        self.source.push(source);
    }

    /// Sets the symbol of the next instruction to be added.
    pub(crate) fn symbol(&mut self, symbol: Symbol) {
        self.symbols.push((self.insns.len(), symbol));
    }

    /// Defines a label of this block before the next instruction.
    pub fn label(&mut self, name: impl Into<Text>, source: Option<Source>) {
        let here = Place { at: self.insns.len(), order: self.defined, source };
        let label = self.own_label(name.into());
        let Some(Name { text, place, .. }) = self.name_mut(label) else { return };
        match place {
            None => {
                *place = Some(here);
                self.defined += 1;
            }
            Some(first) => {
                let first = first.source.map(|source| source.line);
                let error = AsmError::DuplicateLabel { label: text.clone(), source, first };
                self.record_error(error);
            }
        }
    }

    /// A label as the destination of an instruction of this fragment. It can be defined later, by
    /// this block or a block around it.
    pub fn dest(&mut self, name: impl Into<Text>) -> Dest {
        Dest::Label(self.own_label(name.into()))
    }

    /// The label of this name in the block that is being written; adds it if it is new.
    fn own_label(&mut self, text: Text) -> Label {
        let known = self.own_labels.binary_search_by(|number| {
            self.name(Label(*number)).map_or(Ordering::Less, |name| name.text.cmp(&text))
        });
        match known {
            Ok(at) => Label(self.own_labels.get(at).copied().unwrap_or(u32::MAX)),
            Err(at) => {
                let label = self.add(Name { text, scope: 0, place: None });
                self.own_labels.insert(at, label.0);
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

    /// Keeps the error of an invalid statement for linking to report, if it is the first one.
    pub(crate) fn record_error(&mut self, error: AsmError) {
        self.error.get_or_insert(error);
    }

    /// Appends `inner`. Its labels stay separate from those of this block, even from labels of the
    /// same name; see the module's documentation.
    pub fn splice(&mut self, inner: impl Borrow<Self>) {
        self.append(inner.borrow());
    }

    fn append(&mut self, inner: &Self) {
        let start = self.insns.len();
        let before = self.defined;
        let scope = self.scopes + 1;
        self.scopes = scope + inner.scopes;
        if self.error.is_none() {
            self.error.clone_from(&inner.error);
        }
        let mut labels = Vec::with_capacity(inner.names.len());
        for name in &inner.names {
            labels.push(match name.place {
                None => self.own_label(name.text.clone()),
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
                // If `inner` has no name for this number, adding the instruction recorded an error.
                *label = labels.get(label.0 as usize).copied().unwrap_or(Label(u32::MAX));
            }
            self.insns.push(insn);
        }
        self.source.extend_from_slice(&inner.source);
        self.symbols.extend(inner.symbols.iter().map(|(at, symbol)| (start + at, symbol.clone())));
    }
}

/// The label with this number. No machine has memory for 2^32 names.
fn label(number: usize) -> Label {
    Label(u32::try_from(number).unwrap_or(u32::MAX))
}

/// `None` is an empty fragment, for an option that is switched off.
impl From<Option<Self>> for Fragment {
    fn from(fragment: Option<Self>) -> Self {
        fragment.unwrap_or_default()
    }
}

/// Concatenates fragments, each with its own labels.
impl FromIterator<Self> for Fragment {
    fn from_iter<I: IntoIterator<Item = Self>>(fragments: I) -> Self {
        let mut all = Self::new();
        for fragment in fragments {
            all.splice(fragment);
        }
        all
    }
}
