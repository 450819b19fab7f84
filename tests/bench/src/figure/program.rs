//! How long the programs are.

use super::{Plan, tell};
use crate::fault::{During, Result};
use crate::process::Running;
use crate::program;
use crate::report::{Cell, Figure};
use crate::round::START;

/// Every program of every contender as it lies in the kernel.
pub fn measure(plan: &Plan) -> Result<Figure> {
    tell("programs");
    let mut figure = Figure::new(
        "programs",
        "Programs",
        "As they lie in the kernel, by bpftool and /proc. Instructions after the verifier's rewriting; verified: on all paths \
         that it followed; calls: of helpers, as written (a look into a hash is written out in both). Of a run that sends an \
         event: the fewest instructions and calls on any way through the program.",
        &[
            "tool",
            "program",
            "instructions",
            "verified",
            "calls",
            "instructions of a run, at least",
            "calls of a run, at least",
            "machine code bytes",
        ],
    );
    for contender in plan.of(&crate::contender::tools()) {
        let mut running = Running::start(contender.command())?;
        running.wait_attached(START).during(contender)?;
        let shapes = program::shapes(running.pid(), &running.programs())?;
        running.stop()?;
        for shape in &shapes {
            figure.row([
                contender.to_string().into(),
                shape.name.clone().into(),
                Cell::count(shape.instructions),
                Cell::number(shape.verified.map(|verified| verified as f64), 0),
                Cell::count(shape.calls),
                Cell::number(shape.least.map(|least| least as f64), 0),
                Cell::number(shape.least_calls.map(|least| least as f64), 0),
                Cell::count(shape.jited),
            ]);
        }
    }
    Ok(figure)
}
