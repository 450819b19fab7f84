//! Compares the costs of tcptools and its peers in one run on one machine: `cargo bench-tools`, as
//! root.
//!
//! - [`contender`] lists the programs that are compared, [`load`] generates the traffic that they
//!   watch, [`round`] runs one of each;
//! - [`process`], [`proc`], [`program`] and [`watch`] observe a tool from outside, by the same
//!   methods for all of them;
//! - [`figure`] has the measurements, [`report`] prints them, [`verdict`] is the short run of
//!   `./test`.

#![forbid(unsafe_code)]

mod args;
mod conditions;
mod contender;
mod empty;
mod fault;
mod figure;
mod limit;
mod load;
mod own;
mod paths;
mod proc;
mod process;
mod program;
mod report;
mod round;
mod stats;
mod verdict;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use kernel_tests::mntns;
use kernel_tests::scratch::Scratch;
use nix::unistd::geteuid;

use crate::args::Args;
use crate::conditions::Conditions;
use crate::contender::Contender;
use crate::fault::{During, Fault, Result};
use crate::figure::{Plan, events, goals, grow, headline, parts, size, start, storm, stream};
use crate::load::{open, probe};
use crate::report::{Figure, Report, json, markdown, svg, text};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Roles in which this program starts itself as another process.
    let part = match words.as_slice() {
        [flag, what] if flag == load::FLAG => Some(load::run(what)),
        [flag, _] if flag == open::FLAG => Some(open::run()),
        [flag, _] if flag == probe::FLAG => Some(probe::run()),
        [flag, command @ ..] if flag == process::EXEC => Some(Err(process::wait_and_exec(command))),
        _ => None,
    };
    let result = part.unwrap_or_else(|| match Args::parse(words) {
        Ok(args) => bench(&args),
        Err(usage) => usage.exit(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("bench-tools: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<()> {
    let tcptools = tcptools()?;
    if args.only == ["size"] {
        let (bytes, figure) = size::measure(&tcptools, &with_symbols()?)?;
        print!("{}", text::figure(&figure));
        return size::check(bytes);
    }
    if !geteuid().is_root() {
        return Err(Fault::new("run as root (it attaches BPF programs and makes network namespaces)"));
    }
    contender::set_ours(tcptools.clone());
    // Peers need tracefs: it is mounted in a mount namespace of this process.
    mntns::enter_new();
    mntns::mount_tracefs();
    let scratch = Scratch::new();
    let tools = if args.short { vec!["tcplife", "tcpstates"] } else { contender::tools() };
    let conditions = conditions::conditions(&tcptools, args.emulated)?;
    figure::progress("which peers run here");
    let (peers, left_out) = contender::peers(&tools, &scratch.path(""))?;
    let ours = contender::tools().into_iter().map(Contender::as_peers);
    let contenders = ours.chain(peers).collect();
    let plan = Plan { contenders, left_out, tcptools, short: args.short, emulated: args.emulated };
    if args.short {
        return verdict::run(&plan);
    }
    let (report, failed) = measure(&plan, args, conditions);
    print!("{}", text::conditions(&report));
    for figure in report.all() {
        print!("{}", text::figure(figure));
    }
    let numbers = format!("{:#}\n", json::report(&report));
    if let Some(path) = &args.json {
        fs::write(path, &numbers).during(path.display())?;
    }
    if let Some(path) = &args.page {
        fs::write(path, markdown::page(&report)).during(path.display())?;
    }
    if failed > 0 {
        return Err(Fault::new(format!("{failed} figures could not be measured")));
    }
    if args.update_docs {
        write_docs(&report, &numbers)?;
    }
    size::check(size::of_file(&plan.tcptools)?)
}

/// Measures the figures that were asked for, and counts those that failed. The others are measured
/// all the same.
fn measure(plan: &Plan, args: &Args, conditions: Conditions) -> (Report, usize) {
    let mut figures: Vec<Figure> = Vec::new();
    let (mut starts, mut storms, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    let mut failed = 0;
    let mut add = |name: &str, measured: &mut dyn FnMut() -> Result<Vec<Figure>>| {
        if args.wants(name) {
            match measured() {
                Ok(some) => figures.extend(some),
                Err(fault) => {
                    eprintln!("bench-tools: {name}: {fault}");
                    failed += 1;
                }
            }
        }
    };
    // An emulated machine has no compiler, and the size is the same.
    if !plan.emulated {
        add("size", &mut || Ok(vec![size::measure(&plan.tcptools, &with_symbols()?)?.1]));
    }
    add("start", &mut || {
        let (measured, figure) = start::measure(plan)?;
        starts = measured;
        Ok(vec![figure])
    });
    add("storm", &mut || {
        let (measured, figure) = storm::measure(plan)?;
        storms = measured;
        Ok(vec![figure])
    });
    // This figure contains no peer, and an emulated machine only gives ratios between tools.
    if !plan.emulated {
        add("storm", &mut || Ok(vec![storm::variants(plan)?]));
    }
    add("steady", &mut || Ok(vec![events::steady(plan)?.1]));
    add("refused", &mut || Ok(vec![events::refused()?]));
    add("lossy", &mut || Ok(vec![events::lossy(plan)?]));
    add("stream", &mut || {
        let (measured, figure) = stream::measure(plan)?;
        streams = measured;
        Ok(vec![figure])
    });
    add("parts", &mut || Ok(vec![parts::starts(plan)?, parts::runs()?]));
    add("programs", &mut || Ok(vec![figure::program::measure(plan)?]));
    let mut growths = Vec::new();
    for (name, part) in grow::PARTS {
        add(name, &mut || {
            let (growth, figure) = part()?;
            growths.extend(growth);
            Ok(vec![figure])
        });
    }
    if !growths.is_empty() {
        figures.push(grow::steepest(&growths));
    }
    if !args.emulated && !starts.is_empty() && !storms.is_empty() {
        figures.insert(0, goals::goals(&starts, &storms));
    }
    let report = Report {
        conditions,
        left_out: plan.left_out.iter().map(|left| (left.name.clone(), left.why.clone())).collect(),
        headline: if args.emulated {
            headline::ratios(&starts, &storms, &streams)
        } else {
            headline::headline(&starts, &storms)
        },
        figures,
        emulated: args.emulated,
    };
    (report, failed)
}

/// Writes `tests/bench/results` and the measured block of the README.
fn write_docs(report: &Report, numbers: &str) -> Result<()> {
    let root = root();
    let docs = root.join("tests/bench/results");
    fs::create_dir_all(&docs).during(docs.display())?;
    let write = |path: PathBuf, text: &str| fs::write(&path, text).during(path.display());
    write(docs.join("README.md"), &markdown::page(report))?;
    write(docs.join("results.json"), numbers)?;
    for figure in &report.figures {
        if let Some(chart) = svg::chart(figure, &report.caption()) {
            write(docs.join(format!("{}.svg", figure.id)), &chart)?;
        }
    }
    let readme = root.join("README.md");
    let text = fs::read_to_string(&readme).during(readme.display())?;
    let text =
        markdown::readme(&text, report).ok_or_else(|| Fault::new("README.md has no measured block"))?;
    write(readme, &text)
}

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The path of tcptools: `$TCPTOOLS`, or what cargo builds now.
fn tcptools() -> Result<PathBuf> {
    match std::env::var_os("TCPTOOLS") {
        Some(path) => Ok(path.into()),
        None => built("release"),
    }
}

/// The path of the same program with its symbols.
fn with_symbols() -> Result<PathBuf> {
    built("size")
}

/// Builds tcptools in a profile.
fn built(profile: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--profile", profile, "-p", "tools"]).current_dir(root());
    if !command.status().during("cargo build")?.success() {
        return Err(Fault::new(format!("cargo cannot build tcptools in the profile {profile}")));
    }
    // target/TRIPLE/PROFILE/bench-tools
    let own = std::env::current_exe().during("the path of this program")?;
    let built = own.ancestors().nth(2).map(|triple| triple.join(profile).join("tcptools"));
    built.filter(|path| path.is_file()).ok_or_else(|| {
        Fault::new(format!("cargo put no {profile}/tcptools beside this program; set $TCPTOOLS to its path"))
    })
}
