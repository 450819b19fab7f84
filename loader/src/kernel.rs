//! Facts about the running kernel: version, machine, lockdown, CPUs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

use bpfasm::target::{Arch, KernelVersion};

use crate::errno::Errno;

/// The running kernel could not be identified.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// `uname(2)` failed with this error.
    #[error("uname: {0}")]
    Uname(Errno),
    /// Neither `release` nor `version` of `uname(2)` contains a version.
    #[error("no kernel version in `{release}`")]
    Version {
        /// `utsname.release`
        release: String,
    },
    /// The machine is neither x86-64 nor arm64.
    #[error("no programs for `{machine}`, only for x86_64 and aarch64")]
    Machine {
        /// `utsname.machine`
        machine: String,
    },
}

/// The running kernel's version. `uname(2)` is called once and the result is kept.
///
/// # Errors
/// If `uname(2)` fails or contains no version. Errors are not kept.
pub fn version() -> Result<KernelVersion, KernelError> {
    static VERSION: OnceLock<KernelVersion> = OnceLock::new();
    match VERSION.get() {
        Some(version) => Ok(*version),
        None => ask_version().map(|version| *VERSION.get_or_init(|| version)),
    }
}

fn ask_version() -> Result<KernelVersion, KernelError> {
    let uname = nix::sys::utsname::uname().map_err(|error| KernelError::Uname(error.into()))?;
    let release = uname.release().to_string_lossy();
    parse_version(&release, &uname.version().to_string_lossy())
        .ok_or_else(|| KernelError::Version { release: release.into_owned() })
}

/// The machine that this crate was built for.
///
/// # Errors
/// If there are no BPF programs for it.
pub fn arch() -> Result<Arch, KernelError> {
    if cfg!(target_arch = "x86_64") {
        Ok(Arch::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Ok(Arch::Aarch64)
    } else {
        Err(KernelError::Machine { machine: std::env::consts::ARCH.to_owned() })
    }
}

/// The lockdown mode: `none`, `integrity` or `confidentiality`. `None` if it is unknown: securityfs
/// is not mounted, or the kernel does not support lockdown.
pub fn lockdown() -> Option<String> {
    selected_mode(&std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?).map(str::to_owned)
}

/// The mode in brackets in `none [integrity] confidentiality`.
fn selected_mode(modes: &str) -> Option<&str> {
    let (_, mode) = modes.split_once('[')?;
    mode.split_once(']').map(|(mode, _)| mode)
}

/// Whether the kernel is locked down for confidentiality; false also if that is unknown.
pub(crate) fn is_confidential() -> bool {
    hides_memory(lockdown().as_deref())
}

/// Whether a lockdown mode forbids programs to read kernel memory by address.
fn hides_memory(mode: Option<&str>) -> bool {
    mode == Some("confidentiality")
}

/// From `utsname.release` (`6.18.44-cloud`) and `utsname.version`.
///
/// Debian's release names the ABI (`6.1.0-28-amd64`), its version the source
/// (`#1 SMP Debian 6.1.119-1 (2024-11-22)`). Before 5.0 a kprobe program had to carry the latter.
pub(crate) fn parse_version(release: &str, version: &str) -> Option<KernelVersion> {
    version.split_once("Debian ").and_then(|(_, rest)| numbers(rest)).or_else(|| numbers(release))
}

/// Reads 6.1.119 from `6.1.119-1`; a missing third number is 0.
fn numbers(text: &str) -> Option<KernelVersion> {
    let mut parts = text.splitn(3, '.').map(|part| {
        let end = part.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end).and_then(|digits| digits.parse::<u16>().ok())
    });
    Some(KernelVersion {
        major: parts.next().flatten()?,
        minor: parts.next().flatten()?,
        patch: parts.next().flatten().unwrap_or(0),
    })
}

/// `LINUX_VERSION_CODE`. Its third number is at most 255.
pub(crate) fn version_code(version: KernelVersion) -> u32 {
    (u32::from(version.major) << 16)
        + (u32::from(version.minor.min(255)) << 8)
        + u32::from(version.patch.min(255))
}

/// The file in which the kernel exposes its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// CPU numbers from here on are refused as damaged input: CONFIG_NR_CPUS is at most 8192.
pub(crate) const MAX_CPUS: usize = 1 << 16;

/// CPU numbers from a list such as `0-3,8`. `None` if it is damaged: not numbers, not ascending, or
/// too large.
pub(crate) fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus: Vec<u32> = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let next = cpus.last().map_or(0, |cpu| cpu + 1);
        if first < next || first > last || last as usize >= MAX_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Reads a small file of `/proc` or `/sys`, with half the system calls of
/// [`std::fs::read_to_string`]: the size that such a file reports means nothing, so it is not
/// requested, and the buffer is large enough from the start.
///
/// # Errors
/// If the file cannot be read or is not UTF-8.
pub fn read_small(file: &Path) -> io::Result<String> {
    const SMALL: usize = 4096;
    let mut text = String::with_capacity(SMALL);
    // Through `Take`, `read_to_string` cannot ask for the size.
    File::open(file)?.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn read_cpus(file: &Path) -> Result<Vec<u32>, Errno> {
    cpu_list(&read_small(file)?).ok_or(Errno::INVAL)
}

/// The numbers of the CPUs that are online.
pub(crate) fn online_cpus() -> Result<Vec<u32>, Errno> {
    read_cpus(Path::new("/sys/devices/system/cpu/online"))
}

/// The number of possible CPUs: a per-CPU map has this many values for each key.
pub(crate) fn possible_cpus() -> Result<usize, Errno> {
    read_cpus(Path::new("/sys/devices/system/cpu/possible")).map(|cpus| cpus.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(major: u16, minor: u16, patch: u16) -> Option<KernelVersion> {
        Some(KernelVersion { major, minor, patch })
    }

    #[test]
    fn versions() {
        let mainline = "#1 SMP PREEMPT_DYNAMIC @0";
        for (release, version, want) in [
            ("6.18.44-fc-v669", mainline, v(6, 18, 44)),
            ("6.1.0-28-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)", v(6, 1, 119)),
            ("5.10.0-32-cloud-arm64", "#1 SMP Debian 5.10.223-1 (2024-08-10)", v(5, 10, 223)),
            (
                "6.12.107+deb13-cloud-amd64",
                "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-05-01)",
                v(6, 12, 107),
            ),
            ("6.12.107+deb13-cloud-amd64", "#1 SMP Debian unstable", v(6, 12, 107)),
            ("7.0-rc1", mainline, v(7, 0, 0)),
            ("4.19.325", mainline, v(4, 19, 325)),
            ("6", mainline, None),
            ("", "", None),
            ("six.one.two", mainline, None),
            ("99999.1.1", mainline, None),
        ] {
            assert_eq!(parse_version(release, version), want, "{release} {version}");
        }
    }

    #[test]
    fn version_codes_end_at_255() {
        assert_eq!(version_code(v(4, 19, 325).unwrap()), 0x0004_13ff);
        assert_eq!(version_code(v(6, 1, 2).unwrap()), 0x0006_0102);
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("0"), Some(vec![0]));
        assert_eq!(cpu_list("65535"), Some(vec![65535]));
        for bad in ["", "1-", "3-1", "x", "0-4294967295", "0-65536", "0,,1", "0-3,3", "2,1"] {
            assert_eq!(cpu_list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn lockdown_is_the_mode_in_brackets() {
        assert_eq!(selected_mode("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(selected_mode("[none] integrity confidentiality\n"), Some("none"));
        for damaged in ["", "none", "none [integrity", "none ]integrity"] {
            assert_eq!(selected_mode(damaged), None, "{damaged:?}");
        }
        assert!(hides_memory(Some("confidentiality")));
        assert!(!hides_memory(Some("integrity")) && !hides_memory(None));
        assert_eq!(is_confidential(), hides_memory(lockdown().as_deref()));
    }

    #[test]
    fn a_file_of_cpus_is_read() {
        let file = std::env::temp_dir().join(format!("loader-cpus-{}", std::process::id()));
        std::fs::write(&file, "0-2,5\n").unwrap();
        let cpus = read_cpus(&file);
        std::fs::write(&file, "none\n").unwrap();
        let damaged = read_cpus(&file);
        std::fs::remove_file(&file).unwrap();
        assert_eq!((cpus, damaged), (Ok(vec![0, 1, 2, 5]), Err(Errno::INVAL)));
        assert_eq!(read_cpus(&file), Err(Errno::NOENT));
    }

    #[test]
    fn online_cpus_are_those_of_proc_stat() {
        let stat = read_small(Path::new("/proc/stat")).unwrap();
        let numbers =
            stat.lines().filter_map(|line| line.strip_prefix("cpu")?.split(' ').next()?.parse().ok());
        assert_eq!(online_cpus(), Ok(numbers.collect()));
    }

    #[test]
    fn this_machine_has_a_version_and_cpus() {
        assert!(version().unwrap().major >= 4);
        assert!(possible_cpus().unwrap() >= online_cpus().unwrap().len());
    }
}
