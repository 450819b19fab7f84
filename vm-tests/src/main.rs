//! `cargo vm-test`: boots real Debian kernels in QEMU and runs the kernel tests or the benchmark in
//! them. See `README.md`.
//!
//! The tests are the unchanged program of `tests/`, and the tool is the release build. A machine
//! has only an initramfs, no disk. Its PID 1 is `init/`, which reports over a serial line.

#![forbid(unsafe_code)]

mod apt;
mod args;
mod build;
mod console;
mod costs;
mod error;
mod host_programs;
mod image;
mod initramfs;
mod jobs;
mod machine;
mod matrix;
mod outcome;
mod qemu;
mod report;
mod toolchain;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use apt::Apt;
use args::Args;
use build::{Payload, Programs};
use costs::Costs;
use error::{Doing, Error, Result};
use image::Image;
use matrix::{Arch, Choice, Kernel, Matrix, Run};
use report::Done;
use toolchain::Toolchain;

/// The machine for the benchmark if none is named.
const BENCH_MACHINE: &str = "6.12";

/// The benchmark's figures that compare tcptools with its peers.
const BENCH_FIGURES: [&str; 2] = ["--only", "start,storm,steady,stream,programs"];

/// The files that the benchmark writes: a page and its numbers.
const BENCH_FILES: [&str; 2] = ["emulated.md", "emulated.json"];

/// A complete run fails if fewer kernels than these can be fetched for an architecture.
const MIN_KERNELS: [(Arch, usize); 2] = [(Arch::Amd64, 6), (Arch::Arm64, 2)];

fn main() -> ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm-test: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the command line asks for. Returns whether every machine is good.
fn run(args: &Args) -> Result<bool> {
    let matrix = Matrix::read()?;
    let cache = cache_folder();
    let one = [BENCH_MACHINE.to_owned()];
    let choice = match (&args.machines[..], args.quick) {
        ([], _) if args.bench => Choice::Named(&one),
        ([], true) => Choice::Quick,
        ([], false) => Choice::All,
        (words, _) => Choice::Named(words),
    };
    let mut runs = matrix.choose(choice)?;
    if args.bench {
        runs.truncate(1);
    }
    if args.json {
        println!("{}", matrix::json(&runs));
        return Ok(true);
    }
    if args.list {
        return list(&runs, &cache).map(|()| true);
    }
    std::fs::create_dir_all(&cache).doing(format_args!("mkdir {}", cache.display()))?;
    let _lock = lock(&cache)?;
    let mut apt = Apt::new(&cache.join("apt"))?;
    if args.build {
        return build(&runs, &cache, &mut apt).map(|()| true);
    }
    let (images, unavailable) = fetch_images(&runs, &cache, &mut apt, args.update)?;
    let payload = if args.bench { Payload::Bench } else { Payload::Tests };
    let available: Vec<&Run<'_>> =
        runs.iter().filter(|run| images.contains_key(run.kernel.name.as_str())).collect();
    let programs = programs(payload, &available, &cache, &mut apt)?;
    if args.shell || args.bench {
        let run = *available.first().ok_or_else(|| Error::NoSuchRun(args.machines.join(" ")))?;
        let (image, programs) = (&images[run.kernel.name.as_str()], &programs[&run.kernel.arch]);
        return if args.shell {
            machine::shell(run, image, programs, &cache, &mut apt).map(|()| true)
        } else {
            bench(args, run, image, programs, &cache)
        };
    }

    // The sets of options are attached only in complete runs, and once for each kernel.
    let is_complete = |run: &Run<'_>| args.tests.is_empty() && run.variant.name.is_empty();
    let (costs, no_options) = (read_costs()?, BTreeMap::new());
    // No test has this name.
    let no_test = ["--exact".to_owned(), "no test".to_owned()];
    let work = |index: usize| -> Result<Done> {
        let run = available[index];
        let by_default = matrix.tests(run, args.quick);
        let plan = machine::Plan {
            tests: match (args.attach, &args.tests[..]) {
                (true, _) => &no_test,
                (false, []) => &by_default,
                (false, tests) => tests,
            },
            options: if is_complete(run) { &matrix.options } else { &no_options },
        };
        let image = &images[run.kernel.name.as_str()];
        let mut outcome = machine::run(run, image, &programs[&run.kernel.arch], &cache, &plan)?;
        if is_complete(run) && !args.bless {
            outcome.faults.extend(costs.faults(&run.kernel.name, &outcome.costs));
        }
        Ok((run.name(), outcome))
    };
    let done = jobs::run(args.jobs, available.len(), work, |one| {
        println!("{}{}", report::progress(one), report::failure(one));
    })?;
    if args.bless {
        bless(costs, available.iter().zip(&done).filter(|(run, _)| is_complete(run)))?;
    }
    print!("{}", report::tables(&done));
    let enough = is_enough(choice, &runs, &unavailable);
    let good = done.iter().filter(|(_, outcome)| outcome.is_good()).count();
    println!("\n{good} of {} machines are good", done.len());
    Ok(enough && good == done.len())
}

/// Runs the benchmark in a machine. With `--update-docs` its files go into `tests/bench/results`.
fn bench(args: &Args, run: &Run<'_>, image: &Image, programs: &Programs, cache: &Path) -> Result<bool> {
    let figures = BENCH_FIGURES.map(str::to_owned);
    let arguments = if args.tests.is_empty() { &figures[..] } else { &args.tests };
    let outcome = machine::bench(run, image, programs, cache, arguments, BENCH_FILES)?;
    let done = (run.name(), outcome);
    print!("{}", report::failure(&done));
    let (_, outcome) = done;
    if args.update_docs && outcome.is_good() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/results");
        for name in BENCH_FILES {
            let text = outcome.files.get(name).ok_or(Error::NotWritten(name))?;
            let path = folder.join(name);
            std::fs::write(&path, text).doing(format_args!("write {}", path.display()))?;
        }
    }
    Ok(outcome.is_good())
}

/// `$XDG_CACHE_HOME/tcptools-vm`. It is not in cargo's target directory, because `cargo clean`
/// should not delete what takes a long download to get back.
fn cache_folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("tcptools-vm")
}

/// A lock for as long as the returned file is open: two runs at once would download into the same
/// folders.
fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("lock");
    let file = File::create(&path).doing(format_args!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("vm-test: waiting for another run to end");
        file.lock().doing(format_args!("lock {}", path.display()))?;
    }
    Ok(file)
}

fn costs_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs.txt")
}

fn read_costs() -> Result<Costs> {
    let path = costs_file();
    let text = std::fs::read_to_string(&path).doing(format_args!("read {}", path.display()))?;
    Costs::parse(&text).map_err(Error::CostLine)
}

fn bless<'a>(mut costs: Costs, done: impl Iterator<Item = (&'a &'a Run<'a>, &'a Done)>) -> Result<()> {
    for (run, (_, outcome)) in done {
        costs.bless(&run.kernel.name, &outcome.costs);
    }
    let path = costs_file();
    std::fs::write(&path, costs.to_string()).doing(format_args!("write {}", path.display()))
}

/// Builds what the machines need without booting any; for arm64 this fetches a cross compiler.
fn build(runs: &[Run<'_>], cache: &Path, apt: &mut Apt) -> Result<()> {
    let runs: Vec<&Run<'_>> = runs.iter().collect();
    for (arch, programs) in programs(Payload::Tests, &runs, cache, apt)? {
        println!("{arch}: {}", programs.tcptools.display());
    }
    Ok(())
}

fn list(runs: &[Run<'_>], cache: &Path) -> Result<()> {
    for run in runs {
        let image = Image::cached(cache, run.kernel)?;
        let packages = image.map(|image| image.packages.into_keys().collect::<Vec<_>>().join(" "));
        let packages = packages.unwrap_or_else(|| format!("not downloaded yet, from {}", run.kernel.suite));
        println!("{:<24} {:<7} {packages}", run.name(), run.kernel.arch.to_string());
    }
    Ok(())
}

type Images<'a> = BTreeMap<&'a str, Image>;

/// Takes every kernel from the cache or downloads it. Also returns the kernels that Debian no
/// longer offers.
fn fetch_images<'a>(
    runs: &[Run<'a>],
    cache: &Path,
    apt: &mut Apt,
    update: bool,
) -> Result<(Images<'a>, BTreeSet<&'a str>)> {
    let (mut images, mut unavailable) = (Images::new(), BTreeSet::new());
    for kernel in runs.iter().map(|run| run.kernel) {
        let name = kernel.name.as_str();
        if images.contains_key(name) || unavailable.contains(name) {
            continue;
        }
        match image(kernel, cache, apt, update) {
            Ok(image) => {
                images.insert(name, image);
            }
            Err(error @ Error::NoPackage { .. }) => {
                eprintln!("vm-test: {name} is skipped: {error}");
                unavailable.insert(name);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((images, unavailable))
}

fn image(kernel: &Kernel, cache: &Path, apt: &mut Apt, update: bool) -> Result<Image> {
    let cached = Image::cached(cache, kernel)?;
    match cached {
        Some(image) if !update => Ok(image),
        _ => Image::fetch(cache, kernel, apt),
    }
}

/// Builds the programs that go into these machines, once for each architecture.
fn programs(
    payload: Payload,
    runs: &[&Run<'_>],
    cache: &Path,
    apt: &mut Apt,
) -> Result<BTreeMap<Arch, Programs>> {
    let mut programs = BTreeMap::new();
    let architectures: BTreeSet<Arch> = runs.iter().map(|run| run.kernel.arch).collect();
    for arch in architectures {
        let toolchain = match arch {
            Arch::Amd64 => Toolchain::native(),
            Arch::Arm64 => Toolchain::arm64(cache, apt)?,
        };
        programs.insert(arch, Programs::build(payload, arch, cache, &toolchain)?);
    }
    Ok(programs)
}

/// Whether enough kernels could be fetched: all that were named, half of a quick choice, or
/// [`MIN_KERNELS`] of the whole matrix.
fn is_enough(choice: Choice<'_>, runs: &[Run<'_>], unavailable: &BTreeSet<&str>) -> bool {
    match choice {
        Choice::Named(_) => unavailable.is_empty(),
        Choice::Quick => unavailable.len() * 2 < runs.len(),
        Choice::All => MIN_KERNELS.iter().all(|&(arch, min)| {
            let kernels: BTreeSet<&str> = runs
                .iter()
                .filter(|run| run.kernel.arch == arch)
                .map(|run| run.kernel.name.as_str())
                .collect();
            let left = kernels.difference(unavailable).count();
            if left < min {
                eprintln!("vm-test: only {left} kernels are available for {arch}, at least {min} are needed");
            }
            left >= min
        }),
    }
}
