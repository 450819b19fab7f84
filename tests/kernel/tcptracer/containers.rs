//! Filters by maps of containers that another program pins.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kernel_tests::actor::{Actor, Who};
use kernel_tests::cli::run;
use kernel_tests::deadline::{WAIT_LIMIT, wait_until};
use kernel_tests::mntns;
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::rights::Capability;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::scratch::Scratch;
use kernel_tests::stage::Stage;
use kernel_tests::traffic;
use nix::mount::{MsFlags, mount};

use super::{Action, finish, start};

pub const TESTS: &[Test] = &[
    test("tcptracer::by_cgroup_map", by_cgroup_map),
    test("tcptracer::by_mount_namespace_map", by_mount_namespace_map),
    test("tcptracer::wrong_maps", wrong_maps),
];

#[track_caller]
fn bpftool(args: &[&str]) {
    let output = Command::new("bpftool").args(args).output().expect("run bpftool");
    assert!(output.status.success(), "bpftool {args:?}: {output:?}");
}

/// Moves this process into a private mount namespace with a BPF file system.
fn bpf_file_system() -> &'static Path {
    const USUAL: &str = "/sys/fs/bpf";
    mntns::enter_new();
    mntns::mount_bpf(USUAL);
    Path::new(USUAL)
}

/// A pinned, empty hash map of numbers.
struct Set {
    path: PathBuf,
    value_size: usize,
}

impl Set {
    #[track_caller]
    fn new(path: PathBuf, value_size: usize) -> Self {
        let shown = path.to_str().expect("UTF-8");
        let value = value_size.to_string();
        bpftool(&[
            "map", "create", shown, "type", "hash", "key", "8", "value", &value, "entries", "128", "name",
            "set",
        ]);
        Self { path, value_size }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    #[track_caller]
    fn change(&self, verb: &str, key: u64, value: &[&str]) {
        let key = key.to_ne_bytes().map(|byte| byte.to_string());
        let mut args = vec!["map", verb, "pinned", self.path(), "key"];
        args.extend(key.iter().map(String::as_str));
        args.extend(value);
        bpftool(&args);
    }

    #[track_caller]
    fn insert(&self, key: u64) {
        self.change("update", key, &[&["value"][..], &vec!["0"; self.value_size]].concat());
    }

    #[track_caller]
    fn remove(&self, key: u64) {
        self.change("delete", key, &[]);
    }
}

/// A cgroup that is deleted after the processes in it have ended.
struct Cgroup(PathBuf);

impl Cgroup {
    #[track_caller]
    fn new(scratch: &Scratch) -> Self {
        let root = scratch.path("cgroup2");
        fs::create_dir(&root).expect("mkdir");
        mount(None::<&str>, &root, Some("cgroup2"), MsFlags::empty(), None::<&str>).expect("mount cgroup2");
        let own = root.join(format!("kt-{}", std::process::id()));
        fs::create_dir(&own).expect("make a cgroup");
        Self(own)
    }

    #[track_caller]
    fn add(&self, who: &Who) {
        fs::write(self.0.join("cgroup.procs"), who.pid.to_string()).expect("move into the cgroup");
    }

    fn id(&self) -> u64 {
        fs::metadata(&self.0).expect("a cgroup").ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A cgroup is busy for a moment after its last process has ended.
        wait_until("end of the cgroup", WAIT_LIMIT, || fs::remove_dir(&self.0));
    }
}

/// Actions of processes in the map's cgroups are shown. A cgroup may be added and removed while the
/// tool runs.
fn by_cgroup_map() -> Outcome {
    needs(Feature::Program("bpftool"))?;
    // Only root may open what root has pinned.
    needs(Feature::ToolHas(Capability::SysAdmin))?;
    let set = Set::new(bpf_file_system().join("cgroups"), 8);
    let scratch = Scratch::new();
    let cgroup = Cgroup::new(&scratch);
    let netns = Netns::enter_new();
    let localhost = [127, 0, 0, 1].into();
    let mut stage =
        Stage::between(Actor::start("kt-client"), Actor::start("kt-server"), localhost, localhost, 16);
    cgroup.add(&stage.client.who());
    let tool = start(&["--cgroupmap", set.path()]);
    traffic::client_closes_first(&mut stage);
    set.insert(cgroup.id());
    let mut actions =
        Action::all(&[traffic::client_closes_first(&mut stage), traffic::server_resets(&mut stage)]);
    actions.retain(|action| action.who == stage.client.who());
    set.remove(cgroup.id());
    traffic::client_closes_first(&mut stage);
    finish(tool, &netns, &actions);
    drop(stage);
    Ok(())
}

/// Actions of processes in the map's mount namespaces are shown. A killed process has left its
/// namespace when its files are closed; these closes are always shown, because the namespace is
/// unknown.
fn by_mount_namespace_map() -> Outcome {
    needs(Feature::Program("bpftool"))?;
    // Only root may open what root has pinned.
    needs(Feature::ToolHas(Capability::SysAdmin))?;
    needs(Feature::ProbeReads)?;
    let set = Set::new(bpf_file_system().join("namespaces"), 4);
    let netns = Netns::enter_new();
    let client = Actor::start("kt-client");
    let tool = start(&["--mntnsmap", set.path()]);
    mntns::enter_new();
    let localhost = [127, 0, 0, 1].into();
    let mut stage = Stage::between(client, Actor::start("kt-server"), localhost, localhost, 16);
    let server = stage.server.who();
    traffic::client_closes_first(&mut stage);
    set.insert(fs::metadata(format!("/proc/{}/ns/mnt", server.pid)).expect("procfs").ino());
    let mut actions =
        Action::all(&[traffic::client_closes_first(&mut stage), traffic::server_closes_unread(&mut stage)]);
    let killed = stage.client.who();
    actions.extend(Action::all(&[traffic::client_killed(&mut stage)]));
    let last = actions.len() - 4;
    let mut at = 0;
    actions.retain(|action| {
        at += 1;
        action.who == server || (at > last && action.who == killed && action.kind == "close")
    });
    finish(tool, &netns, &actions);
    Ok(())
}

/// Runs the tool with wrong arguments and returns the line that says why.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let output = run([&["tcptracer"], args].concat());
    output.assert_code(2).assert_no_stdout();
    output.one_line().to_owned()
}

/// One line says what the path is and what is needed.
fn wrong_maps() -> Outcome {
    for option in ["--cgroupmap", "--mntnsmap"] {
        let line = refused(&[option, "/no/such/map"]);
        assert!(line.contains(option) && line.contains("/no/such/map"), "{line}");
        let line = refused(&[option, "/proc/self/exe"]);
        assert!(line.contains("/proc/self/exe: not in a BPF file system"), "{line}");
    }
    needs(Feature::Program("bpftool"))?;
    // Only root may open what root has pinned.
    needs(Feature::ToolHas(Capability::SysAdmin))?;
    let directory = bpf_file_system();
    let [four, eight] = [4, 8].map(|size| Set::new(directory.join(format!("of{size}")), size));
    let line = refused(&["--cgroupmap", four.path()]);
    assert!(line.contains("a hash map, keys of 8 bytes, values of 4; expected"), "{line}");
    let line = refused(&["--mntnsmap", eight.path()]);
    assert!(line.contains("a hash map, keys of 8 bytes, values of 8; expected"), "{line}");
    Ok(())
}
