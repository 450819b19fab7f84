//! The machine, kernel and date of a run.

use std::fs;
use std::process::Command;

use jiff::Timestamp;

use crate::fault::{During, Result};

pub type Conditions = Vec<(&'static str, String)>;

/// Machine, kernel, version, load and date. Must be called before anything is measured, because
/// measuring changes the load.
pub fn conditions(tcptools: &std::path::Path, emulated: bool) -> Result<Conditions> {
    let read = |path: &str| fs::read_to_string(path).during(path);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let model = field(&read("/proc/cpuinfo")?, "model name").unwrap_or_else(|| "unnamed CPU".to_owned());
    let virtual_machine = match read("/proc/cpuinfo")? {
        _ if emulated => ", emulated",
        flags if flags.contains("hypervisor") => ", in a virtual machine",
        _ => "",
    };
    let load = read("/proc/loadavg")?;
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let lockdown = loader::kernel::lockdown();
    let version = Command::new(tcptools).arg("--version").output().during("tcptools --version")?;
    let mut conditions = vec![
        ("machine", format!("{cpus} × {model}{virtual_machine}")),
        (
            "kernel",
            format!(
                "Linux {}{}",
                number(&kernel),
                lockdown.map(|mode| format!(", lockdown {mode}")).unwrap_or_default()
            ),
        ),
        ("version", String::from_utf8_lossy(&version.stdout).trim().to_owned()),
        ("load", format!("load average {} before the run", load.split(' ').next().unwrap_or("-"))),
        ("date", Timestamp::now().strftime("%Y-%m-%d").to_string()),
    ];
    // An emulated machine runs nothing else, and the load of its host does not affect its clock.
    conditions.retain(|(name, _)| !emulated || *name != "load");
    Ok(conditions)
}

/// The version number of a kernel release, without the builder's suffix.
fn number(release: &str) -> &str {
    release.trim().split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default()
}

/// The value in a line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_of_a_kernel_release_is_dropped() {
        assert_eq!(["6.18.44-cloud\n", "7.3.4+deb13", "6.1"].map(number), ["6.18.44", "7.3.4", "6.1"]);
    }

    #[test]
    fn a_field_is_the_text_after_the_colon() {
        assert_eq!(field("processor\t: 0\nmodel name\t: A CPU\n", "model name"), Some("A CPU".to_owned()));
        assert_eq!(field("", "model name"), None);
    }
}
