//! Builds a machine from a kernel, a variant and programs, runs it and collects its outcome.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{LineWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::apt::Apt;
use crate::build::{Payload, Programs};
use crate::console::Event;
use crate::error::{Doing, Result};
use crate::host_programs;
use crate::image::Image;
use crate::initramfs::Initramfs;
use crate::matrix::{Arch, Run};
use crate::outcome::Outcome;
use crate::qemu::{self, Boot, Clock};

/// What the kernel tests do in a machine.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Arguments for the tests.
    pub tests: &'a [String],
    /// The sets of options to attach each tool with, besides no options.
    pub options: &'a BTreeMap<String, Vec<String>>,
}

/// The folder in a machine that the benchmark writes its files to.
const BENCH_FOLDER: &str = "/tmp";

/// Runs the tests in a machine.
///
/// # Errors
///
/// If the machine cannot be built or started.
pub fn run(
    run: &Run<'_>,
    image: &Image,
    programs: &Programs,
    cache: &Path,
    plan: &Plan<'_>,
) -> Result<Outcome> {
    let mut config = common(run, image);
    config.push_str("attach-tools\n");
    for (tool, sets) in plan.options {
        for set in sets {
            let _ = writeln!(config, "options {tool} {set}");
        }
    }
    add_payload(&mut config, programs, plan.tests);
    boot(run, image, programs, cache, &config, |_| {})
}

/// Runs the benchmark in a machine and returns the two files it writes. Its output is printed as it
/// comes, because the run takes minutes.
///
/// # Errors
///
/// If the machine cannot be built or started.
pub fn bench(
    run: &Run<'_>,
    image: &Image,
    programs: &Programs,
    cache: &Path,
    arguments: &[String],
    [page, numbers]: [&str; 2],
) -> Result<Outcome> {
    let mut config = common(run, image);
    let (page, numbers) = (format!("{BENCH_FOLDER}/{page}"), format!("{BENCH_FOLDER}/{numbers}"));
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

/// Boots a machine with this configuration and reads its output to the end.
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
    // The complete output, for more than the report shows.
    let mut full_log = LineWriter::new(File::create(&log).doing(format_args!("create {}", log.display()))?);
    let begin = Instant::now();
    let mut outcome = Outcome::default();
    let clock = match programs.kind {
        Payload::Tests => Clock::Real,
        Payload::Bench => Clock::Instructions,
    };
    let machine = Boot { run, vmlinuz: &image.vmlinuz(), initramfs: &initramfs, clock };
    let end = qemu::run(&machine, &socket, |line| {
        // If the disk is full, the report still works.
        let _ = writeln!(full_log, "{line}");
        let event = Event::parse(line);
        on_event(&event);
        outcome.event(event);
    })?;
    outcome.conclude(run, end, begin.elapsed());
    for path in [&initramfs, &socket] {
        // Only x86-64 machines have a socket.
        let _ = fs::remove_file(path);
    }
    Ok(outcome)
}

/// Runs a shell in a machine, on this terminal.
///
/// # Errors
///
/// If the machine cannot be built or started.
pub fn shell(run: &Run<'_>, image: &Image, programs: &Programs, cache: &Path, apt: &mut Apt) -> Result<()> {
    let mut config = common(run, image);
    config.push_str("shell\n");
    let mut initramfs = build(run, image, programs, &config)?;
    initramfs.program("bin/busybox", &busybox(run.kernel.arch, cache, apt)?)?;
    // Debian's busybox runs its applets by name without a link for each of them.
    initramfs.link("bin/sh", "busybox")?;
    let path = cache.join("initramfs");
    initramfs.write(&path)?;
    qemu::attached(&Boot { run, vmlinuz: &image.vmlinuz(), initramfs: &path, clock: Clock::Real })
}

/// The lines of the configuration that are the same in all modes.
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
    host_programs::add(&mut initramfs, programs.kind, run.kernel.arch)?;
    initramfs.file("etc/vm", config.as_bytes(), 0o644)?;
    Ok(initramfs)
}

/// The program of Debian's `busybox-static`, from the cache or downloaded.
fn busybox(arch: Arch, cache: &Path, apt: &mut Apt) -> Result<PathBuf> {
    const SUITE: &str = "bookworm";
    let program = cache.join(format!("busybox-{}", arch.debian()));
    if !program.is_file() {
        let package = apt.newest(SUITE, arch, "busybox-static")?;
        let deb = cache.join("busybox.deb");
        apt.fetch(SUITE, &package.file, &deb)?;
        // The package has other files named `busybox`.
        crate::image::take(&deb, "bin/busybox", &program)?;
    }
    Ok(program)
}
