//! What a tool is: a command line, a plan for a run, and a session that turns a stream into rows.
//!
//! The three have different lives. A [`Tool`] is a constant. A [`Plan`] says, as plain data, what a
//! run with certain options needs from the host: programs, maps, names. A [`Session`] gets what the
//! host has answered and what the programs send, and writes rows. A session has no clock, no file
//! and no map of its own, so it does not know whether the stream comes from the running kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use bpfasm::AsmError;
use bpfasm::object::Object;
use bpfasm::target::Target;
use clap::{ArgMatches, Command};
use programs::containers::Containers;
use programs::stats::Stats;
use rows::time::{Clock, Zone};
use rows::{Column, RowSink};

use crate::cli::settings::Settings;
use crate::failure::Failure;
use crate::host::journal::Journal;
use crate::host::open_sockets::OpenSockets;
use crate::host::symbols::Symbols;
use crate::selftest::check::Check;

/// A tool. The registry, [`crate::tools`], has them all.
pub struct Tool {
    /// The name of the subcommand and of the link.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Adds the tool's own options. The options that all tools share are added if the tool has not
    /// defined them itself.
    pub args: fn(Command) -> Command,
    /// What these options ask for.
    pub plan: fn(&ArgMatches, &Settings) -> Result<Plan, Failure>,
    /// What `tcptools selftest` runs the tool with, and which rows the tool has to print then.
    pub selftest: fn() -> Check,
}

/// Builds a tool's programs and maps for a kernel.
pub type BuildObject = Box<dyn Fn(&Target) -> Result<Object, AsmError>>;

/// What a run with certain options needs.
pub struct Plan {
    /// Programs and maps.
    pub object: BuildObject,
    /// Turns what they send into rows.
    pub session: Box<dyn Session>,
    /// When the tool reports, if it does so at intervals.
    pub schedule: Option<Schedule>,
    /// What a report reads.
    pub maps: MapSource,
    /// Map contents that programs need before they are attached.
    pub contents: Vec<MapContent>,
    /// What to do about sockets that were open before the run.
    pub preexisting: Preexisting,
    /// Enums of the kernel whose enumerators the session wants to know.
    pub enums: &'static [&'static str],
    /// Tracepoints of the kernel whose number of arguments the session wants to know.
    pub tracepoints: &'static [&'static str],
    /// Whether the session asks for the names of kernel functions.
    pub symbols: bool,
    /// Whether reports show the load average.
    pub load_average: bool,
    /// Whether local times are shown outside of a column `TIME`.
    pub local_time: bool,
    /// Whether events also go to the systemd journal.
    pub journal: bool,
    /// Pinned maps that have to exist.
    pub containers: Containers,
}

impl Plan {
    /// A plan that needs nothing but its programs.
    pub fn new(
        object: impl Fn(&Target) -> Result<Object, AsmError> + 'static,
        session: impl Session + 'static,
    ) -> Self {
        Self {
            object: Box::new(object),
            session: Box::new(session),
            schedule: None,
            maps: MapSource::None,
            contents: Vec::new(),
            preexisting: Preexisting::Ignored,
            enums: &[],
            tracepoints: &[],
            symbols: false,
            load_average: false,
            local_time: false,
            journal: false,
            containers: Containers::default(),
        }
    }
}

/// A run of a tool with certain options: a stream in, rows out.
///
/// A tool that prints a row per event needs [`headings`](Session::headings) and
/// [`event`](Session::event); one that prints reports needs [`report`](Session::report) instead of
/// `event`.
pub trait Session {
    /// The columns that CSV begins with, and the table too if it [begins with
    /// headings](Session::begins_with_headings).
    fn headings(&self) -> &[Column];

    /// Whether the table begins with the headings. A tool that reports writes headings with each
    /// report.
    fn begins_with_headings(&self) -> bool {
        true
    }

    /// Takes what the kernel's types say about the names in the plan, before anything is attached.
    ///
    /// # Errors
    ///
    /// If this kernel cannot do what the options ask for.
    fn set_kernel_types(&mut self, _types: &KernelTypes) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes the sockets that were open when the run began, if the kernel's own table of them could
    /// not be filled.
    fn set_open_sockets(&mut self, _sockets: OpenSockets) {}

    /// What the rows lack on this kernel, apart from hooks. Asked once the programs are attached.
    fn limitations(&self) -> Vec<Limitation> {
        Vec::new()
    }

    /// Writes the row of a record that a program sent, or keeps it until
    /// [`Session::flush_pending`]. `None` if the bytes are not a record of this tool.
    fn event(&mut self, _record: &[u8], _context: &mut Context<'_>, _rows: &mut dyn RowSink) -> Option<()> {
        None
    }

    /// Writes what [`Session::event`] has kept. Called after each batch of records. Returns false
    /// if there is more to do, so that the reader can empty the buffer first and then call again.
    fn flush_pending(&mut self, _context: &mut Context<'_>, _rows: &mut dyn RowSink) -> bool {
        true
    }

    /// Writes a report: at each interval, and once more when the programs are detached.
    fn report(&mut self, _report: &Report<'_>, _rows: &mut dyn RowSink) {}

    /// What is missing in the rows so far.
    fn row_shortfall(&self) -> RowShortfall {
        RowShortfall::default()
    }

    /// A line for stderr at the end of the run.
    fn closing_note(&self) -> Option<String> {
        None
    }
}

/// What a session may use while it handles records.
pub struct Context<'a> {
    /// Converts the monotonic times in records to wall-clock times.
    pub clock: Clock,
    /// Names of kernel functions, if the plan asked for [symbols](Plan::symbols).
    pub symbols: &'a mut Symbols,
    /// The systemd journal, if the plan asked for [it](Plan::journal).
    pub journal: Option<&'a mut Journal>,
}

/// What a report is made of.
pub struct Report<'a> {
    /// Nanoseconds since 1970.
    pub wall: i128,
    /// Time since the report before, or since the start.
    pub elapsed: Duration,
    /// Key and value of each entry of the [map](Plan::maps); of a per-CPU map the values of all
    /// CPUs, one after another.
    pub entries: Vec<(&'a [u8], &'a [u8])>,
    /// The programs' counters.
    pub counters: Stats,
    /// The line of `/proc/loadavg`, if the plan asked for [it](Plan::load_average) and it could be
    /// read.
    pub load_average: Option<String>,
    /// The zone that local times are shown in.
    pub zone: &'a Zone,
}

/// When a tool reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Time from one report to the next.
    pub interval: Duration,
    /// The run ends after this many reports; `None`: it goes on until it is stopped.
    pub reports: Option<u64>,
}

/// Which map a report reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapSource {
    /// None.
    None,
    /// All entries of this map. They stay in it.
    Read(&'static str),
    /// Two maps that programs fill in turn: each report switches them and takes the entries of the
    /// one that programs have left.
    Alternating {
        /// The array of maps whose only slot holds the map that programs fill.
        slot: &'static str,
        /// The two maps. Programs begin with the first.
        maps: [&'static str; 2],
    },
}

/// An entry of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapContent {
    /// The map's name.
    pub map: &'static str,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What to do about sockets that were open before the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preexisting {
    /// Nothing.
    Ignored,
    /// An iterator program enters them in the programs' table, if the kernel has iterators.
    Table,
    /// The same; if the kernel has no iterators, the session gets a list of them.
    TableOrList,
}

/// What the kernel's types say about the names that a plan asks for. A name that the kernel does
/// not have is missing.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct KernelTypes {
    /// Enumerators and their values, by enum.
    pub enums: BTreeMap<&'static str, Vec<(String, i64)>>,
    /// Number of arguments, by tracepoint.
    pub tracepoint_args: BTreeMap<&'static str, usize>,
}

/// Something that a tool lacks on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limitation {
    /// Words that follow `without`.
    pub what: String,
    /// A command or a setting that helps, if there is one.
    pub help: Option<&'static str>,
}

/// Records that did not become a row, and rows that lack something.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RowShortfall {
    /// Events that are shown only if an option asks for them.
    pub unshown: u64,
    /// Rows whose stack is missing, or has a frame without a name.
    pub unnamed: u64,
}
