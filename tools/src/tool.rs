//! What a tool is, and which there are.

use std::time::Duration;

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use btf::{Index, Wanted};
use clap::{ArgMatches, Command};
use loader::Loaded;
use rows::time::Clock;
use rows::{Column, Page};

use crate::args::Shared;
use crate::failure::Failure;
use crate::open_sockets::OpenSockets;
use crate::selftest::Check;

/// Every tool. This table serves subcommands, links by name, help and `--ebpf`.
pub const TOOLS: &[&dyn Tool] = &[
    &crate::tcpconnlat::Tcpconnlat,
    &crate::tcpdrop::Tcpdrop,
    &crate::tcplife::Tcplife,
    &crate::tcpretrans::Tcpretrans,
    &crate::tcpstates::Tcpstates,
    &crate::tcpsubnet::Tcpsubnet,
    &crate::tcptop::Tcptop,
    &crate::tcptracer::Tcptracer,
];

/// A tool: its name and flags. One run of it is a [`Session`].
pub trait Tool: Sync {
    /// The name of the subcommand and of the link.
    fn name(&self) -> &'static str;

    /// One line.
    fn about(&self) -> &'static str;

    /// Adds the tool's own flags.
    fn flags(&self, command: Command) -> Command;

    /// What `tcptools selftest` runs it with, and what it then has to say.
    fn selftest(&self) -> Check;

    /// What these flags ask for.
    fn session(&self, matches: &ArgMatches, shared: &Shared) -> Box<dyn Session>;
}

/// A run of a tool with certain options.
pub trait Session {
    /// Its programs and maps.
    fn object(&self, target: &Target) -> Result<Object, AsmError>;

    /// Iterator hooks to run once everything is attached.
    fn seeds(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether these hooks are about owners, who can be found elsewhere where the kernel has no way to a hook.
    fn asks_for_owners(&self) -> bool {
        true
    }

    /// Takes the owners of open sockets, where no such hook did it.
    fn hold(&mut self, _held: OpenSockets) {}

    /// The columns of its rows.
    fn columns(&self) -> Vec<Column>;

    /// Whether the table's headings are written once, at the start. A tool that reports at intervals writes its own.
    fn headings(&self) -> bool {
        self.schedule().is_none()
    }

    /// What has to be there before anything is attached, besides the kernel. What the run reads later has to be opened here:
    /// once attached it can open nothing.
    ///
    /// # Errors
    ///
    /// One line on what is missing.
    fn prepare(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// What it asks of the running kernel's BTF itself, besides what its programs do.
    fn names(&self, _wanted: &mut Wanted) {}

    /// Takes the answers, before anything is attached.
    ///
    /// # Errors
    ///
    /// One line on what this kernel does not know.
    fn resolve(&mut self, _index: &Index<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// What it does without on this kernel, besides hooks; asked once it is attached.
    fn lacks(&mut self) -> Vec<Lack> {
        Vec::new()
    }

    /// Fills maps that programs read. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// One line on what the kernel did not take.
    fn fill(&mut self, _loaded: &Loaded) -> Result<(), Failure> {
        Ok(())
    }

    /// When it reports, if it does so at intervals.
    fn schedule(&self) -> Option<Schedule> {
        None
    }

    /// Writes what has gathered in its maps: at each interval, and once more at the end, when nothing is attached any more.
    fn report(&mut self, _loaded: &Loaded, _now: Moment, _page: &mut dyn Page) -> Result<(), Failure> {
        Ok(())
    }

    /// What there is to say at the end, on stderr, besides the books.
    fn closing_note(&self) -> Option<String> {
        None
    }

    /// What its rows lack, as far as it went.
    fn shortfall(&self) -> Shortfall {
        Shortfall::default()
    }

    /// Writes what it has put off: those are all the events that there are for now. False when it has stopped on the way, so that
    /// the ring is looked at: then it is to be called again at once.
    fn settle(&mut self, _clock: Clock, _page: &mut dyn Page) -> bool {
        true
    }

    /// Writes what a program sent, or puts it off until [`Session::settle`]. `None` when these are not the bytes of an event.
    fn event(&mut self, _record: &[u8], _clock: Clock, _page: &mut dyn Page) -> Option<()> {
        None
    }
}

/// What a tool does without on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lack {
    /// In words that follow `without`.
    pub what: String,
    /// A command or a setting that helps, if there is one.
    pub help: Option<&'static str>,
}

/// What became no row though it was sent, and which rows lack something.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Shortfall {
    /// Events that are not shown unless asked for.
    pub unshown: u64,
    /// Rows whose stack is missing, or has a frame without a name.
    pub unnamed: u64,
}

/// When a tool reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// From one report to the next.
    pub interval: Duration,
    /// After so many it is done; `None`: it goes on until told to stop.
    pub reports: Option<u64>,
}

/// When a report is written.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Moment {
    /// Nanoseconds since 1970.
    pub wall: i128,
    /// Since the report before, or the start.
    pub elapsed: Duration,
    /// Nothing is attached any more and nothing comes after it. It may be less than an interval.
    pub last: bool,
}

/// The tool of this name.
pub fn find(name: &str) -> Option<&'static dyn Tool> {
    TOOLS.iter().copied().find(|tool| tool.name() == name)
}
