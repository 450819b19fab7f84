//! Leaks of a test or a tool: open files of this process, BPF objects in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::deadline::wait_until;
use crate::requirements::{self, Feature, Skip};

/// The kernel frees programs and maps some time after their last reference is gone, from a work
/// queue and after RCU periods.
const FREE_LIMIT: Duration = Duration::from_secs(20);

/// Open files of this process: number and target.
pub(crate) type Files = BTreeMap<u32, String>;

/// The open files of this process now.
pub(crate) fn open_files() -> Files {
    let Ok(dir) = fs::read_dir("/proc/self/fd") else { return Files::new() };
    let mut files = Files::new();
    for entry in dir.flatten() {
        let number = entry.file_name().to_string_lossy().parse();
        // The descriptor of the directory itself is closed when the loop ends.
        if let (Ok(number), Ok(target)) = (number, fs::read_link(entry.path())) {
            files.insert(number, target.to_string_lossy().into_owned());
        }
    }
    files.retain(|_, target| !target.ends_with("/fd"));
    files
}

/// The files that are open now and were not open before.
pub(crate) fn new_files(before: &Files) -> Vec<String> {
    let now = open_files();
    now.iter().filter(|&(n, t)| before.get(n) != Some(t)).map(|(n, t)| format!("{n} ({t})")).collect()
}

/// A BPF object of the kernel: its kind (`prog`, `map`, `link`) and id.
type Object = (&'static str, u32);

const KINDS: [&str; 3] = ["prog", "map", "link"];

/// The kernel's BPF objects at one moment.
#[derive(Debug)]
pub struct BpfObjects(BTreeSet<Object>);

impl BpfObjects {
    /// The present objects, as bpftool lists them.
    ///
    /// # Errors
    /// If bpftool is not installed.
    ///
    /// # Panics
    /// If bpftool fails.
    pub fn now() -> Result<Self, Skip> {
        requirements::needs(Feature::Program("bpftool"))?;
        Ok(Self(all_objects()))
    }

    /// Fails if there are objects that were not there before. Objects of running processes do not
    /// count: other programs of the machine may load BPF at the same time, and the tool under test
    /// has ended.
    ///
    /// # Errors
    /// The objects that are left.
    pub fn none_left(&self) -> Result<(), String> {
        let new: BTreeSet<Object> = all_objects().difference(&self.0).copied().collect();
        let left: Vec<Object> = new.difference(&held_by_processes()).copied().collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}\n{}", describe(&left))) }
    }

    /// Waits until no object is left.
    ///
    /// # Panics
    /// If objects are left.
    #[track_caller]
    pub fn assert_none_left(&self) {
        wait_until("end of the BPF objects left behind", FREE_LIMIT, || self.none_left());
    }
}

/// How many objects a process has open.
///
/// # Panics
/// If the process has ended.
#[must_use]
#[track_caller]
pub fn objects_of(pid: u32) -> usize {
    let dir = format!("/proc/{pid}/fdinfo");
    fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{dir}: {e}"))
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter(|info| object(info).is_some())
        .count()
}

fn all_objects() -> BTreeSet<Object> {
    let mut objects = BTreeSet::new();
    for kind in KINDS {
        let output = Command::new("bpftool").args([kind, "list", "-j"]).output().expect("run bpftool");
        let list: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("bpftool {kind} list: {e}: {output:?}"));
        let ids = list.as_array().into_iter().flatten().filter_map(|item| item["id"].as_u64());
        objects.extend(ids.filter_map(|id| Some((kind, u32::try_from(id).ok()?))));
    }
    objects
}

/// All objects that a running process has open. Processes and files may end while this reads.
fn held_by_processes() -> BTreeSet<Object> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let files = processes
        .filter(|p| p.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|p| fs::read_dir(p.path().join("fdinfo")).ok())
        .flat_map(|dir| dir.flatten().collect::<Vec<_>>());
    files.filter_map(|file| object(&fs::read_to_string(file.path()).ok()?)).collect()
}

/// The object of a file, from its `/proc/PID/fdinfo/N`. The information on a link also names the
/// program of the link.
fn object(fdinfo: &str) -> Option<Object> {
    let id = |key: &str| fdinfo.lines().find_map(|l| l.strip_prefix(key)?.trim().parse().ok());
    for (kind, key) in [("link", "link_id:"), ("prog", "prog_id:"), ("map", "map_id:")] {
        if let Some(id) = id(key) {
            return Some((kind, id));
        }
    }
    None
}

fn describe(objects: &[Object]) -> String {
    let mut text = String::new();
    for (kind, id) in objects {
        let shown = Command::new("bpftool").args([kind, "show", "id", &id.to_string()]).output();
        text.push_str(&shown.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_names_the_object() {
        let link = "pos:\t0\nflags:\t02000000\nlink_type:\traw_tracepoint\nlink_id:\t7\nprog_id:\t41\n";
        assert_eq!(object(link), Some(("link", 7)));
        assert_eq!(object("pos:\t0\nmap_type:\t27\nmap_id:\t12\n"), Some(("map", 12)));
        assert_eq!(object("prog_type:\t26\nprog_id:\t9\n"), Some(("prog", 9)));
        assert_eq!(object("pos:\t0\nflags:\t02\n"), None);
    }

    #[test]
    fn an_open_file_is_new_until_it_is_closed() {
        // Other tests of this process open files at the same time, but not this one.
        let own = format!("/proc/{}/personality", std::process::id());
        let is_new = |before: &Files| new_files(before).iter().any(|file| file.contains(&own));
        let before = open_files();
        let file = fs::File::open(&own).unwrap();
        assert!(is_new(&before));
        drop(file);
        assert!(!is_new(&before));
    }
}
