//! PID 1 of a virtual machine of `vm-tests`: makes the machine fit for the kernel tests or the benchmark, runs them, says how it
//! went on the result channel, and powers off.
//!
//! The lines it writes are `vm WORD ...`; `vm-tests/src/console.rs` reads them. A machine that ends without `vm verdict` has
//! failed, so nothing here needs to guard against its own death: the kernel panics when PID 1 dies, and the runner sees it.

#![forbid(unsafe_code)]

mod attach_options;
mod config;
mod payload;
mod privilege;
mod results;
mod setup;

use std::fs;
use std::process::ExitCode;

use nix::sys::reboot::{RebootMode, reboot};

use config::Config;
use results::Results;

/// Where the runner puts what this program needs to know.
const CONFIG: &str = "/etc/vm";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        // The tests run this program in the place of tcptools when tcptools is to have few privileges.
        return privilege::exec_unprivileged();
    }
    // Nobody sees the error of a PID 1 but on the console, which the runner shows when there is no verdict.
    if let Err(fault) = machine() {
        eprintln!("vm-init: {fault}");
    }
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(errno) => eprintln!("vm-init: power off: {errno}"),
    }
    ExitCode::FAILURE
}

/// The whole life of the machine.
fn machine() -> Result<(), String> {
    let text = fs::read_to_string(CONFIG).map_err(|e| format!("{CONFIG}: {e}"))?;
    let config = Config::parse(&text)?;
    setup::mounts(&config)?;
    let mut results = Results::open(&config.results)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|e| format!("osrelease: {e}"))?;
    results.say("boot", release.trim_end())?;
    for module in &config.modules {
        let outcome = setup::load_module(module);
        results
            .say("module", &format!("{module} {}", outcome.map_or_else(|fault| fault, |()| "ok".into())))?;
    }
    if config.shell {
        return payload::shell();
    }
    if config.attach_options {
        attach_options::report(&config.option_sets, &mut results)?;
    }
    let verdict = payload::run(&config.payload, &mut results)?;
    for file in &config.files {
        payload::hand_over(file, &mut results)?;
    }
    results.say("verdict", &verdict)
}
