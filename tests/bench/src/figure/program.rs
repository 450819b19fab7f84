//! The sizes of the BPF programs.

use super::{Plan, progress};
use crate::fault::{During, Result};
use crate::process::Running;
use crate::program;
use crate::report::{Cell, Figure};
use crate::round::START_LIMIT;

/// A table of all programs of all contenders, as the kernel has them.
pub fn measure(plan: &Plan) -> Result<Figure> {
    progress("programs");
    let mut figure = Figure::new(
        "programs",
        "Programs",
        "BPF programs as bpftool and /proc show them. Instructions: after the verifier's rewriting. Verified: instructions on all \
         paths that the verifier followed. Calls: helper calls, without those that the verifier inlines (such as hash lookups). \
         Fewest: on the shortest path of a run that sends an event.",
        &[
            "tool",
            "program",
            "instructions",
            "verified",
            "calls",
            "fewest instructions per run",
            "fewest calls per run",
            "machine code bytes",
        ],
    );
    for contender in plan.of(&crate::contender::tools()) {
        let mut running = Running::start(contender.command())?;
        running.wait_attached(START_LIMIT).during(contender)?;
        let shapes = program::shapes(running.pid(), &running.programs())?;
        running.stop()?;
        for shape in &shapes {
            figure.row([
                contender.to_string().into(),
                shape.name.clone().into(),
                Cell::count(shape.instructions),
                Cell::number(shape.verified.map(|verified| verified as f64), 0),
                Cell::count(shape.calls),
                Cell::number(shape.min_instructions.map(|count| count as f64), 0),
                Cell::number(shape.min_calls.map(|count| count as f64), 0),
                Cell::count(shape.jited),
            ]);
        }
    }
    Ok(figure)
}
