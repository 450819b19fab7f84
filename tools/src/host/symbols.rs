//! Names of kernel functions, as sessions ask for them: in batches, without waiting, and without
//! seeing where they come from.

use std::time::Duration;

use super::kallsyms::{Kallsyms, Symbol, Unavailable};

/// How long [`Symbols::search`] may take before the event buffer has to be read again.
const MAX_SEARCH: Duration = Duration::from_millis(2);

/// Names of kernel functions.
#[derive(Debug, Default)]
pub struct Symbols {
    kallsyms: Kallsyms,
    /// Why this host shows no names, until the run has said so.
    unreported: Option<Unavailable>,
    unavailable: bool,
}

impl Symbols {
    /// The running kernel's.
    pub fn open() -> Self {
        let mut symbols = Self::default();
        match Kallsyms::open() {
            Ok(kallsyms) => symbols.kallsyms = kallsyms,
            Err(why) => symbols.give_up(why),
        }
        symbols
    }

    /// Whether a search that [`Symbols::request`] began is not finished.
    pub fn is_searching(&self) -> bool {
        self.kallsyms.is_asked()
    }

    /// Begins a search for the functions at these addresses. Does nothing if all of them are known
    /// already.
    pub fn request(&mut self, addresses: impl Iterator<Item = u64> + Clone) {
        if !self.unavailable
            && let Err(why) = self.kallsyms.ask(addresses)
        {
            self.give_up(why);
        }
    }

    /// Continues the search for a short time. Returns true once it is finished.
    pub fn search(&mut self) -> bool {
        self.kallsyms.step(MAX_SEARCH).unwrap_or_else(|why| {
            self.give_up(why);
            true
        })
    }

    /// The function at an address, if a search has found one.
    pub fn get(&self, address: u64) -> Option<Symbol<'_>> {
        self.kallsyms.symbol(address)
    }

    /// Why this host shows no names; once.
    pub fn take_failure(&mut self) -> Option<Unavailable> {
        self.unreported.take()
    }

    fn give_up(&mut self, why: Unavailable) {
        self.unavailable = true;
        self.unreported = Some(why);
    }
}
