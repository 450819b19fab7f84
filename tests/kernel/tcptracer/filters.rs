//! Filters of tcptracer.

use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::stage::{Role, Stage, Via};
use kernel_tests::traffic;

use super::{Action, finish, start};

pub const TESTS: &[Test] = &[
    test("tcptracer::by_process", by_process),
    test("tcptracer::by_user", by_user),
    test("tcptracer::by_namespace", by_namespace),
    test("tcptracer::by_family", by_family),
    test("tcptracer::by_port", by_port),
];

/// `-p`: the actions of this process, not those of its peer. 0 means all processes.
fn by_process() -> Outcome {
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    let (client, server) = (stage.client.who(), stage.server.who());
    let tools = [client.pid, server.pid, 0].map(|pid| start(&["-p", &pid.to_string()]));
    let actions = Action::all(&[
        traffic::client_closes_first(&mut stage),
        traffic::client_resets(&mut stage),
        traffic::refused(&mut stage),
    ]);
    for (tool, wanted) in tools.into_iter().zip([Some(client), Some(server), None]) {
        let mut actions = actions.clone();
        actions.retain(|action| wanted.as_ref().is_none_or(|wanted| action.who == *wanted));
        finish(tool, &netns, &actions);
    }
    Ok(())
}

/// `-u`: the actions of this user's processes.
fn by_user() -> Outcome {
    const NOBODY: u32 = 65534;
    let netns = Netns::enter_new();
    let mut stage = Stage::new(Via::V4);
    stage.client.become_user(NOBODY);
    let tools = [NOBODY, 0].map(|uid| start(&["-u", &uid.to_string()]));
    let mut actions =
        Action::all(&[traffic::server_closes_first(&mut stage), traffic::server_resets(&mut stage)]);
    for action in actions.iter_mut().filter(|action| action.who == stage.client.who()) {
        action.uid = NOBODY;
    }
    for (tool, uid) in tools.into_iter().zip([NOBODY, 0]) {
        let mut actions = actions.clone();
        actions.retain(|action| action.uid == uid);
        finish(tool, &netns, &actions);
    }
    Ok(())
}

/// `-N`: rows of this namespace only.
fn by_namespace() -> Outcome {
    let netns = Netns::enter_new();
    let beside = Netns::beside();
    let mut elsewhere = beside.run(|| Stage::new(Via::V4));
    let mut stage = Stage::new(Via::V4);
    let tool = start(&["-N", &netns.inode().to_string()]);
    traffic::client_closes_first(&mut elsewhere);
    let actions = Action::all(&[traffic::client_closes_first(&mut stage)]);
    let output = finish(tool, &netns, &actions);
    assert_eq!(output.stdout.lines().count(), actions.len(), "rows of another namespace\n{output}");
    Ok(())
}

/// By the addresses on the wire: a socket of AF_INET6 may use IPv4.
fn by_family() -> Outcome {
    needs(Feature::Ipv6)?;
    let netns = Netns::enter_new();
    let tools = ["-4", "-6"].map(|option| start(&[option]));
    let [four, mapped, six] = [Via::V4, Via::MappedClient, Via::V6]
        .map(|via| Action::all(&[traffic::client_closes_first(&mut Stage::new(via))]));
    for (tool, actions) in tools.into_iter().zip([[four, mapped].concat(), six]) {
        finish(tool, &netns, &actions);
    }
    Ok(())
}

/// A listener's port selects the accepting side with `--localport`, and the connecting side with
/// `--remoteport`.
fn by_port() -> Outcome {
    let netns = Netns::enter_new();
    let mut stages = [Stage::new(Via::V4), Stage::new(Via::V4)];
    let port = stages[0].listener.port().to_string();
    let tools = ["--localport", "--remoteport"].map(|option| start(&[option, &port]));
    let [session, _] = stages.each_mut().map(traffic::server_resets);
    for (tool, role) in tools.into_iter().zip([Role::Passive, Role::Active]) {
        let ends = session.ends.iter().filter(|end| end.role == role);
        finish(tool, &netns, &ends.flat_map(Action::of).collect::<Vec<_>>());
    }
    Ok(())
}
