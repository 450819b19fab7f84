//! The complete run: every case in every lab, every sweep in full, and every change to every
//! program. It takes minutes, so `cargo test` leaves it out, does a small part of it that is always
//! the same, and compares the programs and the tests with those for which the complete run passed
//! last ([`crate::verdicts`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::lab::{Case, TARGETS, labs};
use crate::specimens::tools;
use crate::vm::kernel::KERNELS;
use crate::{emit, filter, links, mutants, owner, owner_hooks, renamed, verdicts};

/// How much of a sweep is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// A part that takes less than about a second and is always the same.
    Sample,
    /// All of it.
    Complete,
}

/// A check of many combinations, with its name.
pub type Sweep = (&'static str, fn(Extent));

/// Every sweep but that over the changes, which needs the cases to pass.
fn sweeps() -> impl Iterator<Item = Sweep> {
    [links::SWEEPS, renamed::SWEEPS, filter::SWEEPS].into_iter().flatten().copied()
}

/// The cases that are about several tools.
pub const SHARED_CASES: [&[Case]; 4] = [owner::CASES, owner_hooks::CASES, filter::CASES, emit::CASES];

/// Every case.
fn cases() -> impl Iterator<Item = &'static Case> {
    tools().flat_map(|tool| tool.cases).copied().chain(SHARED_CASES).flatten()
}

/// Does this with each item, on every CPU.
pub fn on_every_cpu<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// A piece of the complete run that panics if something is wrong.
struct Job {
    name: String,
    run: Box<dyn Fn() + Sync>,
}

/// Sweeps first: they are the longest.
fn jobs() -> Vec<Job> {
    let mut jobs: Vec<Job> = sweeps()
        .map(|(name, sweep)| Job { name: name.to_owned(), run: Box::new(move || sweep(Extent::Complete)) })
        .collect();
    for case in cases() {
        for (at, kernel) in KERNELS.iter().enumerate() {
            let run = move || {
                for set in case.sets {
                    for lab in labs(*set).skip(at * TARGETS.len()).take(TARGETS.len()) {
                        (case.run)(&lab);
                    }
                }
            };
            jobs.push(Job { name: format!("{} on {kernel:?}", case.name), run: Box::new(run) });
        }
    }
    jobs
}

/// The complete run. Only if it passes, and only here, the list of verdicts is written.
#[test]
#[ignore = "takes minutes; ./test --all runs it"]
fn complete_run() {
    let start = Instant::now();
    let inputs = verdicts::inputs();
    let failed = Mutex::new(Vec::new());
    let jobs = jobs();
    on_every_cpu(&jobs, |job| {
        if catch_unwind(AssertUnwindSafe(&job.run)).is_err() {
            failed.lock().expect("no panic in here").push(job.name.clone());
        }
    });
    let failed = failed.into_inner().expect("no panic in there");
    assert!(
        failed.is_empty(),
        "{} of {} failed, see above:\n{}",
        failed.len(),
        jobs.len(),
        failed.join("\n")
    );
    println!("{} cases and sweeps passed after {} s", jobs.len(), start.elapsed().as_secs());
    let changes = mutants::no_change_goes_unseen();
    println!("{changes} changes to programs were seen after {} s", start.elapsed().as_secs());
    assert_eq!(inputs, verdicts::inputs(), "the tests were edited while they ran");
    let written = verdicts::write();
    println!("{written}; the complete run took {} s", start.elapsed().as_secs());
}
