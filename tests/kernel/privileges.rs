//! What a tool may do once it is attached: nothing it does not need, and it works to its end all the same. And who may run it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kernel_tests::actor::Actor;
use kernel_tests::cli::{Output, Tool, binary, run};
use kernel_tests::deadline::patient;
use kernel_tests::gate::{Claim, Feature, Skip, claims, needs, running_version};
use kernel_tests::mntns;
use kernel_tests::netns::Netns;
use kernel_tests::rights::{Capability, Rights};
use kernel_tests::rows::DropRow;
use kernel_tests::runner::{Outcome, Test};
use kernel_tests::scratch::Scratch;
use kernel_tests::stage::{Stage, Via};
use kernel_tests::traffic;
use nix::sys::signal::Signal;
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::cli::{self, assert_only_missed};
use crate::tcptop::sees_what_is_sent;

pub const TESTS: &[Test] = &[
    ("privileges::nothing_is_left_once_attached", nothing_is_left_once_attached),
    ("privileges::nothing_is_given_up_if_not_wanted", nothing_is_given_up_if_not_wanted),
    ("privileges::rows_to_the_end", rows_to_the_end),
    ("privileges::functions_have_names", functions_have_names),
    ("privileges::times_are_local", times_are_local),
    ("privileges::load_is_read_anew", load_is_read_anew),
    ("privileges::by_file_capabilities", by_file_capabilities),
    ("privileges::by_file_capabilities_with_names", by_file_capabilities_with_names),
    ("privileges::ends_soon", ends_soon),
];

/// Every tool that runs here, with options that make it do all it can.
fn runnable() -> Vec<(&'static str, &'static [&'static str])> {
    let mut tools = Vec::new();
    for tool in cli::runnable() {
        let args: &[&str] = match tool {
            "tcpconnlat" => &["--failed", "-t"],
            "tcpdrop" => &["--owner", "--purged"],
            "tcplife" => &["--existing", "--failed", "-T"],
            "tcpretrans" => &["--owner", "-l"],
            "tcpsubnet" => &["--sort"],
            _ => &[],
        };
        tools.push((tool, args));
    }
    tools
}

/// The one capability without which the kernel does not let a process read its own maps, where the sysctl forbids BPF to those
/// who have none. What it is here, is told by the kernel's version and that sysctl.
fn needed() -> u64 {
    const FREE_SINCE: (u32, u32) = (5, 19);
    let path = "/proc/sys/kernel/unprivileged_bpf_disabled";
    let disabled = fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    if running_version() >= FREE_SINCE || disabled.trim() == "0" { 0 } else { Capability::Bpf.bit() }
}

fn nothing_is_left_once_attached() -> Outcome {
    let before = Rights::of_tool();
    let needed = needed();
    for (name, args) in runnable() {
        let tool = Tool::start(name, args);
        let rights = Rights::of(tool.pid());
        let bounding = if before.has(Capability::Setpcap) { 0 } else { before.bounding };
        let expected = Rights {
            effective: needed,
            permitted: needed,
            inheritable: 0,
            bounding,
            ambient: 0,
            no_new_privileges: true,
            seccomp: 2,
        };
        assert_eq!(rights, expected, "{name}");
        let output = tool.stop();
        output.assert_code(0);
        assert_eq!(output.stderr.contains(": keeps CAP_BPF"), needed != 0, "{output}");
        assert!(!output.stderr.contains("cannot drop"), "{output}");
    }
    Ok(())
}

fn nothing_is_given_up_if_not_wanted() -> Outcome {
    let own = Rights::of(std::process::id());
    for (name, args) in runnable() {
        let tool = Tool::start(name, &[args, &["--no-sandbox"]].concat());
        let rights = Rights::of(tool.pid());
        assert!(rights.has(Capability::Bpf) || rights.has(Capability::SysAdmin), "{name}: {rights:?}");
        assert_eq!(
            (rights.no_new_privileges, rights.seccomp),
            (own.no_new_privileges, own.seccomp),
            "{name}"
        );
        tool.stop().assert_code(0);
    }
    Ok(())
}

/// A connection opened before the tool and one after it; the account is read at the end.
fn rows_to_the_end() -> Outcome {
    for (name, args) in runnable() {
        Netns::enter_new();
        let mut stage = Stage::new(Via::V4);
        let before = traffic::begun(&mut stage);
        let mut tool = Tool::start(name, &[args, &["--json", "--stats"]].concat());
        traffic::finish(&mut stage, before);
        traffic::client_closes_first(&mut stage);
        traffic::refused(&mut stage);
        if matches!(name, "tcpsubnet" | "tcptop") {
            // Two intervals: the second is that of the table that was put in place of the first.
            tool.wait_for("a report", |seen| seen.stdout.lines().count() > 0);
            traffic::client_closes_first(&mut Stage::new(Via::V4));
            let lines = tool.seen().stdout.lines().count();
            tool.wait_for("another report", |seen| seen.stdout.lines().count() > lines);
        }
        tool.signal(Signal::SIGTERM);
        let output = tool.finish();
        output.assert_code(0).assert_complete_lines();
        if name == "tcpretrans" {
            assert_eq!(output.stdout, "", "nothing was lost on the way\n{output}");
        } else {
            assert!(output.stdout.lines().count() > 0, "{output}");
            assert_only_missed(&output);
        }
    }
    Ok(())
}

/// Symbols are looked up when the first stack comes, from a file that was opened while the tool still might.
fn functions_have_names() -> Outcome {
    needs(Feature::ProbeReads)?;
    needs(Feature::ToolHas(Capability::Syslog))?;
    let netns = Netns::enter_new();
    let mut tool = Tool::start("tcpdrop", &["--json"]);
    // Each stack has something that the one before did not have.
    for via in [Via::V4, Via::V6] {
        let mut stage = Stage::new(via);
        traffic::refused(&mut stage);
    }
    tool.wait_rows(netns.inode(), 2);
    let output = tool.stop();
    output.assert_code(0);
    let rows = output.rows::<DropRow>(netns.inode());
    for (row, function) in rows.iter().zip(["tcp_v4_rcv", "tcp_v6_rcv"]) {
        assert!(row.location.starts_with(&format!("{function}+")), "{row:?}\n{output}");
    }
    Ok(())
}

/// Half an hour off, as the zone of no machine that runs tests is: by the environment, and by the host's own zone.
fn times_are_local() -> Outcome {
    sees_what_is_sent()?;
    assert_half_an_hour_off(&[("TZ", "XXX-5:30")]);
    let absent = (!Path::new("/etc/localtime").exists()).then(|| "no /etc/localtime".to_owned());
    claims("a time zone of the machine", Claim::Optional, absent)?;
    mntns::enter_new();
    let scratch = Scratch::new();
    mntns::mount_file(&scratch.file("zone", &zone()), "/etc/localtime");
    assert_half_an_hour_off(&[]);
    Ok(())
}

/// tzfile(5): one kind of time, five hours and a half before UTC, in 32 bits and once more in 64.
fn zone() -> Vec<u8> {
    let counts = [0, 0, 0, 0, 1, 4];
    let header = [&b"TZif2"[..], &[0; 15], &counts.map(u32::to_be_bytes).concat()].concat();
    let kind = [&19_800_u32.to_be_bytes()[..], &[0, 0], b"IST\0"].concat();
    [&header[..], &kind, &header, &kind, b"\nIST-5:30\n"].concat()
}

/// The minutes that the first line of tcpsubnet shows are not those of UTC.
#[track_caller]
fn assert_half_an_hour_off(environment: &[(&str, &str)]) {
    let mut command = Command::new(binary());
    command.arg("tcpsubnet").env_remove("TZ").envs(environment.iter().copied());
    let mut tool = Tool::spawn(command);
    tool.wait_for("a report", |seen| seen.stdout.starts_with('['));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() / 60;
    let output = tool.stop();
    let minute = output.stdout.split(':').nth(1).and_then(|minute| minute.parse::<u64>().ok());
    let minute = minute.unwrap_or_else(|| panic!("no minute\n{output}"));
    // The minute may have ended in between.
    assert!([29, 30].contains(&((minute + 60 - now % 60) % 60)), "at {now}: {output}");
}

/// The line on top of each report of tcptop is of that moment.
fn load_is_read_anew() -> Outcome {
    sees_what_is_sent()?;
    let mut tool = Tool::start("tcptop", &[]);
    let mut actors = Vec::new();
    // Its last number is the last process that was started.
    for pass in 0..2 {
        let actor = Actor::start("kt-newest");
        tool.wait_for(&format!("a load after {:?}", actor.who()), |seen| {
            let newest = seen.stdout.lines().filter(|line| line.contains(" loadavg: ")).filter_map(newest);
            newest.max().is_some_and(|newest| newest >= actor.who().pid)
        });
        actors.push(actor);
        assert!(pass == 0 || actors[0].who() != actors[1].who());
    }
    tool.stop().assert_code(0);
    Ok(())
}

/// `16:16:36 loadavg: 5.11 6.88 6.44 8/158 29119`
fn newest(line: &str) -> Option<u32> {
    line.split(' ').nth(6)?.parse().ok()
}

/// The user without rights, on every distribution.
const NOBODY: u32 = 65534;

/// The tool in a file that has these capabilities, for [`NOBODY`]. It lies in a file system that no other process sees and that goes
/// with this one, however it ends: no such file may be left on a host.
fn file_with(capabilities: &[Capability]) -> Result<(Scratch, PathBuf), Skip> {
    let program = fs::read(binary()).expect("read the tool");
    mntns::enter_new();
    mntns::mount_empty(std::env::temp_dir().to_str().expect("UTF-8"));
    let scratch = Scratch::new();
    let path = scratch.path("tcptools");
    fs::write(&path, program).expect("copy the tool");
    chown(&path, None, Some(NOBODY)).expect("chown");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("chmod");
    let set = capabilities.iter().fold(0, |set, capability| set | capability.bit());
    // VFS_CAP_REVISION_2, effective at once; then permitted and inheritable, 32 bits of each at a time.
    let words = [0x0200_0001, set & 0xffff_ffff, 0, set >> 32, 0];
    let value: Vec<u8> =
        words.iter().flat_map(|word| u32::try_from(*word).expect("32 bits").to_le_bytes()).collect();
    let refused = xattr::set(&path, "security.capability", &value).err();
    claims("a file system with capabilities", Claim::Optional, refused.map(|e| e.to_string()))?;
    let nosuid = statvfs(&path).expect("statvfs").flags().contains(FsFlags::ST_NOSUID);
    claims("a file system where they count", Claim::Optional, nosuid.then(|| "mounted nosuid".to_owned()))?;
    Ok((scratch, path))
}

/// Those that BPF takes. Before 5.11 maps are charged to the user's locked memory, which only this one lifts.
fn least() -> Vec<Capability> {
    let mut least = vec![Capability::Bpf, Capability::Perfmon];
    if running_version() < (5, 11) {
        least.push(Capability::SysResource);
    }
    least
}

#[track_caller]
fn start_as_nobody(path: &PathBuf, name: &str, args: &[&str]) -> Tool {
    let mut command = Command::new(path);
    command.arg(name).args(args).arg("-v").uid(NOBODY).gid(NOBODY);
    let mut tool = Tool::spawn(command);
    tool.wait_attached(name);
    tool
}

/// Whether the tool needs what these capabilities are not enough for: a kprobe, where Debian's `kernel.perf_event_paranoid` is 3.
fn needs_more(name: &str) -> bool {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").expect("a level");
    let output = run([name, "-v", "--duration", "0.01"]);
    let by_kprobe =
        output.stderr.lines().any(|line| line.contains(": kprobe ") && !line.contains(": accept"));
    by_kprobe && level.trim().parse().is_ok_and(|level: i32| level > 2)
}

fn by_file_capabilities() -> Outcome {
    // A file of its own for each tool's rights, which the wrapper of that machine is not.
    needs(Feature::ToolHas(Capability::Setpcap))?;
    // Before the file is made: from then on what was built is hidden where it lies below the same folder.
    let tools: Vec<_> = runnable().into_iter().filter(|(name, _)| !needs_more(name)).collect();
    let (_scratch, path) = file_with(&least())?;
    for (name, args) in tools {
        Netns::enter_new();
        let mut stage = Stage::new(Via::V4);
        let mut tool = start_as_nobody(&path, name, &[args, &["--json", "--stats"]].concat());
        let rights = Rights::of(tool.pid());
        assert_eq!((rights.effective, rights.seccomp), (needed(), 2), "{name}");
        traffic::client_closes_first(&mut stage);
        traffic::refused(&mut stage);
        if name != "tcpretrans" {
            tool.wait_for("a row", |seen| seen.stdout.lines().count() > 0);
        }
        let output = tool.stop();
        output.assert_code(0).assert_complete_lines();
        if name != "tcpretrans" {
            assert_only_missed(&output);
        }
        if name == "tcpdrop" {
            assert!(output.stderr.contains("CAP_SYSLOG"), "{output}");
        }
    }
    Ok(())
}

fn by_file_capabilities_with_names() -> Outcome {
    needs(Feature::ProbeReads)?;
    needs(Feature::ToolHas(Capability::Setpcap))?;
    let (_scratch, path) = file_with(&[least(), vec![Capability::Syslog]].concat())?;
    let netns = Netns::enter_new();
    let mut tool = start_as_nobody(&path, "tcpdrop", &["--json"]);
    traffic::refused(&mut Stage::new(Via::V4));
    tool.wait_rows(netns.inode(), 1);
    let output: Output = tool.stop();
    let rows = output.assert_code(0).rows::<DropRow>(netns.inode());
    assert!(rows[0].location.starts_with("tcp_v4_rcv+"), "{output}");
    Ok(())
}

/// From the signal to the end of the process. Perf events on tracepoints, which take some hundred milliseconds to close, are
/// left to the kernel.
fn ends_soon() -> Outcome {
    mntns::enter_new();
    mntns::mount_tracefs();
    // What others do is not to be looked up at the end.
    let netns = Netns::enter_new().inode().to_string();
    // Time and again: what is asked is what the tool needs, not what a busy machine adds to it.
    const TRIES: usize = 5;
    for (name, args) in runnable() {
        let took = |_| {
            let tool = Tool::start(name, &[args, &["--netns", &netns]].concat());
            let signalled = Instant::now();
            tool.stop().assert_code(0);
            signalled.elapsed()
        };
        let took: Vec<Duration> = (0..TRIES).map(took).collect();
        let best = took.iter().min().expect("some");
        assert!(*best < patient(Duration::from_millis(100)), "{name}: {took:?}");
    }
    Ok(())
}
