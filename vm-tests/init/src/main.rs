//! PID 1 of a virtual machine of `vm-tests`: mounts file systems, loads modules, runs the kernel
//! tests or the benchmark, reports the results and powers off.
//!
//! It writes lines `vm SECONDS WORD ...`, which `vm-tests/src/console.rs` parses. A machine that
//! ends without a verdict has failed, so this program does not handle its own crash: the kernel
//! panics if PID 1 dies, and the runner sees that.

#![forbid(unsafe_code)]

mod attach;
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

/// The file with the configuration.
const CONFIG: &str = "/etc/vm";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        // In variants with few privileges this program is installed as `tcptools`.
        return privilege::exec_unprivileged();
    }
    // The message goes to the console, which the runner shows if the verdict is missing.
    if let Err(message) = machine() {
        eprintln!("vm-init: {message}");
    }
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(errno) => eprintln!("vm-init: power off: {errno}"),
    }
    ExitCode::FAILURE
}

/// All that the machine does.
fn machine() -> Result<(), String> {
    let text = fs::read_to_string(CONFIG).map_err(|e| format!("{CONFIG}: {e}"))?;
    let config = Config::parse(&text)?;
    setup::mounts(&config)?;
    let mut results = Results::open(&config.results)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|e| format!("osrelease: {e}"))?;
    results.report("boot", release.trim_end())?;
    for module in &config.modules {
        let outcome = setup::load_module(module);
        results.report(
            "module",
            &format!("{module} {}", outcome.map_or_else(|message| message, |()| "ok".into())),
        )?;
    }
    if config.shell {
        return payload::shell();
    }
    if config.attach_tools {
        attach::report(&config.option_sets, &mut results)?;
    }
    let verdict = payload::run(&config.payload, &mut results)?;
    for file in &config.files {
        payload::report_file(file, &mut results)?;
    }
    results.report("verdict", &verdict)
}
