//! The start of a run: load and attach the best programs that this kernel accepts, and print how.

use std::fmt::Write as _;

use bpfasm::target::{Access, Refused, Ring, Target};
use btf::{Index, Lookup, Want, Wanted};
use loader::{AttachName, Events, LoadError, Loaded, Loader, Note, Update, relocate};
use programs::{emit, open_sockets};

use super::verifier_stats;
use crate::cli::settings::LoadOptions;
use crate::cli::target::target_words;
use crate::failure::Failure;
use crate::host::open_sockets::OpenSockets;
use crate::messages::Messages;
use crate::tool::{KernelTypes, MapContent, Plan, Preexisting};

/// Loads and attaches the best programs that the kernel accepts, then looks for sockets that are
/// open already.
///
/// Nothing is probed beforehand. Loading the programs is the probe, and costs nothing if they load.
pub fn start(
    plan: &mut Plan,
    options: &LoadOptions,
    messages: &Messages,
) -> Result<(Loaded, Option<Events>), Failure> {
    let (loaded, events) = load_and_attach(plan, options, messages)?;
    find_preexisting(plan, &loaded, options, messages)?;
    Ok((loaded, events))
}

fn load_and_attach(
    plan: &mut Plan,
    options: &LoadOptions,
    messages: &Messages,
) -> Result<(Loaded, Option<Events>), Failure> {
    let btf = loader::kernel_btf(options.btf.as_deref())?;
    let log_level = if options.verifier_stats { verifier_stats::LOG_STATISTICS } else { 0 };
    let loader = Loader::new(&btf).perf_buffer(options.ring_bytes as usize).verifier_log(log_level);
    let mut refused = None;
    for target in targets(options, loader.refused())? {
        let object = (plan.object)(&target).map_err(Failure::failed)?;
        let mut wanted = relocate::wanted(&object);
        want_types(plan, &mut wanted);
        let index = btf.index(&wanted).map_err(LoadError::from)?;
        plan.session.set_kernel_types(&kernel_types(plan, &index)?)?;
        let loaded = loader.load_indexed(&object, &index);
        if let Ok(loaded) = &loaded {
            fill_maps(loaded, &plan.contents)?;
        }
        let has_buffer = object.maps.iter().any(|map| map.name == emit::MAP);
        match loaded.and_then(|loaded| attach(loaded, has_buffer, target.ring)) {
            Ok((loaded, events)) => {
                print_attached(&loaded, events.as_ref(), options, messages)?;
                return Ok((loaded, events));
            }
            Err(error) if error.is_unprivileged() => return Err(error.into()),
            Err(error) => {
                messages.verbose(&format!("not as {}: {error:#}", target_words(&target)));
                refused = Some(error);
            }
        }
    }
    Err(refused.map_or_else(|| Failure::failed("no way to run"), Failure::from))
}

/// Adds the names that the plan asks for.
fn want_types(plan: &Plan, wanted: &mut Wanted) {
    for name in plan.enums {
        wanted.add(Want::Enum, name);
    }
    for name in plan.tracepoints {
        wanted.add(Want::Tracepoint, name);
    }
}

/// What the kernel's types say about these names.
fn kernel_types(plan: &Plan, index: &Index<'_>) -> Result<KernelTypes, Failure> {
    let mut types = KernelTypes::default();
    for name in plan.enums {
        if let Lookup::Found(values) = index.enum_values(name).map_err(Failure::failed)? {
            let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            types.enums.insert(name, values);
        }
    }
    for name in plan.tracepoints {
        if let Lookup::Found(tracepoint) = index.tracepoint(name).map_err(Failure::failed)? {
            types.tracepoint_args.insert(name, tracepoint.args.len());
        }
    }
    Ok(types)
}

fn fill_maps(loaded: &Loaded, contents: &[MapContent]) -> Result<(), Failure> {
    for MapContent { map, key, value } in contents {
        let map = loaded.map(map).map_err(Failure::failed)?;
        map.update(key, value, Update::Any).map_err(Failure::failed)?;
    }
    Ok(())
}

/// Looks for sockets that were open before, once everything is attached: what is opened from now on
/// is seen anyway.
fn find_preexisting(
    plan: &mut Plan,
    loaded: &Loaded,
    options: &LoadOptions,
    messages: &Messages,
) -> Result<(), Failure> {
    if plan.preexisting == Preexisting::Ignored {
        return Ok(());
    }
    let iterated = !options.no_iter && loaded.run_iter(open_sockets::HOOK)?.is_some();
    if !iterated && plan.preexisting == Preexisting::TableOrList {
        // If this fails too, the owners of sockets that are open now are unknown.
        match OpenSockets::now() {
            Ok(sockets) => plan.session.set_open_sockets(sockets),
            Err(failure) => messages.verbose(&format!("{}: {failure}", open_sockets::HOOK)),
        }
    }
    Ok(())
}

/// The kernels that programs may be built for on this host, best first: fields by typed loads
/// before fields by probe reads, a ring buffer before perf buffers. The loader finds out what
/// optional hooks need.
fn targets(options: &LoadOptions, refused: Refused) -> Result<Vec<Target>, Failure> {
    let version = loader::kernel::version().map_err(Failure::failed)?;
    let arch = loader::kernel::arch().map_err(Failure::failed)?;
    let target =
        |access, ring| Target { version, arch, access, ring, trampolines: true, kprobes: true, refused };
    let mut targets = vec![
        target(Access::Typed, Ring::RingBuf),
        target(Access::Probed, Ring::RingBuf),
        target(Access::Probed, Ring::PerfEventArray),
    ];
    targets.retain(|target| options.access.is_none_or(|access| target.access == access));
    targets.retain(|target| !options.perf || target.ring == Ring::PerfEventArray);
    Ok(targets)
}

/// The memory of the maps, as the kernel reports it, and how much of it the reader has mapped.
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

fn attach(mut loaded: Loaded, has_buffer: bool, ring: Ring) -> Result<(Loaded, Option<Events>), LoadError> {
    let open = |loaded: &Loaded| if has_buffer { loaded.events(emit::MAP).map(Some) } else { Ok(None) };
    Ok(match ring {
        // A ring buffer keeps what comes before it is opened. A perf buffer does not exist before.
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

/// Prints what is attached, and how.
fn print_attached(
    loaded: &Loaded,
    events: Option<&Events>,
    options: &LoadOptions,
    messages: &Messages,
) -> Result<(), LoadError> {
    for note in loaded.notes() {
        match note {
            // Events are missing that no counter shows.
            Note::SparesInit => messages.always(&note.to_string()),
            _ => messages.verbose(&note.to_string()),
        }
    }
    for hook in loaded.hooks().iter().filter(|hook| !hook.unneeded) {
        let taken = hook
            .taken
            .as_ref()
            .map_or_else(|| "not attached".to_owned(), |attach| AttachName(attach).to_string());
        messages.verbose(&format!("{}: {taken}", hook.hook));
        for (attach, error) in &hook.refused {
            messages.verbose(&format!("{}: not by {}: {error}", hook.hook, AttachName(attach)));
        }
    }
    if options.verifier_stats {
        for program in verifier_stats::of_programs(loaded)? {
            messages.always(&program.to_string());
        }
    }
    if options.verbose {
        messages.always(&memory(loaded, events));
    }
    Ok(())
}
