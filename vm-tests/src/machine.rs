//! From a kernel, the programs and a variant to a machine, and from that to what came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::apt::Apt;
use crate::build::{Payload, Programs};
use crate::companion;
use crate::console::Event;
use crate::error::{Doing, Result};
use crate::image::Image;
use crate::initramfs::Initramfs;
use crate::matrix::{Arch, Run};
use crate::outcome::Outcome;
use crate::qemu::{self, Boot, Clock};

/// What is to be done in a machine.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Arguments of the tests; those of the variant when there are none.
    pub tests: &'a [String],
    /// The options to attach each tool with, besides none.
    pub options: &'a BTreeMap<String, Vec<String>>,
}

/// Where the benchmark writes in a machine.
const WRITTEN: &str = "/tmp";

/// Runs the tests in a machine.
///
/// # Errors
///
/// When the machine cannot be made or started.
pub fn run(
    run: &Run<'_>,
    image: &Image,
    programs: &Programs,
    cache: &Path,
    wanted: &Wanted<'_>,
) -> Result<Outcome> {
    let mut config = common(run, image);
    config.push_str("attach_options\n");
    for (tool, sets) in wanted.options {
        for set in sets {
            let _ = writeln!(config, "options {tool} {set}");
        }
    }
    let words = if wanted.tests.is_empty() { &run.variant.tests } else { wanted.tests };
    add_payload(&mut config, programs, words);
    boot(run, image, programs, cache, &config, |_| {})
}

/// Runs the benchmark in a machine with these arguments, and brings back what it writes into these files. What it says is said
/// at once: it takes its time.
///
/// # Errors
///
/// When the machine cannot be made or started.
pub fn bench(
    run: &Run<'_>,
    image: &Image,
    programs: &Programs,
    cache: &Path,
    arguments: &[String],
    [page, numbers]: [&str; 2],
) -> Result<Outcome> {
    let mut config = common(run, image);
    let (page, numbers) = (format!("{WRITTEN}/{page}"), format!("{WRITTEN}/{numbers}"));
    let own = ["--emulated", "--page", &page, "--json", &numbers].map(str::to_owned);
    add_payload(&mut config, programs, &[&own, arguments].concat());
    let _ = writeln!(config, "file {page}\nfile {numbers}");
    boot(run, image, programs, cache, &config, |event| {
        if let Event::Output(line) = event {
            println!("{line}");
        }
    })
}

fn add_payload(config: &mut String, programs: &Programs, words: &[String]) {
    let _ = writeln!(config, "payload /bin/{}", programs.kind.name());
    for word in words {
        let _ = writeln!(config, "payload {word}");
    }
}

/// Boots a machine with this configuration and hears it out.
fn boot(
    run: &Run<'_>,
    image: &Image,
    programs: &Programs,
    cache: &Path,
    config: &str,
    mut on_event: impl FnMut(&Event),
) -> Result<Outcome> {
    let own = |ending: &str| cache.join("machines").join(format!("{}.{ending}", run.name()));
    let folder = cache.join("machines");
    fs::create_dir_all(&folder).doing(format_args!("mkdir {}", folder.display()))?;
    let (initramfs, socket, log) = (own("initramfs"), own("socket"), own("log"));
    build(run, image, programs, config)?.write(&initramfs)?;
    // All that is said, for whoever wants more than the report.
    let mut kept = BufWriter::new(File::create(&log).doing(format_args!("create {}", log.display()))?);
    let begin = Instant::now();
    let mut outcome = Outcome::default();
    let clock = match programs.kind {
        Payload::Tests => Clock::Real,
        Payload::Bench => Clock::Instructions,
    };
    let machine = Boot { run, vmlinuz: &image.vmlinuz(), initramfs: &initramfs, clock };
    let end = qemu::run(&machine, &socket, |line| {
        // A full disk must not hide what the machine says.
        let _ = writeln!(kept, "{line}");
        let event = Event::parse(line);
        on_event(&event);
        outcome.event(event);
    })?;
    outcome.conclude(run, end, begin.elapsed());
    for path in [&initramfs, &socket] {
        // The socket is there on x86-64 only.
        let _ = fs::remove_file(path);
    }
    Ok(outcome)
}

/// Runs a shell in a machine, on this terminal.
///
/// # Errors
///
/// When the machine cannot be made or started.
pub fn shell(run: &Run<'_>, image: &Image, programs: &Programs, cache: &Path, apt: &mut Apt) -> Result<()> {
    let mut config = common(run, image);
    config.push_str("shell\n");
    let mut initramfs = build(run, image, programs, &config)?;
    initramfs.program("bin/busybox", &busybox(run.kernel.arch, cache, apt)?)?;
    // busybox runs its own programs by name without links to itself where it was built so; Debian's is.
    initramfs.link("bin/sh", "busybox")?;
    let path = cache.join("initramfs");
    initramfs.write(&path)?;
    qemu::attached(&Boot { run, vmlinuz: &image.vmlinuz(), initramfs: &path, clock: Clock::Real })
}

/// The configuration that all modes share.
fn common(run: &Run<'_>, image: &Image) -> String {
    let mut config = format!("results {}\n", qemu::result_device(run.kernel.arch));
    if !run.variant.tracefs {
        config.push_str("no-tracefs\n");
    }
    for module in image.modules.iter().filter_map(|path| path.file_name()) {
        let _ = writeln!(config, "module {}", module.display());
    }
    config
}

fn build(run: &Run<'_>, image: &Image, programs: &Programs, config: &str) -> Result<Initramfs> {
    let mut initramfs = Initramfs::new()?;
    initramfs.program("init", &programs.init)?;
    initramfs.program(&format!("bin/{}", programs.kind.name()), &programs.payload)?;
    if run.variant.capabilities.is_empty() {
        initramfs.program("bin/tcptools", &programs.tcptools)?;
    } else {
        initramfs.program("bin/tcptools.real", &programs.tcptools)?;
        initramfs.program("bin/tcptools", &programs.init)?;
        initramfs.file("etc/capabilities", run.variant.capabilities.join("\n").as_bytes(), 0o644)?;
    }
    for path in &image.modules {
        if let Some(name) = path.file_name() {
            initramfs.program(&format!("modules/{}", name.display()), path)?;
        }
    }
    companion::add(&mut initramfs, programs.kind, run.kernel.arch)?;
    initramfs.file("etc/vm", config.as_bytes(), 0o644)?;
    Ok(initramfs)
}

/// Debian's `busybox-static`, of which the cache keeps the program.
fn busybox(arch: Arch, cache: &Path, apt: &mut Apt) -> Result<PathBuf> {
    const SUITE: &str = "bookworm";
    let kept = cache.join(format!("busybox-{}", arch.debian()));
    if !kept.is_file() {
        let package = apt.newest(SUITE, arch, "busybox-static")?;
        let deb = cache.join("busybox.deb");
        apt.fetch(SUITE, &package.file, &deb)?;
        // Other files of that name are about it.
        crate::image::take(&deb, "bin/busybox", &kept)?;
    }
    Ok(kept)
}
