//! What a tool is, and which there are.

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use clap::{ArgMatches, Command};

use crate::args::Shared;
use crate::held::Held;
use crate::output::{Column, Value};
use crate::time::Clock;

/// Every tool. This table serves subcommands, links by name, help and `--ebpf`.
pub const TOOLS: &[&dyn Tool] = &[&crate::tcplife::Tcplife, &crate::tcpstates::Tcpstates];

/// A tool: its name and flags. One run of it is a [`Session`].
pub trait Tool: Sync {
    /// The name of the subcommand and of the link.
    fn name(&self) -> &'static str;

    /// One line.
    fn about(&self) -> &'static str;

    /// Adds the tool's own flags.
    fn flags(&self, command: Command) -> Command;

    /// What these flags ask for.
    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session>;
}

/// A run of a tool with certain options.
pub trait Session {
    /// Its programs and maps.
    fn object(&self, target: &Target) -> Result<Object, AsmError>;

    /// Iterator hooks to run once everything is attached.
    fn seeds(&self) -> &'static [&'static str];

    /// Takes the owners of open sockets, where no such hook did it.
    fn hold(&mut self, held: Held);

    /// The columns of its rows.
    fn columns(&self) -> Vec<Column>;

    /// What has to be there before anything is attached, besides the kernel.
    ///
    /// # Errors
    ///
    /// One line on what is missing.
    fn prepare(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// What there is to say at the end, on stderr, besides the books.
    fn closing_note(&self) -> Option<String> {
        None
    }

    /// Turns what a program sent into rows. `None` when these are not the bytes of an event.
    fn event(&mut self, record: &[u8], clock: Clock, row: &mut dyn FnMut(&[Value<'_>])) -> Option<()>;
}

/// The tool of this name.
pub fn find(name: &str) -> Option<&'static dyn Tool> {
    TOOLS.iter().copied().find(|tool| tool.name() == name)
}
