//! `tcpstates -Y`: the entries for the systemd journal, read from a socket that replaces the
//! journal's in a private mount namespace.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use kernel_tests::cli::{Tool, run};
use kernel_tests::deadline::{WAIT_LIMIT, patient};
use kernel_tests::mntns;
use kernel_tests::netns::Netns;
use kernel_tests::requirements::running_version;
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::stage::{End, Stage, Via};
use kernel_tests::traffic;

use super::tcpstates::FIRST_CHANGE_HAS_PEER;

pub const TESTS: &[Test] = &[test("tcpstates::journal", journal), test("tcpstates::no_journal", no_journal)];

/// The fields of one entry, in the native protocol: `KEY=value` lines.
type Entry = BTreeMap<String, String>;

/// Without a journal there is one line, before anything is attached.
fn no_journal() -> Outcome {
    mntns::enter_new();
    mntns::mount_empty("/run");
    let output = run(["tcpstates", "-Y"]);
    output.assert_code(1).assert_no_stdout();
    assert!(output.one_line().contains("-Y needs the systemd journal at /run/systemd/"), "{output}");
    Ok(())
}

fn journal() -> Outcome {
    let netns = Netns::enter_new();
    // By default only ten datagrams are queued; this test reads late.
    netns.set_sysctl("net/unix/max_dgram_qlen", "512");
    mntns::enter_new();
    mntns::mount_empty("/run");
    fs::create_dir_all("/run/systemd/journal").expect("mkdir");
    let socket = UnixDatagram::bind("/run/systemd/journal/socket").expect("bind the journal's socket");
    // As systemd does: every user may write.
    fs::set_permissions("/run/systemd/journal/socket", Permissions::from_mode(0o666)).expect("chmod");
    socket.set_read_timeout(Some(patient(WAIT_LIMIT))).expect("set a time limit");

    let mut stage = Stage::new(Via::V4);
    let (inode, port) = (netns.inode().to_string(), stage.listener.port().to_string());
    let mut tool = Tool::start("tcpstates", &["--json", "-Y", "--netns", &inode, "-L", &port]);
    let session = traffic::client_closes_first(&mut stage);
    tool.wait_rows(netns.inode(), 5);
    let output = tool.stop();
    output.assert_code(0);

    let end = &session.ends[1];
    let entries: Vec<Entry> = (0..5).map(|_| receive(&socket)).collect();
    socket.set_nonblocking(true).expect("set non-blocking");
    assert!(socket.recv(&mut [0; 1]).is_err(), "an entry for each row and no more");
    let states =
        entries.iter().map(|entry| (&*entry["OBJECT_TCP_OLD_STATE"], &*entry["OBJECT_TCP_NEW_STATE"]));
    let path: Vec<&str> = end.path.split(' ').collect();
    assert!(states.eq(path.windows(2).map(|pair| (pair[0], pair[1]))), "{entries:#?}");
    for entry in &entries {
        check(entry, end);
    }
    // The process that closed is known; the change from LISTEN has no process.
    assert_eq!(entries[3]["OBJECT_PID"], end.owners[0].pid.to_string(), "{entries:#?}");
    assert!(entries[3]["MESSAGE"].starts_with(&end.owners[0].comm), "{entries:#?}");
    assert_eq!(entries[0].get("OBJECT_PID"), None, "{entries:#?}");
    Ok(())
}

#[track_caller]
fn receive(socket: &UnixDatagram) -> Entry {
    let mut datagram = vec![0; 64 * 1024];
    let length = socket.recv(&mut datagram).expect("an entry within the time limit");
    let text = String::from_utf8(datagram[..length].to_vec()).expect("text");
    let fields =
        text.lines().map(|line| line.split_once('=').unwrap_or_else(|| panic!("not a field: {line:?}")));
    fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[track_caller]
fn check(entry: &Entry, end: &End) {
    const PEER: [&str; 2] = ["OBJECT_IPV4_DESTINATION_ADDRESS", "OBJECT_TCP_DESTINATION_PORT"];
    let expected = [
        ("SYSLOG_IDENTIFIER", "tcpstates".to_owned()),
        ("PRIORITY", "5".to_owned()),
        ("OBJECT_IPV4_SOURCE_ADDRESS", end.local.ip().to_string()),
        ("OBJECT_TCP_SOURCE_PORT", end.local.port().to_string()),
        (PEER[0], end.remote.ip().to_string()),
        (PEER[1], end.remote.port().to_string()),
    ];
    // Before 6.18 the peer is unknown at a connection's first change; then its fields are missing.
    let first = entry.get("OBJECT_TCP_OLD_STATE").is_some_and(|state| state == "LISTEN");
    let has_no_peer = first
        && running_version() < FIRST_CHANGE_HAS_PEER
        && PEER.iter().all(|key| !entry.contains_key(*key));
    for (key, value) in expected {
        let known = !(has_no_peer && PEER.contains(&key));
        assert_eq!(entry.get(key), known.then_some(&value), "{key} in {entry:#?}");
    }
    for key in ["_SOURCE_REALTIME_TIMESTAMP", "OBJECT_TCP_SPAN_TIME"] {
        assert!(entry.get(key).is_some_and(|v| v.parse::<u64>().is_ok()), "{key} in {entry:#?}");
    }
    let message = entry.get("MESSAGE").map_or("", String::as_str);
    for part in
        [&entry["OBJECT_TCP_OLD_STATE"], &entry["OBJECT_TCP_NEW_STATE"], &end.local.port().to_string()]
    {
        assert!(message.contains(part.as_str()), "{part} in the message {message:?}");
    }
    assert!(message.contains('→'), "{message:?}");
}
