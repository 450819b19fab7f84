//! The start of a run: load and attach what this kernel takes, and say how.

use std::fmt::Write as _;

use bpfasm::target::{Access, Refused, Ring, Target};
use loader::{AttachName, Events, LoadError, Loaded, Loader, Note, relocate};
use programs::emit;

use crate::args::Shared;
use crate::failure::Failure;
use crate::open_sockets::OpenSockets;
use crate::stderr;
use crate::target::target_words;
use crate::tool::Session;
use crate::verified;

/// What goes to stderr.
pub struct Say {
    /// The tool's name.
    pub name: &'static str,
    /// What is done.
    pub verbose: bool,
    /// What the verifier made of each program.
    pub verified: bool,
}

impl Say {
    /// Whatever is asked for.
    pub fn always(&self, line: &str) {
        stderr::say_all(&format!("tcptools: {}", self.name), line);
    }

    /// If it is asked for.
    pub fn verbose(&self, line: &str) {
        if self.verbose {
            self.always(line);
        }
    }
}

/// Loads and attaches what the kernel takes, best first.
///
/// Nothing is probed beforehand: the programs themselves are the probe, and cost nothing where they hold.
pub fn start(
    session: &mut dyn Session,
    shared: &Shared,
    say: &Say,
) -> Result<(Loaded, Option<Events>), Failure> {
    let btf = loader::kernel_btf(shared.btf.as_deref())?;
    let log_level = if shared.verified { verified::LOG_STATISTICS } else { 0 };
    let loader = Loader::new(&btf).perf_buffer(shared.ring_bytes as usize).verifier_log(log_level);
    let mut refused = None;
    for target in ways(shared, loader.refused())? {
        let object = session.object(&target).map_err(Failure::failed)?;
        let mut wanted = relocate::wanted(&object);
        session.names(&mut wanted);
        let index = btf.index(&wanted).map_err(LoadError::from)?;
        session.resolve(&index)?;
        let loaded = loader.load_indexed(&object, &index);
        if let Ok(loaded) = &loaded {
            session.fill(loaded)?;
        }
        let has_ring = object.maps.iter().any(|map| map.name == emit::MAP);
        match loaded.and_then(|loaded| attach(loaded, has_ring, target.ring)) {
            Ok((loaded, events)) => {
                tell(&loaded, events.as_ref(), say)?;
                return Ok((loaded, events));
            }
            Err(error) if error.is_unprivileged() => return Err(error.into()),
            Err(error) => {
                say.verbose(&format!("not as {}: {error:#}", target_words(&target)));
                refused = Some(error);
            }
        }
    }
    Err(refused.map_or_else(|| Failure::failed("no way to run"), Failure::from))
}

/// Looks for what was there before, once everything is attached.
pub fn seed(session: &mut dyn Session, loaded: &Loaded, shared: &Shared, say: &Say) -> Result<(), Failure> {
    for seed in session.seeds() {
        let walked = !shared.no_iter && loaded.run_iter(seed)?.is_some();
        if !walked && session.asks_for_owners() {
            // Without either, sockets that are open now have no owner: "-".
            match OpenSockets::now() {
                Ok(held) => session.hold(held),
                Err(failure) => say.verbose(&format!("{seed}: {failure}")),
            }
        }
    }
    Ok(())
}

/// How the programs may be made for this host: fields by direct loads before fields by probe reads, a ring buffer before perf
/// buffers. What the optional hooks need is left to the loader, which tries.
fn ways(shared: &Shared, refused: Refused) -> Result<Vec<Target>, Failure> {
    let version = loader::kernel::version().map_err(Failure::failed)?;
    let arch = loader::kernel::arch().map_err(Failure::failed)?;
    let way =
        |access, ring| Target { version, arch, access, ring, trampolines: true, kprobes: true, refused };
    let mut ways = vec![
        way(Access::Typed, Ring::RingBuf),
        way(Access::Probed, Ring::RingBuf),
        way(Access::Probed, Ring::PerfEventArray),
    ];
    ways.retain(|way| shared.access.is_none_or(|access| way.access == access));
    ways.retain(|way| !shared.perf || way.ring == Ring::PerfEventArray);
    Ok(ways)
}

/// What memory the maps take, by what the kernel says, and how much of it the reader sees.
fn memory(loaded: &Loaded, events: Option<&Events>) -> String {
    let mut line = "bytes of memory:".to_owned();
    for map in loaded.maps() {
        let bytes = map.memory().map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        // Writing to a String cannot fail.
        let _ = write!(line, " {} {bytes},", map.name());
    }
    let _ = write!(line, " mapped by the reader {}", events.map_or(0, Events::mapped_bytes));
    line
}

fn attach(mut loaded: Loaded, has_ring: bool, ring: Ring) -> Result<(Loaded, Option<Events>), LoadError> {
    let open = |loaded: &Loaded| if has_ring { loaded.events(emit::MAP).map(Some) } else { Ok(None) };
    Ok(match ring {
        // It keeps what comes before it is opened.
        Ring::RingBuf => {
            loaded.attach()?;
            let events = open(&loaded)?;
            (loaded, events)
        }
        Ring::PerfEventArray => {
            let events = open(&loaded)?;
            loaded.attach()?;
            (loaded, events)
        }
    })
}

/// Says how it was done.
fn tell(loaded: &Loaded, events: Option<&Events>, say: &Say) -> Result<(), LoadError> {
    for note in loaded.notes() {
        match note {
            // Events are missing that no count tells of.
            Note::SparesInit => say.always(&note.to_string()),
            _ => say.verbose(&note.to_string()),
        }
    }
    for attach_option in loaded.hooks().iter().filter(|attach_option| !attach_option.unneeded) {
        let taken = attach_option
            .taken
            .as_ref()
            .map_or_else(|| "not seen here".to_owned(), |attach| AttachName(attach).to_string());
        say.verbose(&format!("{}: {taken}", attach_option.hook));
        for (attach, error) in &attach_option.refused {
            say.verbose(&format!("{}: not by {}: {error}", attach_option.hook, AttachName(attach)));
        }
    }
    if say.verified {
        for program in verified::programs(loaded)? {
            say.always(&program.to_string());
        }
    }
    if say.verbose {
        say.always(&memory(loaded, events));
    }
    Ok(())
}
