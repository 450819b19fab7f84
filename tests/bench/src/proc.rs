//! Reads memory, CPU time and BPF programs of a process from `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::libc;
use nix::time::ClockId;
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::fault::{During, Fault, Result};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Peak resident memory (`VmHWM`).
    pub peak: u64,
    /// Resident memory now (`VmRSS`).
    pub now: u64,
    /// Mapped files: the program, its libraries, and what they map.
    pub mapped: u64,
    /// The number of mapped files.
    pub files: u64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Self> {
        let status = proc_file(pid, "status")?;
        let field = |name| {
            status_bytes(&status, name).ok_or_else(|| Fault::new(format!("/proc/{pid}/status has no {name}")))
        };
        let (mapped, files) = mapped_files(&proc_file(pid, "maps")?);
        Ok(Self { peak: field("VmHWM:")?, now: field("VmRSS:")?, mapped, files })
    }
}

/// The value of a line `Name:  123 kB`, in bytes.
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Bytes of address space that files are mapped to, and the number of files. Kernel memory that
/// looks like a file (`anon_inode`) is not counted.
fn mapped_files(maps: &str) -> (u64, u64) {
    let (mut bytes, mut files) = (0, BTreeSet::new());
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(path)) = (words.next(), words.nth(4)) else { continue };
        let range =
            range.split_once('-').map(|(start, end)| [start, end].map(|end| u64::from_str_radix(end, 16)));
        if let Some([Ok(start), Ok(end)]) = range
            && path.starts_with('/')
        {
            bytes += end - start;
            files.insert(path.to_owned());
        }
    }
    (bytes, files.len() as u64)
}

/// CPU in user mode so far, in steps of a clock tick (10 ms).
pub fn user_time(pid: u32) -> Result<Duration> {
    let stat = proc_file(pid, "stat")?;
    let ticks = utime(&stat).ok_or_else(|| Fault::new("no utime"))?;
    let hertz = sysconf(SysconfVar::CLK_TCK).during("sysconf")?.and_then(|hertz| u64::try_from(hertz).ok());
    Ok(Duration::from_millis(ticks * 1000 / hertz.unwrap_or(100)))
}

/// The 14th field. The second is a name in parentheses, which can contain any character.
fn utime(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(11)?.parse().ok()
}

/// Total CPU time of all threads. It is exact, unlike the split into user and kernel time, which
/// counts clock ticks.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let pid = i32::try_from(pid).during("pid")?;
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).during("a process's clock")?;
    clock.now().map(Duration::from).during("a process's clock")
}

/// Total CPU time of the main thread, in nanoseconds.
pub fn cpu_nanos(pid: u32) -> Result<u64> {
    let text = proc_file(pid, "schedstat")?;
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).ok_or_else(|| Fault::new("no schedstat"))
}

/// Whether the process has BPF links or perf events, and sleeps.
pub fn is_attached(pid: u32) -> bool {
    let syscall = proc_file(pid, "syscall").unwrap_or_default();
    let number = syscall.split(' ').next().and_then(|number| number.parse().ok());
    let sleeps = number.is_some_and(|number| SLEEPS.contains(&number));
    sleeps
        && open_files(pid).any(|(_, target)| target.contains("bpf_link") || target.contains("[perf_event]"))
}

/// Open files: descriptor and target.
fn open_files(pid: u32) -> impl Iterator<Item = (String, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        Some((entry.file_name().to_string_lossy().into_owned(), target))
    })
}

/// The ids of the BPF programs that its descriptors and links refer to.
pub fn programs(pid: u32) -> BTreeSet<u32> {
    let infos = open_files(pid).filter(|(_, target)| target.contains("bpf"));
    let infos = infos.filter_map(|(fd, _)| proc_file(pid, &format!("fdinfo/{fd}")).ok());
    infos.filter_map(|info| info_number(&info, "prog_id:")).filter_map(|id| u32::try_from(id).ok()).collect()
}

/// A number of `/proc/PID/fdinfo/FD`.
fn info_number(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

/// Instructions that the verifier followed, for a program that the process has a descriptor of.
pub fn verified(pid: u32, id: u32) -> Option<u64> {
    let infos = open_files(pid).filter(|(_, target)| target.contains("bpf-prog"));
    let mut infos = infos.filter_map(|(fd, _)| proc_file(pid, &format!("fdinfo/{fd}")).ok());
    let info = infos.find(|info| info_number(info, "prog_id:") == Some(u64::from(id)))?;
    info_number(&info, "verified_insns:")
}

/// System calls in which an idle tool sleeps.
pub const SLEEPS: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_pselect6,
];

/// The text of a file in `/proc/PID`.
pub fn proc_file(pid: u32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).during(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_kilobytes() {
        let status = "Name:\tx\nVmHWM:\t    3100 kB\nVmRSS:\t 2 kB\n";
        assert_eq!(status_bytes(status, "VmHWM:"), Some(3100 * 1024));
        assert_eq!(status_bytes(status, "VmRSS:"), Some(2048));
        assert_eq!(status_bytes(status, "VmSwap:"), None);
    }

    #[test]
    fn only_mapped_files_are_counted() {
        let maps = "\
7f00000000-7f00001000 r--p 00000000 08:01 12 /usr/bin/x
7f00001000-7f00003000 r-xp 00001000 08:01 12 /usr/bin/x
7f00004000-7f00005000 r-xp 00000000 08:01 13 /usr/lib/y.so
7f00006000-7f00009000 rw-p 00000000 00:00 0
7f00009000-7f0000a000 rw-p 00000000 00:00 0 [heap]
7f0000a000-7f0000b000 rw-s 00000000 00:0e 9 anon_inode:bpf-map
";
        assert_eq!(mapped_files(maps), (0x4000, 2));
        assert_eq!(mapped_files("nonsense\n"), (0, 0));
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_fields() {
        assert_eq!(utime("1 (a) b) S 1 1 1 0 -1 4194304 100 0 0 0 37 5 0 0 20"), Some(37));
        assert_eq!(utime("1 a"), None);
    }

    #[test]
    fn cpu_time_grows() {
        let own = || cpu_time(std::process::id()).unwrap();
        let before = own();
        assert!(before > Duration::ZERO);
        while own() == before {}
    }

    #[test]
    fn numbers_are_read_from_fdinfo() {
        let info = "pos:\t0\nprog_type:\t5\nprog_id:\t699\nverified_insns:\t374\n";
        assert_eq!(info_number(info, "prog_id:"), Some(699));
        assert_eq!(info_number(info, "verified_insns:"), Some(374));
        assert_eq!(info_number(info, "link_id:"), None);
    }
}
