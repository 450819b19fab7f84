//! Features that a test needs and that a machine may lack.
//!
//! Each feature has an availability, such as "kernels have this since 5.5". Whether the feature is
//! there is found out from the kernel, not from its version; the version only checks the stated
//! availability. So a wrong or outdated statement fails the test, and no test is skipped for ever.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::cgroup;
use crate::netns::{self, Netns};
use crate::rights::{Capability, Rights};

/// A feature without which a test cannot run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Feature {
    /// IPv6, which a kernel may be built or started without.
    Ipv6,
    /// The veth device, which may be a missing module.
    Veth,
    /// `/sys/kernel/btf/vmlinux`.
    KernelBtf,
    /// The tracepoints `sock_send_length` and `sock_recv_length`.
    SocketLengths,
    /// Kprobes (`CONFIG_KPROBE_EVENTS`), which a lockdown forbids.
    Kprobes,
    /// Reads of kernel memory by address, `bpf_probe_read_kernel`, which a lockdown forbids.
    ProbeReads,
    /// A mounted cgroup2 file system.
    Cgroup2,
    /// A virtual machine of `vm-tests`, where a test may set the clock and take CPUs offline. Never
    /// the host.
    OwnMachine,
    /// This many mebibytes of free memory.
    Memory(u64),
    /// This capability for the tool under test, which some virtual machines start with few
    /// capabilities.
    ToolHas(Capability),
    /// Perf events for the tool under test. Debian's `kernel.perf_event_paranoid` is 3, at which
    /// CAP_PERFMON is not enough.
    PerfEvents,
    /// A program in `PATH`.
    Program(&'static str),
}

/// Why a test was not run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skip {
    what: String,
    seen: String,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {}: {}", self.what, self.seen)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv6 => f.write_str("IPv6"),
            Self::Veth => f.write_str("veth"),
            Self::KernelBtf => f.write_str("the kernel's BTF"),
            Self::SocketLengths => f.write_str("sock_send_length and sock_recv_length"),
            Self::Kprobes => f.write_str("kprobes"),
            Self::ProbeReads => f.write_str("probe reads"),
            Self::Cgroup2 => f.write_str("cgroup2"),
            Self::OwnMachine => f.write_str("a machine of its own"),
            Self::Memory(mebibytes) => write!(f, "{mebibytes} MiB of memory"),
            Self::ToolHas(capability) => write!(f, "the tool with {capability:?}"),
            Self::PerfEvents => f.write_str("perf events"),
            Self::Program(name) => f.write_str(name),
        }
    }
}

/// Which kernels have a feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Availability {
    /// All kernels since this version, and no earlier one.
    Since(u32, u32),
    /// It depends on the configuration of the kernel or on installed packages, not on the version.
    Optional,
}

/// Checks that the machine has a feature. If it has not, the test returns the error and is skipped.
///
/// # Errors
/// The skip.
///
/// # Panics
/// If the kernel contradicts the stated availability.
#[track_caller]
pub fn needs(feature: Feature) -> Result<(), Skip> {
    let (availability, absent) = find(feature);
    check(&feature, availability, absent, running_version())
}

/// The same for a feature that only the test itself can find. `absent` is what the test saw if the
/// feature is missing.
///
/// # Errors
/// The skip.
///
/// # Panics
/// If the kernel contradicts the stated availability.
#[track_caller]
pub fn requires(what: &str, availability: Availability, absent: Option<String>) -> Result<(), Skip> {
    check(&what, availability, absent, running_version())
}

/// Checks that a tool with these arguments can find the owners of sockets that were open before it
/// started. A BPF iterator needs no extra privilege; with `--no-iter` the tool reads `/proc/PID/fd`
/// of other users' processes.
///
/// # Errors
/// The skip.
#[track_caller]
pub fn needs_owners(args: &[&str]) -> Result<(), Skip> {
    if args.contains(&"--no-iter") { needs(Feature::ToolHas(Capability::SysPtrace)) } else { Ok(()) }
}

#[track_caller]
fn check(
    what: &dyn fmt::Display,
    availability: Availability,
    absent: Option<String>,
    version: (u32, u32),
) -> Result<(), Skip> {
    let (major, minor) = version;
    match (availability, absent) {
        (Availability::Since(a, b), Some(seen)) if version >= (a, b) => {
            panic!("{what} should be there since {a}.{b}, but {major}.{minor} lacks it: {seen}")
        }
        (Availability::Since(a, b), None) if version < (a, b) => {
            panic!("{what} should be there only since {a}.{b}, but {major}.{minor} has it")
        }
        (_, Some(seen)) => Err(Skip { what: what.to_string(), seen }),
        (_, None) => Ok(()),
    }
}

/// The availability of a feature, and what was seen if it is missing.
fn find(feature: Feature) -> (Availability, Option<String>) {
    let file = |path: &str| (!Path::new(path).exists()).then(|| format!("no {path}"));
    match feature {
        Feature::Ipv6 => (Availability::Optional, file("/proc/net/if_inet6")),
        Feature::Veth => {
            let pair = netns::join(&Netns::beside(), &Netns::beside());
            (Availability::Optional, pair.err().map(|e| format!("cannot make a pair: {e}")))
        }
        // Depends on CONFIG_DEBUG_INFO_BTF; every Debian kernel since 5.10 has it.
        Feature::KernelBtf => (Availability::Since(5, 10), file(BTF)),
        Feature::SocketLengths => (Availability::Since(6, 3), no_type("btf_trace_sock_send_length")),
        Feature::Kprobes => {
            (Availability::Optional, file("/sys/bus/event_source/devices/kprobe").or_else(locked_down))
        }
        Feature::ProbeReads => (Availability::Optional, locked_down()),
        Feature::Cgroup2 => {
            (Availability::Optional, cgroup::mount().is_none().then(|| "not mounted".to_owned()))
        }
        Feature::OwnMachine => (Availability::Optional, file(VM_SETTINGS).or_else(not_of_ours)),
        Feature::Memory(mebibytes) => {
            let free = available_memory();
            (Availability::Optional, (free < mebibytes).then(|| format!("{free} MiB are free")))
        }
        Feature::ToolHas(capability) => {
            let rights = Rights::of_tool();
            (
                Availability::Optional,
                (!rights.has(capability)).then(|| format!("it has {:#x}", rights.effective)),
            )
        }
        Feature::PerfEvents => {
            let path = "/proc/sys/kernel/perf_event_paranoid";
            let level = fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let forbidden = level.trim().parse().is_ok_and(|level: i32| level > 2);
            let absent = if forbidden { find(Feature::ToolHas(Capability::SysAdmin)).1 } else { None };
            (
                Availability::Optional,
                absent.map(|seen| format!("{path} is {}; the tool: {seen}", level.trim())),
            )
        }
        Feature::Program(name) => {
            let found = find_program(name);
            (Availability::Optional, found.is_none().then(|| "not installed".to_owned()))
        }
    }
}

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The settings of a virtual machine of `vm-tests`; other machines do not have this file.
const VM_SETTINGS: &str = "/etc/vm";

/// `None` if the first process is the init of `vm-tests`.
fn not_of_ours() -> Option<String> {
    let first =
        fs::read_link("/proc/1/exe").map_or_else(|e| e.to_string(), |path| path.display().to_string());
    (first != "/init").then(|| format!("/proc/1/exe: {first}"))
}

/// Memory available to processes, in mebibytes.
fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib >> 10)
}

/// `None` if the kernel's BTF has a type of this name.
fn no_type(name: &str) -> Option<String> {
    let btf = match fs::read(BTF) {
        Ok(btf) => btf,
        Err(e) => return Some(format!("{BTF}: {e}")),
    };
    // Names are strings between NULs; no other part of the file looks like a name.
    let found = btf.split(|&byte| byte == 0).any(|string| string == name.as_bytes());
    (!found).then(|| format!("no type {name}"))
}

/// `None` unless a lockdown forbids tracing to read kernel memory.
fn locked_down() -> Option<String> {
    let state = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    state.contains("[confidentiality]").then(|| "lockdown=confidentiality".to_owned())
}

/// The path of a program. The `sbin` directories are searched too, even if `PATH` lacks them.
fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Major and minor version of the running kernel. Debian's `uname -r` is not right about more.
#[must_use]
pub fn running_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel's release");
    parse_version(&release).unwrap_or_else(|| panic!("not a kernel release: {release:?}"))
}

/// Whether this kernel can preempt a program at a tracepoint: 7.3 does, 6.18 does not. A kernel
/// skips a program that is already running on the same CPU. So if a program is preempted, events of
/// the next task on that CPU are skipped: about ten of 20,000 events in a storm under emulation. To
/// disable preemption in the program (`bpf_preempt_disable`) does not help: when the program
/// enables it again, it still counts as running.
#[must_use]
pub fn misses_runs() -> bool {
    running_version() >= (7, 0)
}

/// Whether this kernel runs no programs in its first process, nor in a soft interrupt taken while
/// that process runs, and does not count the skips. Some kernels built for virtual machines do
/// this. They are recognised by a member of `struct bpf_prog_aux` that other kernels do not have.
#[must_use]
pub fn spares_init() -> bool {
    let member = b"\0init_owned\0";
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    types.windows(member.len()).any(|window| window == member)
}

/// Whether tables of flows grow on this kernel: that needs an allocator that can serve programs at
/// any moment.
#[must_use]
pub fn tables_grow() -> bool {
    let version = fs::read_to_string("/proc/version").expect("read the kernel's version");
    running_version() >= (6, 1) && !version.contains("PREEMPT_RT")
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Feature = Feature::KernelBtf;

    #[test]
    fn a_right_availability_skips_or_runs() {
        assert_eq!(check(&F, Availability::Since(5, 8), None, (6, 1)), Ok(()));
        let skip = check(&F, Availability::Since(5, 8), Some("no file".into()), (5, 4)).unwrap_err();
        assert_eq!(skip.to_string(), "needs the kernel's BTF: no file");
        assert!(check(&F, Availability::Optional, Some("no file".into()), (6, 1)).is_err());
    }

    #[test]
    #[should_panic(expected = "since 5.8, but 5.10 lacks it: no file")]
    fn a_missing_feature_of_a_new_kernel_fails() {
        let _ = check(&F, Availability::Since(5, 8), Some("no file".into()), (5, 10));
    }

    #[test]
    #[should_panic(expected = "since 5.8, but 5.4 has it")]
    fn a_present_feature_of_an_old_kernel_fails() {
        let _ = check(&F, Availability::Since(5, 8), None, (5, 4));
    }

    #[test]
    fn versions_of_distributions() {
        assert_eq!(parse_version("6.1.0-28-amd64\n"), Some((6, 1)));
        assert_eq!(parse_version("5.10.0-46-cloud-amd64"), Some((5, 10)));
        assert_eq!(parse_version("7.0-rc1"), Some((7, 0)));
        assert_eq!(parse_version("linux"), None);
    }
}
