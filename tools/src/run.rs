//! A tool's run: start, read until told to stop, account.

use std::fmt;
use std::io::{self, IsTerminal, Stdout};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bpfasm::MapKind;
use clap::ArgMatches;
use loader::{Drained, Events, Loaded};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use programs::{emit, flows};
use rows::time::{Clock, Zone};
use rows::{Column, Output, Page, Value};

use crate::account::{Account, Read, read_stats};
use crate::args::{self, Shared};
use crate::ebpf;
use crate::failure::Failure;
use crate::room;
use crate::selftest;
use crate::start::{Say, seed, start};
use crate::tool::{Moment, Schedule, Session, Shortfall, Tool};

/// How long a row may lie in the ring: short while rows come, longer while nothing happens.
const POLL_BUSY: Duration = Duration::from_millis(20);
const POLL_IDLE: Duration = Duration::from_millis(50);

/// How often the counters are looked at while running, to tell of a first loss.
const LOOK: Duration = Duration::from_secs(1);

/// How long a program may still take that was running on another CPU when it was detached: it may have counted an event that it
/// has not sent yet, and that CPU may be one of a virtual machine that is not running.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs a tool with what its command line asks for.
pub fn tool(tool: &dyn Tool, matches: &ArgMatches) -> Result<(), Failure> {
    let mut shared = args::read_shared(matches);
    if shared.ebpf.is_none() && args::asked_room(matches).is_none() {
        shared.max_sockets = room::for_open_sockets();
    }
    let mut session = tool.session(matches, &shared);
    if let Some(form) = shared.ebpf {
        return ebpf::one_tool(tool.name(), session.as_ref(), form, &shared);
    }
    if shared.selftest {
        selftest::before(tool, &shared)?;
    }
    // First of all: a signal during the start ends the run in order as soon as it has begun.
    let signals = Signals::block()?;
    session.prepare()?;
    let say = Say { name: tool.name(), verbose: shared.verbose, verified: shared.verified };

    let (mut loaded, mut events) = start(session.as_mut(), &shared, &say)?;
    seed(session.as_mut(), &loaded, &shared, &say)?;
    let account = follow(&mut loaded, events.as_mut(), session.as_mut(), &shared, &signals, &say)?;
    if let Some(note) = session.closing_note() {
        say.always(&note);
    }
    account.report(tool.name(), &shared);
    if shared.strict && account.lost() > 0 {
        return Err(Failure::Failed(format!("{} events lost, and --strict was given", account.lost())));
    }
    Ok(())
}

/// SIGINT and SIGTERM as something to be read.
struct Signals(SignalFd);

impl Signals {
    fn block() -> Result<Self, Failure> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block().and_then(|()| SignalFd::new(&set)).map(Self).map_err(Failure::failed)
    }
}

/// Reads and reports until a signal, the time, a count or a closed pipe says stop; then detaches, drains and counts.
fn follow(
    loaded: &mut Loaded,
    mut events: Option<&mut Events>,
    session: &mut dyn Session,
    shared: &Shared,
    signals: &Signals,
    say: &Say,
) -> Result<Account, Failure> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Failure::failed)?;
    let ring = events.as_ref().map(|events| (events.as_fd(), EVENTS));
    for (fd, data) in [(signals.0.as_fd(), SIGNAL)].into_iter().chain(ring) {
        epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, data)).map_err(Failure::failed)?;
    }
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let columns = session.columns();
    let zone = if columns.iter().any(Column::is_time_of_day) { Zone::local() } else { Zone::default() };
    let output = Output::new(shared.format, columns, zone, stdout).terminal(terminal);
    let mut rows = Rows {
        clock: Clock::now().map_err(Failure::failed)?,
        sheet: Sheet { output, left: shared.count.unwrap_or(u64::MAX), full: false, unshown: 0 },
        records: 0,
        dropped: 0,
        unreadable: 0,
    };
    let begin = Instant::now();
    // One that the clock cannot count to is for ever.
    let stop_at = shared.duration.and_then(|duration| begin.checked_add(duration));
    let mut reports = Reports::new(session.schedule(), begin);
    if !shared.no_sandbox {
        confine(loaded, say);
    }
    say.verbose("attached");
    rows.sheet.output.header(session.headings());
    rows.flush()?;

    let mut told = Told::default();
    let mut look_at = begin + LOOK;
    let mut poll = POLL_IDLE;
    while rows.sheet.left > 0 {
        let now = Instant::now();
        if stop_at.is_some_and(|stop_at| now >= stop_at) {
            break;
        }
        if let Some(elapsed) = reports.due(now) {
            rows.report(loaded, session, elapsed, false)?;
            if reports.done() {
                break;
            }
        }
        // Without a ring there is nothing to look for in between.
        let next = [stop_at, reports.next(), events.is_some().then(|| now + poll), Some(look_at)];
        let next = next.into_iter().flatten().min().unwrap_or(now);
        if signalled(&epoll, next.saturating_duration_since(Instant::now()))? {
            break;
        }
        if let Some(events) = &mut events {
            poll = match rows.drain(events, session)? {
                (Drained { behind: true, .. }, _) | (_, false) => Duration::ZERO,
                (Drained { records: 0, .. }, _) => POLL_IDLE,
                _ => POLL_BUSY,
            };
        }
        if now >= look_at {
            look_at = now + LOOK;
            told.look(loaded, say)?;
        }
    }
    // Some things take long to detach, and nobody should wait for rows that are there.
    if let Some(events) = &mut events {
        rows.drain(events, session)?;
    }
    // In this order: what happened until now is in the ring, and nothing comes after it but of programs that are just running.
    loaded.detach();
    let settled_by = Instant::now() + SETTLE;
    let stats = loop {
        if let Some(events) = &mut events {
            while !rows.drain(events, session)?.1 {}
        }
        let stats = read_stats(loaded)?;
        if Account::new(stats, None, rows.read(Shortfall::default())).is_complete()
            || Instant::now() >= settled_by
        {
            break stats;
        }
        std::thread::yield_now();
    };
    if !reports.done() {
        rows.report(loaded, session, reports.since(Instant::now()), true)?;
    }
    Ok(Account::new(stats, loaded.missed().map_err(Failure::failed)?, rows.read(session.shortfall())))
}

/// What is said where the kernel does not take something back.
pub fn not_given_up(what: &str, errno: &impl fmt::Display) -> String {
    format!("goes on without giving up {what}: {errno}")
}

/// Gives up what the run needs no longer. Everything it will read is open.
fn confine(loaded: &Loaded, say: &Say) {
    let confined = loaded.confine();
    for (what, errno) in &confined.failed {
        say.always(&not_given_up(what, errno));
    }
    if let Some(kept) = confined.kept {
        say.verbose(&format!("keeps {kept}: this kernel shows no counters without it"));
    }
}

/// When the next report is due. Reports keep to the grid that the start gave: one that takes long delays none after it.
struct Reports {
    schedule: Option<Schedule>,
    last: Instant,
    next: Option<Instant>,
    written: u64,
}

impl Reports {
    fn new(schedule: Option<Schedule>, begin: Instant) -> Self {
        Self { schedule, last: begin, next: schedule.map(|schedule| begin + schedule.interval), written: 0 }
    }

    fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The time since the last report, if another is due; it counts as written then.
    fn due(&mut self, now: Instant) -> Option<Duration> {
        let (schedule, next) = (self.schedule?, self.next?);
        if now < next {
            return None;
        }
        let elapsed = self.since(now);
        self.last = now;
        self.written += 1;
        let mut next = next + schedule.interval;
        while next <= now {
            next += schedule.interval;
        }
        self.next = Some(next);
        Some(elapsed)
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last)
    }

    /// Whether all reports that were asked for are written.
    fn done(&self) -> bool {
        self.schedule.and_then(|schedule| schedule.reports).is_some_and(|reports| self.written >= reports)
    }
}

const SIGNAL: u64 = 0;
const EVENTS: u64 = 1;

/// Waits for the ring to fill or for a signal, at most so long; whether it was a signal.
fn signalled(epoll: &Epoll, timeout: Duration) -> Result<bool, Failure> {
    let mut ready = [EpollEvent::empty(); 2];
    // Rounded up: a rest of less than a millisecond would spin.
    let timeout = EpollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(EpollTimeout::ZERO);
    match epoll.wait(&mut ready, timeout) {
        Ok(count) => Ok(ready.iter().take(count).any(|event| event.data() == SIGNAL)),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(Failure::failed(error)),
    }
}

/// What has been said while running: each kind of loss once, when it begins.
#[derive(Default)]
struct Told {
    ring: bool,
    sockets: bool,
    counts: bool,
}

impl Told {
    /// Says what is being lost and was not said yet.
    fn look(&mut self, loaded: &Loaded, say: &Say) -> Result<(), Failure> {
        if self.ring && self.sockets && self.counts {
            return Ok(());
        }
        let seen = read_stats(loaded)?;
        if begins(seen.lost_ring, &mut self.ring) {
            let perf = loaded.map(emit::MAP).is_ok_and(|map| map.kind() == MapKind::PerfEventArray);
            say.always(if perf {
                "events are being lost: a perf buffer is full (--ring-size makes it larger), or a CPU has none because it \
                 came later"
            } else {
                "the ring is full and events are being lost; --ring-size makes it larger"
            });
        }
        let (sockets, counts) = if loaded.has_map(flows::MAP) {
            (seen.untracked, seen.lost_map)
        } else {
            (seen.untracked.max(seen.lost_map), 0)
        };
        if begins(sockets, &mut self.sockets) {
            say.always(
                "sockets are missing: the table of sockets is full (--max-sockets makes it larger), or they were open \
                 before and not known yet",
            );
        }
        if begins(counts, &mut self.counts) {
            say.always(
                "the table of counts is full and new flows are not counted; --max-sockets makes it larger",
            );
        }
        Ok(())
    }
}

/// Whether something is lost that was not said to be; from now on it is.
fn begins(lost: u64, said: &mut bool) -> bool {
    lost > 0 && !std::mem::replace(said, true)
}

/// The way of a record to standard output.
struct Rows {
    clock: Clock,
    sheet: Sheet,
    /// Records that came.
    records: u64,
    /// Records that a perf buffer had no room for.
    dropped: u64,
    /// Records that were no event.
    unreadable: u64,
}

impl Rows {
    /// What was read until now.
    fn read(&self, Shortfall { unshown, unnamed }: Shortfall) -> Read {
        let Self { records, dropped, unreadable, ref sheet, .. } = *self;
        Read { records, dropped, unreadable, unshown: unshown + sheet.unshown, unnamed }
    }

    /// Prints what is in the ring; whether all of it, or some of it is put off still.
    fn drain(&mut self, events: &mut Events, session: &mut dyn Session) -> Result<(Drained, bool), Failure> {
        self.clock.renew().map_err(Failure::failed)?;
        let Self { clock, sheet, records, dropped, unreadable } = self;
        let drained = events
            .drain(&mut |record| {
                let read = session.event(record, *clock, sheet);
                *unreadable += u64::from(read.is_none());
            })
            .map_err(Failure::failed)?;
        let settled = session.settle(*clock, sheet);
        *records += drained.records;
        *dropped += drained.lost;
        self.flush()?;
        Ok((drained, settled))
    }

    /// Prints what has gathered.
    fn report(
        &mut self,
        loaded: &Loaded,
        session: &mut dyn Session,
        elapsed: Duration,
        last: bool,
    ) -> Result<(), Failure> {
        let wall = Clock::wall_now().map_err(Failure::failed)?;
        session.report(loaded, Moment { wall, elapsed, last }, &mut self.sheet)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.sheet.output.flush().map_err(|error| Failure::output(&error))
    }
}

/// Standard output, up to the number of rows that was asked for.
struct Sheet {
    output: Output<Stdout>,
    /// Rows still wanted.
    left: u64,
    /// A row came after the last one that was wanted.
    full: bool,
    /// So many came.
    unshown: u64,
}

impl Page for Sheet {
    fn row(&mut self, values: &[Value<'_>]) {
        self.full = self.left == 0;
        if self.full {
            self.unshown += 1;
        } else {
            self.left -= 1;
            self.output.row(values);
        }
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        // What belongs to the last row is still to come when that is written.
        if !self.full {
            self.output.line(text);
        }
    }

    fn table(&mut self, columns: Vec<Column>) {
        self.output.table(columns);
    }

    fn clear(&mut self) {
        self.output.clear();
    }
}
