//! A tool's run: start, read until told to stop, detach, account.

pub mod account;
mod loss_warnings;
mod map_reader;
mod reader;
mod schedule;
pub mod start;
mod verifier_stats;

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use loader::{Drained, Events, Loaded};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use rows::time::{Clock, Zone};

use self::account::{Account, read_stats};
use self::loss_warnings::LossWarnings;
use self::map_reader::MapReader;
use self::reader::Reader;
use self::schedule::Reports;
use self::start::start;
use crate::cli::containers;
use crate::cli::settings::{LoadOptions, RunOptions, Settings};
use crate::failure::Failure;
use crate::host::journal::Journal;
use crate::host::kallsyms;
use crate::host::symbols::Symbols;
use crate::messages::Messages;
use crate::selftest;
use crate::tool::{Limitation, Plan, Report, RowShortfall, Tool};

/// The longest time a record waits in the event buffer: short while records come, longer while none
/// do.
const POLL_BUSY: Duration = Duration::from_millis(20);
const POLL_IDLE: Duration = Duration::from_millis(50);

/// How often the counters are read during a run, for [`LossWarnings`].
const CHECK_LOSSES: Duration = Duration::from_secs(1);

/// How long to wait, once everything is detached, for programs that were still running on other
/// CPUs: one may have counted an event that it has not sent yet, and its CPU may be a virtual one
/// that is not scheduled.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs a tool with the options of its command line.
pub fn tool(tool: &Tool, matches: &ArgMatches) -> Result<(), Failure> {
    let (settings, load, options) =
        (Settings::for_this_host(matches), LoadOptions::read(matches), RunOptions::read(matches));
    let plan = (tool.plan)(matches, &settings)?;
    if options.selftest {
        selftest::before_run(tool, &settings, &load, &options)?;
    }
    // Before anything else: a signal during the start ends the run properly as soon as it has
    // begun.
    let signals = Signals::block()?;
    let messages = Messages { name: tool.name, verbose: settings.verbose };
    let mut run = Run::prepare(plan, messages)?;
    let (mut loaded, mut events) = start(&mut run.plan, &load, &messages)?;
    let account = run.follow(&mut loaded, events.as_mut(), &settings, &options, &signals)?;
    if let Some(note) = run.plan.session.closing_note() {
        messages.always(&note);
    }
    if let Some(unsent) = run.journal.as_ref().map(Journal::unsent).filter(|unsent| *unsent > 0) {
        messages.always(&not_in_journal(unsent));
    }
    account.print(tool.name, settings.format, options.stats);
    if options.strict && account.lost() > 0 {
        return Err(Failure::Failed(format!("{} events lost, and --strict was given", account.lost())));
    }
    Ok(())
}

/// A plan, and the files that it needs. A run opens all of its files before it attaches anything,
/// because it gives up the right to open files afterwards.
pub struct Run {
    /// The plan, with its session.
    pub plan: Plan,
    messages: Messages,
    symbols: Symbols,
    journal: Option<Journal>,
    load_average: Option<File>,
}

impl Run {
    /// Opens what the plan needs.
    ///
    /// # Errors
    ///
    /// One line on what is missing.
    pub fn prepare(plan: Plan, messages: Messages) -> Result<Self, Failure> {
        containers::check(&plan.containers)?;
        let journal = if plan.journal { Some(Journal::connect().map_err(Failure::Failed)?) } else { None };
        let mut symbols = if plan.symbols { Symbols::open() } else { Symbols::default() };
        report_missing_names(&mut symbols, &messages);
        let load_average = if plan.load_average { File::open("/proc/loadavg").ok() } else { None };
        Ok(Self { plan, messages, symbols, journal, load_average })
    }

    /// What the rows lack on this host, apart from hooks.
    pub fn limitations(&self) -> Vec<Limitation> {
        let mut limitations = Vec::new();
        if self.plan.symbols
            && let Err(why) = kallsyms::check()
        {
            limitations.push(Limitation { what: format!("function names: {why}"), help: why.cure() });
        }
        limitations.extend(self.plan.session.limitations());
        limitations
    }

    /// Reads and reports until a signal, the time, a count or a closed pipe ends the run; then
    /// detaches, reads the rest and accounts for everything.
    ///
    /// The order at the end matters. Records that are already in the buffer are printed first,
    /// because detaching can take long on some kernels and a user should not wait for rows that
    /// exist. Then the programs are detached: from here on nothing new begins, but a program that
    /// was running on another CPU may still send. So the buffer is read until the counters show
    /// that every counted event has arrived, for at most [`SETTLE`]. The last report comes after
    /// that, because nothing adds to the maps any more, and the account after the report, because
    /// the report may print rows.
    fn follow(
        &mut self,
        loaded: &mut Loaded,
        mut events: Option<&mut Events>,
        settings: &Settings,
        options: &RunOptions,
        signals: &Signals,
    ) -> Result<Account, Failure> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Failure::failed)?;
        let buffer = events.as_ref().map(|events| (events.as_fd(), EVENTS));
        for (fd, data) in [(signals.0.as_fd(), SIGNAL)].into_iter().chain(buffer) {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, data)).map_err(Failure::failed)?;
        }
        let local_time = self.plan.local_time || reader::shows_time_of_day(self.plan.session.headings());
        let zone = if local_time { Zone::local() } else { Zone::default() };
        let mut reader = Reader::new(settings.format, zone.clone(), options.count)?;
        let mut maps = MapReader::new(self.plan.maps);
        let begin = Instant::now();
        // A duration beyond what the clock can count never ends.
        let stop_at = options.duration.and_then(|duration| begin.checked_add(duration));
        let mut reports = Reports::new(self.plan.schedule, begin);
        if !options.no_sandbox {
            confine(loaded, &self.messages);
        }
        self.messages.verbose("attached");
        reader.begin(self.plan.session.as_ref())?;

        let mut warnings = LossWarnings::default();
        let mut check_losses_at = begin + CHECK_LOSSES;
        let mut poll = POLL_IDLE;
        while !reader.is_full() {
            let now = Instant::now();
            if stop_at.is_some_and(|stop_at| now >= stop_at) {
                break;
            }
            if let Some(elapsed) = reports.due(now) {
                self.report(&mut reader, &mut maps, loaded, elapsed, &zone, false)?;
                if reports.done() {
                    break;
                }
            }
            // Without an event buffer there is nothing to poll for.
            let next = [stop_at, reports.next(), events.is_some().then(|| now + poll), Some(check_losses_at)];
            let next = next.into_iter().flatten().min().unwrap_or(now);
            if signalled(&epoll, next.saturating_duration_since(Instant::now()))? {
                break;
            }
            if let Some(events) = &mut events {
                poll = match self.drain(&mut reader, events)? {
                    (Drained { behind: true, .. }, _) | (_, false) => Duration::ZERO,
                    (Drained { records: 0, .. }, _) => POLL_IDLE,
                    _ => POLL_BUSY,
                };
            }
            if now >= check_losses_at {
                check_losses_at = now + CHECK_LOSSES;
                warnings.check(loaded, &self.messages)?;
            }
        }
        if let Some(events) = &mut events {
            self.drain(&mut reader, events)?;
        }
        loaded.detach();
        let settled_by = Instant::now() + SETTLE;
        let stats = loop {
            if let Some(events) = &mut events {
                while !self.drain(&mut reader, events)?.1 {}
            }
            let stats = read_stats(loaded)?;
            if Account::new(stats, None, reader.counts(RowShortfall::default())).is_complete()
                || Instant::now() >= settled_by
            {
                break stats;
            }
            std::thread::yield_now();
        };
        if !reports.done() {
            let elapsed = reports.since(Instant::now());
            self.report(&mut reader, &mut maps, loaded, elapsed, &zone, true)?;
        }
        let missed = loaded.missed().map_err(Failure::failed)?;
        Ok(Account::new(stats, missed, reader.counts(self.plan.session.row_shortfall())))
    }

    /// Prints what is in the event buffer. Also returns whether all of it is printed: a session may
    /// keep records.
    fn drain(&mut self, reader: &mut Reader, events: &mut Events) -> Result<(Drained, bool), Failure> {
        let drained =
            reader.drain(events, self.plan.session.as_mut(), &mut self.symbols, self.journal.as_mut())?;
        report_missing_names(&mut self.symbols, &self.messages);
        Ok(drained)
    }

    /// Prints a report on what has gathered in the maps.
    fn report(
        &mut self,
        reader: &mut Reader,
        maps: &mut MapReader,
        loaded: &Loaded,
        elapsed: Duration,
        zone: &Zone,
        last: bool,
    ) -> Result<(), Failure> {
        let entries = maps.read(loaded, last)?;
        let report = Report {
            wall: Clock::wall_now().map_err(Failure::failed)?,
            elapsed,
            entries: entries.iter().flat_map(loader::Entries::iter).collect(),
            counters: read_stats(loaded)?,
            load_average: self.load_average.as_ref().and_then(first_line),
            zone,
        };
        reader.report(self.plan.session.as_mut(), &report)
    }
}

/// The first line of a short file, as it is now.
fn first_line(file: &File) -> Option<String> {
    // /proc/loadavg has five short fields; reading from the start makes the kernel write them anew.
    let mut line = [0; 128];
    let length = file.read_at(&mut line, 0).ok()?;
    let text = String::from_utf8_lossy(line.get(..length)?);
    text.lines().next().map(str::to_owned)
}

fn report_missing_names(symbols: &mut Symbols, messages: &Messages) {
    if let Some(why) = symbols.take_failure() {
        messages.always(&no_function_names(&why));
    }
}

/// The message if the journal was too slow.
pub fn not_in_journal(unsent: u64) -> String {
    format!("the journal did not take {unsent} changes")
}

/// The message if the kernel's functions have no names here.
pub fn no_function_names(why: &impl fmt::Display) -> String {
    format!("kernel functions have no names here: {why}")
}

/// SIGINT and SIGTERM as a file descriptor.
struct Signals(SignalFd);

impl Signals {
    fn block() -> Result<Self, Failure> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block().and_then(|()| SignalFd::new(&set)).map(Self).map_err(Failure::failed)
    }
}

/// The message if the kernel does not take a privilege back.
pub fn not_dropped(what: &str, errno: &impl fmt::Display) -> String {
    format!("cannot drop {what}, continuing: {errno}")
}

/// Gives up the privileges that the run does not need any more.
fn confine(loaded: &Loaded, messages: &Messages) {
    let confined = loaded.confine();
    for (what, errno) in &confined.failed {
        messages.always(&not_dropped(what, errno));
    }
    if let Some(kept) = confined.kept {
        messages.verbose(&format!("keeps {kept}: this kernel shows no counters without it"));
    }
}

const SIGNAL: u64 = 0;
const EVENTS: u64 = 1;

/// Waits for events or a signal, at most this long. Returns whether there was a signal.
fn signalled(epoll: &Epoll, timeout: Duration) -> Result<bool, Failure> {
    let mut ready = [EpollEvent::empty(); 2];
    // Rounded up: a timeout of 0 would make the loop spin during the last millisecond.
    let timeout = EpollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(EpollTimeout::ZERO);
    match epoll.wait(&mut ready, timeout) {
        Ok(count) => Ok(ready.iter().take(count).any(|event| event.data() == SIGNAL)),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(Failure::failed(error)),
    }
}
