//! The machine, kernel and date of a run.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

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
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).during("clock")?.as_secs();
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
        ("date", date(seconds / 86_400)),
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

/// Days since 1970 as a date, in UTC.
fn date(mut days: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        let dates = [0, 58, 59, 789, 790, 20_000, 20_785].map(date);
        assert_eq!(
            dates,
            [
                "1970-01-01",
                "1970-02-28",
                "1970-03-01",
                "1972-02-29",
                "1972-03-01",
                "2024-10-04",
                "2026-11-28"
            ]
        );
    }

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
