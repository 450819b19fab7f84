//! The watched network namespace or process ends, or another one gets its number.

use std::fs;
use std::path::Path;

use kernel_tests::actor::Actor;
use kernel_tests::bulk::{self, Listener};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Availability, Feature, needs, requires};
use kernel_tests::rows::LifeRow;
use kernel_tests::runner::{Alone, Outcome, Test, test};
use kernel_tests::stage::{Stage, Via};

use crate::accounting::{assert_accounted, start};
use crate::cli::assert_balanced_or_idle;
use crate::known_tools::runnable;

pub const TESTS: &[Test] = &[
    test("faults::network_namespace_is_deleted", network_namespace_is_deleted),
    test("faults::process_id_recycled", process_id_recycled).alone(Alone::Machine),
];

/// The watched network namespace is deleted, with a listener and connections in it, while the tools
/// run.
fn network_namespace_is_deleted() -> Outcome {
    let _here = bulk::new_netns();
    let doomed = Netns::beside();
    let tools: Vec<_> = runnable().map(|tool| (tool, start(tool.name, &[], &doomed))).collect();
    let (listener, open) = doomed.run(|| {
        let listener = Listener::open();
        let open = listener.connect();
        listener.connect().close();
        (listener, open)
    });
    // Only both ends of a connection and the listener keep the namespace alive now.
    drop(doomed);
    open.close();
    drop(listener);
    // Must not be reported, even if the next namespace gets the same number.
    let listener = Listener::open();
    listener.connect().close();
    for (tool, running) in tools {
        let output = running.stop();
        match tool.rows_per_connection.map(|rows| 2 * rows as u64) {
            // Two more changes, of the listener.
            Some(rows) if tool.name == "tcpstates" => drop(assert_accounted(output.assert_code(0), rows + 2)),
            Some(rows) => drop(assert_accounted(output.assert_code(0), rows)),
            None => drop(assert_balanced_or_idle(output.assert_code(0))),
        }
    }
    Ok(())
}

/// A process connects and ends; another one gets its process id and connects too. Each row must
/// have the right name.
fn process_id_recycled() -> Outcome {
    // The last process id; the next process gets the next one. Needs `CONFIG_CHECKPOINT_RESTORE`.
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    needs(Feature::OwnMachine)?;
    let absent = (!Path::new(LAST_PID).exists()).then(|| format!("no {LAST_PID}"));
    requires("control of the next process id", Availability::Optional, absent)?;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let tool = start("tcplife", &[], &netns);
    let first = stage.open();
    let pid = stage.client.who().pid;
    stage.client.kill();
    let mut reborn = loop {
        fs::write(LAST_PID, (pid - 1).to_string()).expect("set the last process id");
        let actor = Actor::start("kt-reborn");
        if actor.who().pid == pid {
            break actor;
        }
    };
    // The first connection ends when the process id belongs to the second process.
    stage.server.recv_eof(first.server, 0);
    stage.server.close(first.server);
    let client = reborn.connect(stage.target);
    let server = stage.server.accept();
    reborn.close(client);
    stage.server.recv_eof(server, 0);
    stage.server.close(server);
    let output = tool.stop_after(netns.inode(), 4);
    let rows = output.rows::<LifeRow>(netns.inode());
    let name_of = |port| {
        let row = rows.iter().find(|row| row.lport == port).expect("a row");
        (row.pid, row.comm.clone())
    };
    assert_eq!(name_of(first.client.local.port()), (Some(pid), Some("kt-client".to_owned())), "{output}");
    assert_eq!(name_of(client.local.port()), (Some(pid), Some("kt-reborn".to_owned())), "{output}");
    Ok(())
}
