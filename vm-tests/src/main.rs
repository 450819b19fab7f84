//! `cargo vm-test`: boots real Debian kernels in QEMU and runs the kernel tests inside, or the benchmark. See `README.md`.
//!
//! The tests are the program of `tests/`, unchanged; the tool is the release build. A machine has an initramfs and nothing else:
//! PID 1 is `init/`, and what it says over a serial line decides.

#![forbid(unsafe_code)]

mod apt;
mod args;
mod build;
mod companion;
mod console;
mod costs;
mod error;
mod fleet;
mod image;
mod initramfs;
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

/// The machine of the benchmark when none is named.
const BENCH_MACHINE: &str = "6.12";

/// What the benchmark measures in it: what peers do as well.
const BENCH_FIGURES: [&str; 2] = ["--only", "start,storm,steady,stream,programs"];

/// What the benchmark writes: a page and its numbers.
const BENCH_FILES: [&str; 2] = ["emulated.md", "emulated.json"];

/// What has to be left of each architecture when kernels can no longer be had.
const ENOUGH: [(Arch, usize); 2] = [(Arch::Amd64, 6), (Arch::Arm64, 2)];

fn main() -> ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(fault) => fault.exit(),
    };
    match everything(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm-test: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn everything(args: &Args) -> Result<bool> {
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
    if args.list {
        return list(&runs, &cache).map(|()| true);
    }
    std::fs::create_dir_all(&cache).doing(format_args!("mkdir {}", cache.display()))?;
    let _lock = lock(&cache)?;
    let mut apt = Apt::new(&cache.join("apt"))?;
    let (images, gone) = provide(&runs, &cache, &mut apt, args.update)?;
    let payload = if args.bench { Payload::Bench } else { Payload::Tests };
    let programs = programs(payload, &runs, &images, &cache, &mut apt)?;
    if args.shell || args.bench {
        let run = runs.iter().find(|run| images.contains_key(run.kernel.name.as_str()));
        let run = run.ok_or_else(|| Error::NoSuchRun(args.machines.join(" ")))?;
        let (image, programs) = (&images[run.kernel.name.as_str()], &programs[&run.kernel.arch]);
        return if args.shell {
            machine::shell(run, image, programs, &cache, &mut apt).map(|()| true)
        } else {
            bench(args, run, image, programs, &cache)
        };
    }

    let here: Vec<&Run<'_>> =
        runs.iter().filter(|run| images.contains_key(run.kernel.name.as_str())).collect();
    // Who asks for certain tests wants them and nothing else; and one machine of a kernel is enough for all the options.
    let is_whole = |run: &Run<'_>| args.tests.is_empty() && run.variant.name.is_empty();
    let (costs, none) = (read_costs()?, BTreeMap::new());
    // A name that no test has.
    let no_test = ["--exact".to_owned(), "no test".to_owned()];
    let work = |index: usize| -> Result<Done> {
        let run = here[index];
        let wanted = machine::Wanted {
            tests: if args.attach { &no_test } else { &args.tests },
            options: if is_whole(run) { &matrix.options } else { &none },
        };
        let image = &images[run.kernel.name.as_str()];
        let mut outcome = machine::run(run, image, &programs[&run.kernel.arch], &cache, &wanted)?;
        if is_whole(run) && !args.bless {
            outcome.faults.extend(costs.faults(&run.kernel.name, &outcome.costs));
        }
        Ok((run.name(), outcome))
    };
    let done = fleet::run(args.jobs, here.len(), work, |one| {
        println!("{}{}", report::progress(one), report::failure(one));
    })?;
    if args.bless {
        bless(costs, here.iter().zip(&done).filter(|(run, _)| is_whole(run)))?;
    }
    print!("{}", report::tables(&done));
    let enough = is_enough(choice, &runs, &gone);
    let good = done.iter().filter(|(_, outcome)| outcome.is_good()).count();
    println!("\n{good} of {} machines are good", done.len());
    Ok(enough && good == done.len())
}

/// The benchmark in a machine; what it writes goes into the documents if that is wanted.
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

/// `$XDG_CACHE_HOME/tcptools-vm`. Not in cargo's target directory: `cargo clean` is for what can be built again for nothing.
fn cache_folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("tcptools-vm")
}

/// Held as long as the file is open: two runs at once would fetch into the same folders and be twice as slow.
fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("lock");
    let file = File::create(&path).doing(format_args!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("vm-test: wait for another run to end");
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

fn list(runs: &[Run<'_>], cache: &Path) -> Result<()> {
    for run in runs {
        let image = Image::cached(cache, run.kernel)?;
        let packages = image.map(|image| image.packages.into_keys().collect::<Vec<_>>().join(" "));
        let packages = packages.unwrap_or_else(|| format!("not fetched yet, from {}", run.kernel.suite));
        println!("{:<24} {:<7} {packages}", run.name(), run.kernel.arch.to_string());
    }
    Ok(())
}

type Images<'a> = BTreeMap<&'a str, Image>;

/// Every kernel once: from the cache, or fetched into it. Those that can no longer be had are said and named.
fn provide<'a>(
    runs: &[Run<'a>],
    cache: &Path,
    apt: &mut Apt,
    update: bool,
) -> Result<(Images<'a>, BTreeSet<&'a str>)> {
    let (mut images, mut gone) = (Images::new(), BTreeSet::new());
    for kernel in runs.iter().map(|run| run.kernel) {
        let name = kernel.name.as_str();
        if images.contains_key(name) || gone.contains(name) {
            continue;
        }
        match image(kernel, cache, apt, update) {
            Ok(image) => {
                images.insert(name, image);
            }
            Err(error @ Error::NoPackage { .. }) => {
                eprintln!("vm-test: {name} is left out: {error}");
                gone.insert(name);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((images, gone))
}

fn image(kernel: &Kernel, cache: &Path, apt: &mut Apt, update: bool) -> Result<Image> {
    let cached = Image::cached(cache, kernel)?;
    match cached {
        Some(image) if !update => Ok(image),
        _ => Image::fetch(cache, kernel, apt),
    }
}

fn programs(
    payload: Payload,
    runs: &[Run<'_>],
    images: &Images<'_>,
    cache: &Path,
    apt: &mut Apt,
) -> Result<BTreeMap<Arch, Programs>> {
    let mut programs = BTreeMap::new();
    let wanted: BTreeSet<Arch> = runs
        .iter()
        .filter(|run| images.contains_key(run.kernel.name.as_str()))
        .map(|run| run.kernel.arch)
        .collect();
    for arch in wanted {
        let toolchain = match arch {
            Arch::Amd64 => Toolchain::native(),
            Arch::Arm64 => Toolchain::arm64(cache, apt)?,
        };
        programs.insert(arch, Programs::build(payload, arch, cache, &toolchain)?);
    }
    Ok(programs)
}

/// Whether what was asked for could be had. Of a machine that was named, all of it; of the whole matrix, enough.
fn is_enough(choice: Choice<'_>, runs: &[Run<'_>], gone: &BTreeSet<&str>) -> bool {
    match choice {
        Choice::Named(_) => gone.is_empty(),
        Choice::Quick => gone.len() * 2 < runs.len(),
        Choice::All => ENOUGH.iter().all(|&(arch, least)| {
            let kernels: BTreeSet<&str> = runs
                .iter()
                .filter(|run| run.kernel.arch == arch)
                .map(|run| run.kernel.name.as_str())
                .collect();
            let left = kernels.difference(gone).count();
            if left < least {
                eprintln!("vm-test: only {left} kernels are left on {arch}, and {least} are the least");
            }
            left >= least
        }),
    }
}
